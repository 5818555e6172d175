"""The layouts of leaderboards: what is made, and what is checked."""

import shutil

import numpy as np
import pytest
import soundfile

from separator.batch.leaderboard import LAYOUTS, check, find_layout, find_mixtures, plan_board
from separator.errors import ConfigError

RATE = 8000


def write(path, seconds=0.5, rate=RATE, channels=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, audio, rate)


@pytest.fixture
def mixtures(tmp_path):
    folder = tmp_path / "mixtures"
    for name in ("song_000_mixture.wav", "song_001_mixture.wav", "notes.txt"):
        write(folder / name) if name.endswith("wav") else (folder / name).write_text("")
    return folder


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_are_called_as_the_quality_checker_wants(cli, mixtures, tmp_path):
    done = cli("evaluate", "leaderboard", mixtures, "-o", tmp_path / "out", "-m", "tiny")
    expected = [
        f"song_00{i}_{stem}.wav" for i in (0, 1) for stem in ("bass", "drums", "other", "vocals")
    ]
    assert names(tmp_path / "out") == expected
    assert "2 tracks with 4 files each: names, rates, lengths fit." in done.stderr


def test_vocals_alone_come_with_the_instrumental(cli, mixtures, tmp_path):
    words = ("-o", tmp_path / "out", "-m", "tiny", "--stems", "vocals")
    cli("evaluate", "leaderboard", mixtures, *words)
    assert names(tmp_path / "out")[:2] == ["song_000_instrum.wav", "song_000_vocals.wav"]


def test_folders_are_those_of_the_challenges(cli, tmp_path):
    for track in ("a", "b"):
        write(tmp_path / "mixtures" / track / "mixture.wav")
    words = ("-o", tmp_path / "out", "-m", "tiny", "--layout", "sdx")
    cli("evaluate", "leaderboard", tmp_path / "mixtures", *words)
    assert names(tmp_path / "out")[:4] == [
        "a/bass.wav",
        "a/drums.wav",
        "a/other.wav",
        "a/vocals.wav",
    ]


def test_what_is_there_is_kept(cli, mixtures, tmp_path):
    words = ("-o", tmp_path / "out", "-m", "tiny")
    cli("evaluate", "leaderboard", mixtures, *words)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    cli("evaluate", "leaderboard", mixtures, *words)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_mixture_that_cannot_be_read_fails_alone(cli, mixtures, tmp_path):
    (mixtures / "song_001_mixture.wav").write_bytes(b"RIFF")
    words = ("-o", tmp_path / "out", "-m", "tiny")
    done = cli("evaluate", "leaderboard", mixtures, *words, code=1)
    assert len(names(tmp_path / "out")) == 4
    assert "not acceptable: " in done.stderr


@pytest.fixture
def estimates(tmp_path, mixtures):
    folder = tmp_path / "estimates"
    for path in mixtures.glob("*.wav"):
        for stem in ("vocals", "instrum"):
            target = folder / path.name.replace("mixture", stem)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
    return folder


def problems(mixtures, estimates):
    layout = LAYOUTS["mvsep"]
    stems = ("vocals", "instrumental")
    return list(
        check(plan_board(find_mixtures(mixtures, layout), estimates, layout, stems), estimates)
    )


def test_whole_estimates_have_no_problems(mixtures, estimates):
    assert problems(mixtures, estimates) == []


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"seconds": 0.4}, "has 3200 samples; its mixture has 4000 samples"),
        ({"rate": 16000, "seconds": 0.25}, "has 16000 Hz; its mixture has 8000 Hz"),
        ({"channels": 1}, "has 1 channels; its mixture has 2 channels"),
    ],
)
def test_other_forms_are_told(mixtures, estimates, form, text):
    write(estimates / "song_000_vocals.wav", **form)
    (problem,) = problems(mixtures, estimates)
    assert "song_000_vocals.wav" in problem
    assert text in problem


def test_missing_and_misnamed_files_are_told(mixtures, estimates):
    (estimates / "song_000_vocals.wav").rename(estimates / "song_000_vocal.wav")
    extra, missing = problems(mixtures, estimates)
    assert "song_000_vocal.wav' belongs to no mixture" in extra
    assert "Did you mean 'song_000_vocals.wav'?" in extra
    assert "song_000_vocals.wav' is missing." in missing


def test_files_of_other_programs_are_only_checked(cli, mixtures, tmp_path):
    words = ("-o", tmp_path / "none", "-m", "tiny", "--check")
    done = cli("evaluate", "leaderboard", mixtures, *words, code=1)
    assert done.stderr.count("is missing") == 8
    assert not (tmp_path / "none").exists()


def test_wrong_layouts_and_folders_are_refused(mixtures, tmp_path):
    with pytest.raises(ConfigError, match=r"Unknown layout 'mvsepp'.*Did you mean 'mvsep'"):
        find_layout("mvsepp")
    with pytest.raises(ConfigError, match="holds no mixtures"):
        find_mixtures(mixtures, LAYOUTS["sdx"])
    shutil.copy(mixtures / "song_000_mixture.wav", mixtures / "song_000_mix.wav")
    with pytest.raises(ConfigError, match="both mixtures of 'song_000'"):
        find_mixtures(mixtures, LAYOUTS["mvsep"])
