"""Batches: what is found, what it is called, what is done, and what a failure costs."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from separator.api import Result
from separator.batch import tracks
from separator.batch.run import Options, plan, run
from separator.batch.tracks import find_audio
from separator.errors import AudioError, Cancelled, ConfigError
from separator.files import temporary_path
from separator.stream.progress import Progress
from separator.stream.wanted import Wanted

STEMS = ("drums", "vocals")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(*inputs: str, output: str | None = None) -> list[str]:
    tracks = find_audio(map(Path, inputs), output=Path(output) if output else None)
    assert not [track.problem for track in tracks if track.problem]
    return [track.track for track in tracks]


def test_folders_are_searched_to_the_bottom_in_order(folder):
    touch("in/b.mp3", "in/a.WAV", "in/cover.jpg", "in/x/y/c.flac", "in/.hidden/d.wav")
    touch("in/._a.wav", "in/.separator-host-1-00000000-a.wav", "in/x/.e.wav")
    assert names("in") == ["a", "b", "x/y/c"]


@pytest.mark.parametrize(
    "ending",
    ["wmv", "m2ts", "spx", "thd", "mlp", "dsf", "dff", "mpc", "vob", "weba", "m4r", "rm", "oma"],
)
def test_folders_are_searched_for_all_that_can_be_read(folder, ending):
    touch(f"in/a.{ending}")
    assert names("in") == ["a"]


def test_what_is_passed_over_in_a_folder_is_told(folder):
    touch("in/a.wav", "in/b.xyz", "in/sub/take", "in/cover.jpg", "in/notes.txt", "in/.c.xyz")
    others: list[Path] = []
    assert [track.track for track in find_audio([Path("in")], passed_over=others)] == ["a"]
    assert others == [Path("in/b.xyz"), Path("in/sub/take")]


@pytest.mark.parametrize(
    "name", ["with space", "[x] *?", "ünï 音楽", "{stem}", "Mr. Blue", "a'b\"c", "line\nbreak"]
)
def test_names_are_names_not_patterns(folder, name):
    touch(f"{name}.mp3", "x.mp3", f"in/{name}.mp3")
    assert names(f"{name}.mp3", "in") == [f"{folder.name}/{name}", f"in/{name}"]
    assert names(f"{name}.mp3") == [name]


def test_a_file_that_was_named_is_tried_whatever_it_is_called(folder):
    touch("01. Song", "take.xyz", ".hidden.wav")
    assert names("01. Song", "take.xyz", ".hidden.wav") == ["01. Song", "take.xyz", ".hidden.wav"]


def test_equal_names_are_told_apart_by_the_least(folder):
    touch("a/x/song.mp3", "b/x/song.mp3", "c/song.mp3", "c/song.wav", "c/other.wav")
    assert names("a/x/song.mp3", "b/x/song.mp3") == ["a/x/song", "b/x/song"]
    assert names("a/x/song.mp3", "c/song.mp3") == ["x/song", "c/song"]
    assert names("c") == ["other", "song.mp3", "song.wav"]
    assert names("a", "b") == ["a/x/song", "b/x/song"]
    assert names(".") == ["a/x/song", "b/x/song", "c/other", "c/song.mp3", "c/song.wav"]
    touch("d/song.mp3", "d/song.wav", "d/song.mp3.wav")
    assert sorted(names("d")) == ["song.mp3", "song.mp3.wav", "song.wav"]


def test_many_equal_names_take_linear_time(folder, monkeypatch):
    folded = 0
    fold = tracks._fold

    def counted(name):
        nonlocal folded
        folded += 1
        return fold(name)

    monkeypatch.setattr(tracks, "_fold", counted)
    touch(*(f"{i}/song/mixture.wav" for i in range(100)))
    found = names(*(f"{i}/song/mixture.wav" for i in range(100)))
    assert found == [f"{i}/song/mixture" for i in range(100)]
    assert folded < 1000


def test_names_that_some_systems_take_for_one_are_told_apart(folder):
    touch("a/Song.mp3", "b/song.mp3")
    assert names("a/Song.mp3", "b/song.mp3") == ["a/Song", "b/song"]


def test_a_file_is_separated_once(folder):
    touch("in/song.mp3")
    assert names("in/song.mp3", "in", "./in/../in/song.mp3") == ["song"]


def test_links_that_lead_in_circles_end(folder):
    touch("in/sub/song.mp3")
    (folder / "in/sub/loop").symlink_to(folder / "in", target_is_directory=True)
    (folder / "in/alias.mp3").symlink_to(folder / "in/sub/song.mp3")
    assert names("in") == ["alias", "sub/song"]


def test_the_output_folder_is_not_searched(folder):
    touch("song.mp3", "out/song/vocals.wav")
    assert names(".", output="out") == ["song"]
    assert names("out", output="out") == ["song/vocals"]


def test_a_folder_without_audio_is_a_problem(folder):
    touch("in/readme.txt", "song.mp3")
    (empty, song) = find_audio([Path("in"), Path("song.mp3")])
    assert "'in' holds no audio" in empty.problem
    assert song.problem is None


def options(**changes) -> Options:
    own = {name: changes.pop(name) for name in ("output", "existing") if name in changes}
    wanted = Wanted(**{"stems": STEMS, **changes})
    return Options(**{"output": Path("out"), "wanted": wanted, **own})


def planned(*inputs: str, **changes):
    chosen = options(**changes)
    tracks = find_audio(map(Path, inputs), output=chosen.output)
    return plan(tracks, chosen, model="m", known=STEMS)


def test_outputs_follow_the_template(folder):
    touch("song.mp3")
    (job,) = planned("song.mp3", template="{model}/{track}_{stem}.{ext}", audio_format="flac")
    assert job.outputs["drums"] == Path("out/m/song_drums.flac")
    assert job.missing == STEMS


def test_what_exists_is_refused_skipped_or_overwritten(folder):
    touch("song.mp3", "out/song/drums.wav")
    (refused,) = planned("song.mp3")
    assert "out/song/drums.wav' exists" in refused.problem
    assert "--skip-existing" in refused.problem
    (skipped,) = planned("song.mp3", existing="skip")
    assert (skipped.problem, skipped.missing) == (None, ("vocals",))
    (overwritten,) = planned("song.mp3", existing="overwrite")
    assert (overwritten.problem, overwritten.missing) == (None, STEMS)


def test_outputs_never_share_a_path(folder):
    touch("a.mp3", "b.mp3")
    with pytest.raises(ConfigError, match=r"'a\.mp3' and 'b\.mp3' would both"):
        planned("a.mp3", "b.mp3", template="{stem}.{ext}")


def test_outputs_never_replace_an_input(folder):
    touch("vocals.wav")
    with pytest.raises(ConfigError, match="is an input"):
        planned("vocals.wav", template="{stem}.{ext}", output=Path(), existing="overwrite")


def test_results_of_an_earlier_run_are_no_input(folder):
    touch("song.mp3", "song/drums.wav", "song/vocals.wav", "live/vocals.wav")
    jobs = planned(".", output=Path(), stems=("drums",), existing="skip")
    assert [job.track.track for job in jobs] == ["song", "live/vocals"]


class FakeSeparator:
    """Write the names of the stems; the name of a file says how it fails."""

    card = SimpleNamespace(name="m")
    device, precision, settings = "cpu", "torch.float32", {"overlap": 0.25}

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def write_stems(self, path, outputs, wanted, *, progress, cancel) -> Result:
        self.calls.append({"path": path, "outputs": outputs, **asdict(wanted)})
        progress(Progress(1, 2))
        if "broken" in path.name:
            raise AudioError(f"'{path}' can't be\nread.")
        if "strange" in path.name:
            raise ZeroDivisionError("division by zero")
        if "interrupt" in path.name:
            cancel.set()
        if cancel.is_set():
            raise Cancelled("Cancelled.")
        for name, output in outputs.items():
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(name)
        gain = 0.5 if "loud" in path.name else 1.0
        return Result(path, outputs, "m", 44100, 2, 88200, gain, None, (), 0.5, 0.4)


def separated(*inputs: str, separator=None, workers: int = 1, on_event=None, **changes):
    jobs = planned(*inputs, **changes)
    separator = separator or FakeSeparator()
    return run(jobs, separator, options(**changes), workers=workers, on_event=on_event)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_stays_with_its_file(folder, workers):
    touch("a.mp3", "broken.mp3", "strange.mp3", "z.mp3")
    report = separated("a.mp3", "broken.mp3", "strange.mp3", "z.mp3", workers=workers)
    assert [outcome.status for outcome in report.outcomes] == ["done", "failed", "failed", "done"]
    _, broken, strange, _ = report.outcomes
    assert broken.error == "'broken.mp3' can't be read."
    assert strange.error == "unexpected error: ZeroDivisionError: division by zero"
    assert "Traceback" in strange.details
    assert Path("out/z/vocals.wav").read_text() == "vocals"


def test_only_what_is_missing_is_made(folder):
    touch("song.mp3", "out/song/drums.wav")
    fake = FakeSeparator()
    separated("song.mp3", separator=fake, existing="skip")
    (call,) = fake.calls
    assert (call["stems"], call["residual"]) == (STEMS, None)  # the gain comes from all
    assert list(call["outputs"]) == ["vocals"]
    assert Path("out/song/drums.wav").read_text() == "out/song/drums.wav"
    report = separated("song.mp3", separator=fake, existing="skip")
    assert [outcome.status for outcome in report.outcomes] == ["skipped"]
    assert len(fake.calls) == 1


def test_a_missing_residual_takes_all_stems_but_writes_itself(folder):
    touch("song.mp3", "out/song/drums.wav", "out/song/vocals.wav")
    fake = FakeSeparator()
    separated("song.mp3", separator=fake, existing="skip", residual="rest")
    (call,) = fake.calls
    assert (call["stems"], call["residual"]) == (STEMS, "rest")
    assert list(call["outputs"]) == ["rest"]


def test_a_gain_on_some_stems_only_is_told(folder):
    touch("loud.mp3", "out/loud/drums.wav")
    (outcome,) = separated("loud.mp3", existing="skip").outcomes
    assert "0.500" in outcome.result.notes[0]
    (outcome,) = separated("loud.mp3", existing="overwrite").outcomes
    assert outcome.result.notes == ()


def test_stopping_keeps_what_is_finished_and_begins_nothing(folder):
    touch("a.mp3", "interrupt.mp3", "z.mp3")
    report = separated("a.mp3", "interrupt.mp3", "z.mp3")
    assert [outcome.status for outcome in report.outcomes] == ["done", "cancelled", "cancelled"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["a"]


def test_events_tell_begin_progress_and_end(folder):
    touch("a.mp3", "broken.mp3")
    events = []
    separated("a.mp3", "broken.mp3", on_event=events.append)
    told = [(e.progress and e.progress.done, e.outcome and e.outcome.status) for e in events]
    began, progress = (None, None), (1, None)
    assert told == [began, progress, (None, "done"), began, progress, (None, "failed")]


def test_files_are_worked_on_side_by_side(folder):
    touch("a.mp3", "b.mp3")
    both = threading.Barrier(2, timeout=300)  # passes only if two are at work at once
    report = separated(
        "a.mp3", "b.mp3", workers=2, on_event=lambda event: event.progress and both.wait()
    )
    assert report.count("done") == 2


def test_leftovers_of_killed_runs_are_removed(folder):
    touch("song.mp3")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours = temporary_path(Path("out/song/vocals.wav"))
    stale = ours.with_name(ours.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    touch(str(stale))
    separated("song.mp3")
    assert sorted(path.name for path in stale.parent.iterdir()) == ["drums.wav", "vocals.wav"]


def test_the_report_says_what_became_of_each_file(folder):
    touch("a.mp3", "broken.mp3", "out/b/drums.wav", "out/b/vocals.wav", "b.mp3", "strange.mp3")
    report = separated("a.mp3", "b.mp3", "broken.mp3", "strange.mp3", existing="skip")
    report.write(Path("report.json"))
    data = json.loads(Path("report.json").read_text())
    assert (data["model"], data["device"], data["precision"]) == ("m", "cpu", "float32")
    assert data["options"]["stems"] == list(STEMS)
    assert data["options"]["overlap"] == 0.25
    done, skipped, broken, strange = data["files"]
    assert done["outputs"] == {"drums": "out/a/drums.wav", "vocals": "out/a/vocals.wav"}
    assert done["real_time_factor"] == 0.25
    assert (skipped["status"], skipped["error"]) == ("skipped", None)
    assert (broken["status"], broken["outputs"]) == ("failed", {})
    assert "ZeroDivisionError" in strange["details"]
    assert not list(Path().glob(".report*"))


def test_a_report_that_cannot_be_written_is_named(folder):
    touch("a.mp3")
    with pytest.raises(ConfigError, match=r"report 'none/report\.json'"):
        separated("a.mp3").write(Path("none/report.json"))
