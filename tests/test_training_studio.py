"""Songs made by other processes and mixed where the network is trained."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from separator.errors import ConfigError, ModelError
from separator.synthesis import programs
from separator.training.data import studio as studio_module
from separator.training.data.bank import Bank
from separator.training.data.sources import Plan
from separator.training.data.studio import Studio, StudioSongs, draw

CPU = torch.device("cpu")
STEMS = ("drums", "vocals")
RATE = 8000


def plan_of(**changes):
    given = {"stems": STEMS, "sample_rate": RATE, "channels": 2, "samples": 4000, "batch": 3}
    return Plan(**given | changes)


def studio_of(**changes):
    given = {"duration": 1.0, "processes": 1, "opening": 2, "pool": 3, "batches_per_song": 2}
    return Studio(**given | changes)


def bank_of(songs: int, frames: int = 8000) -> Bank:
    """Song n, stem s: the number 100 n + s, in the right channel, and its place in the left."""
    numbers = [100 * song + stem for song in range(songs) for stem in range(len(STEMS))]
    place = torch.arange(frames).expand(len(numbers), frames)
    level = torch.tensor(numbers)[:, None].expand(-1, frames)
    samples = torch.stack([place, level], 1).to(torch.int16)
    return Bank(samples, torch.ones(len(numbers)), {}, RATE)


def drawn(options: Studio, plan: Plan, songs: int = 5, seed: int = 0):
    """Return of each stem of each segment: its song, where it begins and how fast it runs."""
    generator = torch.Generator().manual_seed(seed)
    batch = draw(bank_of(songs), songs, options, plan, generator)
    assert batch.shape == plan.shape
    middle = batch[..., plan.samples // 2]  # beyond the fades
    numbers = middle[..., 1].round()
    assert torch.equal(numbers % 100, torch.arange(len(STEMS)).expand_as(numbers))
    speed = batch[..., 0, plan.samples // 2 + 1] - middle[..., 0]
    return (numbers / 100).floor(), middle[..., 0], speed


def test_coherent_stems_come_from_one_place_of_one_song_at_one_speed():
    plan = plan_of(batch=20, coherent=1.0)
    songs, places, speeds = drawn(studio_of(varied=1.0), plan)
    for numbers in (songs, places, speeds):
        assert torch.allclose(numbers[:, 0], numbers[:, 1], atol=1e-3)
        assert len(numbers[:, 0].unique()) > 3


def test_other_stems_come_from_anywhere():
    songs, places, speeds = drawn(studio_of(varied=1.0), plan_of(batch=20, coherent=0.0))
    assert (songs[:, 0] != songs[:, 1]).sum() > 10
    assert (places[:, 0] - places[:, 1]).abs().min() > 1.0
    assert (speeds[:, 0] != speeds[:, 1]).all()


def test_speeds_stay_within_bounds_and_some_are_left_alone():
    plan = plan_of(batch=200, coherent=0.0)
    _, _, speeds = drawn(studio_of(varied=0.5, semitones=3.0), plan)
    most = 2 ** (3 / 12)
    assert speeds.min() > 0.99 / most
    assert speeds.max() < 1.01 * most
    assert 0.4 < (speeds == 1.0).float().mean() < 0.6
    assert speeds.max() > 1.1


def test_segments_lie_within_songs():
    plan = plan_of(batch=200, samples=6500)
    generator = torch.Generator().manual_seed(1)
    batch = draw(bank_of(2), 2, studio_of(varied=1.0), plan, generator)
    inside = batch[..., 1, 100:-100].round() % 100
    assert torch.equal(inside[:, 1], torch.ones_like(inside[:, 1]))  # no silence before or after


@pytest.mark.slow
def test_a_batch_is_a_function_of_its_position():
    source = StudioSongs(studio_of(), plan_of(), CPU)
    batches = [source[position] for position in range(7)]  # five songs for a pool of three
    assert all(batch.isfinite().all() for batch in batches)
    assert not torch.equal(batches[0], batches[1])
    later = StudioSongs(studio_of(), plan_of(), CPU)
    assert torch.equal(later[6], batches[6])
    assert torch.equal(later[1], batches[1])  # backwards, too
    other = StudioSongs(studio_of(), plan_of(rank=1, world_size=2), CPU)
    assert not torch.equal(other[0], batches[0])


def test_no_song_comes_back_before_all_have_been():
    sources = [
        StudioSongs(studio_of(first=100, songs=12), plan_of(rank=rank, world_size=3), CPU)
        for rank in range(3)
    ]
    songs = {source._song(number) for source in sources for number in range(4)}
    assert songs == set(range(100, 112))


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.slow
def test_songs_of_any_length_fit_the_pool(rate):
    """2.3 * 44100 is a little less than 101430."""
    options = studio_of(duration=2.3, opening=1, pool=1)
    source = StudioSongs(options, plan_of(sample_rate=rate), CPU)
    assert source[0].any()
    assert source.bank.samples.shape[-1] == pytest.approx(2.3 * rate, abs=2)


@pytest.mark.slow
def test_songs_are_what_the_composer_makes():
    source = StudioSongs(studio_of(varied=0.0, opening=1, pool=1), plan_of(), CPU)
    source[0]
    stems = studio_module.rendered(source._song(0), 1.0, source.options.palette(), plan_of())
    kept = source.bank.samples.float() / 32767
    for row, stem in zip(kept, STEMS, strict=True):
        assert np.abs(row.numpy() - stems[stem]).max() < 1e-4


@pytest.mark.slow
def test_a_stopped_process_is_told_and_does_not_hang():
    source = StudioSongs(studio_of(), plan_of(), CPU)
    source[0]
    for process in source._renderers._processes.values():
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ModelError, match="memory was short"):
        for position in range(1, 40):
            source[position]


def _trains_until_killed(pids):
    source = StudioSongs(studio_of(), plan_of(), CPU)
    source[0]
    for process in source._renderers._processes.values():
        pids.put(process.pid)
    threading.Event().wait()


@pytest.mark.slow
def test_processes_end_with_a_killed_run():
    context = multiprocessing.get_context("spawn")
    pids = context.Queue()
    run = context.Process(target=_trains_until_killed, args=(pids,))
    run.start()
    try:
        renderer = pids.get(timeout=300)
    finally:
        run.kill()
    run.join()
    deadline = time.monotonic() + 300
    while is_alive(renderer):
        assert time.monotonic() < deadline, "the process that makes songs lives on"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended may wait for ever to be asked about."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # no Linux
        return True


def test_a_pool_that_is_too_large_is_named():
    with pytest.raises(ModelError, match=r"no room for 1000000000 songs.*'data.studio.pool'"):
        StudioSongs(studio_of(pool=10**9), plan_of(), CPU)


def test_programs_are_not_in_the_way_of_signals_from_the_terminal():
    """They lead a session of their own; with a session's number they would end in an error."""
    programs.run_program(
        [sys.executable, "-c", "import os; assert os.getsid(0) == os.getpid()"], 30.0
    )
    with pytest.raises(subprocess.CalledProcessError):
        programs.run_program(
            [sys.executable, "-c", "import os; assert os.getsid(0) != os.getpid()"], 30.0
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 9000}, "too short for segments of 1.125 s played 3 semitones"),
        ({"stems": ("drum",)}, "no stem 'drum'. Did you mean 'drums'"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        StudioSongs(studio_of(), plan_of(**changes), CPU)
