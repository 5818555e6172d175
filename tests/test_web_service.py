"""From an upload to a song: models, limits, cancelling, memory, privacy."""

import asyncio
import errno
import gc
import shutil
import socket
import tempfile
import threading
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import finished, make_signal, read_all

from separator.audio.reader import probe
from separator.audio.stems import StemWriter
from separator.ensemble.knobs import Knobs
from separator.errors import AudioError, Cancelled, ConfigError, ModelError
from separator.stream.progress import Progress
from separator.web.belongings import private_folder
from separator.web.jobs import Job, Queue
from separator.web.pages.batch import watch_all
from separator.web.pool import ModelPool, interruptible
from separator.web.service import Request, Service
from separator.web.settings import AppSettings
from separator.web.works import Work, Works

RATE = 44100


def test_an_upload_becomes_a_song_that_sums_to_it(service, song):
    path = song("my song.wav", make_signal(2 * RATE, RATE), bit_depth=32)
    wanted = Request(path, "tiny", stems=("vocals",), residual="rest", start=0.5, duration=1.0)
    job = finished(service.submit(wanted, "me/separate"))
    assert job.state == "done", job.error
    result = service.library.get(job.result.token)
    assert [track.name for track in result.tracks] == ["original", "vocals", "rest"]
    assert result.samples == RATE
    values = np.frombuffer(result.pcm(0, RATE), "<i2").reshape(3, RATE, 2).astype(int)
    assert np.abs(values[0] - values[1] - values[2]).max() <= 2
    truth = read_all(path)[:, RATE // 2 : RATE // 2 + RATE].T
    assert np.abs(values[0] / 32768 - truth).max() < 1 / 32768


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"no song at all", "'bad'"), (b"RIFF\0\0\0\0WAVE", "'bad'")],
)
def test_bad_files_are_refused_without_the_servers_paths(service, tmp_path, content, message):
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as caught:
        service.submit(Request(path, "tiny"), "me/")
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_limits_of_size_and_length(service, song, tmp_path):
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(8_000_001))
    with pytest.raises(AudioError, match="allowed: 8 MB"):
        service.submit(Request(large, "tiny"), "me/")
    long = song("long.flac", np.zeros((1, 8000 * 21), np.float32), rate=8000)
    with pytest.raises(AudioError, match="Choose a range"):
        service.submit(Request(long, "tiny"), "me/")
    service.check_source(Request(long, "tiny", start=5.0))
    with pytest.raises(AudioError, match="ends at 21"):
        service.submit(Request(long, "tiny", start=30.0), "me/")


def test_a_silent_song_is_separated_and_told(service, song):
    path = song("silent.wav", np.zeros((2, RATE), np.float32))
    job = finished(service.submit(Request(path, "tiny"), "me/"))
    assert job.state == "done", job.error
    assert any("silent" in note for note in job.result.notes)


@pytest.mark.parametrize(
    "name", ["../tiny", "/etc/passwd", "tiny.yaml", "models/tiny", "", "tinny"]
)
def test_models_are_found_by_exact_names_only(service, song, name):
    with pytest.raises(ModelError, match="Unknown model"):
        service.submit(Request(song("a.wav"), name), "me/")


def test_cancel_stops_inside_the_network(service, song, monkeypatch):
    path = song("a.wav", make_signal(RATE * 10, RATE))
    seen: list[Progress] = []
    begun = threading.Event()

    def report(job: Job, progress: Progress) -> None:
        seen.append(progress)
        begun.set()

    monkeypatch.setattr(Job, "report", report)
    job = service.submit(Request(path, "tiny", shifts=32), "me/")
    assert begun.wait(300)
    service.queue.cancel(job)
    assert finished(job).state == "cancelled"
    assert seen[-1].done < seen[-1].total
    assert not list((service.root / "songs").iterdir())


