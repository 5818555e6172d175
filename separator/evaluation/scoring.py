"""Put estimates beside the references that they stand for, and score them.

    the track has      the method gives              scored are
    d, b, o, v         d, b, o, v                    all four
    d, b, o, v         v                             v, and the mixture minus it as accompaniment
    d, b, o, v         d, b                          d and b, and the mixture minus them as rest
    d, b, o, v         d, b, v                       all four, o as the mixture minus the others
    d, b, o, v         v, instrumental               v and accompaniment (d + b + o)
    d, b, o, v         d, b, o, v, guitar, piano     all four, guitar and piano counted to o

SIR and SAR need every source that is in the mixture. What a method leaves out is therefore taken
as one more source, whose estimate is the mixture minus all estimates. SDR and ISR of the others
don't depend on it, but for the frames that count, those in which no source is silent: there are
fewer of them with four sources than with two, in museval too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from separator.errors import AudioError, ConfigError
from separator.evaluation.bss_eval import BSSEval, bss_eval
from separator.evaluation.methods import LoadedSong
from separator.evaluation.metrics import METRICS, Comparison, Engine, Metric
from separator.evaluation.permutations import best_permutation
from separator.evaluation.results import FRAME_METRICS, Target
from separator.words import nearest

ACCOMPANIMENT = "accompaniment"
_SYNONYMS = ("accompaniment", "instrumental", "instrum", "inst", "no_vocals", "karaoke")
REMAINDER = "rest"
_VOCALS, _OTHER = "vocals", "other"

#: Metrics that come from BSSEval's frames: averaged over tracks by the median, as in museval.
FRAME_BASED = frozenset(("csdr", "cisr", "csir", "csar"))
_DEFAULT = ("csdr", "cisr", "csir", "csar", "usdr", "si_sdr")


@dataclass(frozen=True, eq=False)
class Pairing:
    """Sources `(stems, channels, time)` by name, true and estimated."""

    stems: tuple[str, ...]
    references: Tensor
    estimates: Tensor


def pair(song: LoadedSong, estimates: Mapping[str, Tensor], *, ordered: bool = True) -> Pairing:
    """Find the reference of each estimate, as the table above says.

    Args:
        song: Song that was separated.
        estimates: By name; at least one.
        ordered: Whether names mean something; otherwise, as of several singers, those go together
            that fit best.

    Raises:
        AudioError: An estimate has a name that the track doesn't know, in place of one that it
            does; or, without an order, there are more or fewer than stems.
    """
    if not ordered:
        return _pair_by_likeness(song, estimates)
    references = dict(zip(song.stems, song.references, strict=True))
    estimates = dict(estimates)
    _rename_accompaniment(estimates, references)
    if ACCOMPANIMENT in estimates and {_VOCALS} < references.keys():
        references = _without_details(references)
    _check_names(song, references, estimates)
    for name in [name for name in estimates if name not in references]:
        if _OTHER in estimates and _OTHER in references:
            estimates[_OTHER] = estimates[_OTHER] + estimates.pop(name)
    chosen = [name for name in references if name in estimates]
    if tuple(chosen) == song.stems:  # the usual case, without a copy of large tensors
        return Pairing(song.stems, song.references, torch.stack([estimates[s] for s in chosen]))
    true = [references[name] for name in chosen]
    found = [estimates[name] for name in chosen]
    rest = {name: audio for name, audio in references.items() if name not in chosen}
    if rest:
        several = ACCOMPANIMENT if chosen == [_VOCALS] else REMAINDER
        chosen.append(several if len(rest) > 1 else next(iter(rest)))
        true.append(torch.stack(list(rest.values())).sum(0))
        found.append(song.mixture - torch.stack(found).sum(0))
    return Pairing(tuple(chosen), torch.stack(true), torch.stack(found))


def score(
    song: LoadedSong,
    pairing: Pairing,
    metrics: Sequence[str],
    engine: Engine,
    more: Mapping[str, Metric] | None = None,
) -> list[Target]:
    """Measure the estimates of a song.

    Args:
        song: Song that the estimates are of.
        pairing: Estimates and their references.
        metrics: Keys of `METRICS`, or of `more`.
        engine: Measures frames.
        more: Metrics that aren't in the registry.
    """
    comparison = Comparison(
        pairing.references,
        pairing.estimates,
        song.mixture,
        sample_rate=song.sample_rate,
        engine=engine,
    )
    known = METRICS | dict(more or {})
    found = {key: known[key](comparison) for key in metrics}
    reasons = {key: comparison.reasons(scores) for key, scores in found.items()}
    frames = comparison.frames if FRAME_BASED.intersection(metrics) else None
    return [
        Target(
            name,
            _frames(frames, i),
            {key: scores[i].item() for key, scores in found.items()},
            {
                key: reasons[key][i] or "infinite: the estimate is perfect"
                for key, scores in found.items()
                if not math.isfinite(scores[i].item())
            },
        )
        for i, name in enumerate(pairing.stems)
    ]


def choose_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Return keys of `METRICS`; the usual ones if none is named, all of them for "all".

    Raises:
        ConfigError: There is no such metric.
    """
    if not names:
        return _DEFAULT
    if "all" in names:
        return tuple(METRICS)
    for name in names:
        if name not in METRICS:
            raise ConfigError(
                f"Unknown metric '{name}'; allowed: {', '.join(METRICS)}, all."
                f"{nearest(name, METRICS)}"
            )
    return tuple(dict.fromkeys(names))


