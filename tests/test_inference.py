import gc
import threading
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from separator.errors import Cancelled, ConfigError, ModelError
from separator.stream.blocks import in_step
from separator.stream.facts import track_statistics
from separator.stream.inference import Plan, cut_segments, separate_stream
from separator.stream.progress import Monitor, Progress
from separator.stream.runner import Runner, pick_device, pick_precision

SEGMENT = 64
LENGTHS = [1, 2, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 10 * SEGMENT + 7, 997]


class Gains(nn.Module):
    """Two stems that are the mixture times a fixed gain: separation with a known result."""

    stems = ("loud", "soft")
    sample_rate = 100
    channels = 2

    def __init__(self, memory: int | None = None) -> None:
        super().__init__()
        self.core = nn.Identity()
        self.memory = memory
        self.sizes: list[int] = []

    def forward(self, mixture: Tensor, *, stems: tuple[int, ...] | None = None) -> Tensor:
        self.sizes.append(len(mixture))
        if self.memory is not None and len(mixture) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        gains = torch.tensor([0.75, 0.25])[list(stems) if stems else slice(None)]
        return gains[:, None, None] * mixture[:, None]


def noise(samples: int, seed: int = 0) -> Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


def separate(mixture: Tensor, plan: Plan, block: int = 50, network: nn.Module | None = None):
    stream = separate_stream(mixture.split(block, dim=-1), Runner(network or Gains()), plan)
    return torch.cat(list(stream), dim=-1)


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("shifts", [0, 3])
def test_linear_network_comes_through_unchanged(samples, overlap, batch_size, shifts):
    mixture = noise(samples)
    plan = Plan(SEGMENT, overlap, batch_size, shifts, seed=5)
    estimates = separate(mixture, plan)
    assert estimates.shape == (2, 2, samples)
    torch.testing.assert_close(estimates[0], 0.75 * mixture, atol=1e-6, rtol=0)
    torch.testing.assert_close(estimates.sum(0), mixture, atol=1e-6, rtol=0)


@pytest.mark.parametrize("block", [1, 7, SEGMENT, 10_000])
def test_result_does_not_depend_on_the_blocks(block):
    mixture = noise(500)
    plan = Plan(SEGMENT, 0.5, shifts=2)
    assert torch.equal(separate(mixture, plan, block), separate(mixture, plan, 50))


class Window(Gains):
    """Depends on the place inside the segment, so that shifts show."""

    def forward(self, mixture, *, stems=None):
        ramp = torch.linspace(0, 1, mixture.shape[-1])
        return super().forward(mixture * ramp, stems=stems)


def test_seed_decides_the_shifts():
    mixture = noise(400)

    def run(seed):
        return separate(mixture, Plan(SEGMENT, 0.5, shifts=3, seed=seed), network=Window())

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("samples", [SEGMENT - 1, 400])
def test_shifted_passes_are_one_weighted_mean(samples):
    mixture, plan, network = noise(samples), Plan(SEGMENT, 0.5, shifts=3), Window()
    heard, weighed = torch.zeros(2, 2, samples), torch.zeros(samples)
    for offset in plan.offsets:
        delayed = torch.cat([torch.zeros(2, offset), mixture], dim=-1)
        for segment in cut_segments([delayed], plan):
            estimate = network(segment.audio[None])[0]
            for place, weight in enumerate(segment.weights.tolist()):
                if (time := segment.start + place - offset) >= 0:
                    heard[..., time] += weight * estimate[..., place]
                    weighed[time] += weight
    expected = heard / weighed
    torch.testing.assert_close(separate(mixture, plan, network=network), expected)


def test_more_shifts_hold_no_more_estimates():
    class Many(Gains):
        """Gives many stems, so that what is held of them outweighs the track."""

        held: ClassVar[list[int]] = []

        def forward(self, mixture, *, stems=None):
            tensors = [each for each in gc.get_objects() if type(each) is Tensor]
            self.held.append(sum(tensor.numel() for tensor in tensors))
            return mixture[:, None].expand(-1, 100, -1, -1).clone()

    def peak(shifts):
        Many.held.clear()
        gc.collect()
        gc.freeze()  # of what is there already nothing counts, and nothing has to be looked at
        separate(noise(3 * SEGMENT), Plan(SEGMENT, 0.5, shifts=shifts), network=Many())
        return max(Many.held)

    assert peak(16) - peak(2) < 100 * 2 * SEGMENT, "one segment of estimates"


def test_empty_stream_gives_nothing():
    assert list(separate_stream([], Runner(Gains()), Plan(SEGMENT))) == []
    assert list(separate_stream([noise(0)], Runner(Gains()), Plan(SEGMENT))) == []


