"""Recipes: equal to the programs that they come from, whole for an identity, flat in memory."""

from collections.abc import Iterator

import numpy as np
import pytest
import reference
import reference_recipes
import torch
from reference_recipes import Track, demix, demix_flat
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.spectral.overlap_add import OverlapAdd, triangle
from separator.stream.facts import Facts, track_statistics
from separator.stream.inference import Plan, cut_segments, separate_stream
from separator.stream.model import Solo
from separator.stream.progress import Monitor
from separator.stream.runner import Runner
from separator.stream.segments import RECIPES, Tape

SIZE = 64
LENGTHS = [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 640, 997]


def noise(samples: int) -> Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))


class Place(nn.Module):
    """Answer by the place in the segment and by what surrounds it, so that both show."""

    stems = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Identity()

    def forward(self, mixture: Tensor, *, stems: object = None) -> Tensor:
        ramp = torch.linspace(0.5, 1.5, mixture.shape[-1])
        return torch.stack([mixture * ramp, mixture.cumsum(-1)], dim=1)


class Plain(Place):
    def forward(self, mixture: Tensor, *, stems: object = None) -> Tensor:
        return torch.stack([0.75 * mixture, 0.25 * mixture], dim=1)


class Wide(Plain):
    """Wants an odd number of samples around each stretch."""

    def valid_length(self, samples: int) -> int:
        return samples + 21 + samples % 2


def run(mixture: Tensor, plan: Plan, network: nn.Module, block: int = 50) -> Tensor:
    runner = Runner(network)
    blocks = mixture.split(block, dim=-1)
    stream = separate_stream(blocks, runner, plan, valid_length=runner.valid_length)
    return torch.cat(list(stream), dim=-1)


# The programs that the recipes come from


