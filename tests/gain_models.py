"""Models that multiply by gains, and ensembles of them, for the tests: what comes out is known."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import music
from torch import nn

from separator.api import Separator

RATE = 8000
MIX = torch.from_numpy(music(0.6, RATE))


class Gains(nn.Module):
    """Return the mixture times a gain for each stem; count the calls.

    Of several inputs, the second counts ten times as much as the first.
    """

    def __init__(self, gains: dict[str, float], inputs: int = 1):
        super().__init__()
        self.gains, self.calls, self.core = list(gains.values()), 0, nn.Identity()
        self.inputs = inputs

    def forward(self, mixture, *, stems=None):
        self.calls += 1
        gains = self.gains if stems is None else [self.gains[i] for i in stems]
        first, *others = mixture.chunk(self.inputs, 1)
        mixture = sum((10 * other for other in others), first)
        return torch.stack([gain * mixture for gain in gains], 1)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Functions that write cards of models that multiply by gains, and of ensembles of them."""
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
    networks: dict[str, Gains] = {}
    loads: Counter[str] = Counter()

    def load(card, **options):
        loads[card.name] += 1
        return networks[card.name]

    monkeypatch.setattr("separator.api.load_network", load)
    weights = {"file": "none", "sha256": "0" * 64, "bytes": 1, "format": "safetensors"}

    def model(name, gains, **fields):
        networks[name] = Gains(gains, **fields.get("parameters", {}))
        card = {"name": name, "description": "Gains", "network": "gains", "stems": list(gains)}
        card |= {"segment": 0.1, "sample_rate": RATE, "weights": weights, "licence": "MIT"}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(card | fields))

    def ensemble(name, stems, members, **fields):
        members = [{"model": member} if isinstance(member, str) else member for member in members]
        card = {"name": name, "description": "Several", "stems": stems, "members": members}
        card |= {"sample_rate": RATE, "licence": "MIT"}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(card | fields))

    def separator(name, **settings):
        return Separator(name, device="cpu", precision="float32", **settings)

    return SimpleNamespace(
        model=model, ensemble=ensemble, separator=separator, networks=networks, loads=loads
    )


def gains_of(separator: Separator, **options) -> dict[str, float]:
    """Return what each stem is of the mixture, and make sure that it is nothing else."""
    found = {}
    for name, stem in separator.separate(MIX, RATE, **options).items():
        found[name] = float((stem * MIX).sum() / MIX.square().sum())
        torch.testing.assert_close(stem, found[name] * MIX, atol=1e-6, rtol=0)
    return found