def test_groups_are_separated_side_by_side():
    mixture = torch.stack([noise(300, seed) for seed in range(3)])  # (groups, channels, time)
    estimates = separate(mixture, Plan(SEGMENT, 0.5, 2))
    assert estimates.shape == (3, 2, 2, 300)
    torch.testing.assert_close(estimates[:, 1], 0.25 * mixture, atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.75])
def test_segments_are_full_of_audio_and_counted(samples, overlap):
    plan = Plan(SEGMENT, overlap)
    mixture = torch.arange(samples, dtype=torch.float32)[None]
    cut = list(cut_segments(mixture.split(11, dim=-1), plan))
    assert len(cut) == plan.segments(samples)
    for segment in cut:
        assert segment.audio.shape[-1] == len(segment.weights) == min(SEGMENT, samples)
        assert torch.equal(segment.audio, mixture[:, segment.start : segment.start + SEGMENT])
    assert cut[-1].start + cut[-1].audio.shape[-1] == samples
    starts = [segment.start for segment in cut]
    assert starts == sorted(set(starts))


def test_memory_of_the_stream_is_bounded():
    plan = Plan(SEGMENT, 0.5)
    pulled = 0

    def blocks():
        nonlocal pulled
        for _ in range(1000):
            pulled += 10
            yield noise(10)

    given = 0
    for piece in separate_stream(blocks(), Runner(Gains()), plan):
        given += piece.shape[-1]
        assert pulled - given <= 2 * SEGMENT + 10
    assert given == 10_000


def test_progress_counts_segments():
    plan = Plan(SEGMENT, 0.5, batch_size=2, shifts=2)
    seen: list[Progress] = []
    monitor = Monitor(plan.segments(500), seen.append)
    list(separate_stream([noise(500)], Runner(Gains()), plan, monitor))
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert seen[-1].done == seen[-1].total
    assert seen[-1].fraction == 1
    assert Progress(3, None).fraction is None


def test_cancel_stops_between_batches():
    cancel = threading.Event()
    network = Gains()
    monitor = Monitor(report=lambda progress: cancel.set(), cancel=cancel)
    with pytest.raises(Cancelled):
        list(separate_stream([noise(1000)], Runner(network), Plan(SEGMENT), monitor))
    assert len(network.sizes) == 1


def test_scarce_memory_halves_the_batch_and_says_so():
    network = Gains(memory=2)
    runner = Runner(network)
    mixture = noise(1000)
    stream = separate_stream([mixture], runner, Plan(SEGMENT, batch_size=8))
    estimates = torch.cat(list(stream), dim=-1)
    torch.testing.assert_close(estimates.sum(0), mixture, atol=1e-6, rtol=0)
    assert network.sizes[:3] == [8, 4, 2]
    assert max(network.sizes[3:]) == 2, "the smaller batch is remembered"
    assert runner.notes[-1] == "Out of memory with 4 segments at once; went on with 2."


class Small(Gains):
    """Network on a device where so many samples fit, over all segments of a batch."""

    def __init__(self, fits: int, wants: int = 0) -> None:
        super().__init__()
        self.fits, self.wants, self.failures = fits, wants, 0

    def valid_length(self, samples: int) -> int:
        return max(samples, self.wants)

    def forward(self, mixture, *, stems=None):
        if len(mixture) * max(mixture.shape[-1], self.wants) > self.fits:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(mixture, stems=stems)


