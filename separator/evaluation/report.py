"""Write the report of an evaluation: CSV files, Markdown, plots, and one HTML file with all of it.

results/
  report.html  report.md         for people
  scores.csv  frames.csv  summary.csv  comparisons.csv  methods.csv
  plots/*.png                    inside report.html, too
  METHOD/SPLIT/TRACK.json        what all of it is made from
  METHOD/excerpts/SPLIT/TRACK/   the worst frames, linked from report.html
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from separator.evaluation.plots import draw_all
from separator.evaluation.results import safe_name, save_text
from separator.evaluation.summary import Summary, summarize, write_tables
from separator.evaluation.tables import Table, all_tables

_WORST = 3  # frames of each stem and method that are shown

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ padding: .25em .8em; border-bottom: 1px solid #8884; text-align: right; }}
td {{ white-space: nowrap; }}
.words {{ text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 6em; }}
img {{ max-width: 100%; background: white; }}
audio {{ height: 2em; width: 14em; vertical-align: middle; }}
:root {{ color-scheme: light dark; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


@dataclass(frozen=True)
class Failure:
    """What couldn't be measured, and why; a `warning` where it could."""

    track: str
    method: str
    text: str
    warning: bool = False


class Worst(NamedTuple):
    """The frame of lowest SDR of a stem of a track; files are relative to the results' folder."""

    method: str
    stem: str
    sdr: float
    track: str
    time: float
    reference: str
    estimate: str


def write_report(folder: Path, split: str, failures: Sequence[Failure] = ()) -> Summary:
    """Read all results below a folder, and write the report into it.

    Args:
        folder: Folder of the results.
        split: Split of the data set that was measured.
        failures: To be told in the report.

    Raises:
        ConfigError: There are no results, matplotlib is missing, or a file can't be written.
    """
    summary = summarize(folder, split)
    write_tables(summary, folder)
    plots = draw_all(summary, folder / "plots")
    tables = [*_failures(failures), *all_tables(summary)]
    title = f"Evaluation on {summary.data}, {split}: {len(summary.tracks)} tracks"
    text = "\n".join([f"# {title}", "", *(table.markdown() for table in tables)])
    save_text(folder / "report.md", text)
    parts = [*(table.html() for table in tables), *map(_picture, plots), *_excerpts(summary)]
    page = _PAGE.format(title=html.escape(title), body="\n".join(parts))
    save_text(folder / "report.html", page)
    return summary


def worst_frames(summary: Summary) -> list[Worst]:
    """Return the worst frames of each method and stem, the worst of all tracks first."""
    found: dict[tuple[str, str], list[Worst]] = {}
    for result in summary.results:
        for target in result.targets:
            if target.excerpt:
                method, about = result.run.method, target.excerpt
                place = safe_name(method)
                found.setdefault((method, target.name), []).append(
                    Worst(
                        method,
                        target.name,
                        about["sdr"],
                        result.track,
                        about["time"],
                        f"{place}/{about['reference']}",
                        f"{place}/{about['estimate']}",
                    )
                )
    groups = (sorted(worst, key=lambda frame: frame.sdr) for worst in found.values())
    return [frame for group in groups for frame in group[:_WORST]]


def _failures(failures: Sequence[Failure]) -> Iterator[Table]:
    for title, warning in (("Not measured", False), ("Warnings", True)):
        rows = tuple((f.track, f.method, f.text) for f in failures if f.warning == warning)
        note = f"{len(rows)} in all" + ("." if warning else "; the scores below lack them.")
        if rows:
            yield Table(title, note, ("track", "method", "what"), rows, words=3)


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<p><img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}"></p>'


def _excerpts(summary: Summary) -> Iterator[str]:
    frames = worst_frames(summary)
    if not frames:
        return
    yield "<h2>Worst frames</h2>\n<p>The frames of lowest SDR, one second before and after.</p>"
    yield '<table><thead><tr><th class="words">track</th><th>method</th><th>stem</th>'
    yield "<th>SDR / dB</th><th>at</th><th>reference</th><th>estimate</th></tr></thead>\n<tbody>"
    for frame in frames:
        cells = (frame.method, frame.stem, f"{frame.sdr:.2f}", f"{frame.time:.0f} s")
        sounds = "".join(f"<td>{_sound(path)}</td>" for path in (frame.reference, frame.estimate))
        texts = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        yield f'<tr><td class="words">{html.escape(frame.track)}</td>{texts}{sounds}</tr>'
    yield "</tbody></table>"


def _sound(path: str) -> str:
    address = html.escape(quote(path))
    return f'<audio controls preload="none" src="{address}"></audio> <a href="{address}">file</a>'
