"""A server's double and the index at it, as `connect` opens it, for tests of the load, the proof and the switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from jobs.index.milvus.server import ServerIndex
from jobs.index.protocol import CollectionInfo, IndexSpec, Keys, Vectors
from jobs.settings import Settings
from tests.milvus.rows import INFO, bucket_of
from tests.milvus.servers.core import Core
from tests.milvus.servers.double import MilvusDouble
from tests.milvus.servers.imports import Pace
from tests.milvus.servers.profiles import PROFILES, Profile
from tests.milvus.servers.store import Collection, Columns

DEFAULT = PROFILES["2.6.24"]


@dataclass
class Served:
    """A double whose time stands still and whose jobs are over at the next look, and an index at it."""

    double: MilvusDouble
    index: ServerIndex

    @property
    def core(self) -> Core:
        """What the server keeps."""
        return self.double.core

    def there(self, name: str) -> Collection:
        """A collection as the server has it."""
        return self.core.store.get("default", name)

    def keys(self, name: str) -> list[int]:
        """Keys of all rows that a query would see, duplicates too."""
        found: list[int] = sorted(self.there(name).seen()["face_id"].tolist())
        return found

    def live(self) -> dict[str, str]:
        """Aliases and what they point at."""
        return {alias: target for (_, alias), target in self.core.store.aliases.items()}

    def loaded(self) -> dict[str, bool]:
        """Every collection, and whether it is in memory."""
        return {there.name: there.loaded for there in self.core.store.all()}

    def fill(self, name: str, keys: Keys, vectors: Vectors, info: CollectionInfo = INFO) -> str:
        """Make a collection of these rows that can be loaded."""
        self.index.create(name, dim=vectors.shape[1], shards=1, properties=info)
        self.write(name, keys, vectors)
        self.index.build_index(name, IndexSpec("FLAT"), timeout=10)
        return name

    def write(self, name: str, keys: Keys, vectors: Vectors, *, bucket: int | None = None) -> None:
        """Rows beside those that are there, as an import brings them."""
        zeros = np.zeros(len(keys), np.int64)
        buckets = bucket_of(keys) if bucket is None else zeros + bucket
        rows: Columns = {
            "face_id": keys,
            "embedding": vectors,
            "bucket": buckets,
            "purposes": zeros,
            "expires_at": zeros,
        }
        self.core.store.write(self.there(name), rows, flushed=True)


def settings_of(double: MilvusDouble, **milvus: object) -> Settings:
    """Settings of an index at a double."""
    return Settings.model_validate({"milvus": {"uri": double.uri, **milvus}})


@contextmanager
def served(profile: Profile = DEFAULT) -> Iterator[Served]:
    """A double of a version, and an index at it."""
    with MilvusDouble(profile, speed=0.0) as double, ServerIndex.open(settings_of(double)) as index:
        double.core.imports.pace = Pace(0.0, 0.0, 0.0, 0.0, 0.0)
        yield Served(double, index)
