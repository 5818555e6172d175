"""What the app does, without its pages: from an upload to a song that can be played.

```
Request ──check──> Job in the queue ──model, network──> stems on disk ──draw──> Song
```
"""

from __future__ import annotations

import math
import re
import shutil
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from separator.api import Result
from separator.audio.info import AudioInfo
from separator.audio.reader import probe
from separator.ensemble.knobs import Knobs
from separator.errors import AudioError, ConfigError
from separator.resources import data_folder
from separator.stream.progress import Progress
from separator.stream.wanted import Wanted
from separator.web.belongings import private_folder
from separator.web.catalog import Catalog
from separator.web.jobs import Job, Queue
from separator.web.pool import ModelPool, interruptible, release_memory
from separator.web.settings import AppSettings
from separator.web.songs import Library, Song, Track, adopt
from separator.web.uploads import Uploads
from separator.web.works import Works
from separator.zoo.cards import AnyCard, output_names
from separator.zoo.describe import models_of, size_of
from separator.zoo.speeds import Speeds

_SWEEP_SECONDS = 30.0
_QUOTED_PATH = re.compile(r"'(?:/|[A-Za-z]:\\)[^']*'")


@dataclass(frozen=True)
class Request:
    """Wishes for a song; the fields are those of `Separator.separate_file`.

    Attributes:
        source: The upload.
        title: What the song is called, here and in the names of downloads.
        residual: Name of what the chosen stems leave over; empty for none.
    """

    source: Path
    model: str
    title: str = ""
    stems: tuple[str, ...] = ()
    residual: str = ""
    start: float = 0.0
    duration: float | None = None
    overlap: float | None = None
    shifts: int = 0
    precision: str = "auto"
    audio_format: str = "wav"
    bit_depth: int | None = None

    @property
    def knobs(self) -> Knobs:
        """What was chosen for the run."""
        return Knobs(precision=self.precision, overlap=self.overlap, shifts=self.shifts)

    @property
    def wanted(self) -> Wanted:
        """What is wanted of the song."""
        return Wanted(
            stems=self.stems or None,
            residual=self.residual or None,
            start=self.start,
            duration=self.duration or None,
            audio_format=self.audio_format,
            bit_depth=self.bit_depth,
        )


