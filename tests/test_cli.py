"""The commands, as people type them."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import music
from typer.core import TyperCommand

import separator
from separator.networks import build_network

STEMS = ["drums", "bass", "other", "vocals"]
COMMAND = [sys.executable, "-m", "separator"]


def separate(cli, *words: object, code: int = 0, model: str = "tiny"):
    fixed = ("-o", "out", "-m", model, "--device", "cpu", "--precision", "float32")
    return cli("separate", *fixed, *words, code=code)


def write(name: str, seconds: float = 0.3, rate: int = 44100, channels: int = 2, **how) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, music(seconds, rate, channels).T, rate, **how)
    return path


def files(folder: str = "out") -> list[str]:
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found)


def test_songs_of_any_kind_come_back_as_they_were(cli):
    songs = [
        write("a [live].wav", rate=48000, channels=1, subtype="PCM_24"),
        write("album/ünï.flac", rate=44100, channels=2),
        write("album/one/song.mp3", rate=32000),
    ]
    result = separate(cli, "a [live].wav", "album", "--report", "report.json")
    expected = [
        f"out/{track}/{stem}.wav" for track in ("a [live]", "one/song", "ünï") for stem in STEMS
    ]
    assert sorted(result.stdout.split("\n")[:-1]) == sorted(expected)
    data = json.loads(Path("report.json").read_text())
    for song, entry in zip(songs, data["files"], strict=True):
        source = soundfile.info(song)
        for path in entry["outputs"].values():
            written = soundfile.info(path)
            assert (written.samplerate, written.channels) == (source.samplerate, source.channels)
            assert written.frames == source.frames
    assert soundfile.info("out/a [live]/bass.wav").subtype == "PCM_24"
    assert "3 done" in result.stderr


def test_patterns_that_a_shell_left_are_filled_in(cli):
    """On Windows nobody else does it; a song whose name has brackets is that song."""
    for name in ("dj/b.wav", "dj/a.wav", "dj/deep/c.wav", "dj/x.txt", "one [live].wav"):
        write(name) if name.endswith(".wav") else Path(name).write_text("")
    plan = cli(
        "separate", "dj/*.wav", "one [live].wav", "-o", "out", "--model", "tiny", "--dry-run"
    )
    assert all(name in plan.stdout for name in ("a", "b", "one [live]"))
    assert "c.wav" not in plan.stdout + plan.stderr
    both = cli("separate", "dj/**/*.wav", "-o", "out", "--model", "tiny", "--dry-run")
    assert "c" in both.stdout
    failed = cli("separate", "dj/*.flac", "-o", "out", "--model", "tiny", "--dry-run", code=2)
    assert "Nothing is called 'dj/*.flac'" in failed.stderr


@pytest.mark.parametrize("words", [["--residual", "song.wav"], ["song.wav", "--residual"]])
def test_vocals_and_what_is_left_sum_to_the_song(cli, words):
    song = write("song.wav")
    separate(cli, *words, "--stems", "vocals", "--bit-depth", "32")
    assert files() == ["song/instrumental.wav", "song/vocals.wav"]
    total = sum(soundfile.read(f"out/{name}")[0] for name in files())
    assert np.abs(total - soundfile.read(song)[0]).max() < 1e-6


def test_the_residual_takes_a_name(cli):
    write("song.wav")
    separate(cli, "song.wav", "--stems", "bass, drums", "--residual", "rest", "--format", "flac")
    assert files() == ["song/bass.flac", "song/drums.flac", "song/rest.flac"]


def test_a_part_of_a_song(cli):
    song = write("song.wav", seconds=1.0)
    separate(cli, song, "--stems", "bass", "--start", "0:00.25", "--duration", ".5")
    assert soundfile.info("out/song/bass.wav").frames == 22050


def test_templates_formats_and_settings(cli):
    write("song.wav")
    separate(
        cli, "song.wav", "--template", "{model}/{track} - {stem}.{ext}", "--format", "ogg",
        "--stems", "bass", "--shifts", 2, "--seed", 3, "--augment", "swap,polarity",
        "--segment", 0.2, "--overlap", 0.5, "--batch-size", 2, "--threads", 1, "--jobs", 2,
    )  # fmt: skip
    assert files() == ["tiny/song - bass.ogg"]


@pytest.mark.slow
def test_names_that_the_console_lacks_lose_nothing(tiny_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("日本.wav")
    words = ["separate", "日本.wav", "-o", "out", "-m", tiny_models / "tiny.yaml"]
    done = subprocess.run(
        [*COMMAND, *map(str, words), "--report", "report.json", "--stems", "bass"],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=True,
    )
    assert rb"\u65e5\u672c" in done.stdout
    assert files() == ["日本/bass.wav"]
    assert json.loads(Path("report.json").read_text())["files"][0]["status"] == "done"


WRONG = {
    "unknown model": (["song.wav", "--model", "tinny"], "Did you mean 'tiny'"),
    "unknown stem": (["song.wav", "--stems", "vocal"], "Did you mean 'vocals'"),
    "unknown format": (["song.wav", "--format", "flak"], "Did you mean 'flac'"),
    "bit depth": (["song.wav", "--bit-depth", "20"], "wav allows: 16, 24, 32"),
    "bit depth of mp3": (["song.wav", "--format", "mp3", "--bit-depth", "16"], "lossy"),
    "overlap": (["song.wav", "--overlap", "1"], "at most 0.95"),
    "segment": (["song.wav", "--segment", "0"], "more than 0"),
    "segment's number": (["song.wav", "--segment", "nan"], "more than 0"),
    "batch size": (["song.wav", "--batch-size", "0"], "at least 1"),
    "shifts": (["song.wav", "--shifts", "-1"], "at least 0"),
    "too many shifts": (["song.wav", "--shifts", "5000"], "at most 32"),
    "too much overlap": (["song.wav", "--overlap", "0.99"], "at most 0.95"),
    "too long a segment": (["song.wav", "--segment", "1e6"], "at most 600"),
    "too large a batch": (["song.wav", "--batch-size", "100000"], "at most 256"),
    "start": (["song.wav", "--start", "soon"], "mm:ss"),
    "duration": (["song.wav", "--duration", "0"], "more than 0"),
    "template": (["song.wav", "--template", "{track}.wav"], "{stem}"),
    "template's field": (["song.wav", "--template", "{trak}/{stem}"], "Did you mean 'track'"),
    "augmentation": (["song.wav", "--augment", "swop"], "Did you mean 'swap'"),
    "device": (["song.wav", "--device", "tpu"], "auto, cpu, cuda, mps"),
    "number of a device": (["song.wav", "--device", "cpu:x"], "auto, cpu, cuda, mps"),
    "precision": (["song.wav", "--precision", "int8"], "float32, bfloat16"),
    "both": (["song.wav", "--skip-existing", "--overwrite"], "choose one"),
    "empty name": ([""], "empty name"),
    "residual's name": (["song.wav", "--residual", "bass"], "name of its own"),
    "file as folder": (["song.wav", "-o", "song.wav"], "file of this name"),
    "folder as report": (["song.wav", "--report", "."], "name a file"),
}


@pytest.mark.parametrize(("words", "reason"), WRONG.values(), ids=WRONG)
def test_wrong_usage_ends_before_any_work(cli, words, reason):
    write("song.wav")
    result = separate(cli, *words, code=2)
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not files()


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--nonsense"], ["--overlap", "much"]])
def test_wrong_options_are_named(cli, words):
    assert words[0] in separate(cli, "song.wav", *words, code=2).stderr


def test_only_what_is_missing_is_made(cli):
    write("song.wav")
    separate(cli, "song.wav")
    kept = Path("out/song/bass.wav")
    before = kept.stat().st_mtime_ns
    Path("out/song/vocals.wav").unlink()
    refused = separate(cli, "song.wav", code=1)
    assert "out/song/drums.wav' (and 2 more) exists" in refused.stderr
    result = separate(cli, "song.wav", "--skip-existing")
    assert result.stdout == "out/song/vocals.wav\n"
    assert "1 skipped" in separate(cli, "song.wav", "--skip-existing").stderr
    assert kept.stat().st_mtime_ns == before
    separate(cli, "song.wav", "--overwrite")
    assert kept.stat().st_mtime_ns > before


def test_a_dry_run_only_talks(cli):
    write("song.wav")
    write("out/song/bass.wav")
    result = separate(cli, "song.wav", "none", "--skip-existing", "--dry-run", "--stems", "bass")
    assert result.stdout.split("\n")[0] == "song.wav: keep out/song/bass.wav"
    assert files() == ["song/bass.wav"]


def test_quiet_tells_failures_only(cli):
    write("song.wav")
    Path("bad.wav").write_text("no audio")
    result = separate(cli, "bad.wav", "song.wav", "--quiet", code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("[1/2] bad.wav: failed: ")
    assert result.stderr.count("\n") == 1


def test_songs_side_by_side_give_the_same_bytes(cli):
    for name in "abc":
        write(f"in/{name}.wav")
    separate(cli, "in")
    one = {name: Path("out", name).read_bytes() for name in files()}
    separate(cli, "in", "--overwrite", "--jobs", 3)
    assert {name: Path("out", name).read_bytes() for name in files()} == one


def own_card(tiny_models, folder: Path, **changes) -> Path:
    """Write a card like `tiny`'s into a folder."""
    card = yaml.safe_load((tiny_models / "tiny.yaml").read_text())
    card["weights"]["file"] = str(tiny_models / card["weights"]["file"])
    path = folder / f"{changes.get('name', 'tiny')}.yaml"
    path.write_text(yaml.safe_dump(card | changes))
    return path


