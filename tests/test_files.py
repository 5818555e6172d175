"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from separator.files import remove_stale, whole_file, write_text


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("old")
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert list(tmp_path.glob("*.yaml")) == [path]  # nobody takes the part for a card
        assert remove_stale(tmp_path) == []
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), whole_file(path) as part:
        part.write_text("ne")
        raise OSError("full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_and_names_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".txt")
    write_text(path, "é")
    assert path.read_bytes() == b"\xc3\xa9"


def test_a_link_stays_and_leads_to_the_new_file(tmp_path):
    for name in ("there.txt", "not yet.txt"):
        link = tmp_path / f"link to {name}"
        link.symlink_to(name)
        (tmp_path / "there.txt").write_text("old")
        write_text(link, "new")
        assert link.is_symlink() and (tmp_path / name).read_text() == "new"


def test_what_is_no_file_is_written_to(tmp_path):
    """Root could replace /dev/stdout, a link to such things, by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to("pipe")
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "link", "a report")
    assert os.read(reading, 100) == b"a report"
    os.close(reading)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]
    assert pipe.is_fifo()