@dataclass
class Service:
    """Everything that all users share."""

    settings: AppSettings = field(default_factory=AppSettings)

    def __post_init__(self) -> None:
        self._lock, self.root = private_folder()
        self.library = Library(self.root / "songs", self.settings.keep_seconds)
        self.uploads = Uploads(
            self.root / "uploads", self.settings.max_held, self.settings.max_uploads
        )
        self.works = Works()
        most = self.settings.max_waiting if self.settings.is_local else self.settings.max_jobs
        self.queue = Queue(self.settings.max_waiting, after=_tidy, max_each=most)
        self.downloads = Queue(self.settings.max_waiting)  # these need the network, not the device
        self.catalog = Catalog()
        self.speeds = Speeds()
        self.pool = ModelPool(self.settings.device)
        self._closing = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="separator-sweep", daemon=True)
        self._sweeper.start()

    def close(self) -> None:
        """Stop all jobs, wait for the threads that work on them, then delete all files."""
        self._closing.set()
        self.queue.close()
        self.downloads.close(patience=5)  # it may hang in the network, and touches no file here
        self._sweeper.join()
        shutil.rmtree(self.root, ignore_errors=True)
        self._lock.close()

    def is_upload(self, path: Path) -> bool:
        """Whether a file that a request names is one that was sent to this server."""
        return path.resolve().is_relative_to(self.uploads.folder.resolve())

    def demo_song(self) -> Path:
        """Return a copy of the bundled song, under the name that people see."""
        copy = self.root / "Demo song.flac"
        if not copy.exists():
            shutil.copyfile(data_folder("models") / "demo" / "mixture.flac", copy)
        return copy

    def share(self, song: Song) -> dict[str, Path]:
        """Hand a song's stems over to Gradio, which deletes them in time; return them by name.

        They lie in a folder with the song's token as its name, which nobody else can guess.
        """
        folder = self.uploads.folder / song.token
        folder.mkdir(mode=0o700, parents=True)
        shared = {track.name: adopt(track.path, folder, track.name) for track in song.tracks[1:]}
        self.library.delete(song.token)
        return shared

    def submit(self, request: Request, owner: str, visitor: str = "") -> Job:
        """Check a request and put it into the queue; the job's result is a `Song`.

        Raises:
            SeparatorError: The request can't be fulfilled, in words for the user.
        """
        request = replace(
            request,
            title=_title(request.title or request.source.stem),
            residual=request.residual and _title(request.residual),
        )
        card = self.catalog.find(request.model)
        self._check_wishes(request, card)
        self.check_source(request)
        with self.library.new_folder() as folder:
            mine = replace(request, source=adopt(request.source, folder))
            self.uploads.use(request.source)
            work = partial(self._separate, mine, card)
            job = Job(request.title, owner, work, folder=folder, visitor=visitor)
            return self.queue.submit(job)

    def _check_wishes(self, request: Request, card: AnyCard) -> None:
        wanted = request.wanted
        output_names(card.name, card.stems, wanted.stems, wanted.residual)
        replace(request.knobs, device=self.settings.device).check(models_of(card))

    def download(self, name: str, owner: str) -> Job:
        """Put the download of a model into the queue for downloads.

        Raises:
            ConfigError: Strangers use this server, or too many downloads are waiting.
        """
        self.require_management()
        is_known = size_of(self.catalog.find(name)) is not None

        def run(job: Job) -> None:
            def report(done: int, total: int) -> None:
                job.begin("Downloading") if not job.done else job.check()
                job.report(Progress(done, total if is_known else None))

            self.catalog.download(name, report)

        return self.downloads.submit(Job(name, owner, run, unit="bytes"))

    def require_management(self) -> None:
        """Refuse strangers.

        Raises:
            ConfigError: The server is open to the network and asks for no password.
        """
        if not self.settings.may_manage:
            raise ConfigError(
                "Models can be changed only on the computer itself, or with a password."
            )

    def check_source(self, request: Request) -> AudioInfo:
        """Refuse what isn't audio, and what is too large, too long or out of range.

        Raises:
            AudioError: In words for the user, which never show a path of the server.
        """
        try:
            size = request.source.stat().st_size
        except OSError as error:
            raise AudioError("The upload is no longer here; choose the file again.") from error
        if size > self.settings.max_bytes:
            raise AudioError(
                f"The file has {size / 1e6:.0f} MB; allowed: {self.settings.max_bytes / 1e6:.0f} "
                "MB. A flac or mp3 of the same song is smaller."
            )
        try:
            info = probe(request.source)
        except AudioError as error:
            raise AudioError(_named(error, request.title)) from error
        self._check_range(request, info)
        self._check_space(request, info)
        return info

    def _check_range(self, request: Request, info: AudioInfo) -> None:
        length = info.duration  # no more than an estimate where samples aren't counted
        if length is not None and info.samples is not None and request.start >= length:
            raise AudioError(
                f"The range begins at {request.start:.1f} s, the song ends at {length:.1f} s."
            )
        rest = float("inf") if length is None else length - request.start
        wanted = min(request.duration or float("inf"), rest)
        limit = self.settings.max_seconds
        if wanted > limit and (length is not None or request.duration is not None):
            raise AudioError(
                f"The song is {wanted / 60:.0f} minutes long; at most {limit / 60:.0f} are "
                "separated at once. Choose a range of it."
            )

    def _check_space(self, request: Request, info: AudioInfo) -> None:
        """Foresee a full disk: stems may need their float samples twice for a while."""
        rest = self.settings.max_seconds
        if info.duration is not None:
            rest = min(rest, max(0.0, info.duration - request.start))
        seconds = min(request.duration or rest, rest)
        stems = len(self.catalog.find(request.model).stems) + bool(request.residual)
        needed = 8 * seconds * info.sample_rate * info.channels * stems
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise AudioError(
                f"The server's disk is too full: about {needed / 1e6:.0f} MB are needed, "
                f"{free / 1e6:.0f} MB are free. Choose a shorter range, or try later."
            )

    def _separate(self, request: Request, card: AnyCard, job: Job) -> Song:
        """Do one job: separate, then draw."""
        mixture, folder = request.source, request.source.parent
        result = self.run_model(request, card, job, folder)
        first = round(request.start * probe(mixture).sample_rate)
        stems = [Track(name, path) for name, path in result.outputs.items()]
        song = Song(
            token=folder.name,
            folder=folder,
            title=request.title,
            sample_rate=result.sample_rate,
            channels=result.channels,
            samples=result.samples,
            tracks=(Track("original", mixture, first, gain=result.gain), *stems),
            facts={"model": card.name},
        )
        job.begin("Drawing")
        song.draw(job.check)
        song.notes = tuple(_notes(request, result, song, self.settings.max_seconds))
        return self.library.add(song)

    def run_model(self, request: Request, card: AnyCard, job: Job, folder: Path) -> Result:
        """Separate with one model, stems into `folder`."""
        job.begin(f"Loading {card.name}")
        separator, wanted = self.pool.get(card, request.knobs), request.wanted
        limit = min(wanted.duration or float("inf"), self.settings.max_seconds)
        names = separator.names(wanted.stems, wanted.residual)
        outputs = {
            name: folder / f"{number:02d}.{request.audio_format}"
            for number, name in enumerate(names, start=1)
        }
        job.begin("Separating")
        try:
            with interruptible(separator, job.cancel):
                result = separator.write_stems(
                    request.source,
                    outputs,
                    replace(wanted, duration=limit),
                    progress=job.report,
                    cancel=job.cancel,
                )
        except AudioError as error:
            raise AudioError(_named(error, request.title)) from error
        self.speeds.note(card.name, result.seconds, result.duration)
        return result

    def _sweep(self) -> None:
        """Delete what is old, every now and then."""
        while not self._closing.wait(_SWEEP_SECONDS):
            self.library.expire()
            self.uploads.expire(self.settings.keep_seconds)
            self.works.expire(self.settings.keep_seconds)
            for job in self.works.abandoned(self.settings.patience_seconds):
                self.queue.cancel(job)


