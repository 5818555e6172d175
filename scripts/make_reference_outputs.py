"""Write what reference implementations answer to the cases of tests/reference.py.

    PYTHONPATH=.:tests python scripts/make_reference_outputs.py [case ...]

Run it with an interpreter that has the packages named in the builders below; the tests only need
the small files that it writes to tests/data.
"""

import sys
import warnings
from typing import Any

import numpy as np
import reference
import torch
from torch import nn


def rename(parameters: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in parameters.items()}


def scnet(parameters: dict[str, Any]) -> nn.Module:
    from pymss_core.modules.scnet import SCNet  # pymss-core 0.1.14

    names = {
        "stems": "sources",
        "n_fft": "nfft",
        "hop_length": "hop_size",
        "band_ratios": "band_SR",
        "band_kernels": "band_kernel",
        "band_strides": "band_stride",
        "dual_path_layers": "num_dplayer",
    }
    return SCNet(win_size=parameters["n_fft"], **rename(parameters, names))


BUILDERS = {"scnet": scnet}


def main(names: list[str]) -> None:
    warnings.filterwarnings("ignore")
    for name in names or reference.CASES:
        case = reference.CASES[name]
        network = BUILDERS[case.network](case.parameters).eval()
        network.load_state_dict(reference.weights(network.state_dict()))
        with torch.inference_mode():
            estimates = network(reference.mixture(case.samples, reference.network(name).channels))
        target = reference.DATA / f"reference_{name}.npz"
        np.savez(target, estimates=reference.some(estimates))
        print(
            f"{target.name}: {tuple(estimates.shape)}, error {reference.relative_error(name):.1e}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
