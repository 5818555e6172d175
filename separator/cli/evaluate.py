"""`separator evaluate`: measure models, ensembles and folders of estimates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from separator.cli import common, values
from separator.cli.console import line, message, printable, show, table
from separator.errors import ConfigError
from separator.resources import DEFAULT_MODEL
from separator.words import words

if TYPE_CHECKING:
    from separator.datasets import Dataset
    from separator.ensemble.knobs import Knobs
    from separator.evaluation.measure import Evaluation, TrackOutcome
    from separator.evaluation.methods import FolderMethod, Method, ModelMethod
    from separator.evaluation.report import Failure
    from separator.evaluation.summary import Summary

_METHODS, _DATA, _SCORES = "What is measured", "Data", "Scores"

app = typer.Typer(
    help="Measure models, ensembles and folders of estimates.", invoke_without_command=True
)


@app.callback()
def evaluate(
    ctx: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="FolderMethod of the data set.", rich_help_panel=_DATA),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="musdb18hq, moisesdb, folder, ...", rich_help_panel=_DATA)
    ] = "auto",
    split: Annotated[
        str, typer.Option(help="train, validation, test or all.", rich_help_panel=_DATA)
    ] = "test",
    stems: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Only these stems of the data.", rich_help_panel=_DATA),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the first N tracks.", rich_help_panel=_DATA),
    ] = None,
    allow_leak: Annotated[
        bool,
        typer.Option(
            "--allow-leak", help="Test on what a model was trained on.", rich_help_panel=_DATA
        ),
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model or ensemble.", rich_help_panel=_METHODS),
    ] = None,
    estimates: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DIR", help="A folder of estimates.", rich_help_panel=_METHODS),
    ] = None,
    oracle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B", help="irm, ibm, icm, mwf, all or none.", rich_help_panel=_METHODS
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B", help="csdr, usdr, si_sdr, ... or all.", rich_help_panel=_SCORES
        ),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:HZ:FILE",
            help="Also the distance of embeddings, by a TorchScript network.",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Engine of BSSEval: torch or museval.", rich_help_panel=_SCORES)
    ] = "torch",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="FolderMethod for the results."),
    ] = None,
    excerpts: Annotated[
        bool,
        typer.Option(help="Keep the worst frames as audio.", rich_help_panel=_SCORES),
    ] = True,
    report: Annotated[
        bool, typer.Option(help="Write report, plots and CSV.", rich_help_panel=_SCORES)
    ] = True,
    overlap: common.Overlap = None,
    segment: common.Segment = None,
    shifts: common.Shifts = 0,
    seed: common.Seed = 0,
    augment: common.Augment = None,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 1,
    jobs: common.Jobs = 1,
    threads: common.Threads = None,
    offline: common.Offline = False,
    quiet: common.Quiet = False,
) -> None:
    """Measure models, ensembles and folders of estimates on data whose stems are known.

    All are measured in one pass over the tracks. Tracks that are finished are not measured again:
    run the same command to go on. The mixture and an ideal mask are measured too, as bounds.
    """
    if ctx.invoked_subcommand:
        return
    from separator.datasets import leak_check
    from separator.ensemble.knobs import Knobs
    from separator.evaluation.lookup import parse_embedding
    from separator.evaluation.measure import Evaluation
    from separator.evaluation.report import Failure
    from separator.evaluation.scoring import choose_engine, choose_metrics

    if data is None or output is None:
        raise ConfigError("Give --data, the data set's folder, and --output, one for the results.")
    knobs = Knobs(device, precision, segment, overlap, batch_size, shifts, seed, words(augment))
    metrics = choose_metrics(_all_words(metric))
    choose_engine(engine)
    network = parse_embedding(embedding) if embedding else None
    if network:
        metrics = (*metrics, *network.metrics())  # loaded now, so that a mistake shows now
    models = _models(model or (), knobs, offline=offline)
    bounds = _bounds(_all_words(oracle) or ["irm1"])
    dataset, failures = _open(data, kind, split, stems, limit, quiet=quiet)
    if not allow_leak:
        for card in (card for one in models for card in one.cards):
            leak_check(card, dataset)
    folders = _folders(estimates or (), dataset)
    methods: list[Method] = [*bounds, *folders, *models]
    _check_names(methods)
    values.make_folder(output)
    _fetch(models, offline=offline, quiet=quiet)
    evaluation = Evaluation(
        methods=tuple(methods),
        metrics=metrics,
        output=output,
        data=dataset.kind,
        place=str(dataset.path or ""),
        split=split,
        engine=engine,
        ordered=dataset.ordered,
        excerpts=excerpts,
        embedding=network,
        threads=threads,
    )
    failures += _run(dataset, evaluation, jobs=jobs, quiet=quiet)
    try:
        if report:
            _report(output, split, failures, quiet=quiet)
    except ConfigError as error:  # a full disk: what was measured counts, and what failed is told
        failures.append(Failure("all tracks", "report", str(error)))
    _finish(failures)


@app.command("report")
def write(
    results: Annotated[Path, typer.Argument(metavar="DIR", help="FolderMethod of results.")],
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
) -> None:
    """Write report, plots and CSV anew, from results that are there."""
    _report(results, split, (), quiet=False)


@app.command()
def leaderboard(
    mixtures: Annotated[Path, typer.Argument(metavar="DIR", help="FolderMethod of mixtures.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="FolderMethod for the estimates.")
    ],
    layout: Annotated[str, typer.Option(help="mvsep or sdx.")] = "mvsep",
    model: Annotated[str, typer.Option("--model", "-m", help="Name of a model.")] = DEFAULT_MODEL,
    stems: Annotated[str | None, typer.Option(metavar="A,B", help="Only these stems.")] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Only check files that are there.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make all anew.")] = False,
    device: common.Device = "auto",
    quiet: common.Quiet = False,
) -> None:
    """Separate mixtures into the files that a public leaderboard accepts, and check them.

    What is there already is kept. If you have the true stems, `separator evaluate --estimates`
    computes the same numbers.
    """
    from separator.batch import leaderboard as board
    from separator.batch.run import Options, run
    from separator.cli.display import Display
    from separator.cli.models import chosen_card, fetch_weights
    from separator.zoo.cards import output_names

    chosen = board.find_layout(layout)
    card = chosen_card(model)
    wanted = words(stems) or card.stems
    residual = board.residual_name(wanted, chosen)
    names = output_names(card.name, card.stems, wanted, residual)
    found = board.find_mixtures(mixtures, chosen)
    existing: Any = "overwrite" if overwrite else "skip"
    planned = board.plan_board(found, output, chosen, names, existing=existing)
    failed = False
    if not check_only:
        from separator.api import Separator
        from separator.stream.wanted import Wanted

        fetch_weights(card, quiet=quiet)
        common.keep_memory(device)
        options = Options(output, Wanted(wanted, residual), existing)
        with Display(len(planned), quiet=quiet) as display:
            result = run(planned, Separator(card, device=device), options, on_event=display)
        display.finish(result)
        failed = bool(result.count("failed"))
        if result.count("cancelled"):
            raise typer.Exit(130)
    problems = list(board.check(planned, output))
    for problem in problems:
        message(f"not acceptable: {problem}")
    if not (problems or failed or quiet):
        tracks = _counted(len(found), "track")
        message(f"{tracks} with {len(names)} files each: names, rates, lengths fit.")
    raise typer.Exit(1 if problems or failed else 0)


def _models(names: Sequence[str], knobs: Knobs, *, offline: bool) -> list[ModelMethod]:
    """Return the models, the knobs checked before anything is fetched or read."""
    from separator.cli.models import chosen_card
    from separator.evaluation.methods import ModelMethod
    from separator.zoo.members import find_members

    found = [ModelMethod(chosen_card(name), knobs, offline) for name in names]
    for one in found:
        knobs.check(find_members(one.card).models)
    common.keep_memory(knobs.device)
    return found


def _all_words(given: Sequence[str] | None) -> list[str]:
    """Take lists apart: `--metric csdr,usdr` is `--metric csdr --metric usdr`."""
    return [word for text in given or () for word in words(text)]


def _bounds(names: Sequence[str]) -> list[Method]:
    from separator.evaluation.methods import choose_oracles

    return [*choose_oracles(["mixture", *(name for name in names if name != "none")])]


def _open(
    data: Path, kind: str, split: str, stems: str | None, limit: int | None, *, quiet: bool
) -> tuple[Dataset, list[Failure]]:
    """Open the data; what is wrong with some of its tracks is told, and counted as a failure."""
    from separator.datasets import DatasetError, scan_dataset
    from separator.evaluation.report import Failure

    if not quiet:
        message(f"Looking at the songs in '{data}'; for the first time, all are decoded.")
    try:
        dataset = scan_dataset(data, kind, split, words(stems) or None, check_sum=True, limit=limit)
    except DatasetError as error:  # an empty split, say: no wrong usage, but nothing to measure
        message(f"error: {error}")
        raise typer.Exit(1) from error
    problems = [
        Failure(problem.track, "", problem.text, problem.severity == "warning")
        for problem in dataset.problems
    ]
    for problem in problems:
        message(f"{'warning' if problem.warning else 'failed'}: {problem.track}: {problem.text}")
    if not dataset.tracks:
        _finish(problems)
    if not quiet:
        names = ", ".join(dataset.stems)
        message(
            f"{_counted(len(dataset), 'track')} of {dataset.kind}, {split}, with the stems {names}."
        )
    return dataset, problems


def _folders(given: Sequence[str], dataset: Dataset) -> list[FolderMethod]:
    from separator.evaluation.methods import open_folder

    found = []
    for text in given:
        name, _, folder = text.rpartition("=")
        path = Path(folder)
        tracks = [track.name for track in dataset.tracks]
        found.append(open_folder(path, name or path.resolve().name, tracks, dataset.split))
    return found


def _check_names(methods: Sequence[Method]) -> None:
    names = [method.name for method in methods]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"Two things to be measured are called '{twice[0]}'; name folders as NAME=DIR."
        )
    if all(method.kind in ("mixture", "oracle") for method in methods):
        message("There are no models and no estimates: only the bounds are measured.")


def _fetch(models: Sequence[ModelMethod], *, offline: bool, quiet: bool) -> None:
    from separator.cli.models import fetch_weights

    for one in models:
        fetch_weights(one.card, offline=offline, quiet=quiet)


def _run(dataset: Dataset, evaluation: Evaluation, *, jobs: int, quiet: bool) -> list[Failure]:
    """Measure, and tell what happens; return what failed."""
    from separator.evaluation.measure import evaluate as measure

    ended = 0

    def tell(track: str, outcomes: Sequence[TrackOutcome]) -> None:
        nonlocal ended
        ended += 1
        head = f"[{ended}/{len(dataset)}] {track}"
        counts = {"done": 0, "kept": 0, "failed": 0, "cancelled": 0}
        for outcome in outcomes:
            counts[outcome.status] += 1
            if outcome.error:
                message(f"{head}: {outcome.method} failed: {outcome.error}")
        if not quiet:
            words = (f"{count} {status}" for status, count in counts.items() if count)
            message(f"{head}: {', '.join(words)}")

    outcomes = measure(dataset.tracks, evaluation, jobs=jobs, on_track=tell)
    return [*_failures(outcomes)]


def _failures(outcomes: Sequence[TrackOutcome]) -> Iterator[Failure]:
    from separator.evaluation.report import Failure

    for outcome in outcomes:
        if outcome.error:
            yield Failure(outcome.track, outcome.method, outcome.error)
        for warning in outcome.warnings:
            yield Failure(outcome.track, outcome.method, warning, warning=True)


def _report(folder: Path, split: str, failures: Sequence[Failure], *, quiet: bool) -> None:
    from separator.evaluation.report import write_report

    if not any(folder.glob(f"*/{split}/*.json")) and failures:
        return  # everything failed, and that is told
    summary = write_report(folder, split, failures)
    if not quiet:
        for metric in summary.metrics[:1] + tuple(m for m in summary.metrics[1:] if m == "usdr"):
            _show(summary, metric)
        line(folder / "report.html")


def _show(summary: Summary, metric: str) -> None:
    from separator.evaluation.tables import score_table

    scores = score_table(summary, metric)
    message(f"{scores.title}: {scores.note}")
    rows = table(*scores.columns)
    for row in scores.rows:
        rows.add_row(*map(printable, row))
    show(rows)


def _finish(failures: Sequence[Failure]) -> None:
    """Say how many tracks failed, and end with the exit code."""
    errors = [failure for failure in failures if not failure.warning]
    for failure in errors:
        message(f"failed: {failure.track}: {failure.method or 'data'}: {failure.text}")
    if errors:
        tracks = len({failure.track for failure in errors})
        counts = f"{_counted(len(errors), 'failure')} on {_counted(tracks, 'track')}"
        message(f"{counts}; what is finished is kept.")
        raise typer.Exit(1)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)