def test_what_a_model_was_trained_on_is_said(cli, tiny_models, tmp_path):
    write("song.wav")
    card = own_card(tiny_models, tmp_path, training_data="Synthetic music only", note="Beware.")
    result = separate(cli, "song.wav", "--stems", "bass", model=card)
    assert "tiny: trained on: Synthetic music only\ntiny: Beware.\n" in result.stderr


def test_models_are_listed_and_filtered(cli, tiny_models, tmp_path, monkeypatch):
    score = {"dataset": "MUSDB18", "definition": "uSDR", "source": "a paper"}
    values = {"whistle": 3.25, "rest": 9.0}
    own_card(
        tiny_models, tmp_path, name="whistler", stems=["whistle", "rest", "a", "b"],
        licence="CC-BY-NC-4.0", scores=[{**score, "values": values}],
    )  # fmt: skip
    own_card(tiny_models, tmp_path)
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
    everything = cli("models").stdout
    assert "tiny" in everything
    assert "9.00 uSDR, MUSDB18, rest" in everything
    by_stem = cli("models", "--stem", "whistle").stdout
    assert "3.25 uSDR, MUSDB18, whistle" in by_stem
    assert "tiny" not in by_stem
    assert "tiny" not in cli("models", "--licence", "cc-by").stdout
    assert "whistler" not in cli("models", "--search", "tiny").stdout
    (card,) = json.loads(cli("models", "--json", "--stem", "whistle").stdout)
    assert (card["name"], card["available"]) == ("whistler", True)
    shown = cli("models", "show", "whistler").stdout
    assert "CC-BY-NC-4.0" in shown
    assert "rest 9.00 dB, whistle 3.25 dB (uSDR, MUSDB18; a paper)" in shown


