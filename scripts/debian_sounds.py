"""Recordings, soundfonts and voices out of Debian's packages, by name.

A package is fetched by `apt-get download` and unpacked beside others, so nothing needs root, and
soundfonts kept for judging never reach the folders in which programs look for them.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

# Two of this package's four songs train, the others judge.
REAL_BAND = "fretsonfire-songs-sectoid"
TRAINING_SONGS = ("Escape from chaosland", "Metal madness")
JUDGE_SONGS = ("Feelings", "War of freedom")

TRAINING = (
    "sonic-pi-samples",
    "freepats",
    "fluid-soundfont-gm",
    "musescore-general-soundfont-small",
    "opl3-soundfont",
    "csound-soundfont",
    "klettres-data",
    "ktuberling-data",
    REAL_BAND,
)
JUDGE = (
    "hydrogen-drumkits",
    "avldrums.lv2-soundfont",
    "timgm6mb-soundfont",
    "fillets-ng-data-cs",
    REAL_BAND,
)
# Sounds of songs that others may judge by; never to train on, like those of JUDGE.
KEPT_BACK = (
    *("hydrogen-drumkits", "avldrums.lv2", "avldrums.lv2-soundfont", "timgm6mb-soundfont"),
    *("musescore-general-soundfont", "musescore-general-soundfont-lossless", "lmms-common"),
    *("festival", "flite", "fretsonfire-songs-muldjord"),
)


@dataclass(frozen=True)
class Shelf:
    """The packages that may be used for a purpose, unpacked in a folder."""

    folder: Path
    names: tuple[str, ...]

    def package(self, name: str) -> Path:
        """Return the root of an unpacked package; fetch it where it is missing.

        Raises:
            SystemExit: It can't be fetched.
            ValueError: It is not for this purpose.
        """
        if name not in self.names:
            raise ValueError(f"{name} is not among the packages for this: {', '.join(self.names)}")
        root = self.folder / name
        if root.is_dir():
            return root
        part = self.folder / f"{name}.part"
        part.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", "-qq", name], cwd=part, check=True)
            (archive,) = part.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=part, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"{name} can't be fetched: {error}. It is a Debian package."
            ) from error
        archive.unlink()
        part.rename(root)
        return root

    def files(self, name: str, pattern: str) -> list[Path]:
        """List a package's files that match a pattern, sorted."""
        return sorted(path for path in self.package(name).rglob(pattern) if path.is_file())
