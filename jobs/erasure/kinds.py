"""The words of the ledger of erasures: kinds of requests and items, steps of requests, and how a request ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Any, Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.tables.store import Warehouse, looked_up

#: Kinds of targets and items beside those of tombstones; EXPIRY is the request of a pass over all that is due, SWEEP
#: over all that came back. LINK: the hash of erased bytes, in links of an image that holds others now. ORPHAN: an image
#: that has faces or a status, and no row: its links stay, for nobody asked for an erasure, and it may come in again.
#: UNLINKED: an image to which a person's faces led, and no link of anybody: their request waits until one does.
RECORD, SHARED, LINK, EXPIRY, SWEEP = "record", "shared", "link", "expiry", "sweep"
ORPHAN, UNLINKED = "orphan", "unlinked"
NAMED_COLUMNS: Final = "request_id string, kind string, value string"
#: What `pending` gives, and `find` takes: also how often, and when last, a person or a batch was asked for.
TARGETS: Final = f"{NAMED_COLUMNS}, asked bigint, asked_at timestamp"
ITEM_COLUMNS: Final = ("request_id", "kind", "value", "image_id")
#: Steps of a request. Of EXPIRY and SWEEP: BEGUN, rows go from now on; VOID, it was taken back before. SETTLED: nothing
#: is left in the ledger of what it named, in no file either, and its receipt is written.
COMPLETE, BEGUN, VOID, SETTLED = "complete", "begun", "void", "settled"
#: A step of no request: what the pass that was closed at that instant did, for its receipts.
CARRIED_OUT: Final = "carried-out"
#: How a request ended: something was found; nothing, for an earlier request had erased it; nothing that is known here.
ERASED, ERASED_BEFORE, NOT_FOUND = "erased", "erased before", "nothing found"
EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Target:
    """What one request asks for: `subject` (a pseudonym), `image`, `batch`, or `expired` (a record).

    ``also``: further pseudonyms that the same person may stand under.
    """

    kind: str
    value: str
    also: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """All that it names."""
        return (self.value, *self.also)


def is_of_pass() -> Column:
    """Whether a request is one of a pass and not of somebody: an EXPIRY or a SWEEP."""
    return is_of_expiry() | is_of_sweep()


def is_of_expiry() -> Column:
    """Whether a request is an EXPIRY: what goes by it comes in again under a permission given since."""
    return F.col("request_id").startswith(f"er-{EXPIRY}-")


def is_of_sweep() -> Column:
    """Whether a request is a SWEEP: what goes by it came back after it was erased, or has lost its picture."""
    return F.col("request_id").startswith(f"er-{SWEEP}-")


@dataclass(frozen=True)
class Targets:
    """The targets of a pass, and how many there are of each kind."""

    targets: DataFrame
    counts: Mapping[str, int]

    def of(self, kind: str, name: str, *more: str) -> DataFrame:
        """Those of one ``kind`` (request_id, ``name``, …), as a side of a join."""
        named = self.targets.where(F.col("kind") == kind).select("request_id", F.col("value").alias(name), *more)
        return looked_up(named, self.counts.get(kind, 0))


def union_of(warehouse: Warehouse, frames: Sequence[DataFrame], columns: str) -> DataFrame:
    """These ``columns`` of all ``frames``, of which there may be none."""
    nothing = warehouse.spark.createDataFrame([], columns)
    return reduce(DataFrame.unionByName, [frame.select(*nothing.columns) for frame in frames] or [nothing])


def items_of(rows: DataFrame, kind: str, value: Any, image: str | None) -> DataFrame:
    """``rows`` (request_id, …) as items (ITEM_COLUMNS) of one ``kind``; ``image``: the column with their image_id."""
    image_id = F.col(image) if image else F.lit(None).cast("string")
    return rows.select("request_id", F.lit(kind).alias("kind"), value.alias("value"), image_id.alias("image_id"))


def count_by_kind(items: DataFrame) -> dict[str, int]:
    """How many of the ``items`` there are of each kind."""
    return {row["kind"]: row["count"] for row in items.groupBy("kind").count().collect()}