def test_models_are_sorted_and_those_here_are_told(cli, tiny_models, tmp_path, monkeypatch):
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
    values = {"a-low": ("uSDR", 3.0), "b-high": ("uSDR", 9.0), "c-other": ("cSDR", 6.0)}
    for name, (definition, value) in values.items():
        score = {"dataset": "MUSDB18", "definition": definition, "source": "a paper"}
        own_card(tiny_models, tmp_path, name=name, scores=[{**score, "values": {"bass": value}}])
    own_card(tiny_models, tmp_path)
    card = tmp_path / "d-far.yaml"
    weights = {"urls": ["https://example.org/w.ckpt"], "sha256": "0" * 64, "bytes": 10**9}
    own_card(tiny_models, tmp_path, name="d-far")
    data = yaml.safe_load(card.read_text())
    card.write_text(yaml.safe_dump({**data, "weights": {**weights, "format": "msst"}}))

    def names(*words: str) -> list[str]:
        found = [line.split()[0] for line in cli("models", *words).stdout.splitlines()[1:]]
        return [name for name in found if name in {*values, "tiny", "d-far"}]

    assert names() == [*values, "tiny", "d-far"]
    assert names("--sort", "name") == [*values, "d-far", "tiny"]
    assert names("--sort", "size")[-1] == "d-far"
    scored = names("--sort", "score", "--stem", "bass")
    assert scored == ["c-other", "b-high", "a-low", "d-far", "tiny"]  # a metric after the other
    assert "d-far" not in names("--here")
    assert "Did you mean 'size'" in cli("models", "--sort", "sise", code=2).stderr


