"""Small pieces of HTML that say what is going on; every text from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import chain, repeat

from separator.web.jobs import Job
from separator.words import megabytes

ASSETS = (
    '<link rel="icon" href="stems-static/icon.svg" type="image/svg+xml">'
    '<link rel="stylesheet" href="stems-static/app.css">'
    '<script type="module" src="stems-static/player.js"></script>'
    '<script type="module" src="stems-static/recorder.js"></script>'
    '<script type="module" src="stems-static/works.js"></script>'
    '<script type="module" src="stems-static/drop.js"></script>'
)


class Html(str):
    """Text that is HTML already and safe as it is."""


def player(token: str) -> str:
    """Return the player of a song."""
    return f'<stem-player src="stems/{escape(token)}"></stem-player>'


def remember(page: str, token: str) -> str:
    """Return what keeps the token of a page's work in its address."""
    return f'<work-token page="{escape(page)}" token="{escape(token)}"></work-token>'


def recorder(upload: str) -> str:
    """Return a button that records into the upload of that selector."""
    return f'<song-recorder for="{escape(upload)}"></song-recorder>'


def status(job: Job, place: int) -> str:
    """Say how far a job is: its place in the queue, its segments, the time left, or its end."""
    if job.state == "failed":
        return problem(job.error or "")
    if job.state == "cancelled" or job.cancel.is_set():
        return message("Cancelled.")
    if job.state == "done":
        return ""
    if job.state == "waiting":
        songs = "1 song is" if place == 1 else f"{place} songs are"
        return progress(job.title, f"Waiting: {songs} before this one", None)
    return progress(job.title, detail(job), job.fraction)


def detail(job: Job) -> str:
    """Say in a few words what a running job does."""
    if not job.done:
        return f"{job.step} …"
    text = f"{job.step}: {amount(job)}"
    left = job.seconds_left
    return (
        text if left is None or job.done == job.total else f"{text}, about {time_left(left)} left"
    )


def amount(job: Job) -> str:
    """Say how much of how much is done, where that is known, in the job's unit."""
    if job.unit == "bytes":
        done = megabytes(job.done)
        return done if job.total is None else f"{done} of {megabytes(job.total)}"
    of_all = "" if job.total is None else f"of {job.total} "
    return f"{job.done} {of_all}{job.unit}"


def time_left(seconds: float) -> str:
    """Write a time as people say it.

    >>> time_left(3.2), time_left(59.5), time_left(100), time_left(3600), time_left(4000)
    ('4 s', '1 min', '1 min 40 s', '1 h', '1 h 6 min')
    """
    whole = int(seconds) + 1 if seconds < 60 else int(round(seconds / 5) * 5)
    if whole < 3600:
        parts = ((whole // 60, "min"), (whole % 60, "s"))
    else:
        parts = ((whole // 3600, "h"), (whole % 3600 // 60, "min"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def progress(title: str, text: str, share: float | None) -> str:
    """Return a bar with a text; a share of None moves without an end."""
    label = f'aria-label="{escape(title)}"'
    bar = f"<progress {label}></progress>"
    if share is not None:
        bar = f'<progress {label} max="1" value="{share:.4f}"></progress>'
    return (
        f'<div class="sep-status" role="status"><strong>{escape(title)}</strong>'
        f"<span>{escape(text)}</span>{bar}</div>"
    )


def message(text: str) -> str:
    """Return a line that informs."""
    return f'<p class="sep-message" role="status">{escape(text)}</p>'


def problem(text: str) -> str:
    """Return a line that says what went wrong and what to do."""
    return f'<p class="sep-problem" role="alert">{escape(text)}</p>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of words and their values."""
    rows = "".join(f"<dt>{escape(word)}</dt><dd>{escape(value)}</dd>" for word, value in pairs)
    return f'<dl class="sep-facts">{rows}</dl>'


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], classes: Sequence[str] = ()
) -> str:
    """Return a table; cells are texts, or `Html`."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr class="{escape(name)}">{"".join(_cell(text) for text in row)}</tr>'
        for row, name in zip(rows, chain(classes, repeat("")), strict=False)
    )
    return (
        f'<div class="sep-table" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    return f"<td>{text if isinstance(text, Html) else escape(text)}</td>"
