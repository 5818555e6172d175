import numpy as np
import pytest
import torch
from conftest import music

from separator.errors import AudioError, ConfigError
from separator.stream.adapt import Adapter, check_rate, checked, pair_channels


def through(adapter: Adapter, song: torch.Tensor, stems: int = 2) -> torch.Tensor:
    """Send a song to a model that returns `stems` copies of its input, and back."""

    def copies():
        for block in adapter.to_model(torch.split(song, 1000, dim=-1)):
            assert block.shape[1] == 2
            yield torch.stack([block] * stems, dim=1)  # (pairs, stems, channels, time)

    return torch.cat(list(adapter.to_song(copies())), dim=-1)


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_come_back_in_place(channels):
    song = torch.from_numpy(music(0.1, channels=channels))
    adapter = Adapter(44100, 44100, pair_channels(channels, 2))
    stems = through(adapter, song)
    assert stems.shape == (2, *song.shape)
    torch.testing.assert_close(stems[1], song, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000, 192000])
@pytest.mark.parametrize("samples", [1, 100, 12345])
def test_other_rates_come_back_with_at_least_their_length(rate, samples):
    song = torch.from_numpy(music(2, rate)[:, :samples])
    stems = through(Adapter(rate, 44100, pair_channels(2, 2)), song)
    assert samples <= stems.shape[-1] <= samples + 1 + rate // 44100


def test_a_low_tone_survives_the_way_there_and_back():
    time = torch.arange(48000) / 48000
    song = torch.sin(2 * torch.pi * 440 * time).expand(2, -1)
    stems = through(Adapter(48000, 44100, pair_channels(2, 2)), song)
    inner = slice(2000, 46000)
    torch.testing.assert_close(stems[0][:, inner], song[:, inner], atol=1e-4, rtol=0)


def test_mono_model_gets_each_channel_alone():
    assert pair_channels(3, 1) == ((0,), (1,), (2,))


def test_models_of_many_channels_want_just_as_many():
    assert pair_channels(4, 4) == ((0, 1, 2, 3),)
    with pytest.raises(ConfigError, match="takes 4 channels, the song has 2"):
        pair_channels(2, 4)


def test_what_is_not_audio_is_refused():
    with pytest.raises(ConfigError, match=r"\(channels, time\)"):
        list(checked([torch.zeros(10)], 100))
    with pytest.raises(ConfigError, match=r"\(channels, time\)"):
        list(checked([torch.zeros(44100, 2)], 44100))
    bad = torch.zeros(2, 100)
    bad[1, 50] = float("nan")
    with pytest.raises(AudioError, match=r"at 1\.500 s"):
        list(checked([torch.zeros(2, 100), bad], 100))


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_a_caller_may_fill_its_memory_again(kind):
    buffer = np.empty((2, 10), np.float32)

    def blocks():
        for value in range(3):
            buffer[:] = value
            yield kind(buffer)

    assert [block.unique().tolist() for block in list(checked(blocks(), 44100))] == [[0], [1], [2]]


def test_a_low_rate_takes_no_more_memory():
    """A second at 1 kHz is a few samples, but tens of thousands at a model's rate."""
    adapter = Adapter(1000, 44100, ((0,),))
    sizes = [block.shape[-1] for block in adapter.to_model([torch.zeros(1, 200_000)])]
    assert sum(sizes) == 200 * 44100
    assert max(sizes) < 200_000
    with pytest.raises(ConfigError, match="allowed: a whole number of Hz from 1000 to"):
        check_rate(999)
