"""Tombstones: keyed hashes of what was erased, which bar it from coming back (Guarantee 13).

A tombstone is HMAC-SHA-256 (RFC 2104) over a kind and a value; the value itself is nowhere kept. Keys come from the
environment as a ring. New tombstones are written under the first key; old ones stay readable under their own, for what
they name is gone and cannot be keyed again. So a key may leave the ring only when its tombstones may be forgotten.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import GovernanceError
from jobs.governance.decide import STATES_GIVEN
from jobs.schemas import BASIS_LINKS, PROCESSING_BASIS, TOMBSTONES
from jobs.tables.links import NOT_READ
from jobs.tables.store import looked_up, looked_up_in_parts, materialise

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import SecretStr

    from jobs.settings import Settings
    from jobs.tables.store import Warehouse

#: What a tombstone names: an image's id, the hash of its bytes, a face's key, a person's pseudonym, a source batch; and
#: an image that ended by its retention, which a permission given since brings back. LEFT: an image that stays, or may
#: come back, and that somebody was erased from, by its id and by the hash of its bytes: records without a box cover
#: nobody in it.
IMAGE, CONTENT, FACE, SUBJECT, BATCH, EXPIRED = "image", "content", "face", "subject", "batch", "expired"
LEFT, LEFT_CONTENT = "left", "left content"
# 128 random bits in hexadecimal; and no letter held down.
_LEAST_BYTES: Final = 32
_LEAST_KINDS: Final = 8
_DIGESTED: Final = "row_key string, kind string, key_id string, digest string"


@dataclass(frozen=True, repr=False)
class KeyRing:
    """Keys by their id, the current one first. The id is derived from the key, so it cannot name a wrong one."""

    keys: Mapping[str, bytes]

    @classmethod
    def of(cls, texts: list[str]) -> KeyRing:
        """The ring of these keys, the current one first; white space around a key is none of it."""
        keys = [text.strip().encode() for text in texts if text.strip()]
        return cls({hmac.new(key, b"face-reindex key id", hashlib.sha256).hexdigest()[:16]: key for key in keys})

    @classmethod
    def parse(cls, secret: SecretStr | None) -> KeyRing:
        """The ring of a comma-separated secret, the current key first; empty where there is none."""
        return cls.of(secret.get_secret_value().split(",") if secret else [])

    @property
    def current(self) -> str:
        """The id of the key that new tombstones are written under."""
        if not self.keys:
            raise GovernanceError(
                "There is no key for tombstones, and an erasure without them could be undone by the next ingestion.",
                hint="set FACE_REINDEX_TOMBSTONE_KEYS (or FACE_REINDEX_HMAC_KEY) in the environment.",
            )
        return next(iter(self.keys))

    def digest(self, kind: str, value: str, key_id: str | None = None) -> str:
        """The tombstone of a value, under the current key or another of the ring: 64 hex digits."""
        return hmac.new(self.keys[key_id or self.current], f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()


def is_guessable(key: bytes) -> bool:
    """Whether a key may be found by trying: its id, which stands in tables, tells whether a guess is right."""
    return len(key) < _LEAST_BYTES or len(set(key)) < _LEAST_KINDS


def key_ring(settings: Settings) -> KeyRing:
    """The ring of the environment: FACE_REINDEX_TOMBSTONE_KEYS (comma-separated), else the pseudonyms' keys."""
    return KeyRing.parse(settings.tombstone_keys or settings.hmac_key)


def digests(rows: DataFrame, columns: Mapping[str, str], row_key: str, ring: KeyRing, key_ids: list[str]) -> DataFrame:
    """Tombstones that values would have: one row for each value and key (row_key, kind, key_id, digest).

    ``columns`` maps a kind to the column of its values. By executors in Python, where the key travels in the task and
    not in a query plan, which Spark's event log would keep.
    """
    kinds = list(columns)
    keys = {key_id: ring.keys[key_id] for key_id in key_ids}
    wanted = rows.select(F.col(row_key).cast("string").alias("row_key"), *(F.col(columns[k]).alias(k) for k in kinds))
    return wanted.mapInArrow(_digesting(kinds, keys), _DIGESTED)


def keyed_text(kind: str, value: object) -> bytes | None:
    """What the tombstone of a value is a hash of; None where it has none.

    What stands in place of a digest where there was nothing to read is no content: it is the same for all that have
    the same fault, and erasing one of them would bar the others.
    """
    if value is None or (kind in (CONTENT, LEFT_CONTENT) and str(value).startswith(NOT_READ)):
        return None
    return f"{kind}\0{value}".encode()


