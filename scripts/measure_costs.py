"""Write into each card of a model what a second of music costs it: `gflops`.

    python scripts/measure_costs.py [FOLDER]          # what has a number keeps it

Networks run on fake tensors, which have shapes and no values, so no weights are needed. Matrix
products and convolutions of one pass over one segment count, two operations for a multiplication
with its addition; the STFT doesn't, nor what segments overlap. Networks that can't run without
values get no number.
"""

import sys
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from separator.networks.spleeter import N_FFT
from separator.training.dryrun import StandIns
from separator.zoo.cards import Card, read_card
from separator.zoo.load import build_from_card


def cost(card: Card) -> float:
    """Return the GFLOP of a second of music."""
    counter = FlopCounterMode(display=False)
    with FakeTensorMode():
        network = build_from_card(card).eval()
        samples = min(card.segment_samples, getattr(network, "longest_samples", None) or 10**9)
        if card.recipe == "spleeter":
            samples -= N_FFT  # the silence before a track is in its first chunk
        valid_length = getattr(network, "valid_length", int)
        with StandIns(), torch.no_grad(), counter:
            network(torch.zeros(1, card.channels, valid_length(samples)))
    return counter.get_total_flops() / 1e9 / (samples / card.sample_rate)


def note(path: Path, gflops: float) -> None:
    """Put the number before the weights, where the schema has it; leave all else as it is."""
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if "gflops:" not in line
    ]
    lines.insert(lines.index("weights:"), f"gflops: {gflops:.3g}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "models")
    known: dict[str, float] = {}  # many cards are alike in all but their weights
    for path in sorted(folder.glob("*.yaml")):
        card = read_card(path)
        if not isinstance(card, Card):
            continue
        key = repr((card.network, card.parameters, len(card.stems), card.segment))
        if card.gflops:
            known[key] = card.gflops
            continue
        try:
            gflops = known[key] if key in known else cost(card)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            print(f"{card.name}: {type(error).__name__}: {str(error).splitlines()[0]}"[:150])
            continue
        known[key] = gflops
        note(path, gflops)
        print(f"{card.name}: {gflops:.3g} GFLOP a second of music", flush=True)


if __name__ == "__main__":
    main()
