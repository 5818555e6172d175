import pytest
import torch
from conftest import music

from separator.errors import AudioError, ConfigError
from separator.stream.adapt import Adapter, checked, pair_channels


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
