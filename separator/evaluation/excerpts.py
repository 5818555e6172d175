"""Keep what a method did worst, as short files to listen to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from separator.audio.formats import output_format
from separator.audio.writer import AudioWriter
from separator.evaluation.methods import LoadedSong
from separator.evaluation.results import EXCERPTS, Target, safe_name
from separator.evaluation.scoring import Pairing

_CONTEXT = 1.0  # seconds before and after the frame
_FRAME = 1.0
_PEAK = 0.98


def keep_worst(
    song: LoadedSong, pairing: Pairing, targets: Sequence[Target], folder: Path
) -> list[Target]:
    """Write reference and estimate around the frame of lowest SDR, for each stem.

    Both get one gain if one of them would clip. A stem without a scored frame has no excerpt.

    Args:
        song: Song that was measured.
        pairing: Its sources.
        targets: Their scores, in the same order.
        folder: Folder of the method; files go to a folder in it.

    Returns:
        The targets, which now name their files.
    """
    kept = []
    signals = zip(targets, pairing.references, pairing.estimates, strict=True)
    for target, reference, estimate in signals:
        frame = worst_frame(target)
        if frame is not None:
            place = Path(EXCERPTS) / safe_name(song.split) / safe_name(song.name)
            sdr = target.frames["SDR"][frame]
            files = _write(song, target.name, frame, (reference, estimate), folder, place)
            target = replace(target, excerpt=files | {"time": frame * _FRAME, "sdr": sdr})
        kept.append(target)
    return kept


def worst_frame(target: Target) -> int | None:
    """Return the number of the frame of lowest SDR; None where no frame has one."""
    sdr = [math.inf if math.isnan(x) else x for x in target.frames.get("SDR", ())]
    worst = min(sdr, default=math.inf)
    return sdr.index(worst) if math.isfinite(worst) else None


def _write(
    song: LoadedSong,
    stem: str,
    frame: int,
    signals: tuple[Tensor, Tensor],
    folder: Path,
    place: Path,
) -> dict[str, str | float]:
    """Write the excerpts; return their names below the folder."""
    begin = round(max(0.0, frame * _FRAME - _CONTEXT) * song.sample_rate)
    end = round((frame * _FRAME + _FRAME + _CONTEXT) * song.sample_rate)
    pieces = [signal[:, begin:end].numpy() for signal in signals]
    peak = max(float(np.abs(piece).max()) for piece in pieces)
    gain = _PEAK / max(peak, _PEAK)
    extension = _extension(song.sample_rate, len(pieces[0]))
    files: dict[str, str | float] = {}
    for name, piece in zip(("reference", "estimate"), pieces, strict=True):
        path = place / f"{safe_name(stem)}-{name}.{extension}"
        with AudioWriter(folder / path, song.sample_rate, len(piece), overwrite=True) as writer:
            writer.write(piece * np.float32(gain))
        files[name] = path.as_posix()
    return files


def _extension(sample_rate: int, channels: int) -> str:
    """Return the format of the smallest files that can hold such audio."""
    ogg = output_format("ogg")
    return "ogg" if sample_rate in ogg.sample_rates and channels <= ogg.channels else "flac"
