"""`separator train`: train a network by a recipe, and turn what comes out into a model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from separator.cli.console import command, line, message, printable, show, table
from separator.errors import ConfigError, SeparatorError

if TYPE_CHECKING:
    from separator.datasets import DatasetError
    from separator.training.callbacks import Report
    from separator.training.recipe import Recipe
    from separator.training.run import Result

_LIBRARIES = ("lightning", "scipy", "tensorboard")

app = typer.Typer(
    help="Train a network by a recipe; also: list the recipes, export a trained network.",
    invoke_without_command=True,
)


@app.callback()
def train(
    ctx: typer.Context,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="Recipe: a name, or a .yaml file.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, as in data.batch=2."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; runs/RECIPE.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")
    ] = False,
    until: Annotated[
        int | None, typer.Option(min=1, metavar="STEP", help="Stop (to be resumed) after a step.")
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Use the good songs of a faulty data set.")
    ] = False,
    ratio: Annotated[
        float | None,
        typer.Option("--prune", metavar="RATIO", help="Leave out this share of the model's units."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the recipe costs.")
    ] = False,
) -> None:
    """Train a network by a recipe; also: list the recipes, export a trained network."""
    _need_libraries()
    if ctx.invoked_subcommand:
        return
    folder = output or (Path("runs") / Path(config).stem if config else None)
    if folder is None:
        raise ConfigError("What to train? Give a recipe (--config), or a run (--output, --resume).")
    partial = ["allow_partial=true"] if allow_partial else []
    recipe = _recipe(config, folder, [*(changes or []), *partial], resume)
    if dry_run:
        _show_costs(recipe if ratio is None or resume else _smaller(recipe, ratio))
        return
    from separator.datasets.problems import DatasetError
    from separator.training.callbacks import Stopped
    from separator.training.run import train as run

    try:
        if ratio is not None and not resume:
            result = _prune(recipe, folder, ratio, until)
        else:
            result = run(recipe, folder, resume=resume, until=until, report=_tell)
    except DatasetError as error:
        _show_problems(error)
        raise
    except Stopped as stop:
        message(f"{stop} Go on with: {command('train', '--output', folder, '--resume')}")
        raise typer.Exit(0 if stop.signal.name == "SIGTERM" else 130) from stop
    if not result.first:
        return
    score = "" if result.sdr is None else f", SDR {result.sdr:.2f} dB"
    planned = min(until or recipe.steps, recipe.steps)
    early = f" of {planned} in {recipe.minutes:g} minutes" if recipe.minutes else ""
    if recipe.patience:
        early = f" of {planned}, the last {recipe.patience} validations without a better SDR"
    done = f"{result.step} steps{early if result.step < planned else ''}{score}"
    message(f"Trained {done}. Next: {command('train', 'export', folder, 'FOLDER')}")
    line(folder)


@app.command("list")
def list_recipes() -> None:
    """List the recipes that came with the program."""
    from separator.training.recipe import list_recipes, load_recipe

    rows = table("Recipe", "Network", "Stems", "Steps", "About")
    for name in list_recipes():
        recipe = load_recipe(name)
        stems = ", ".join(recipe.stems)
        rows.add_row(name, recipe.network, stems, f"{recipe.steps:,}", recipe.description)
    show(rows)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder or checkpoint.")],
    folder: Annotated[Path, typer.Argument(help="Folder of cards; weights go to FOLDER/weights.")],
    name: Annotated[str | None, typer.Option(help="Name; the run's unless given.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "not stated",
    description: Annotated[
        str | None, typer.Option(help="One line; the recipe's unless given.")
    ] = None,
) -> None:
    """Turn a trained network into a model: a card, and weights in float16."""
    from separator.training.export import export
    from separator.words import megabytes

    card = export(source, folder, name=name, licence=licence, description=description)
    path = folder / f"{card.name}.yaml"
    message(f"Exported '{card.name}' ({megabytes(card.weights.bytes)}): {', '.join(card.stems)}.")
    use = command("separate", "song.mp3", "-o", "stems", "--model", path)
    message(f"Use it with: {use}")
    line(path)


def _need_libraries() -> None:
    """Refuse to begin without the libraries of training, which are optional."""
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise SeparatorError(
            f"Training needs {', '.join(missing)}, not here: pip install 'separator[train]'"
        )


def _recipe(config: str | None, folder: Path, changes: list[str], resume: bool) -> Recipe:
    """Read the recipe: of a run that goes on, its own unless another is named."""
    from separator.training.recipe import load_recipe

    saved = folder / "recipe.yaml"
    if config is None and not (resume and saved.is_file()):
        raise ConfigError(f"Which recipe? There is no run in '{folder}': give --config.")
    return load_recipe(config or str(saved), changes)


def _smaller(recipe: Recipe, ratio: float) -> Recipe:
    from separator.training.prune import smaller

    return smaller(recipe, ratio)


def _prune(recipe: Recipe, folder: Path, ratio: float, until: int | None) -> Result:
    """Prune, and say what that changed."""
    from separator.training.prune import prune
    from separator.words import rounded

    pruned = prune(recipe, folder, ratio, until=until, report=_tell)
    before, after = pruned.macs
    message(
        f"MACs per second of music: {rounded(before)} before, {rounded(after)} after "
        f"({after / before - 1:+.0%})."
    )
    if pruned.sdr is not None:
        message("SDR: {:.2f} dB before, {:.2f} dB after.".format(*pruned.sdr))
    return pruned.result


def _tell(report: Report) -> None:
    """Print one line about how the run goes, or about each song that something is wrong with."""
    if report.changes:
        changes = (f"{key}={now} (was {was})" for key, (was, now) in report.changes.items())
        message(f"The recipe has changed since step {report.step}: {', '.join(changes)}")
        return
    for problem in report.problems:
        what = "warning" if problem.severity == "warning" else "left out"
        message(f"{what}: {problem.track}: {problem.text}")
    if report.problems:
        return
    place = f"step {report.step}/{report.steps}"
    if "loss" in report.metrics:
        speed = (
            f", {report.speed:.3g} s of audio per second, {report.waiting:.1%} waiting for data"
            if report.speed
            else ""  # while units are chosen
        )
        message(f"{place}: loss {report.metrics['loss']:.4g}{speed}")
        return
    scores = (f"{name.removeprefix('sdr/')} {sdr:.2f}" for name, sdr in report.metrics.items())
    message(f"{place}: SDR in dB: {', '.join(scores)}")


def _show_costs(recipe: Recipe) -> None:
    from separator.training.dryrun import analyse, measure_speed
    from separator.training.hardware import training_device
    from separator.words import rounded

    costs = analyse(recipe)
    rows = table("", "")
    rows.show_header = False
    trained = "" if costs.trained == costs.parameters else f", {rounded(costs.trained)} trained"
    rows.add_row("network", f"{recipe.network}: {', '.join(recipe.stems)}")
    rows.add_row("mixture", f"{costs.mixture} (batch, channels, time)")
    rows.add_row("estimates", f"{costs.estimates} (batch, stems, channels, time)")
    rows.add_row("parameters", f"{rounded(costs.parameters)}{trained}")
    rows.add_row("MACs", f"{rounded(costs.macs)} per second of music")
    rows.add_row("memory", f"{rounded(costs.memory)}B for weights, gradients and activations")
    show(rows)
    try:
        training_device(recipe.hardware)
    except ConfigError as error:  # all but the speed is known without it
        message(f"The speed isn't measured: {error}")
        return
    speed = measure_speed(recipe)
    audio = speed * recipe.data.batch * recipe.accumulate * recipe.data.segment
    line(f"{speed:.3g} steps per second here, {audio:.3g} s of audio per second")


def _show_problems(error: DatasetError) -> None:
    """Show the table of what is wrong with a data set."""
    from separator.datasets import PROBLEM_COLUMNS

    if error.problems:
        rows = table(*PROBLEM_COLUMNS)
        for problem in error.problems:
            rows.add_row(*map(printable, problem.row()))
        show(rows)
