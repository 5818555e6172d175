"""Turn a summary into tables, and tables into Markdown or HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from separator.evaluation.lookup import describe
from separator.evaluation.published import Published, published
from separator.evaluation.statistics import MIN_TRACKS
from separator.evaluation.summary import ALL, Summary, average_of

_MAIN = ("csdr", "usdr")  # metrics whose comparisons are shown; those of all are in the CSV


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: One line.
        note: What the reader must know to read it.
        columns: Headings.
        rows: Rows of as many cells each.
        words: How many columns, from the first, hold words; the others hold numbers.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1

    def markdown(self) -> str:
        """Return it in Markdown.

        >>> print(Table("T", "N", ("a", "b"), (("x|y", "1"),)).markdown())
        ## T
        <BLANKLINE>
        N
        <BLANKLINE>
        | a | b |
        | --- | ---: |
        | x\\|y | 1 |
        <BLANKLINE>
        """
        numbers = len(self.columns) - self.words
        lines = [_line(self.columns), _line(["---"] * self.words + ["---:"] * numbers)]
        lines += [_line(cell.replace("|", "\\|") for cell in row) for row in self.rows]
        return "\n".join([f"## {self.title}", "", self.note, "", *lines, ""])

    def html(self) -> str:
        """Return it in HTML."""
        head = self._cells("th", self.columns)
        body = "".join(f"<tr>{self._cells('td', row)}</tr>\n" for row in self.rows)
        return (
            f"<h2>{html.escape(self.title)}</h2>\n<p>{html.escape(self.note)}</p>\n"
            f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>\n"
        )

    def _cells(self, tag: str, cells: Sequence[str]) -> str:
        kinds = [' class="words"'] * self.words + [""] * (len(cells) - self.words)
        pairs = zip(kinds, cells, strict=True)
        return "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in pairs)


def all_tables(summary: Summary) -> Iterator[Table]:
    """Yield the tables of a report."""
    for metric in summary.metrics:
        yield _with_published(score_table(summary, metric), summary, metric)
    yield speed_table(summary)
    for metric in summary.metrics:
        if metric in _MAIN and any(row.metric == metric for row in summary.comparisons):
            yield comparison_table(summary, metric)


def score_table(summary: Summary, metric: str) -> Table:
    """Show one metric of all methods."""
    info = describe(metric)
    unit = f" in {info.unit}" if info.unit else ""
    better = "higher" if info.higher_is_better else "lower"
    rows = [
        (
            method,
            *(_interval(summary, method, stem, metric) for stem in summary.stems),
            number(summary.value(method, ALL, metric)),
            str(summary.count(method)),
        )
        for method in summary.methods
    ]
    return Table(
        f"{info.name}{unit}, {better} is better",
        f"{info.definition}. {average_of(metric).capitalize()} over tracks, with its 95 % "
        f"bootstrap interval{_too_few(summary)}; in parentheses the number of tracks with a score, "
        "where some have none (`scores.csv` says why).",
        ("method", *summary.stems, ALL, "tracks"),
        tuple(rows),
    )


def speed_table(summary: Summary) -> Table:
    """Show what the methods took."""
    rows = []
    for method in summary.methods:
        speed = summary.speed(method)
        rows.append(
            (
                method,
                number(speed.real_time_factor, 3),
                number(speed.peak_memory, 0),
                number(speed.metric_factor, 3),
            )
        )
    return Table(
        "Speed and memory",
        "Seconds of separation and of measuring for a second of music, and the most memory that "
        "the separation took, weights included. Compare only what one machine measured, with the "
        "same number of jobs.",
        ("method", "separation, s/s", "memory, MiB", "metrics, s/s"),
        tuple(rows),
    )


def comparison_table(summary: Summary, metric: str) -> Table:
    """Show whether methods differ."""
    rows = [
        (
            f"{row.first} - {row.second}, {row.stem}",
            _with_interval(*row.comparison.difference[:3]),
            f"{row.comparison.wins} : {row.comparison.losses}",
            _p_value(row.comparison.permutation),
            _p_value(row.comparison.wilcoxon),
            _p_value(row.p_holm),
        )
        for row in summary.comparisons
        if row.metric == metric
    ]
    return Table(
        f"Differences in {describe(metric).name}",
        f"{average_of(metric).capitalize()} difference over the tracks that both have, with its "
        f"95 % bootstrap interval{_too_few(summary)}; p of the sign-flip test, of Wilcoxon's "
        "signed-rank test, and the latter corrected (Holm) for all rows of this table.",
        ("first - second", "difference", "wins : losses", "p flips", "p ranks", "p corrected"),
        tuple(rows),
    )


def number(value: float | None, places: int = 2) -> str:
    """Write a number, or nothing where there is none.

    >>> number(1.234), number(None)
    ('1.23', '')
    """
    return "" if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def _with_published(table: Table, summary: Summary, metric: str) -> Table:
    """Add what was published under the same definition, and under no other."""
    found = published(describe(metric).name, summary.data, summary.split)
    if not found:
        return table
    note = f"{table.note} Published results are of all 50 test songs."
    return replace(table, note=note, rows=table.rows + tuple(_row(row, summary) for row in found))


def _interval(summary: Summary, method: str, stem: str, metric: str) -> str:
    found = summary.interval(method, stem, metric)
    some = 0 < found.tracks < summary.count(method)
    return _with_interval(*found[:3]) + (f" ({found.tracks})" if some else "")


def _too_few(summary: Summary) -> str:
    """Say why there are no intervals, where there are none."""
    count = len(summary.tracks)
    return "" if count >= MIN_TRACKS else f" (too few tracks: {MIN_TRACKS} are needed)"


def _with_interval(value: float, low: float, high: float) -> str:
    span = f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else ""
    return number(value) + span


def _row(row: Published, summary: Summary) -> tuple[str, ...]:
    extra = {True: ", extra data", False: "", None: ", training data not stated"}[row.extra]
    cells = [number(row.scores.get(stem)) for stem in summary.stems]
    mean = sum(row.scores.values()) / len(row.scores)
    return f"published: {row.method} ({row.data}{extra}; {row.source})", *cells, number(mean), "50"


def _p_value(p: float) -> str:
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _line(cells: Iterable[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
