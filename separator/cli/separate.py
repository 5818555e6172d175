"""`separator separate`: songs go in, their stems come out."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from separator.audio.formats import FORMATS
from separator.audio.naming import DEFAULT_TEMPLATE, FIELDS
from separator.cli import common, values
from separator.cli.console import is_stdout, line, message
from separator.errors import ConfigError
from separator.resources import DEFAULT_MODEL
from separator.words import listed, seconds_of, words

if TYPE_CHECKING:
    from separator.api import Separator
    from separator.batch.run import Report
    from separator.ensemble.knobs import Knobs
    from separator.stream.wanted import Wanted
    from separator.zoo.cards import AnyCard

_WANTED, _FILES = "What comes out", "Files"


class SeparateCommand(TyperCommand):
    """Command whose `--residual` stands alone or before a name.

    The next word is its name unless it is an option, or a file or folder that exists.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write a lone `--residual` as `--residual=`."""
        args = list(args)
        for i, word in enumerate(args):
            following = args[i + 1] if i + 1 < len(args) else "-"
            if word == "--residual" and (following.startswith("-") or os.path.exists(following)):  # noqa: PTH110
                args[i] = "--residual="
        return super().parse_args(ctx, args)


def separate(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUTS...", help="Songs, and folders of songs.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the stems.")
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name of a model; `separator models` lists them.")
    ] = DEFAULT_MODEL,
    stems: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Only these stems.", rich_help_panel=_WANTED),
    ] = None,
    residual: Annotated[
        str | None,
        typer.Option(
            metavar="[NAME]",
            help="Also the mixture minus the chosen stems.",
            rich_help_panel=_WANTED,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Begin here: seconds or mm:ss.", rich_help_panel=_WANTED),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Separate so much: seconds or mm:ss.", rich_help_panel=_WANTED
        ),
    ] = None,
    track: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="This audio track of a film or stem file, counted from 0; the first that can be "
            "decoded unless given.",
            rich_help_panel=_WANTED,
        ),
    ] = None,
    audio_format: Annotated[
        str,
        typer.Option("--format", help=f"{listed(FORMATS)}.", rich_help_panel=_WANTED),
    ] = "wav",
    bit_depth: Annotated[
        int | None,
        typer.Option(
            help="16, 24 or 32 (float); as in the song unless given.", rich_help_panel=_WANTED
        ),
    ] = None,
    overlap: common.Overlap = None,
    segment: common.Segment = None,
    shifts: common.Shifts = 0,
    seed: common.Seed = 0,
    augment: common.Augment = None,
    template: Annotated[
        str,
        typer.Option(
            help=f"Names of the files: {', '.join(f'{{{name}}}' for name in FIELDS)}.",
            rich_help_panel=_FILES,
        ),
    ] = DEFAULT_TEMPLATE,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Make what is missing.", rich_help_panel=_FILES)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what exists.", rich_help_panel=_FILES)
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a report as JSON; - is stdout.", rich_help_panel=_FILES
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be done.", rich_help_panel=_FILES),
    ] = False,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 1,
    jobs: common.Jobs = 1,
    threads: common.Threads = None,
    offline: common.Offline = False,
    quiet: common.Quiet = False,
) -> None:
    """Separate songs into stems.

    Give files of any name and format, and folders, which are searched to the bottom.
    A file that fails does not stop the others.
    The stems keep the song's rate, length, channels and tags.
    """
    from separator.batch.run import Options, plan, run
    from separator.batch.tracks import find_audio
    from separator.cli.display import Display, show_plan
    from separator.cli.models import chosen_card
    from separator.ensemble.knobs import Knobs
    from separator.stream.wanted import Wanted
    from separator.zoo.cards import leftover_name
    from separator.zoo.members import find_members

    card = chosen_card(model)
    chosen = words(stems) or card.stems
    wanted = Wanted(
        stems=chosen,
        residual=leftover_name(card, chosen) if residual == "" else residual,
        start=seconds_of(start, "--start") or 0.0,
        duration=seconds_of(duration, "--duration"),
        track=track,
        audio_format=audio_format.lower().removeprefix("."),
        bit_depth=bit_depth,
        template=template,
    )
    options = Options(output, wanted, existing=_existing(skip_existing, overwrite))
    knobs = Knobs(device, precision, segment, overlap, batch_size, shifts, seed, words(augment))
    _check_options(inputs, wanted, card)
    knobs.check(find_members(card).models)  # before hundreds of megabytes are fetched
    others: list[Path] = []
    tracks = find_audio(values.paths(inputs), output=output, passed_over=others)
    if others and not quiet:
        message(_passed_over(others))
    planned = plan(tracks, options, model=card.name, known=card.stems)
    if dry_run:
        raise typer.Exit(show_plan(planned))
    printed = report is not None and is_stdout(report)
    _check_folders(output, None if printed else report)
    separator = _load(card, knobs, quiet=quiet, offline=offline)
    _set_threads(threads, jobs)
    with _stoppable(), Display(len(planned), quiet=quiet, listing=not printed) as display:
        result = run(planned, separator, options, workers=jobs, on_event=display)
    display.finish(result)
    _note_speed(card, result)
    if printed:
        line(result.as_json())
    elif report:
        result.write(report)
    if result.count("cancelled"):
        raise typer.Exit(130)
    raise typer.Exit(1 if result.count("failed") else 0)


def _note_speed(card: AnyCard, report: Report) -> None:
    """Remember how fast the model was, for recommendations."""
    from separator.zoo.speeds import Speeds

    done = [outcome.result for outcome in report.outcomes if outcome.result]
    if done:
        longest = max(done, key=lambda result: result.duration)
        Speeds().note(card.name, longest.seconds, longest.duration)


def _passed_over(paths: Sequence[Path]) -> str:
    """Name what was found in folders and left out.

    >>> _passed_over([Path("in/a.xyz"), Path("in/b.xyz"), Path("in/take")])
    "Passed over, as not named like audio: 2 x '.xyz', 1 x ''. Name such files to try them."
    """
    kinds = Counter(path.suffix.lower() for path in paths).most_common(5)
    told = ", ".join(f"{count} x '{suffix}'" for suffix, count in kinds)
    return f"Passed over, as not named like audio: {told}. Name such files to try them."


def _existing(skip: bool, overwrite: bool) -> Any:
    if skip and overwrite:
        raise ConfigError("--skip-existing and --overwrite exclude each other; choose one.")
    return "skip" if skip else "overwrite" if overwrite else "refuse"


def _check_options(inputs: Sequence[str], wanted: Wanted, card: AnyCard) -> None:
    """Refuse wrong wishes before any work is done."""
    from separator.zoo.cards import output_names

    if not all(inputs):
        raise ConfigError("An input is an empty name; name files or folders.")
    output_names(card.name, card.stems, wanted.stems, wanted.residual)


def _check_folders(output: Path, report: Path | None) -> None:
    for folder in [output, *([report.parent] if report else [])]:
        values.make_folder(folder)
    if report and report.is_dir():
        raise ConfigError(f"--report is '{report}', a folder; name a file.")


def _load(card: AnyCard, knobs: Knobs, *, quiet: bool, offline: bool) -> Separator:
    """Load the model, downloaded if need be, and say what a user ought to know of it."""
    from separator.api import Separator
    from separator.cli.models import fetch_weights

    fetch_weights(card, offline=offline, quiet=quiet)
    common.keep_memory(knobs.device)
    separator = Separator(card, knobs, offline=offline)
    synthetic = "synthetic" in card.training_data.lower()
    for text in (f"trained on: {card.training_data}" if synthetic else None, card.note):
        if text and not quiet:
            message(f"{card.name}: {text}")
    return separator


def _set_threads(threads: int | None, jobs: int) -> None:
    import torch

    if threads or jobs > 1:
        torch.set_num_threads(threads or max(1, torch.get_num_threads() // jobs))


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, and tell that stopping may take a moment."""

    def stop(number: int, frame: object) -> None:
        message("Stopping at the end of the segments at work ...")
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
