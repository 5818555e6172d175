"""The web app without a browser: queue, songs, limits, privacy, the player's addresses."""

import asyncio
import errno
import gc
import io
import shutil
import socket
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_signal, read_all

from separator.audio import AudioWriter, StemWriter
from separator.errors import AudioError, Cancelled, ConfigError, ModelError
from separator.inference import Progress
from separator.web import jobs, view
from separator.web.jobs import Job, Queue, friendly
from separator.web.overview import BANDS, COLUMNS, overview
from separator.web.pages.batch import watch_all
from separator.web.pool import ModelPool, interruptible
from separator.web.service import Request, Service
from separator.web.settings import Settings
from separator.web.songs import Library, Song, Track

RATE = 44100


@pytest.fixture
def service(tiny_models, tmp_path, monkeypatch):
    """A service with the model `tiny`, on the CPU."""
    monkeypatch.setenv("SEPARATOR_MODELS", str(tiny_models))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    service = Service(Settings(device="cpu", max_seconds=20, max_bytes=8_000_000))
    yield service
    service.close()


def finished(job: Job) -> Job:
    assert job.ended.wait(300), job.state  # only a machine that does much else needs so long
    return job


# --- the queue --------------------------------------------------------------------------------


@pytest.fixture
def queue():
    queue = Queue(max_waiting=30)
    yield queue
    queue.close()


def test_jobs_run_in_order_and_none_is_lost(queue):
    ran = []
    jobs = [queue.submit(Job(str(n), "me", lambda job: ran.append(job.title))) for n in range(20)]
    for job in jobs:
        finished(job)
    assert ran == [str(n) for n in range(20)]
    assert {job.state for job in jobs} == {"done"}


def test_a_waiting_job_knows_its_place_and_leaves_when_cancelled(queue):
    gate = threading.Event()
    first = queue.submit(Job("first", "me", lambda job: gate.wait(10)))
    others = [queue.submit(Job(name, "me", lambda job: None)) for name in "abc"]
    assert [queue.place(job) for job in others] == [1, 2, 3]
    queue.cancel(others[0])
    assert others[0].state == "cancelled"
    assert [queue.place(job) for job in others[1:]] == [1, 2]
    gate.set()
    assert finished(others[2]).state == "done"
    assert finished(first).state == "done"


def test_a_full_queue_refuses_and_goes_on():
    queue = Queue(max_waiting=1)
    gate = threading.Event()
    running = queue.submit(Job("running", "me", lambda job: gate.wait(10)))
    waiting = queue.submit(Job("waiting", "me", lambda job: None))
    with pytest.raises(ConfigError, match="Try again"):
        queue.submit(Job("refused", "me", lambda job: None))
    gate.set()
    assert finished(running).state == finished(waiting).state == "done"
    queue.close()


def test_cancelling_one_owner_leaves_the_others_alone(queue):
    gate = threading.Event()
    queue.submit(Job("running", "x/page", lambda job: gate.wait(10)))
    mine = queue.submit(Job("mine", "me/page", lambda job: None))
    other = queue.submit(Job("other", "you/page", lambda job: None))
    queue.cancel_all("me/")
    gate.set()
    assert finished(mine).state == "cancelled"
    assert finished(other).state == "done"


def test_errors_become_one_line_and_defects_stay_in_the_log(queue, caplog):
    def fail(job: Job) -> None:
        raise AudioError("The file\nis broken.")

    def crash(job: Job) -> None:
        raise RuntimeError("/secret/path")

    assert finished(queue.submit(Job("a", "me", fail))).error == "The file is broken."
    crashed = finished(queue.submit(Job("b", "me", crash)))
    assert crashed.state == "failed"
    assert "/secret/path" not in (crashed.error or "")
    assert "/secret/path" in caplog.text
    assert "full" in friendly(OSError(28, "No space left on device"))


