"""Options that several commands take, in one wording: what to say of a run, not of its purpose."""

from __future__ import annotations

from typing import Annotated

import typer

from separator.stream.choices import AUGMENTATIONS, DEVICES, PRECISIONS
from separator.words import listed

QUALITY, RUN = "Quality", "How it runs"

Overlap = Annotated[
    float | None,
    typer.Option(
        help="Share of a segment that the next one covers again, from 0 to 0.95.",
        rich_help_panel=QUALITY,
    ),
]
Segment = Annotated[
    float | None, typer.Option(help="Length of a segment in seconds.", rich_help_panel=QUALITY)
]
Shifts = Annotated[
    int,
    typer.Option(
        help="Average over so many placements of the segments, at most 32.", rich_help_panel=QUALITY
    ),
]
Seed = Annotated[
    int, typer.Option(help="Start of the draw of placements.", rich_help_panel=QUALITY)
]
Augment = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help=f"Average over variants of the song: {', '.join(AUGMENTATIONS)}.",
        rich_help_panel=QUALITY,
    ),
]
Device = Annotated[str, typer.Option(help=f"{listed([*DEVICES, 'cuda:N'])}.", rich_help_panel=RUN)]
Precision = Annotated[str, typer.Option(help=f"{listed(PRECISIONS)}.", rich_help_panel=RUN)]
BatchSize = Annotated[int, typer.Option(help="Segments at once.", rich_help_panel=RUN)]
Jobs = Annotated[int, typer.Option(min=1, help="Songs side by side.", rich_help_panel=RUN)]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="CPU threads for each song.", rich_help_panel=RUN),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never download.", rich_help_panel=RUN)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print failures only.", rich_help_panel=RUN)
]


def keep_memory(device: str) -> None:
    """Let this process keep freed memory if networks run on its processor."""
    from separator.heap import keep_freed_memory
    from separator.stream.runner import pick_device

    if pick_device(device).type == "cpu":
        keep_freed_memory()
