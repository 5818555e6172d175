"""Find metrics by key: those of the registry, and the distance of a user's own embedding.

usdr                a key of `METRICS`
embedding MERT      the distance of embeddings called MERT, whose network the user gives
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from separator.errors import ConfigError
from separator.evaluation.embeddings import Embedding, load_embedding
from separator.evaluation.metrics import METRICS, Metric, embedding_metric

_PREFIX = "embedding "


@dataclass(frozen=True)
class EmbeddingFile:
    """Place of an embedding's network; plain data that can be sent to other processes.

    Attributes:
        name: As it stands in tables.
        sample_rate: Hz that the network expects.
        path: Path of a TorchScript archive.
    """

    name: str
    sample_rate: int
    path: Path

    @property
    def key(self) -> str:
        """Key of its distance among the metrics."""
        return _PREFIX + self.name

    def identity(self) -> object:
        """Return plain data that changes with the file.

        Raises:
            OSError: The file is gone.
        """
        status = self.path.stat()
        return [str(self.path.resolve()), self.sample_rate, status.st_size, status.st_mtime_ns]

    def metrics(self) -> Mapping[str, Metric]:
        """Return the metric by its key; the network is loaded once in each process.

        Raises:
            ModelError: The file is missing or isn't a TorchScript archive.
        """
        return {self.key: embedding_metric(_load(self))}


def parse_embedding(text: str) -> EmbeddingFile:
    """Read `NAME:HZ:FILE`.

    Raises:
        ConfigError: It is something else.

    >>> parse_embedding("MERT-L12:24000:mert.pt")
    EmbeddingFile(name='MERT-L12', sample_rate=24000, path=PosixPath('mert.pt'))
    """
    name, _, rest = text.partition(":")
    rate, _, path = rest.partition(":")
    if not (name and rate.isdecimal() and int(rate) and path):
        raise ConfigError(
            f"--embedding is '{text}'; wanted is NAME:HZ:FILE, such as MERT-L12:24000:mert.pt."
        )
    return EmbeddingFile(name, int(rate), Path(path))


def describe(key: str) -> Metric:
    """Return the metric of that key, to show its scores rather than to compute them.

    >>> describe("usdr").name, describe("embedding MERT").name
    ('uSDR', 'MERT MSE')
    """
    if key in METRICS:
        return METRICS[key]
    name = key.removeprefix(_PREFIX)
    return embedding_metric(Embedding(name, lambda signal: signal, 1))


@cache
def _load(file: EmbeddingFile) -> Embedding:
    return load_embedding(file.path, name=file.name, sample_rate=file.sample_rate)
