"""Write a small Demucs file that DiffQ itself has quantised, and what Demucs then answers.

    PYTHONPATH=.:tests python scripts/make_reference_quantized.py

Run it with an interpreter that has demucs and diffq; tests/test_packages.py needs only the files
that it writes to tests/data: one for each layout of the packed numbers, and the estimates.
"""

import numpy as np
import reference
import torch
from demucs.demucs import Demucs  # demucs 4.1.0
from diffq import DiffQuantizer, restore_quantized_state  # diffq 0.2.4

ARGUMENTS = {
    "sources": ["drums", "vocals"],
    "channels": 4,
    "depth": 2,
    "dconv_mode": 0,
    "lstm_layers": 0,
    "resample": False,
    "normalize": False,
}
OPTIONS = {"group_size": 4, "min_size": 150 * 4 / 2**20}  # parameters of more than 150 numbers


def quantized(torch_pack: bool) -> dict[str, object]:
    """Return the state of a network whose groups of weights have 2 to 5 bits."""
    network = Demucs(**ARGUMENTS)
    network.load_state_dict(reference.weights(network.state_dict()))
    quantizer = DiffQuantizer(network, **OPTIONS)
    for parameter in quantizer._qparams:
        bits = 2 + torch.arange(parameter.logit.numel()).reshape(parameter.logit.shape) % 4
        share = (bits + 0.1 - quantizer.min_bits) / (quantizer.max_bits - quantizer.min_bits)
        parameter.logit.data[:] = torch.logit(share)
    return quantizer.get_quantized_state(packed=True, torch_pack=torch_pack)


def main() -> None:
    """Write the files."""
    for layout, torch_pack in (("cython", False), ("torch", True)):
        state = quantized(torch_pack) | {"__quantized": True}
        package = {"klass": Demucs, "args": (), "kwargs": ARGUMENTS, "state": state}
        path = reference.DATA / f"quantized_{layout}.th"
        torch.save(package | {"training_args": {}}, path)
        network = Demucs(**ARGUMENTS)
        restore_quantized_state(network, state)
        with torch.inference_mode():
            estimates = network.eval()(reference.mixture(3000))
        np.savez(reference.DATA / "reference_quantized.npz", estimates=reference.some(estimates))
        print(f"{path.name}: {path.stat().st_size} bytes, {tuple(estimates.shape)}")


if __name__ == "__main__":
    main()
