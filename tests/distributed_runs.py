"""Train in several processes, for test_training_distributed.py, which starts this by torchrun.

    python -m torch.distributed.run --standalone --nproc-per-node 2 tests/distributed_runs.py FOLDER

The folder holds a recipe NAME.yaml for every run; the runs go to FOLDER/NAME.
"""

import sys
from pathlib import Path

import torch

from separator.training.recipe import load_recipe
from separator.training.run import train


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for path in sorted(folder.glob("*.yaml")):
        recipe = load_recipe(str(path))
        train(recipe, folder / path.stem, until=recipe.steps // 2)
        train(recipe, folder / path.stem, resume=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