@pytest.mark.parametrize("fits", [3 * SEGMENT, SEGMENT, SEGMENT // 2, SEGMENT // 5])
@pytest.mark.parametrize("recipe", ["default", "demucs", "msst", "msst-flat"])
def test_scarce_memory_shortens_batches_then_segments(fits, recipe):
    network, mixture = Small(fits), noise(1000)
    runner, plan = Runner(network), Plan(SEGMENT, 0.5, batch_size=4, recipe=recipe)
    estimates = torch.cat(list(separate_stream([mixture], runner, plan)), dim=-1)
    torch.testing.assert_close(estimates.sum(0), mixture, atol=1e-6, rtol=0)
    assert ("cut into" in runner.notes[-1]) == (fits < SEGMENT)


def test_what_fits_into_memory_is_learnt_once():
    network, mixture = Small(SEGMENT // 2), noise(1000)
    runner, plan = Runner(network), Plan(SEGMENT, batch_size=4)
    runs = [runner.with_stems(None), runner.with_stems(None), runner.augmented(("polarity",))]
    failures = []
    for run in runs:
        list(separate_stream([mixture], run, plan))
        failures.append(network.failures)
        assert "cut into 32 samples" in run.notes[-1]  # each run is told of what changes its sound
    assert failures == [3, 3, 3]  # four segments, two, one


def test_segments_that_the_network_needs_whole_are_not_cut():
    network = Small(SEGMENT // 2, wants=SEGMENT)
    with pytest.raises(ModelError, match="shorter --segment"):
        list(separate_stream([noise(1000)], Runner(network), Plan(SEGMENT, recipe="demucs")))


def test_one_segment_too_large_is_an_error():
    with pytest.raises(ModelError, match="shorter --segment"):
        list(separate_stream([noise(1000)], Runner(Gains(memory=0)), Plan(SEGMENT)))


def test_other_runtime_errors_are_not_taken_for_scarce_memory():
    class Broken(Gains):
        def forward(self, mixture, *, stems=None):
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(separate_stream([noise(100)], Runner(Broken()), Plan(SEGMENT)))


def test_estimates_that_are_no_numbers_are_refused():
    class Overflowing(Gains):
        def forward(self, mixture, *, stems=None):
            return super().forward(mixture, stems=stems) / torch.zeros(1)

    with pytest.raises(ModelError, match="in float32: its weights are damaged"):
        Runner(Overflowing())(noise(10)[None])
    with pytest.raises(ModelError, match="in float16; use --precision float32"):
        Runner(Overflowing(), precision=torch.float16)(noise(10)[None])


def test_a_run_with_other_stems_leaves_the_network_alone():
    network = Gains()
    runner = Runner(network, augmentations=("swap",))
    network.core.to = lambda *_: pytest.fail("other threads may be running it")
    other = runner.with_stems((1,))
    assert (other.network, other.stems, other.augmentations) == (network, (1,), ("swap",))
    other.notes.append("a note of its own")
    assert not runner.notes
    assert runner.stems is None


def test_augmentation_cancels_what_depends_on_side_and_sign():
    class Crooked(Gains):
        """Adds a constant and favours the left channel."""

        def forward(self, mixture, *, stems=None):
            side = torch.tensor([1.5, 0.5])[:, None]
            return super().forward(mixture * side, stems=stems) + 0.1

    mixture = noise(10)[None]
    plain = Runner(Crooked())(mixture)[:, 0]
    swapped = Runner(Crooked(), augmentations=("swap",))(mixture)[:, 0]
    flipped = Runner(Crooked(), augmentations=("polarity",))(mixture)[:, 0]
    side = torch.tensor([1.5, 0.5])[:, None]
    torch.testing.assert_close(plain, 0.75 * side * mixture + 0.1)
    torch.testing.assert_close(swapped, 0.75 * mixture + 0.1)
    torch.testing.assert_close(flipped, 0.75 * side * mixture)
    with pytest.raises(ConfigError, match="swap, polarity"):
        Runner(Gains(), augmentations=("reverse",))


def test_chosen_stems_only():
    estimates = Runner(Gains(), stems=(1,))(noise(10)[None])
    assert estimates.shape == (1, 1, 2, 10)


def test_in_step_follows_the_first_stream():
    a, b = torch.arange(10.0), torch.arange(10.0) * 2
    pieces = list(in_step([a.split(3), b.split(4)]))
    assert all(x.shape == y.shape for x, y in pieces)
    assert torch.equal(torch.cat([x for x, _ in pieces]), a)
    assert torch.equal(torch.cat([y for _, y in pieces]), b)
    longer = list(in_step([a[:7].split(3), b.split(4)]))
    assert torch.equal(torch.cat([y for _, y in longer]), b[:7]), "the first one leads"
    with pytest.raises(ModelError, match="ended before"):
        list(in_step([a.split(3), b[:-1].split(3)]))


@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_track_statistics_equal_those_of_the_whole(scale):
    mixture = noise(10_001) * scale + 0.3
    mean, deviation = track_statistics(mixture.split(97, dim=-1))
    whole = mixture.mean(0).double()
    assert mean == pytest.approx(whole.mean().item(), rel=1e-6)
    assert deviation == pytest.approx(whole.std().item(), rel=1e-6)
    assert track_statistics([]) == (0.0, 0.0)
    assert track_statistics([torch.ones(2, 1)]) == (1.0, 0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"segment_samples": 0},
        {"segment_samples": 4, "overlap": 1.0},
        {"segment_samples": 4, "overlap": -0.1},
        {"segment_samples": 4, "batch_size": 0},
        {"segment_samples": 4, "shifts": -1},
    ],
)
def test_plan_refuses_impossible_values(settings):
    with pytest.raises(ConfigError):
        Plan(**settings)


def test_devices_and_precisions_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    assert pick_precision("float16", torch.device("cpu")) == torch.float16
    assert pick_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(ConfigError, match="auto, cpu, cuda, mps"):
        pick_device("tpu")
    with pytest.raises(ConfigError, match="bfloat16"):
        pick_precision("int8", torch.device("cpu"))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--device auto"):
            pick_device("cuda")