def _tidy(job: Job) -> None:
    """Give back the memory of a job that was cut short; that of others serves the next one."""
    if job.state != "done":
        release_memory()


def _notes(request: Request, result: Result, song: Song, limit: float) -> list[str]:
    notes = [*result.notes]
    if song.overviews[0].is_silent:
        notes.append("The song is silent, and so are its stems.")
    if result.gain < 1:
        notes.append(
            f"All tracks were turned down by {-20 * math.log10(result.gain):.1f} dB, together: a "
            "stem was louder than its format can hold."
        )
    if request.duration is None and result.duration >= limit:
        notes.append(f"Only the first {limit / 60:.0f} minutes were separated; that is the limit.")
    if result.truncated:
        notes.append(f"The file is damaged: {result.truncated}.")
    return notes


def _title(name: str) -> str:
    """Make a name fit for files and pages.

    >>> _title("../a\\x00 song: live?")
    'a song live'
    """
    kept = "".join(char if char.isalnum() or char in " -_()&'.,+" else " " for char in name)
    return " ".join(kept.split()).strip(". ")[:80] or "song"


def _named(error: AudioError, title: str) -> str:
    """Return the message with the song's title in place of a path of the server.

    >>> _named(AudioError("'/srv/x/mixture.mp3' is empty (0 bytes)."), "a song")
    "'a song' is empty (0 bytes)."
    """
    return _QUOTED_PATH.sub(lambda _: f"'{title}'", str(error))
