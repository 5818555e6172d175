"""Files that appear whole or not at all."""

from __future__ import annotations

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
