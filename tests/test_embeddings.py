"""Distances of embeddings, and the files they are read from."""

import pytest
import torch
from metric_signals import compare, tones
from safetensors.torch import save_file
from torch import Tensor, nn

from separator.errors import ModelError
from separator.evaluation.embeddings import Embedding, embedding_distance, load_embedding
from separator.evaluation.metrics import embedding_metric


class Powers(nn.Module):
    """Embeds by the mean power of each hundred samples, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, signal: Tensor) -> Tensor:
        return self.weight * signal.unfold(-1, 100, 100).square().mean(-1)


def test_embedding_distance_is_a_mean_square():
    references = torch.ones(2, 2, 5000)
    estimates = references * torch.tensor([2.0, 3.0]).view(2, 1, 1)
    embedding = Embedding("powers", Powers(), 44100)
    assert embedding_distance(references, estimates, embedding).tolist() == [9, 64]
    metric = embedding_metric(embedding)
    assert metric.name == "powers MSE" and not metric.higher_is_better
    assert metric(compare(references, estimates)).tolist() == [9, 64]


def test_embedding_hears_mono_at_its_rate_in_parts():
    heard = []

    def embed(signal: Tensor) -> Tensor:
        heard.append(signal)
        return signal

    references = tones((100, 0.5), length=20 * 7000).float().repeat(1, 2, 1)
    references[:, 1] *= 3
    embedding_distance(references, references, Embedding("e", embed, 1000), sample_rate=2000)
    lengths = [tuple(x.shape) for x in heard]
    assert lengths == [(1, 35000)] * 4  # two parts of 35 s, of the reference and the estimate
    assert all(x.abs().max() == pytest.approx(1, abs=0.1) for x in heard)  # the channels' mean


def test_embeddings_are_read_from_files(tmp_path):
    references, estimates = torch.ones(1, 1, 500), 2 * torch.ones(1, 1, 500)
    doubled = Powers()
    doubled.weight.data *= 2
    torch.jit.trace(doubled, torch.ones(1, 500)).save(tmp_path / "powers.pt")
    save_file(doubled.state_dict(), tmp_path / "powers.safetensors")
    script = load_embedding(tmp_path / "powers.pt", name="p", sample_rate=44100)
    weights = load_embedding(
        tmp_path / "powers.safetensors", name="p", sample_rate=44100, network=Powers()
    )
    for embedding in (script, weights):
        assert embedding_distance(references, estimates, embedding).item() == 36


def test_files_without_an_embedding_are_an_error(tmp_path):
    options = {"name": "p", "sample_rate": 44100}
    with pytest.raises(ModelError, match="no file"):
        load_embedding(tmp_path / "missing.pt", **options)
    (tmp_path / "garbage.pt").write_bytes(b"garbage")
    torch.save(Powers().state_dict(), tmp_path / "state.pt")
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    for name in ("garbage.pt", "state.pt"):
        with pytest.raises(ModelError, match="isn't a TorchScript archive"):
            load_embedding(tmp_path / name, **options)
    for name in ("garbage.pt", "other.safetensors"):
        with pytest.raises(ModelError, match="don't fit Powers"):
            load_embedding(tmp_path / name, network=Powers(), **options)
