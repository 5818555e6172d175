"""The queue, and what is told of its jobs."""

import threading

import pytest
from conftest import finished

from separator.errors import AudioError, ConfigError
from separator.stream.progress import Progress
from separator.web import jobs, view
from separator.web.jobs import Job, Queue, friendly


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
    first = queue.submit(Job("first", "me", lambda job: gate.wait(300)))
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
    running = queue.submit(Job("running", "me", lambda job: gate.wait(300)))
    waiting = queue.submit(Job("waiting", "me", lambda job: None))
    with pytest.raises(ConfigError, match="Try again"):
        queue.submit(Job("refused", "me", lambda job: None))
    gate.set()
    assert finished(running).state == finished(waiting).state == "done"
    queue.close()


def test_cancelling_one_owner_leaves_the_others_alone(queue):
    gate = threading.Event()
    queue.submit(Job("running", "x/page", lambda job: gate.wait(300)))
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
