"""Find the devices that a recipe asks for."""

from __future__ import annotations

import torch

from separator.errors import ConfigError
from separator.training.recipe import HardwareOptions, Recipe

#: Which devices may be meant, the first that is there is taken, as Lightning does.
_MEANT = {"auto": ("cuda", "mps", "cpu"), "gpu": ("mps", "cuda"), "mps": ("mps",), "cpu": ("cpu",)}


def training_device(hardware: HardwareOptions) -> torch.device:
    """Return the device that a recipe trains on in this computer.

    Raises:
        ConfigError: There is none of the kind.
    """
    found = _found()
    for kind in _MEANT[hardware.accelerator]:
        if found[kind]:
            return torch.device(kind)
    raise ConfigError(
        f"'hardware.accelerator' is '{hardware.accelerator}', and PyTorch finds none here. Train "
        "on what is there with --set hardware.accelerator=auto --set hardware.devices=1."
    )


def check_devices(recipe: Recipe) -> None:
    """Refuse a recipe for more or other devices than this computer's; processes on a CPU are free.

    Raises:
        ConfigError: There are fewer, or none of the kind, or they don't know the precision.
    """
    hardware = recipe.hardware
    device = training_device(hardware)
    count = _found()[device.type]
    if device.type == "cpu" and recipe.precision == "float16":
        raise ConfigError("A CPU trains in float32 or bfloat16: use --set precision=bfloat16.")
    if device.type != "cpu" and hardware.devices > count:
        raise ConfigError(
            f"'hardware.devices' is {hardware.devices}, and this computer has {count} of '"
            f"{device.type}': use --set hardware.devices={count}."
        )


def _found() -> dict[str, int]:
    mps = int(torch.backends.mps.is_available())
    return {"cuda": torch.cuda.device_count(), "mps": mps, "cpu": 1}
