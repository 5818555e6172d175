"""`separator evaluate` on data, estimates and options with something wrong: what is said of it."""

import math
import shutil

import numpy as np
import pytest
import soundfile
from evaluation_runs import RATE, write, write_song

from separator.ensemble.knobs import Knobs
from separator.errors import ConfigError
from separator.evaluation.methods import ModelMethod
from separator.zoo.search import find_card

pytest_plugins = ["evaluation_runs"]


@pytest.mark.parametrize(
    ("audio", "rate", "text"),
    [
        (np.zeros((9999, 2)), RATE, "4000 Hz, 2 channels, 9999 samples; the track has"),
        (np.zeros((10001, 2)), RATE, "10001 samples; the track has"),
        (np.zeros((10000, 2)), 8000, "8000 Hz, 2 channels, 10000 samples; the track has 4000 Hz"),
        (np.zeros((10000, 1)), RATE, "1 channels"),
    ],
)
def test_estimates_of_another_form_are_an_error(run, estimates, tmp_path, audio, rate, text):
    write(estimates / "second" / "bass.wav", audio, rate)
    done = run("--estimates", estimates, "--report", code=1)
    assert text in done.stderr
    assert "1 failure on 1 track; what is finished is kept." in done.stderr
    assert len(list(tmp_path.glob("results/half/test/*.json"))) == 2
    assert text in (tmp_path / "results" / "report.md").read_text()


def test_samples_that_are_not_numbers_are_an_error(run, estimates):
    audio = np.zeros((10000, 2))
    audio[5000] = math.nan
    soundfile.write(estimates / "second" / "bass.wav", audio, RATE, "FLOAT")
    assert "NaN at 1.250 s" in run("--estimates", estimates, code=1).stderr


def test_a_renamed_estimate_is_an_error(run, estimates):
    (estimates / "second" / "vocals.wav").rename(estimates / "second" / "vocal.wav")
    done = run("--estimates", estimates, code=1)
    assert "lacks 'vocals' of 'second', which other tracks have" in done.stderr
    assert "Did you mean 'vocal'?" in done.stderr
    assert "1 failure on 1 track" in done.stderr


def test_estimates_that_are_all_renamed_are_an_error(run, estimates):
    for path in estimates.glob("*/vocals.wav"):
        path.rename(path.with_name("vox.wav"))
    done = run("--estimates", estimates, code=1)
    assert "an estimate of 'vox' and none of 'vocals'" in done.stderr
    assert "3 failures on 3 tracks" in done.stderr


def test_hidden_files_and_capitals_do_no_harm(run, estimates):
    (estimates / "first" / "._vocals.wav").write_bytes(b"as some systems leave behind")
    (estimates / "second" / "vocals.wav").rename(estimates / "second" / "Vocals.WAV")
    assert "second: 2 done" in run("--estimates", estimates).stderr


def test_an_unreadable_estimate_is_an_error(run, estimates):
    (estimates / "third" / "drums.wav").write_bytes(b"RIFF")
    assert "[3/3] third: half failed:" in run("--estimates", estimates, code=1).stderr


def test_a_missing_reference_is_named_and_the_others_are_measured(run, data, tmp_path):
    (data / "test" / "second" / "bass.wav").unlink()
    done = run(code=1)
    assert "failed: second: " in done.stderr
    assert "bass" in done.stderr
    assert len(list(tmp_path.glob("results/mixture/test/*.json"))) == 2


def test_without_any_good_track_nothing_is_measured(run, data, estimates):
    for path in data.glob("test/*/bass.wav"):
        path.write_bytes(b"RIFF")
    done = run("--estimates", estimates, code=1)
    assert "3 failures on 3 tracks" in done.stderr
    assert "estimates" not in done.stderr


def test_a_mixture_that_is_not_the_sum_is_a_warning(run, data):
    audio, _ = soundfile.read(data / "test" / "second" / "vocals.wav")
    write(data / "test" / "second" / "vocals.wav", audio / 4)
    done = run()
    assert "warning: second: the mixture minus its stems is at " in done.stderr