def _digesting(
    kinds: list[str], keys: Mapping[str, bytes]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for kind in kinds:
                values = [keyed_text(kind, value) for value in batch.column(kind).to_pylist()]
                for key_id, key in keys.items():
                    found = [None if v is None else hmac.digest(key, v, "sha256").hex() for v in values]
                    constant = {"kind": kind, "key_id": key_id}
                    yield pa.RecordBatch.from_pydict(
                        {"row_key": batch.column("row_key"),
                         **{name: pa.array([value] * len(batch), pa.string()) for name, value in constant.items()},
                         "digest": pa.array(found, pa.string())}
                    )  # fmt: skip

    return run


@dataclass(frozen=True)
class Stones:
    """Tombstones that can be read, to look rows up among: how many of each kind, under which keys."""

    frame: DataFrame
    counts: Mapping[str, int]
    ring: KeyRing
    key_ids: list[str]

    @classmethod
    def read(cls, tombstones: DataFrame, ring: KeyRing) -> Stones:
        """Look once at these ``tombstones``.

        Raises:
            GovernanceError: some were written under a key that is not in the ring, so they cannot be compared.
        """
        there = tombstones.groupBy("kind", "key_id").count().collect()
        key_ids = sorted({row["key_id"] for row in there})
        unknown = sorted(set(key_ids) - set(ring.keys))
        if unknown:
            raise GovernanceError(
                f"Tombstones of key {', '.join(unknown)} cannot be read, so what they bar cannot be barred.",
                hint="add that key to FACE_REINDEX_TOMBSTONE_KEYS (after the current one).",
            )
        counts: dict[str, int] = {}
        for row in there:
            counts[row["kind"]] = counts.get(row["kind"], 0) + row["count"]
        return cls(tombstones, counts, ring, key_ids)

    def matching(self, rows: DataFrame, columns: Mapping[str, str], row_key: str) -> DataFrame:
        """Which of ``rows`` have one of these: row_key (text) and the last erasure's time, `erased_at`."""
        wanted = self.frame.where(F.col("kind").isin(*columns)).select("kind", "key_id", "digest", "recorded_at")
        count = sum(self.counts.get(kind, 0) for kind in columns)
        keyed = digests(rows, columns, row_key, self.ring, self.key_ids)
        # Up to two million: a hash of each row against all of them, and no shuffle of the rows.
        found = keyed.join(looked_up(wanted, count), ["kind", "key_id", "digest"])
        return found.groupBy("row_key").agg(F.max("recorded_at").alias("erased_at"))

    def barring(self, rows: DataFrame, columns: Mapping[str, str], row_key: str) -> DataFrame | None:
        """As `matching`; None where there is no tombstone of these kinds, so that nothing need be compared."""
        return self.matching(rows, columns, row_key) if self.counts.keys() & columns.keys() else None


def admission(warehouse: Warehouse, settings: Settings) -> Callable[[DataFrame], DataFrame] | None:
    """Keeps rows that were erased out of an ingestion: by image_id, and by content_sha256 where there is one.

    None where nothing was ever erased. Rows keep their bytes beside them: they are looked up, not shuffled.
    """
    tombstones = warehouse.read(TOMBSTONES)
    if tombstones.isEmpty():
        return None
    ring = key_ring(settings)
    key_ids = Stones.read(tombstones, ring).key_ids
    barred = tombstones.where(F.col("kind").isin(IMAGE, CONTENT, EXPIRED)).select("digest")
    barred = materialise(barred.join(_lifted(warehouse, tombstones, ring, key_ids), "digest", "left_anti").distinct())
    stones = looked_up_in_parts(barred.withColumnRenamed("digest", "_stone"), "_stone")

    def digest_of(kind: str, column: str, key_id: str) -> Column:
        key = ring.keys[key_id]

        def keyed(value: str | None) -> str | None:
            text = keyed_text(kind, value)
            return None if text is None else hmac.digest(key, text, "sha256").hex()

        # Said, for else Spark looks for types of pandas in the hints, and warns that there are none.
        return F.udf(keyed, useArrow=False)(F.col(column))

    def admit(rows: DataFrame) -> DataFrame:
        columns = [(IMAGE, "image_id"), (EXPIRED, "image_id")]
        columns += [(CONTENT, "content_sha256")] if "content_sha256" in rows.columns else []
        kept = rows
        for key_id in key_ids:
            for kind, column in columns:
                digest = digest_of(kind, column, key_id)
                for some in stones:
                    kept = kept.join(some, digest == F.col("_stone"), "left_anti")
        return kept

    return admit


def given_at() -> Column:
    """When the `events` of a row last gave a permission; null where none does. Whoever withdraws gives none."""
    gave = F.filter("events", lambda event: F.coalesce(event["event_state"].isin(*STATES_GIVEN), F.lit(False)))
    return F.array_max(F.transform(gave, lambda event: event["event_time"]))


def last_given(basis: DataFrame) -> DataFrame:
    """When each record last gave a permission, by all of its versions: record_id, pii_principal_id, given_at.

    By each person whom any of them names; null: never.
    """
    return basis.groupBy("record_id", "pii_principal_id").agg(F.max(given_at()).alias("given_at"))


def given_since(given: Column) -> Column:
    """Whether a permission was ``given`` (null: never) after `erased_at`: who gave none since stays erased."""
    return F.coalesce(given > F.col("erased_at"), F.lit(False))


def _lifted(warehouse: Warehouse, tombstones: DataFrame, ring: KeyRing, key_ids: list[str]) -> DataFrame:
    """Digests of expired images that a permission given since brings back."""
    expired = tombstones.where(F.col("kind") == EXPIRED)
    expired = expired.groupBy("digest").agg(F.max("recorded_at").alias("recorded_at"))
    newest = warehouse.read(PROCESSING_BASIS).groupBy("record_id").agg(F.max(given_at()).alias("given_at"))
    links = (
        warehouse.read(BASIS_LINKS)
        .join(newest, "record_id")
        .groupBy("image_id")
        .agg(F.max("given_at").alias("given_at"))
    )
    found = digests(links, {EXPIRED: "image_id"}, "image_id", ring, key_ids)
    given = found.join(links.withColumnRenamed("image_id", "row_key"), "row_key").select("digest", "given_at")
    return expired.join(given, "digest").where("given_at > recorded_at").select("digest").distinct()
