"""The Python interface: one model or ensemble, loaded once, that separates arrays, streams, files.

from separator import Separator

separator = Separator()
stems = separator.separate(mixture, 44100)["vocals"]        # (channels, time)
result = separator.separate_file("song.mp3", "out")         # out/song/vocals.wav, ...
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from separator.audio.reader import AudioReader, open_audio
from separator.audio.resample import Block
from separator.audio.stems import StemWriter
from separator.ensemble.assemble import assemble
from separator.ensemble.knobs import Knobs, KnobValues
from separator.errors import AudioError, ConfigError, ModelError
from separator.resources import DEFAULT_MODEL
from separator.stream.adapt import Adapter, as_audio, check_rate, checked, pair_channels
from separator.stream.facts import UNKNOWN, Facts, track_statistics
from separator.stream.prefetch import prefetch
from separator.stream.progress import Monitor, Progress
from separator.stream.runner import Runner, pick_device, pick_precision
from separator.stream.sinks import Gathering, pour
from separator.stream.song import Stream
from separator.stream.wanted import Wanted, WantedValues
from separator.zoo.cards import AnyCard, Card, Ensemble, output_names
from separator.zoo.load import load_joined, load_network
from separator.zoo.members import Tree, find_members
from separator.zoo.search import find_card

if TYPE_CHECKING:
    from typing_extensions import Unpack

_BLOCK = 65536  # samples that are read and passed on together
EVERYTHING = Wanted()

ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class Result:
    """Outcome of one file.

    Attributes:
        source: The file that was separated.
        outputs: Name of each stem, and of the residual if asked for, with the file written.
        model: Name of the model.
        sample_rate: Rate of source and stems, in Hz; Opus files hold them at 48 kHz.
        channels: Number in source and outputs.
        samples: Length of source and stems, per channel, at `sample_rate`.
        gain: The one gain on all stems of this track; 1.0 unless an output would have clipped.
        truncated: What is missing from the source; None where it is whole.
        notes: What else the user should know.
        seconds: Wall-clock time for the whole file.
        network_seconds: The share of it inside the network.
    """

    source: Path
    outputs: dict[str, Path]
    model: str
    sample_rate: int
    channels: int
    samples: int
    gain: float
    truncated: str | None
    notes: tuple[str, ...]
    seconds: float
    network_seconds: float

    @property
    def duration(self) -> float:
        """Length of the track in seconds."""
        return self.samples / self.sample_rate


class Separator:
    """Model in memory that separates songs; safe to use from several threads.

    Args:
        model: Name of a card, path of a card, or a card; of a model or of an ensemble.
        knobs: Choices for the run; each may also be given by its name, see `Knobs`.
        offline: Whether downloads are forbidden; `$SEPARATOR_OFFLINE` does the same.

    Raises:
        ModelError: Unknown model, or weights that are missing, damaged or don't fit.
        ConfigError: A value that isn't allowed.
    """

    def __init__(
        self,
        model: str | Path | AnyCard = DEFAULT_MODEL,
        knobs: Knobs | None = None,
        *,
        offline: bool = False,
        **values: Unpack[KnobValues],
    ) -> None:
        self.card = model if isinstance(model, Card | Ensemble) else find_card(str(model))
        self.knobs = replace(knobs or Knobs(), **values)
        self.device = pick_device(self.knobs.device)
        self.precision = pick_precision(self.knobs.precision, self.device)
        self._tree = find_members(self.card)
        self.knobs.check(self._tree.models)  # before anything is fetched
        self._runners = {
            tree.card.name: Runner(_load(tree, offline), self.device, self.precision)
            for tree in self._tree.networks
        }
        self._model = assemble(self._tree, self._runners, self.knobs)

    def with_knobs(self, knobs: Knobs) -> Separator:
        """Return a separator of the same networks in memory that uses them differently.

        Raises:
            ConfigError: A value that isn't allowed, or another device or precision.
        """
        for name in ("device", "precision"):
            own, other = getattr(self.knobs, name), getattr(knobs, name)
            if own != other:
                raise ConfigError(f"The {name} is {own} and can't become {other}; load it anew.")
        separator = copy.copy(self)
        separator.knobs = knobs
        separator._model = assemble(self._tree, self._runners, knobs)
        return separator

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the stems that the model knows, in its order."""
        return self.card.stems

    @property
    def sample_rate(self) -> int:
        """Rate that the model works at, in Hz; other rates are resampled there and back."""
        return self.card.sample_rate

    @property
    def network(self) -> nn.Module:
        """The network itself, on its device and in its precision; a list for an ensemble's."""
        networks = [runner.network for runner in self._runners.values()]
        return networks[0] if isinstance(self.card, Card) else nn.ModuleList(networks)

    @property
    def settings(self) -> dict[str, Any]:
        """How segments are cut, placed and batched (of each member of an ensemble), and varied."""
        return {**self._model.settings, "augmentations": list(self.knobs.augmentations)}

    def names(self, stems: Sequence[str] | None, residual: str | None) -> tuple[str, ...]:
        """Return the names of what a run with these options gives.

        Raises:
            ConfigError: A stem that the model doesn't know, or a name used twice.
        """
        return output_names(self.card.name, self.stems, stems, residual)

    def separate(
        self,
        mixture: Tensor | Block,
        sample_rate: int,
        *,
        stems: Sequence[str] | None = None,
        residual: str | None = None,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
    ) -> dict[str, Tensor]:
        """Separate a whole song that is in memory.

        Args:
            mixture: Float samples at any rate, full scale at 1.
            sample_rate: Rate of the mixture and of the result, in Hz.
            stems: Names of the wanted stems; all unless given. Only these are computed.
            residual: Name under which the mixture minus these stems is returned too.
            progress: Called after each batch of segments.
            cancel: Set it, from any thread, to stop before the next batch.

        Shape:
            - mixture: `(channels, time)`
            - each stem: `(channels, time)`, float32 on the CPU

        Raises:
            AudioError: Samples that are not finite, or no samples.
            ConfigError: An unknown stem, or an array of another shape.
            Cancelled: Where `cancel` is set.
        """
        check_rate(sample_rate)
        audio = as_audio(mixture, sample_rate)
        if not audio.shape[-1]:
            raise AudioError("The audio has no samples; at least one is needed.")
        blocks = torch.split(audio, _BLOCK, dim=-1)
        stream = self.stream(
            blocks,
            sample_rate,
            samples=audio.shape[-1],
            stems=stems,
            residual=residual,
            facts=self.measure(blocks),
            progress=progress,
            cancel=cancel,
        )
        gathering = Gathering()
        pour(stream, gathering)
        return gathering.stems

    @property
    def needs_statistics(self) -> bool:
        """Whether the model wants mean and deviation of the whole track before it starts."""
        return self._model.needs_statistics

    def measure(self, blocks: Iterable[Tensor | Block]) -> Facts:
        """Return what the model wants to know of a track before it starts.

        Args:
            blocks: The whole track `(channels, time)`; read only if something is wanted.
        """
        if not self.needs_statistics:
            return UNKNOWN
        return Facts(
            track_statistics(
                block if isinstance(block, Tensor) else torch.from_numpy(block) for block in blocks
            )
        )

    def measure_file(self, path: Path, wanted: Wanted = EVERYTHING) -> Facts:
        """Return what the model wants to know of a file; it is read only if something is."""
        if not self.needs_statistics:
            return UNKNOWN
        with _opened(path, wanted) as reader:
            return self.measure(map(torch.from_numpy, reader.blocks(_BLOCK)))

    def stream(
        self,
        blocks: Iterable[Tensor | Block],
        sample_rate: int,
        *,
        samples: int | None = None,
        stems: Sequence[str] | None = None,
        residual: str | None = None,
        facts: Facts = UNKNOWN,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
    ) -> Stream:
        """Separate a stream of blocks `(channels, time)`, holding about two segments in memory.

        Args:
            blocks: Float samples, each block of any length, all of the same number of channels.
            sample_rate: Rate of the blocks, in Hz.
            samples: Expected length of the stream per channel, where known; for progress only.
            stems: As in `separate`.
            residual: As in `separate`.
            facts: Findings of `measure`, for models that want them (`needs_statistics`), and the
                layout of the channels, where known.
            progress: As in `separate`.
            cancel: As in `separate`.

        Raises:
            AudioError, ConfigError, Cancelled: As in `separate`, and all but an unknown stem only
                while the stream is read.
        """
        check_rate(sample_rate)
        names = self.names(stems, residual)
        if self.needs_statistics and facts.statistics is None:
            raise ConfigError(
                f"'{self.card.name}' needs the statistics of the whole track; give what `measure` "
                "returns as `facts`."
            )
        model = self._model.only(stems or self.stems)
        total = None
        if samples is not None:
            total = model.segments(math.ceil(samples * self.sample_rate / sample_rate))
        return Stream(
            blocks=checked(blocks, sample_rate),
            names=names,
            residual=bool(residual),
            model=model,
            monitor=Monitor(total, progress, cancel),
            facts=facts,
            adapter=lambda channels: Adapter(
                sample_rate,
                self.sample_rate,
                pair_channels(channels, self.card.channels, facts.layout),
            ),
        )

    def separate_file(
        self,
        path: str | Path,
        out_dir: str | Path,
        wanted: Wanted = EVERYTHING,
        *,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
        **values: Unpack[WantedValues],
    ) -> Result:
        """Separate a file into files of the same rate, length and channels.

        Either all files appear, whole, or none. Stem levels are never changed one by one: if an
        integer format would clip, one gain is applied to all stems and told in the result.

        Args:
            path: Any file that `separator.audio` reads.
            out_dir: Folder for the stems; made if missing.
            wanted: Stems, residual, range and form of the files; each may also be given by its
                name (`stems=["vocals"], bit_depth=24`), see `Wanted`.
            progress: As in `separate`.
            cancel: As in `separate`.

        Raises:
            AudioError: The file can't be read, or a stem can't be written.
            ConfigError: A value that isn't allowed.
            Cancelled: Where `cancel` is set; no file is left behind.
        """
        path, wanted = Path(path), replace(wanted, **values)
        outputs = {
            name: Path(out_dir) / wanted.path(path.stem, name, self.card.name)
            for name in self.names(wanted.stems, wanted.residual)
        }
        return self.write_stems(path, outputs, wanted, progress=progress, cancel=cancel)

    def write_stems(
        self,
        path: Path,
        outputs: dict[str, Path],
        wanted: Wanted = EVERYTHING,
        *,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Separate a file into the given files; else as `separate_file`.

        Args:
            outputs: Name of a stem or of the residual, and its file. A stem without a file is
                computed, for the residual and the gain, but not written.
        """
        began = time.perf_counter()
        facts = self.measure_file(path, wanted)
        # The thread that decodes must have ended before the file closes, whatever goes wrong.
        with (
            _opened(path, wanted) as reader,
            closing(prefetch(reader.blocks(_BLOCK))) as blocks,
        ):
            stream = self.stream(
                blocks,
                reader.sample_rate,
                samples=reader.samples,
                stems=wanted.stems,
                residual=wanted.residual,
                facts=replace(facts, layout=reader.info.layout),
                progress=progress,
                cancel=cancel,
            )
            writer = StemWriter(
                outputs,
                reader.sample_rate,
                reader.channels,
                bit_depth=wanted.bit_depth,
                source=reader.info,
                overwrite=wanted.overwrite,
                others=self.names(wanted.stems, wanted.residual),
            )
            pour(stream, writer)
        return Result(
            source=path,
            outputs=outputs,
            model=self.card.name,
            sample_rate=reader.sample_rate,
            channels=reader.channels,
            samples=reader.samples_read,
            gain=writer.gain,
            truncated=reader.truncation.message if reader.truncation else None,
            notes=(*reader.notes, *writer.notes, *stream.notes),
            seconds=time.perf_counter() - began,
            network_seconds=stream.network_seconds,
        )


def _opened(path: Path, wanted: Wanted) -> AudioReader:
    """Open what is wanted of a file."""
    return open_audio(path, stream=wanted.track, start=wanted.start, duration=wanted.duration)


def load_model(name: str, *, offline: bool = False) -> nn.Module:
    """Load the network of a model, or of an ensemble that runs as one, in float32 on the CPU.

    Shape: `(batch, channels, time) -> (batch, stems, channels, time)`.

    Raises:
        ModelError: Unknown model, an ensemble of several networks, or weights that are missing,
            damaged or don't fit.
    """
    tree = find_members(find_card(name))
    if not tree.is_network:
        members = ", ".join(below.card.name for below in tree.members)
        raise ModelError(
            f"'{name}' is an ensemble of several networks; load one of {members}, or use Separator."
        )
    return _load(tree, offline)


def _load(tree: Tree, offline: bool) -> nn.Module:
    """Load what runs as one network."""
    never = offline or None  # None asks $SEPARATOR_OFFLINE
    with torch.device("cpu"):  # whatever the caller's default
        if isinstance(tree.card, Ensemble):
            return load_joined(tree.card, tree.models, offline=never)
        return load_network(tree.card, offline=never)