def test_progress_tells_what_is_left(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    job = Job("song", "me", lambda job: None)
    job.begin("Separating")
    assert job.fraction is None and job.seconds_left is None
    clock[0] += 60.0  # the model is read
    job.report(Progress(1, 5))
    assert job.fraction == 0.2 and job.seconds_left is None
    clock[0] += 6.0
    job.report(Progress(3, 5))
    assert job.seconds_left == 6.0
    job.state = "running"
    html = view.status(job, 0)
    assert "3 of 5 segments" in html and "about 7 s left" in html and 'value="0.6000"' in html
    job.begin("Loading another model")
    assert job.fraction is None and job.seconds_left is None
    assert view.detail(job) == "Loading another model …"


def test_progress_without_a_known_end():
    job = Job("song", "me", lambda job: None, state="running", step="Separating", done=3)
    assert "Separating: 3 segments<" in view.status(job, 0)
    job = Job("m", "me", lambda job: None, "running", "Downloading", unit="bytes", done=2_000_000)
    html = view.status(job, 0)
    assert "Downloading: 2.0 MB<" in html and "value" not in html


def test_texts_from_outside_are_escaped():
    job = Job("<script>alert(1)</script>", "me", lambda job: None, state="running")
    assert "<script>" not in view.status(job, 0)
    assert "<img" not in view.table("t", ["a"], [("<img src=x>",)])


# --- pictures ---------------------------------------------------------------------------------


def test_the_waveform_shows_where_it_is_loud():
    signal = np.zeros((2, RATE * 4), np.float32)
    signal[:, RATE * 2 :] = 0.5
    pieces = np.array_split(signal, 37, axis=1)
    peaks = overview(pieces, signal.shape[1], RATE).peaks
    assert peaks.shape == (COLUMNS,)
    assert not peaks[: COLUMNS // 2].any()
    assert (peaks[COLUMNS // 2 :] == 128).all()


def test_the_spectrogram_shows_a_tone_at_its_height():
    time_axis = np.arange(RATE * 3) / RATE
    tone = np.sin(2 * np.pi * 1000 * time_axis).astype(np.float32)[None]
    picture = overview([tone], tone.shape[1], RATE).spectrogram
    assert picture.shape == (COLUMNS, BANDS)
    band = BANDS * np.log(1000 / 40) / np.log(16000 / 40)
    loudest = picture[100:-100].argmax(1)
    assert abs(loudest - band).max() < 2
    assert picture[100:-100].max(1).min() > 240  # full scale


def test_pictures_do_not_depend_on_how_the_stream_is_cut():
    signal = make_signal(RATE * 3, RATE)
    whole = overview([signal], signal.shape[1], RATE)
    cut = overview(np.array_split(signal, 53, axis=1), signal.shape[1], RATE)
    assert (whole.peaks == cut.peaks).all()
    assert (whole.spectrogram == cut.spectrogram).all()


@pytest.mark.parametrize("samples", [1, 7, 1201, 50_000])
def test_short_tracks_have_pictures_too(samples):
    view = overview([np.full((1, samples), 0.25, np.float32)], samples, RATE)
    assert (view.peaks == 64).all()
    assert len(view.peaks) == min(samples, COLUMNS)


# --- songs ------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Song:
    """A song of a mixture and two stems, one second, in 24 bit."""
    stems = [make_signal(RATE, RATE) * 0.5, make_signal(RATE, RATE)[:, ::-1] * 0.25]
    signals = {"mixture": stems[0] + stems[1], "a": stems[0], "b": stems[1]}
    for name, signal in signals.items():
        with AudioWriter(tmp_path / f"{name}.wav", RATE, 2, bit_depth=24) as writer:
            writer.write(signal)
    tracks = tuple(Track(name, tmp_path / f"{name}.wav") for name in signals)
    song = Song("token", tmp_path, "A song", RATE, 2, RATE, tracks)
    song.draw()
    return song


def test_sound_is_a_piece_of_all_tracks(pair):
    values = np.frombuffer(pair.pcm(1000, 500), "<i2").reshape(3, 500, 2)
    for number, name in enumerate(("mixture", "a", "b")):
        truth = read_all(pair.folder / f"{name}.wav")[:, 1000:1500].T
        assert np.abs(values[number] / 32768 - truth).max() <= 0.51 / 32768
    assert len(pair.pcm(RATE - 10, 500)) == 3 * 10 * 2 * 2
    assert pair.pcm(RATE + 5, 500) == b""


def test_the_mix_is_what_is_heard(pair):
    path = pair.mix({1: 0.5, 2: 2.0})
    truth = 0.5 * read_all(pair.folder / "a.wav") + 2 * read_all(pair.folder / "b.wav")
    assert np.abs(read_all(path) - truth).max() < 2**-22
    with pytest.raises(AudioError, match="unmute"):
        pair.mix({1: 0.0})
    with pytest.raises(AudioError):
        pair.mix({9: 1.0})


def test_the_zip_holds_the_stems_under_their_names(pair):
    with zipfile.ZipFile(pair.archive()) as archive:
        assert archive.namelist() == ["A song - a.wav", "A song - b.wav"]
        assert archive.read("A song - a.wav") == (pair.folder / "a.wav").read_bytes()


def test_songs_expire_and_their_files_too(tmp_path):
    library = Library(tmp_path / "songs", keep_seconds=60)
    with library.new_folder() as folder:
        pass
    assert folder.stat().st_mode & 0o077 == 0
    song = library.add(Song(folder.name, folder, "s", RATE, 2, 1, ()))
    library.expire()
    assert library.get(song.token) is song
    song.used -= 61
    library.expire()
    assert not folder.exists()
    with pytest.raises(AudioError, match="no longer"):
        library.get(song.token)


# --- the service ------------------------------------------------------------------------------


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
    job = service.submit(Request(path, "tiny", shifts=50), "me/")
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
    service = Service(Settings(device="cpu"))
    begun = threading.Event()
    monkeypatch.setattr(Job, "report", lambda job, progress: begun.set())
    path = song("a.wav", make_signal(RATE * 10, RATE))
    job = service.submit(Request(path, "tiny", shifts=50), "me/")
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
        async for _ in watch_all(service, [done, last]):
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
    first, second = pool.get(card), pool.get(card, overlap=0.5, shifts=2)
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
    service = Service(Settings(device="cpu"))
    job = finished(service.submit(Request(song("a.wav"), "tiny"), "me/"))
    assert job.result.folder.is_dir()
    service.close()
    assert not service.root.exists()


def test_strangers_may_not_change_models():
    assert Settings().may_manage
    assert not Settings(host="0.0.0.0").may_manage
    assert Settings(host="0.0.0.0", user="me", password="secret").may_manage
    with pytest.raises(ConfigError, match="password"):
        Settings(user="me")


def test_a_user_without_a_password_is_told_where_to_put_it(cli, monkeypatch):
    monkeypatch.delenv("SEPARATOR_PASSWORD", raising=False)
    assert "SEPARATOR_PASSWORD" in cli("app", "--user", "me", code=2).stderr


def test_a_taken_port_is_told_in_one_line(cli):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = cli("app", "--port", taken.getsockname()[1], code=2).stderr
    assert "Choose another --port" in said and said.count("\n") == 1


# --- the player's addresses -------------------------------------------------------------------


@pytest.fixture
def client(service, pair):
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from separator.web.routes import add_routes

    app = FastAPI()
    add_routes(app, service)
    service.library.add(pair)
    return TestClient(app)


def test_the_player_gets_what_it_needs(client, pair):
    data = client.get("/stems/token/player.json").json()
    assert [track["name"] for track in data["tracks"]] == ["mixture", "a", "b"]
    assert data["samples"] == RATE and len(data["tracks"][1]["peaks"]) == COLUMNS
    assert "path" not in str(data)
    sound = client.get("/stems/token/sound?start=5&count=7")
    assert len(sound.content) == 3 * 7 * 2 * 2
    assert len(client.get("/stems/token/spectrogram/1").content) == COLUMNS * BANDS
    stem = client.get("/stems/token/track/1")
    assert stem.content == (pair.folder / "a.wav").read_bytes()
    assert "A%20song%20-%20a.wav" in stem.headers["content-disposition"]


def test_zips_and_mixes_are_downloaded_and_cleaned_up(client, pair):
    archive = client.get("/stems.zip?token=token&token=token")
    with zipfile.ZipFile(io.BytesIO(archive.content)) as file:
        assert "01 A song/A song - a.wav" in file.namelist()
    some = client.get("/stems.zip?token=gone&token=token")
    with zipfile.ZipFile(io.BytesIO(some.content)) as file:
        assert len(file.namelist()) == 2, "what is left"
    assert client.get("/stems/token/mix.wav?1=1&2=0.5").content.startswith(b"RIFF")
    assert not list(pair.folder.glob("mix-*"))


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/stems/other/player.json", 404),
        ("/stems/..%2f..%2fetc/player.json", 404),
        ("/stems/token/track/9", 404),
        ("/stems/token/track/-1", 404),
        ("/stems/token/spectrogram/7", 404),
        ("/stems/token/sound?start=-1&count=5", 422),
        ("/stems/token/mix.wav?1=loud", 400),
        ("/stems/token/mix.wav", 400),
        ("/stems.zip?token=other&token=gone", 404),
        ("/stems.zip", 404),
        ("/stems-static/../jobs.py", 404),
    ],
)
def test_wrong_addresses_give_nothing(client, address, status):
    assert client.get(address).status_code == status


def test_the_browser_may_talk_to_this_server_alone(client):
    policy = client.get("/stems-static/player.js").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
