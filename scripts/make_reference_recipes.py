"""Write what Demucs' `apply_model` answers to the cases of tests/reference_recipes.py.

    PYTHONPATH=.:tests:scripts python scripts/make_reference_recipes.py

Run it with an interpreter that has demucs 4.1.0; the tests only need the file that it writes to
tests/data.
"""

import numpy as np
import reference
import reference_recipes
from demucs.apply import apply_model
from make_reference_outputs import demucs


def main() -> None:
    answers = {}
    for track in reference_recipes.CASES:
        case = reference.CASES[track.network]
        network = demucs(track.network, case.parameters).eval()
        network.load_state_dict(reference.weights(network.state_dict()))
        segment = None if track.network == "htdemucs" else reference_recipes.SEGMENT
        mixture = track.mixture
        mono = mixture.mean(0)
        scale = mono.std() + 1e-8
        estimates = apply_model(
            network,
            ((mixture - mono.mean()) / scale)[None],
            shifts=0,
            overlap=track.overlap,
            segment=segment,
        )
        answers[track.key] = reference.some(estimates * scale + mono.mean())
        print(f"{track.key}: {tuple(estimates.shape)}")
    np.savez(reference.DATA / "reference_recipes.npz", **answers)


if __name__ == "__main__":
    main()
