"""Files of MDX-Net in ONNX: what tells the public ones apart, and for which STFT they were made.

The parameters are those of github.com/TRvlvr/application_data, 2025.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from separator.errors import ModelError

#: Public files are told by the MD5 of so many bytes at their end.
IDENTIFYING_BYTES = 10_240_000
#: MD5, n_fft, bins, frames, gain (`compensate`), and the stem that the graph separates.
PUBLIC_GRAPHS = """
4910e7827f335048bdac11fa967772f9  4096 2048 128 1.035 drums
dc41ede5961d50f277eb846db17f5319  4096 2048 512 1.035 drums
1c56ec0224f1d559c42fd6fd2a67b154  5120 2048 256 1.025 instrumental
8a88db95c7fb5dbe6a095ff2ffb428b1  5120 2048 256 1.026 instrumental
1d64a6d2c30f709b8c9b4ce1366d96ee  5120 2048 256 1.065 karaoke
cb790d0c913647ced70fc6b38f5bea1a  5120 2560 256 1.01  instrumental
0f2a6bc5b49d87d64728ee40e23bceb1  5120 2560 256 1.019 instrumental
b02be2d198d4968a121030cf8950b492  5120 2560 256 1.02  no_crowd
a3cd63058945e777505c01d2507daf37  6144 2048 256 1.03  vocals
0ddfc0eb5792638ad5dc27850236c246  6144 2048 256 1.035 vocals
6b31de20e84392859a3d09d43f089515  6144 2048 256 1.035 vocals
d7bff498db9324db933d913388cba6be  6144 2048 256 1.035 vocals
d94058f8c7f1fae4164868ae8ae66b20  6144 2048 256 1.035 vocals
2f5501189a2f6db6349916fabe8c90de  6144 2048 256 1.035 lead_vocals
5f6483271e1efb9bfb59e4a3e6d4d098  6144 2048 512 1.035 vocals
55657dd70583b0fedfba5f67df11d711  6144 3072 256 1.022 instrumental
cc63408db3d80b4d85b0287d1d7c9632  6144 3072 256 1.033 instrumental
203f2a3955221b64df85a41af87cf8f0  6144 3072 256 1.035 instrumental
291c2049608edb52648b96e27eb80e95  6144 3072 256 1.035 instrumental
b06327a00d5e5fbc7d96e1781bbdb596  6144 3072 256 1.035 instrumental
ead8d05dab12ec571d67549b3aab03fc  6144 3072 256 1.035 instrumental
94ff780b977d3ca07c7a343dab2e25dd  6144 3072 256 1.039 instrumental
cd5b2989ad863f116c855db1dfe24e39  6144 3072 512 1.035 reverb
970b3f9492014d18fefeedfe4773cb42  7680 3072 256 1.009 vocals
b6bccda408a436db8500083ef3491e8b  7680 3072 256 1.02  instrumental
b78da4afc6512f98e4756f5977f5c6b9  7680 3072 256 1.021 instrumental
77d07b2667ddf05b9e3175941b4454a0  7680 3072 256 1.021 vocals
e5572e58abf111f80d8241d2e44e7fa4  7680 3072 256 1.028 instrumental
867595e9de46f6ab699008295df62798  7680 3072 256 1.03  vocals
b33d9b3950b6cbf5fe90a32608924700  7680 3072 256 1.03  vocals
e7324c873b1f615c35c1967f912db92a  7680 3072 256 1.03  vocals
488b3e6f8bd3717d9d7c428476be2d75  7680 3072 256 1.035 instrumental
ceed671467c1f64ebdfac8a2490d0d52  7680 3072 256 1.035 instrumental
d2a1376f310e4f7fa37fb9b5774eb701  7680 3072 256 1.035 instrumental
f2df6d6863d8f435436d8b561594ff49  7680 3072 256 1.035 instrumental
53c4baf4d12c3e6c3831bb8f5b532b93  7680 3072 256 1.043 vocals
73492b58195c3b52d34590d5474452f6  7680 3072 256 1.043 vocals
2cdd429caac38f0194b133884160f2c6  7680 3072 256 1.045 instrumental
5d343409ef0df48c7d78cce9f0106781  7680 3072 256 1.075 vocals
398580b6d5d973af3120df54cee6759d  7680 3072 256 1.75  vocals
65ab5919372a128e4167f5e01a8fda85  8192 2048 256 1.035 other
26d308f91f3423a67dc69a6d12a8793d  8192 2048 512 1.035 other
c3b29bdce8c4fa17ec609e16220330ab 16384 2048 256 1.035 bass
6703e39f36f18aa7855ee1047765621d 16384 2048 512 1.035 bass
"""


def read_graph(path: Path) -> dict[str, Tensor]:
    """Return the state dict of an ONNX file: its bytes."""
    return {"graph": torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)}


def identify(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the stem and the hyper-parameters of a public ONNX file.

    Raises:
        ModelError: It is none of them, or can't be read.
    """
    checksum = fingerprint(path)
    try:
        stem, parameters = graph_settings(checksum)
    except KeyError:
        raise ModelError(
            f"'{path}' is no public MDX-Net model (its last {IDENTIFYING_BYTES} bytes have the MD5 "
            f"{checksum}). Write its n_fft, bins, frames and compensate into a card."
        ) from None
    return stem, {"graph_bytes": path.stat().st_size, **parameters}


def fingerprint(path: Path) -> str:
    """Return the MD5 by which Ultimate Vocal Remover tells files: that of their end.

    Raises:
        ModelError: The file can't be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - IDENTIFYING_BYTES))
            return hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
    except OSError as error:
        raise ModelError(f"Can't read '{path}': {error.strerror or error}.") from error


def graph_settings(checksum: str) -> tuple[str, dict[str, Any]]:
    """Return the stem of a public file, and its hyper-parameters but for its size.

    Raises:
        KeyError: No public file has the checksum.
    """
    models = {line[:32]: line[32:].split() for line in PUBLIC_GRAPHS.strip().splitlines()}
    n_fft, bins, frames, compensate, stem = models[checksum]
    parameters = {"n_fft": int(n_fft), "bins": int(bins), "frames": int(frames)}
    return stem, {**parameters, "compensate": float(compensate)}