def test_a_model_that_was_added_is_removed(cli, tiny_models, tmp_path, monkeypatch):
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
    path = own_card(tiny_models, tmp_path, name="mine")
    assert cli("models", "remove", "mine").stdout == f"{path}\n"
    assert not path.exists() and (tiny_models / "tiny.safetensors").exists()
    assert "nothing to delete" in cli("models", "remove", "pocket", code=1).stderr


def test_a_bad_card_is_named_beside_the_others(cli, tmp_path, monkeypatch):
    models = Path(os.environ["SEPARATOR_MODELS"])
    (models / "half.yaml").write_text("name: half\ndescription: 'cut sho")
    listed = cli("models")
    assert "tiny" in listed.stdout and "pocket" in listed.stdout
    (line,) = [line for line in listed.stderr.splitlines() if "half.yaml" in line]
    assert line.startswith("left out: ")
    assert " in " in cli("info").stdout


def test_an_ensemble_is_listed_and_runs(cli, tiny_models, tmp_path, monkeypatch):
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
    own_card(tiny_models, tmp_path)
    own_card(tiny_models, tmp_path, name="other")
    members = [{"model": name, "stems": ["vocals"]} for name in ("tiny", "other")]
    card = {"name": "duo", "description": "Two", "stems": ["vocals"], "members": members}
    (tmp_path / "duo.yaml").write_text(yaml.safe_dump(card | {"licence": "MIT"}))
    (line,) = [line for line in cli("models").stdout.splitlines() if line.startswith("duo ")]
    assert re.split(r"  +", line.strip()) == ["duo", "vocals", "1 MB"]
    assert "other: bs_roformer" in cli("models", "show", "duo").stdout
    write("song.wav")
    separate(cli, "song.wav", "--residual", model="duo")
    assert files() == ["song/instrumental.wav", "song/vocals.wav"]
    assert "more than 0" in separate(cli, "song.wav", "--segment", "0", model="duo", code=2).stderr


@pytest.mark.parametrize("command", ["show", "download"])
def test_an_unknown_model_is_wrong_usage(cli, command):
    assert "Did you mean 'tiny'" in cli("models", command, "tinny", code=2).stderr