def numbers_in_tensors() -> int:
    """Count what all tensors of this process hold, once whatever is unused is gone."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    return sum(tensor.numel() for tensor in tensors)


def test_cancel_frees_what_the_network_held(service, song, monkeypatch):
    assert finished(service.submit(Request(song("a.wav"), "tiny"), "me/")).state == "done"
    before = numbers_in_tensors()
    inside = threading.Event()
    seen = []

    def look_and_cancel(job: Job, progress: Progress) -> None:
        seen.append(numbers_in_tensors())
        job.cancel.set()
        inside.set()

    monkeypatch.setattr(Job, "report", look_and_cancel)
    path = song("long.wav", make_signal(RATE * 10, RATE))
    job = service.submit(Request(path, "tiny", shifts=3), "me/")
    assert inside.wait(300) and finished(job).state == "cancelled"
    assert numbers_in_tensors() <= before < seen[0]


def test_a_queue_tidies_up_after_each_job_before_the_next_begins():
    happened = []
    queue = Queue(max_waiting=5, after=lambda job: happened.append(f"after {job.title}"))
    gate = threading.Event()

    def fail(job: Job) -> None:
        gate.wait(10)
        happened.append(job.title)
        raise AudioError("broken")

    for title in ("a", "b"):
        last = queue.submit(Job(title, "me", fail))
    gate.set()
    finished(last)
    queue.close()
    assert happened == ["a", "after a", "b", "after b"]


def test_memory_is_released_when_a_job_was_cut_short(service, song, monkeypatch):
    released = []
    monkeypatch.setattr("separator.web.service.release_memory", lambda: released.append(True))
    path = song("a.wav")
    assert finished(service.submit(Request(path, "tiny"), "me/")).state == "done"
    assert not released
    monkeypatch.setattr(Job, "report", lambda job, progress: job.cancel.set())
    job = service.submit(Request(path, "tiny", shifts=9), "me/")
    assert finished(job).state == "cancelled"
    service.queue.close()
    assert released == [True]


def test_cancel_stops_the_drawing_of_a_long_song(service, song, monkeypatch):
    path = song("a.wav", make_signal(RATE, RATE))
    begin = Job.begin

    def begin_and_cancel(job: Job, step: str) -> None:
        begin(job, step)
        if step == "Drawing":
            job.cancel.set()

    monkeypatch.setattr(Job, "begin", begin_and_cancel)
    assert finished(service.submit(Request(path, "tiny"), "me/")).state == "cancelled"
    assert not list((service.root / "songs").iterdir())


def test_closing_waits_for_the_thread_that_works(tiny_models, monkeypatch, song):
    monkeypatch.setenv("SEPARATOR_MODELS", str(tiny_models))
    service = Service(AppSettings(device="cpu"))
    begun = threading.Event()
    monkeypatch.setattr(Job, "report", lambda job, progress: begun.set())
    path = song("a.wav", make_signal(RATE * 10, RATE))
    job = service.submit(Request(path, "tiny", shifts=32), "me/")
    assert begun.wait(300)
    service.close()
    assert job.state == "cancelled"
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"separator-jobs", "separator-sweep", "prefetch"}
    assert not service.root.exists()


def test_twenty_songs_in_the_queue_become_twenty_results(service, song):
    path = song("a.wav", make_signal(100, RATE))
    waiting = [
        service.submit(Request(path, "tiny", title=f"song {number}"), f"user{number}/")
        for number in range(20)
    ]
    assert {finished(job).state for job in waiting} == {"done"}
    assert [job.result.title for job in waiting] == [f"song {number}" for number in range(20)]
    assert len({job.result.token for job in waiting}) == 20


@pytest.fixture
def busy(service):
    """An event; until it is set, a job keeps the queue busy."""
    gate = threading.Event()
    service.queue.submit(Job("before", "somebody/", lambda job: gate.wait(60)))
    yield gate
    gate.set()


def test_an_upload_that_is_deleted_while_its_job_waits_is_separated(service, song, busy):
    path = song("a.wav")
    job = service.submit(Request(path, "tiny"), "me/")
    path.unlink()  # as Gradio does after a time
    busy.set()
    assert finished(job).state == "done", job.error


def test_a_job_that_never_ran_leaves_no_files(service, song, busy, monkeypatch):
    folders = service.root / "songs"
    job = service.submit(Request(song("a.wav"), "tiny"), "me/")
    assert len(list(folders.iterdir())) == 1
    service.queue.cancel(job)
    assert job.state == "cancelled" and not list(folders.iterdir())
    monkeypatch.setattr(service.queue, "max_waiting", 0)
    with pytest.raises(ConfigError, match="waiting already"):
        service.submit(Request(song("b.wav"), "tiny"), "me/")
    assert not list(folders.iterdir())


def test_songs_of_a_batch_stay_until_its_last_one_is_done(service, song):
    gate = threading.Event()
    done = finished(service.submit(Request(song("a.wav"), "tiny"), "me/batch"))
    last = service.queue.submit(Job("last", "me/batch", lambda job: gate.wait(10)))
    done.result.used -= 2 * service.settings.keep_seconds

    async def wait() -> None:
        async for _ in watch_all(service, Work([done, last])):
            last.title = "almost last"  # the table changes once more
            if done.result.used > time.monotonic() - 60:
                break

    asyncio.run(asyncio.wait_for(wait(), 300))
    gate.set()
    service.library.expire()
    assert service.library.get(done.result.token) is done.result


def test_a_full_disk_is_foreseen(service, song, monkeypatch):
    path = song("a.wav")
    usage = shutil.disk_usage(path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(AudioError, match="disk is too full"):
        service.submit(Request(path, "tiny"), "me/")


def test_a_disk_that_fills_up_fails_one_job_alone(service, song, monkeypatch):
    path = song("a.wav")

    def write(writer: object, pieces: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(StemWriter, "write", write)
        job = finished(service.submit(Request(path, "tiny"), "me/"))
    assert job.state == "failed"
    assert "full" in job.error and str(path.parent) not in job.error
    assert not list((service.root / "songs").iterdir())
    assert finished(service.submit(Request(path, "tiny"), "me/")).state == "done"


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a\x00b", "..", "<b>bold</b>"])
def test_titles_and_leftovers_stay_in_their_folder(service, song, name):
    wanted = Request(song("a.wav"), "tiny", title=name, stems=("vocals",), residual=name)
    result = finished(service.submit(wanted, "me/")).result
    assert not set("/\\\0<>") & set(result.title + result.tracks[2].name)
    assert {track.path.parent for track in result.tracks} == {result.folder}
    with zipfile.ZipFile(result.archive()) as archive:
        assert all("/" not in member for member in archive.namelist())


def test_a_model_is_stopped_between_its_layers(tiny):
    cancel = threading.Event()
    with interruptible(tiny, cancel):
        tiny.separate(make_signal(RATE, RATE), RATE)
        cancel.set()
        with pytest.raises(Cancelled):
            tiny.separate(make_signal(RATE, RATE), RATE)
    tiny.separate(make_signal(RATE, RATE), RATE)  # nothing stays behind


def test_users_share_one_model_in_memory(service):
    pool = ModelPool("cpu")
    card = service.catalog.find("tiny")
    first, second = pool.get(card), pool.get(card, Knobs(overlap=0.5, shifts=2))
    assert first.network is second.network
    assert first.settings != second.settings


def test_a_card_that_changed_is_loaded_anew(service):
    pool = ModelPool("cpu")
    card = service.catalog.find("tiny")
    changed = card.model_copy(update={"stems": card.stems[::-1]})  # of the same weights
    assert pool.get(card).stems == card.stems
    assert pool.get(changed).stems == card.stems[::-1]


def test_closing_deletes_everything(tiny_models, monkeypatch, song):
    monkeypatch.setenv("SEPARATOR_MODELS", str(tiny_models))
    service = Service(AppSettings(device="cpu"))
    job = finished(service.submit(Request(song("a.wav"), "tiny"), "me/"))
    assert job.result.folder.is_dir()
    service.close()
    assert not service.root.exists()


def test_strangers_may_not_change_models():
    assert AppSettings().may_manage
    assert not AppSettings(host="0.0.0.0").may_manage
    assert AppSettings(host="0.0.0.0", user="me", password="secret").may_manage
    with pytest.raises(ConfigError, match="password"):
        AppSettings(user="me")


def test_a_user_without_a_password_is_told_where_to_put_it(cli, monkeypatch):
    monkeypatch.delenv("SEPARATOR_PASSWORD", raising=False)
    assert "SEPARATOR_PASSWORD" in cli("app", "--user", "me", code=2).stderr


def test_a_taken_port_is_told_in_one_line(cli):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = cli("app", "--port", taken.getsockname()[1], code=2).stderr
    assert "Choose another --port" in said and said.count("\n") == 1


def test_a_visitor_waits_with_some_songs_only(tiny_models, monkeypatch, song):
    monkeypatch.setenv("SEPARATOR_MODELS", str(tiny_models))
    service = Service(AppSettings(host="0.0.0.0", device="cpu", max_jobs=2))
    gate = threading.Event()
    service.queue.submit(Job("before", "somebody/", lambda job: gate.wait(300)))
    path = song("a.wav", make_signal(100, RATE))
    mine = [service.submit(Request(path, "tiny"), "me/", "192.0.2.1") for _ in range(2)]
    with pytest.raises(ConfigError, match="2 of your songs"):
        service.submit(Request(path, "tiny"), "again me/", "192.0.2.1")
    other = service.submit(Request(path, "tiny"), "you/", "192.0.2.2")
    for job in (*mine, other):
        service.queue.cancel(job)
    gate.set()
    service.close()


def test_no_job_is_taken_while_the_app_closes(service):
    service.queue.close()
    with pytest.raises(ConfigError, match="about to end"):
        service.queue.submit(Job("late", "me/", lambda job: None))


def test_jobs_that_no_page_asks_for_are_given_up():
    works = Works()
    mine, others = Job("mine", "me/separate", print), Job("other", "you/separate", print)
    token = works.begin([mine]).token
    works.begin([others]).seen -= 100
    assert works.abandoned(60) == [others]
    assert works.find(token, "new page/separate").jobs == [mine]
    assert mine.owner == "new page/separate", "the page that was loaded again may cancel it"
    assert works.find("unknown", "me/") is None
    works.expire(60)
    assert works.abandoned(0) == [mine]


def test_what_a_kill_has_left_is_deleted_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lock, alive = private_folder()
    killed = tmp_path / "separator-web-killed"
    (killed / "songs" / "token").mkdir(parents=True)
    (killed / "lock").touch()
    foreign = tmp_path / "somebody-else"
    foreign.mkdir()
    (tmp_path / "separator-web-link").symlink_to(foreign)
    starting = tmp_path / "separator-web-starting"
    starting.mkdir()
    other, mine = private_folder()
    assert not killed.exists()
    assert alive.exists() and foreign.exists() and starting.exists() and mine.exists()
    lock.close()
    other.close()


def test_a_length_that_is_only_estimated_refuses_nothing(service, song, monkeypatch):
    path = song("a.wav", make_signal(4 * RATE, RATE))
    rough = replace(probe(path), samples=None, duration=1.0)
    monkeypatch.setattr("separator.web.service.probe", lambda source: rough)
    service.check_source(Request(path, "tiny", start=3.0))


def test_a_wish_beyond_the_end_needs_no_more_room(service, song):
    service.check_source(Request(song("a.wav"), "tiny", duration=1e7))