def choose_engine(name: str) -> tuple[Engine, str]:
    """Return what measures frames, and its name with its version.

    Raises:
        ConfigError: Unknown name, or museval can't be imported.
    """
    if name == "torch":
        return bss_eval, "torch"
    if name != "museval":
        raise ConfigError(f"Unknown engine '{name}'; allowed: torch, museval.")
    try:
        import museval  # its import looks for the programs ffmpeg and ffprobe
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"museval can't be imported ({type(error).__name__}: {error}); install "
            "separator[evaluate] and ffmpeg, or use --engine torch."
        ) from error
    return _official, f"museval {museval.version._version}"


def _official(references: Tensor, estimates: Tensor, *, window: int, hop: int) -> BSSEval:
    """Let museval measure; arguments and result as those of `bss_eval`."""
    from museval.metrics import bss_eval as official

    signals = (x.double().movedim(1, 2).numpy() for x in (references, estimates))
    sdr, isr, sir, sar, _ = official(*signals, window=window, hop=hop)
    return BSSEval(*(torch.from_numpy(x) for x in (sdr, isr, sir, sar)))


def _rename_accompaniment(estimates: dict[str, Tensor], references: Mapping[str, Tensor]) -> None:
    """Give what is meant as "all but the vocals" its one name; drop it beside all its parts."""
    if set(estimates) == {_VOCALS, _OTHER} and len(references) > 2:
        estimates[ACCOMPANIMENT] = estimates.pop(_OTHER)  # models of two stems call it so
    for name in _SYNONYMS:
        if name in estimates and name not in references:
            estimates[ACCOMPANIMENT] = estimates.pop(name)
    if references.keys() <= estimates.keys() and ACCOMPANIMENT not in references:
        estimates.pop(ACCOMPANIMENT, None)


def _check_names(
    song: LoadedSong, references: Mapping[str, Tensor], estimates: Mapping[str, Tensor]
) -> None:
    """Refuse an unknown name where a known one is missing: probably they mean the same."""
    known = {*song.stems, *references}
    unknown = [name for name in estimates if name not in known]
    missing = [name for name in references if name not in estimates]
    if unknown and missing:
        raise AudioError(
            f"There is an estimate of '{unknown[0]}' and none of '{missing[0]}', but "
            f"'{song.name}' has: {', '.join(song.stems)}.{nearest(unknown[0], missing)} Rename "
            "the estimates, or choose the stems of the data that they are of."
        )


def _pair_by_likeness(song: LoadedSong, estimates: Mapping[str, Tensor]) -> Pairing:
    if len(estimates) != len(song.stems):
        raise AudioError(
            f"There are {len(estimates)} estimates ({', '.join(estimates)}), but '{song.name}' has "
            f"{len(song.stems)} stems ({', '.join(song.stems)}); both must be as many."
        )
    found = torch.stack(list(estimates.values()))
    order = best_permutation(song.references, found)
    return Pairing(song.stems, song.references, found[list(order)])


def _without_details(references: Mapping[str, Tensor]) -> dict[str, Tensor]:
    others = [audio for name, audio in references.items() if name != _VOCALS]
    return {_VOCALS: references[_VOCALS], ACCOMPANIMENT: torch.stack(others).sum(0)}


def _frames(frames: BSSEval | None, stem: int) -> dict[str, list[float]]:
    if frames is None:
        return {}
    return {name: getattr(frames, name.lower())[stem].tolist() for name in FRAME_METRICS}