def test_a_community_checkpoint_is_added_and_used(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path / "models"))
    sizes = {"dim": 8, "depth": 1, "heads": 1, "dim_head": 8}
    network = build_network("bs_roformer", stems=["vocals"], **sizes)
    torch.save(network.state_dict(), "My Model.ckpt")
    config = {
        "audio": {"chunk_size": 22050},
        "model": {"dim": 8, "depth": 1, "heads": 1, "dim_head": 8, "stereo": True},
        "training": {"instruments": ["vocals", "other"], "target_instrument": "vocals"},
        "inference": {"num_overlap": 2},
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    assert "my-model" in cli("models", "add", "My Model.ckpt", "config.yaml").stdout
    write("song.wav")
    separate(cli, "song.wav", "--residual", model="my-model")
    assert files() == ["song/other.wav", "song/vocals.wav"]
    again = cli("models", "add", "My Model.ckpt", "config.yaml", code=2)
    assert "already" in again.stderr


def test_info_names_what_is_here_and_what_is_missing(cli, monkeypatch):
    monkeypatch.setattr("separator.cli.info.find_spec", lambda name: None)
    told = cli("info").stdout
    assert separator.__version__ in told
    assert ".cache" in told
    assert "pip install 'separator[app]'" in told


ROOT = Path(separator.__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
ROOMS = "\n".join(
    (ROOT / room / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    for room in ("models", "configs", "scripts", "separator")
)
COMMANDS = re.findall(r"^separator ((?:separate|models|info)\b.*)", README, re.MULTILINE)
LONG_COMMANDS = re.findall(
    r"^(?:\$ |torchrun .*-m )?separator ([a-z]+ .*)", README + ROOMS, re.MULTILINE
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_readme_are_understood(cli, command):
    words = shlex.split(command, comments=True)
    if words[0] == "separate":
        model = [] if "--model" in words else ["--model", "tiny"]
        cli(*words, *model, "--dry-run")
    elif words[:2] == ["models", "download"]:
        cli("models", "show", *words[2:])
    elif words[:2] not in (["models", "add"], ["models", "remove"]):  # they have their own tests
        cli(*words)


@pytest.mark.parametrize("command", [c for c in LONG_COMMANDS if c not in COMMANDS])
def test_the_long_commands_of_the_readmes_are_parsed(cli, monkeypatch, command):
    """What trains, measures or serves is not run here; its options are there and complete."""
    parsed = []
    anything = TyperCommand.__bases__[0]  # the base of groups, too
    monkeypatch.setattr(anything, "invoke", lambda self, context: parsed.append(self.name))
    words = shlex.split(command, comments=True)
    cli(*words)
    assert parsed[-1] in words


def test_the_version(cli):
    assert cli("--version").stdout == f"separator {separator.__version__}\n"


def test_the_public_names():
    assert separator.Separator.__module__ == "separator.api"
    assert {card.name for card in separator.list_models([])} == set()
    with pytest.raises(AttributeError, match="no attribute 'Seperator'"):
        _ = separator.Seperator


def begin(*words: str) -> subprocess.Popen[str]:
    """Start a separation that takes minutes, and wait until its second song is at work."""
    write("in/a.wav")
    write("in/b.wav", seconds=120)
    command = [*COMMAND, "separate", "in", "-o", "out", "-m", "tiny", "--stems", "bass"]
    command += ["--shifts", "32", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(Path("out/b").glob(".*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_stopping_leaves_whole_files_only(cli, number):
    process = begin("--report", "report.json")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "1 done, 1 not finished (interrupted)" in stderr
    assert files() == ["a/bass.wav"]
    statuses = [entry["status"] for entry in json.loads(Path("report.json").read_text())["files"]]
    assert statuses == ["done", "cancelled"]


@pytest.mark.slow
def test_a_killed_run_is_taken_up_again(cli):
    process = begin()
    process.kill()
    process.communicate()
    hidden = list(Path("out/b").iterdir())
    assert hidden
    assert all(path.name.startswith(".") for path in hidden)
    before = Path("out/a/bass.wav").stat().st_mtime_ns
    separate(cli, "in", "--stems", "bass", "--skip-existing", "--duration", "0.2")
    assert files() == ["a/bass.wav", "b/bass.wav"]
    assert Path("out/a/bass.wav").stat().st_mtime_ns == before
