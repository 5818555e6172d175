"""Compare BSSEval with museval on random cases; fail if any score differs by over 1e-3 dB.

python scripts/check_museval_agreement.py --cases 200
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from museval.metrics import bss_eval as official

from separator.evaluation.bss_eval import bss_eval

ALLOWED = 1e-3  # dB
NAMES = ("SDR", "ISR", "SIR", "SAR")


@dataclass(frozen=True)
class Case:
    """Everything that is drawn at random."""

    seed: int
    sources: int
    channels: int
    length: int
    window: int
    hop: int
    filter_length: int
    framewise: bool
    correlation: float  # of sources and of channels
    colour: float  # of the references' spectra
    noise_db: float
    gain_db: float
    silence: bool

    @classmethod
    def random(cls, seed: int) -> "Case":
        """Draw a case; frames hold twice as many samples as there are filter taps at least."""
        rng = np.random.default_rng(seed)
        filter_length = int(rng.choice([1, 2, 7, 16, 33, 64, 128, 512]))
        many = filter_length < 512
        sources, channels = (int(rng.integers(1, most)) for most in ((6, 4) if many else (3, 3)))
        window = 2 * sources * channels * filter_length + int(rng.integers(1, 1000))
        return cls(
            seed=seed,
            sources=sources,
            channels=channels,
            length=int(window * rng.uniform(0.8, 4)),
            window=window,
            hop=int(window * rng.uniform(0.3, 1.5)) + 1,
            filter_length=filter_length,
            framewise=bool(rng.random() < 0.3),
            correlation=float(10 ** rng.uniform(-3, 3)),
            colour=float(rng.uniform(-0.99, 0.99)),
            noise_db=float(rng.uniform(-60, 10)),
            gain_db=float(rng.uniform(-60, 60)),
            silence=bool(rng.random() < 0.2),
        )

    def signals(self) -> tuple[np.ndarray, np.ndarray]:
        """Return references and estimates of shape `(sources, channels, time)`."""
        rng = np.random.default_rng(self.seed)
        references = rng.standard_normal((self.sources, self.channels, self.length))
        references[:, :, 1:] += self.colour * references[:, :, :-1]
        references += self.correlation * references.mean(axis=1, keepdims=True)
        references += self.correlation * references.mean(axis=0)
        mixing = np.eye(self.sources) + 0.2 * rng.standard_normal((self.sources, self.sources))
        estimates = np.einsum("ij,jct->ict", mixing, references)
        estimates[:, :, 3:] += 0.3 * references[:, ::-1, :-3]
        estimates += 10 ** (self.noise_db / 20) * rng.standard_normal(references.shape)
        if self.silence:
            start = int(rng.integers(self.length))
            references[rng.integers(self.sources), :, start : start + self.window] = 0.0
        gain = 10 ** (self.gain_db / 20)
        return gain * references, gain * estimates

    @property
    def sounds(self) -> bool:
        """Tell whether every source sounds somewhere."""
        references, _ = self.signals()
        return bool(references.sum(axis=1).any(axis=1).all())


def draw(count: int, first_seed: int) -> Iterator[Case]:
    """Yield cases; museval refuses those with a source that is silent throughout."""
    cases = (case for case in map(Case.random, itertools.count(first_seed)) if case.sounds)
    return itertools.islice(cases, count)


def compare(case: Case) -> np.ndarray:
    """Return the largest absolute differences in dB of the four scores."""
    references, estimates = case.signals()
    ours = bss_eval(
        torch.from_numpy(references),
        torch.from_numpy(estimates),
        window=case.window,
        hop=case.hop,
        filter_length=case.filter_length,
        framewise_filters=case.framewise,
    )
    theirs = official(
        references.transpose(0, 2, 1),
        estimates.transpose(0, 2, 1),
        window=case.window,
        hop=case.hop,
        filters_len=case.filter_length,
        framewise_filters=case.framewise,
    )
    differences = []
    for score, expected in zip(ours, theirs[:4], strict=True):
        actual = score.numpy()
        finite = np.isfinite(actual) | np.isfinite(expected)
        if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
            return np.full(4, np.inf)
        differences.append(np.abs(actual[finite] - expected[finite]).max(initial=0.0))
    return np.array(differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args()

    cases = [*draw(args.cases, args.first_seed)]
    differences = np.stack([compare(case) for case in cases])  # (cases, scores)
    for name, column in zip(NAMES, differences.T, strict=True):
        worst = int(column.argmax())
        print(f"{name}: largest difference {column[worst]:.1e} dB, with {cases[worst]}")
    print(f"{len(cases)} cases, largest difference {differences.max():.1e} dB, allowed {ALLOWED:g}")
    sys.exit(not differences.max() <= ALLOWED)


if __name__ == "__main__":
    main()