def test_an_empty_split_is_reported(run):
    assert "has no songs for train" in run("--split", "train", code=1).stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--metric", "sdr"), "Unknown metric 'sdr'"),
        (("--oracle", "iron"), "Unknown oracle 'iron'"),
        (("--engine", "numpy"), "Unknown engine 'numpy'"),
        (("--kind", "musdb"), "Unknown kind of data set 'musdb'"),
        (("--model", "tony"), "tony"),
        (("--model", "tiny", "--overlap", "2"), "overlap"),
        (("--estimates", "nowhere"), "'nowhere' holds no estimates of any of the 3 tracks"),
        (("--model", "tiny", "--model", "tiny"), "Two things to be measured are called 'tiny'"),
    ],
)
def test_wrong_usage_ends_before_any_work(run, tmp_path, words, text):
    assert text in run(*words, code=2).stderr
    assert not (tmp_path / "results").exists()


def test_data_and_output_are_asked_for(cli):
    assert "--data" in cli("evaluate", code=2).stderr


def test_a_model_is_not_tested_on_what_it_was_trained_on(run, tiny_models, tmp_path, monkeypatch):
    card = (tiny_models / "tiny.yaml").read_text()
    for path in tiny_models.iterdir():
        shutil.copy(path, tmp_path)
    card = card.replace("none: the weights are random", "MUSDB18-HQ train and test")
    (tmp_path / "leaky.yaml").write_text(card.replace("name: tiny", "name: leaky"))
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
    assert "it was trained on test" in run("--model", "leaky", code=2).stderr
    run("--model", "leaky", "--allow-leak")
    members = "members: [{model: tiny, stems: {vocals: vocals}}, {model: leaky}]"
    about = "name: both\ndescription: Two\nlicence: MIT\nstems: [drums, bass, other, vocals]\n"
    (tmp_path / "both.yaml").write_text(about + members)
    assert "'leaky' can't be tested on musdb18hq test" in run("--model", "both", code=2).stderr


def test_a_folder_that_cannot_be_made_is_told_before_any_work(run, tmp_path):
    (tmp_path / "results").write_text("in the way")
    assert "results' can't be made: there is a file of this name" in run(code=2).stderr


def test_a_report_that_cannot_be_written_is_one_more_failure(run, estimates, monkeypatch):
    def full(*args):
        raise ConfigError("Can't write 'report.md': No space left on device.")

    monkeypatch.setattr("separator.evaluation.report.write_report", full)
    (estimates / "third" / "drums.wav").write_bytes(b"RIFF")
    done = run("--estimates", estimates, "--report", code=1)
    assert "failed: third: half: " in done.stderr
    assert "failed: all tracks: report: Can't write 'report.md'" in done.stderr


def test_results_of_different_settings_are_not_averaged(cli, run, tmp_path):
    run("--model", "tiny")
    run("--model", "tiny", "--overlap", "0.5", "--limit", "1")
    done = cli("evaluate", "report", tmp_path / "results", code=2)
    assert "'tiny'" in done.stderr
    assert "different settings" in done.stderr


def test_each_data_set_needs_results_of_its_own(run, data, tmp_path):
    run()
    (tmp_path / "moved").mkdir()
    write_song(tmp_path / "moved" / "test" / "fourth", seed=4)
    done = run("--data", tmp_path / "moved", code=2)
    assert f"holds results of musdb18hq in '{data}', not of musdb18hq in" in done.stderr
    assert not (tmp_path / "results" / "mixture" / "test" / "fourth.json").exists()


def test_two_estimates_of_one_stem_are_refused(run, estimates):
    audio, rate = soundfile.read(estimates / "second" / "vocals.wav")
    soundfile.write(estimates / "second" / "vocals.flac", audio, rate)
    done = run("--estimates", estimates, code=2)
    assert "'vocals.wav' beside it are both estimates of 'vocals'" in done.stderr


def test_a_missing_mixture_is_named_and_the_sum_taken(run, data, tmp_path):
    (data / "test" / "second" / "mixture.wav").unlink()
    done = run()
    assert "warning: second: no file of the mixture" in done.stderr
    assert (tmp_path / "results" / "mixture" / "test" / "second.json").exists()


@pytest.mark.parametrize("words", [("--augment", "swop"), ("--shifts", 33), ("--segment", 0)])
def test_knobs_are_checked_before_data_are_read(cli, tmp_path, words):
    options = ("--data", tmp_path / "none", "--output", tmp_path / "out", "--model", "tiny")
    assert "llowed" in cli("evaluate", *options, *words, code=2).stderr


def test_seed_and_augmentations_change_what_is_measured():
    card = find_card("pocket")
    knobs = [Knobs(), Knobs(shifts=2), Knobs(shifts=2, seed=1), Knobs(augmentations=("swap",))]
    found = [str(ModelMethod(card, one).identity("song", "test")) for one in knobs]
    assert len(set(found)) == len(found)
