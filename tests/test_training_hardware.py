"""Recipes for devices that a computer may not have."""

import pytest
import torch

from separator.errors import ConfigError
from separator.training.hardware import check_devices, training_device
from separator.training.recipe import HardwareOptions, Recipe, load_recipe
from separator.training.run import train


@pytest.fixture
def cards(monkeypatch):
    """Return a function that sets how many graphics cards there seem to be."""

    def there_are(cuda: int, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return there_are


@pytest.mark.parametrize(
    ("accelerator", "cuda", "mps", "kind"),
    [
        ("auto", 0, False, "cpu"),
        ("auto", 2, False, "cuda"),
        ("auto", 0, True, "mps"),
        ("gpu", 2, False, "cuda"),
        ("gpu", 0, True, "mps"),
        ("cpu", 2, False, "cpu"),
    ],
)
def test_what_an_accelerator_means(cards, accelerator, cuda, mps, kind):
    cards(cuda, mps)
    assert training_device(HardwareOptions(accelerator=accelerator)).type == kind


def test_missing_devices_are_named_before_anything_is_written(cards, tmp_path):
    cards(0)
    recipe = load_recipe("debug", ["hardware.accelerator=gpu"])
    with pytest.raises(ConfigError, match=r"'gpu', and PyTorch finds none.*accelerator=auto"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def asking_for(accelerator: str, devices: int = 1, precision: str = "float32") -> Recipe:
    hardware = [f"hardware.accelerator={accelerator}", f"hardware.devices={devices}"]
    return load_recipe("debug", [*hardware, f"precision={precision}"])


def test_too_few_devices_are_named(cards):
    cards(2)
    check_devices(asking_for("gpu", 2))
    check_devices(asking_for("cpu", 3))
    with pytest.raises(ConfigError, match=r"is 8, and this computer has 2 .*devices=2"):
        check_devices(asking_for("gpu", 8))


def test_a_cpu_trains_in_bfloat16_not_float16(cards):
    cards(1)
    check_devices(asking_for("auto", precision="float16"))
    check_devices(asking_for("cpu", precision="bfloat16"))
    with pytest.raises(ConfigError, match="precision=bfloat16"):
        check_devices(asking_for("cpu", precision="float16"))


def test_a_dry_run_goes_without_the_device(cards, cli):
    cards(0)
    result = cli("train", "--config", "debug", "--set", "hardware.accelerator=gpu", "--dry-run")
    assert result.exit_code == 0
    assert "321 k" in result.stdout
    assert "The speed isn't measured: 'hardware.accelerator' is 'gpu'" in result.stderr
