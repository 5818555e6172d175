"""BSRNN's semi-supervised fine-tuning, command by command as its recipe tells."""

from pathlib import Path

import numpy as np
import songsets
import torch

from separator.datasets import open_dataset
from separator.training.run import read_checkpoint, saved_recipe
from separator.zoo.load import load_network
from separator.zoo.search import find_card

RATE = 44100
SECONDS = 7.0  # longer than a window of the source activity detection


def write_mixture(path: Path, seed: int) -> np.ndarray:
    signal = songsets.noise(seed, round(SECONDS * RATE))
    songsets.write(path, signal, RATE)
    return signal


def write_labelled(folder: Path, seed: int) -> None:
    signals = [
        write_mixture(folder / f"{stem}.wav", 10 * seed + number)
        for number, stem in enumerate(songsets.FOUR)
    ]
    songsets.write(folder / "mixture.wav", np.sum(signals, axis=0), RATE)


def test_a_model_learns_from_songs_that_it_has_separated(cli):
    for number in range(2):
        write_mixture(Path(f"songs/{number}.wav"), number)
    write_labelled(Path("data/musdb18hq/train/one"), 1)
    write_labelled(Path("data/musdb18hq/test/two"), 2)
    template = "{track}/{stem}.{ext}"
    cli("separate", "songs", "-o", "data/pseudo", "--model", "tiny", "--template", template)
    pseudo = open_dataset("data/pseudo", "folder", "all", songsets.FOUR)
    assert [track.name for track in pseudo.tracks] == ["0", "1"]

    changes = (
        "start=tiny",
        "steps=2",
        "data.segment=0.5",
        "data.batch=1",
        "data.workers=0",
        "data.cache=cache",
        "validation.every=2",
        "validation.folder.split=test",
        "validation.excerpt=0",
        "hardware.accelerator=cpu",
        "log.tensorboard=false",
    )
    settings = [f"--set={change}" for change in changes]
    done = cli("train", "--config", "bsrnn_semi_supervised", "-o", "runs/second", *settings)
    assert "Trained 2 steps, SDR" in done.stderr
    folders = saved_recipe(Path("runs/second/last.ckpt")).data.folders
    assert [folder.path for folder in folders] == ["data/musdb18hq", "data/pseudo"]

    cli("train", "export", "runs/second", "models")
    teacher = load_network(find_card("tiny")).state_dict()
    student = load_network(find_card("models/second.yaml")).state_dict()
    assert teacher.keys() == student.keys()
    assert any(not torch.equal(teacher[key], student[key]) for key in teacher)
    trained = read_checkpoint(Path("runs/second/last.ckpt"))["state_dict"]
    for key, value in teacher.items():  # two steps of Adam at 1e-4 away from where it began
        if value.is_floating_point():
            torch.testing.assert_close(trained[f"network.{key}"], value, rtol=0, atol=3e-4)