@pytest.mark.parametrize("track", reference_recipes.CASES, ids=lambda track: track.key)
def test_demucs_agrees_with_apply_model(track: Track) -> None:
    network = reference.network(track.network)
    plan = Plan(round(reference_recipes.SEGMENT * 44100), track.overlap, 2, recipe="demucs")
    stems = network.stems
    model = Solo(stems, stems, Runner(network), plan, normalized=True)
    blocks = track.mixture.split(1000, dim=-1)
    pieces = model.separate(
        (block[None] for block in blocks), Monitor(), Facts(track_statistics(blocks))
    )
    ours = reference.some(torch.cat(list(pieces), dim=-1))
    theirs = np.load(reference.DATA / "reference_recipes.npz")[track.key]
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("size", [64, 61])
def test_msst_agrees_with_demix(samples: int, parts: int, size: int) -> None:
    mixture = noise(samples)
    plan = Plan(size, 1 - 1 / parts, 3, recipe="msst")
    theirs = demix(mixture, Place(), size, parts)
    torch.testing.assert_close(run(mixture, plan, Place()), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_msst_flat_agrees_with_demix(samples: int, parts: int) -> None:
    mixture = noise(samples)
    plan = Plan(SIZE, 1 - 1 / parts, 3, recipe="msst-flat")
    theirs = demix_flat(mixture, Place(), SIZE, parts)
    torch.testing.assert_close(run(mixture, plan, Place()), theirs, atol=1e-5, rtol=1e-5)


# What every recipe keeps


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shifts", [0, 2])
def test_a_linear_network_comes_through(samples: int, recipe: str, shifts: int) -> None:
    mixture = noise(samples)
    estimates = run(mixture, Plan(SIZE, 0.5, 3, shifts, recipe=recipe), Wide())
    assert estimates.shape == (2, 2, samples)
    torch.testing.assert_close(estimates[0], 0.75 * mixture, atol=1e-6, rtol=0)
    torch.testing.assert_close(estimates.sum(0), mixture, atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("overlap", [0.5, 0.75])
def test_segments_are_counted(samples: int, recipe: str, overlap: float) -> None:
    plan = Plan(SIZE, overlap, recipe=recipe)
    cut = list(cut_segments(noise(samples).split(11, dim=-1), plan))
    assert len(cut) == plan.segments(samples)
    covered = torch.zeros(samples)
    for segment in cut:
        covered[segment.start : segment.start + len(segment.weights)] += segment.weights
    assert covered.min() > 0


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("block", [1, 7, SIZE, 10_000])
def test_the_blocks_dont_matter(recipe: str, block: int) -> None:
    mixture, plan = noise(500), Plan(SIZE, 0.75, recipe=recipe)
    assert run(mixture, plan, Place(), block).equal(run(mixture, plan, Place(), 50))


@pytest.mark.parametrize("recipe", RECIPES)
def test_memory_is_bounded(recipe: str) -> None:
    pulled = given = 0

    def blocks() -> Iterator[Tensor]:
        nonlocal pulled
        for _ in range(3000):
            pulled += 10
            yield noise(10)

    plan = Plan(SIZE, 0.5, recipe=recipe)
    longest = next(cut_segments([noise(SIZE)], plan)).audio.shape[-1]
    for piece in separate_stream(blocks(), Runner(Wide()), plan, valid_length=Wide().valid_length):
        given += piece.shape[-1]
        assert pulled - given <= 3 * longest + 10
    assert given == 30_000


def test_empty_streams_give_nothing() -> None:
    for recipe in RECIPES:
        plan = Plan(SIZE, 0.5, recipe=recipe)
        assert list(cut_segments([], plan)) == list(cut_segments([noise(0)], plan)) == []


# Context


def test_demucs_puts_real_audio_around_segments() -> None:
    mixture = torch.arange(1.0, 201)[None]
    cut = list(cut_segments([mixture], Plan(SIZE, 0.25, recipe="demucs"), lambda samples: 100))
    assert [segment.start for segment in cut] == [0, 48, 96, 144, 192]
    assert all(segment.audio.shape[-1] == 100 for segment in cut)
    for segment in cut:
        first = segment.start - segment.context
        for place, value in enumerate(segment.audio[0].tolist()):
            inside = 0 <= first + place < 200
            assert value == (first + place + 1 if inside else 0)
    assert len(cut[-1].weights) == 8
    assert cut[-1].context == 46


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"recipe": "demix"},
            "Unknown recipe 'demix'; allowed: default, demucs, msst, msst-flat, spleeter.",
        ),
        ({"recipe": "msst", "overlap": 0.25}, "allowed are 0, 0.5, 0.667, 0.75, 0.8"),
        ({"recipe": "msst", "overlap": 0.6}, "into equal parts; the overlap is 0.6"),
    ],
)
def test_what_a_recipe_cant_cut_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plan(SIZE, **settings)
    assert message in str(caught.value)


# Parts


def test_a_tape_keeps_what_is_needed() -> None:
    tape = Tape(torch.arange(10.0).split(3))
    assert tape.reaches(4)
    assert tape.end == 6
    assert tape.read(-2, 3).tolist() == [0, 0, 0, 1, 2]
    tape.forget(5)
    assert tape.read(5, 6).tolist() == [5]
    assert not tape.reaches(11)
    assert tape.read(8, 12).tolist() == [8, 9, 0, 0]


@pytest.mark.parametrize("samples", [1, 2, 5, 8, 4097])
def test_triangle_is_positive_and_symmetric(samples: int) -> None:
    weights = triangle(samples)
    assert weights.min() > 0
    assert weights.max() == 1
    assert torch.equal(weights, weights.flip(0))


def test_overlap_add_hands_out_only_final_samples() -> None:
    adder, weights = OverlapAdd(), triangle(4)
    assert adder.add(0, torch.ones(1, 4), weights).shape == (1, 0)
    assert torch.equal(adder.add(2, torch.ones(1, 4), weights), torch.ones(1, 2))
    assert adder.add(4, torch.ones(1, 1), weights[:1]).shape == (1, 2)
    assert torch.equal(adder.finish(), torch.ones(1, 2))
