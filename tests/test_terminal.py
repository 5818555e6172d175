"""What people see: terminals of 80 columns, and standard streams that are closed, full or gone."""

import errno
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from conftest import music

from separator.batch.run import Job, Outcome, Report
from separator.batch.tracks import Track
from separator.cli import console
from separator.cli.display import Display, _Clock
from separator.errors import SeparatorError
from separator.zoo.members import usable_cards

COMMAND = [sys.executable, "-m", "separator"]
SEPARATE = ["separate", "song.wav", "-o", "out", "-m", "tiny", "--stems", "bass"]


def on_terminal(*words: str, columns: int = 80) -> str:
    """Return what a command shows on a terminal, without its control sequences."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen([*COMMAND, *words], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError as error:  # Linux says so when the other end has closed
        assert error.errno == errno.EIO
    os.close(ours)
    process.wait()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def a_song() -> None:
    soundfile.write("song.wav", music(0.3).T, 44100)


def outcome(number: int, error: str | None = None) -> Outcome:
    track = Track(Path(f"album/{number}.mp3"), f"{number}", named=False)
    job = Job(track, {"bass": Path(f"out/{number}/bass.wav")}, ())
    return Outcome(job, "failed" if error else "skipped", error=error)


def report(*outcomes: Outcome) -> Report:
    return Report("tiny", "cpu", "float32", {}, outcomes, 83.0)


def test_failures_come_last_and_the_rest_is_a_count(capsys):
    reasons = {17: "it is empty", 60: "it can't be decoded"}
    outcomes = [outcome(number, reasons.get(number)) for number in range(200)]
    display = Display(200, quiet=False)
    display.finish(report(*outcomes))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "198 skipped, 2 failed in 1:23 with tiny on cpu, float32.",
        "failed: album/17.mp3: it is empty",
        "failed: album/60.mp3: it can't be decoded",
    ]


def test_the_failure_of_a_single_song_is_told_once(capsys):
    display = Display(1, quiet=False)
    failed = outcome(1, "it is empty")
    display(SimpleNamespace(job=failed.job, progress=None, outcome=failed))
    display.finish(report(failed))
    assert capsys.readouterr().err.count("it is empty") == 1


@pytest.mark.parametrize(
    ("left", "text"), [(43.2, "0:10 elapsed, 0:43 left"), (None, "0:10 elapsed")]
)
def test_a_bar_says_what_its_times_are(left, text):
    assert str(_Clock().render(SimpleNamespace(elapsed=10.4, time_remaining=left))) == text


def test_a_report_on_stdout_stands_alone(cli):
    a_song()
    done = cli(*SEPARATE, "--report", "-")
    assert json.loads(done.stdout)["files"][0]["status"] == "done"
    assert not Path("-").exists()


def test_stdout_has_several_names(tmp_path, monkeypatch):
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert console.is_stdout(Path("-"))
        assert console.is_stdout(tmp_path / "log")
        assert not console.is_stdout(tmp_path / "other")


def test_what_stdout_does_not_take_is_an_error_once(monkeypatch):
    with Path("/dev/full").open("w") as full, Path("/dev/full").open("w") as other:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SeparatorError, match="stdout: No space left on device"):
            console.line("a result")
        console.line("nobody hears this")
        monkeypatch.setattr(sys, "stderr", other)
        console.message("nor this")


@pytest.mark.slow
@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_songs_are_separated_whatever_becomes_of_the_streams(cli, redirect):
    """As in cron jobs and daemons."""
    a_song()
    script = f'exec "$@" {redirect}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, *SEPARATE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert soundfile.info("out/song/bass.wav").frames == round(0.3 * 44100)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Can't write to stdout: No space left") == ("full" in redirect)


@pytest.mark.slow
def test_songs_are_separated_when_the_reader_has_gone(cli):
    a_song()
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, *SEPARATE], stdout=writing, stderr=subprocess.PIPE, text=True)
    listed = subprocess.run([*COMMAND, "models"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 0 and Path("out/song/bass.wav").exists()
    assert "Traceback" not in done.stderr
    assert (listed.returncode, listed.stderr) == (1, "")


@pytest.mark.slow
def test_bars_and_a_table_on_a_terminal(cli):
    for name, seconds in (("in/a [bold].wav", 2), ("in/b.wav", 0.3)):
        Path("in").mkdir(exist_ok=True)
        soundfile.write(name, music(seconds).T, 44100)
    Path("in/c.wav").write_text("no song")
    text = on_terminal("separate", "in", "-o", "out", "-m", "tiny", "--stems", "bass")
    assert "of 3 files" in text and re.search(r"0:0\d elapsed", text)
    lines = text.splitlines()
    assert [line[2:10] for line in lines if line.startswith("│")][1:] == ["a [bold]", "b       "]
    assert "out/b/bass.wav" not in text
    assert lines[-2].startswith("2 done, 1 failed in ")
    assert lines[-1].startswith("failed: in/c.wav: ")


@pytest.mark.slow
def test_a_model_is_a_line_of_eighty_columns(cli):
    head, *lines, tail = on_terminal("models").splitlines()
    names = [card.name for card in usable_cards()[0]]
    assert sorted(line.split()[0] for line in lines) == sorted(names)  # whole: they are typed
    assert all(len(line) <= 80 for line in lines)
    assert head.split() == ["Model", "Stems", "Size", "Score", "(dB)"]
    assert tail.endswith("separator models show NAME")
    wide = on_terminal("models", "--search", "pocket", columns=120)
    assert "drums, bass, other, vocals" in wide and re.search(r"\d\.\d\d uSDR", wide)
