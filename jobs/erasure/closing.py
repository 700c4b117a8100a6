"""Which requests a pass has completed, and what the others wait for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from typing import Any, Final, NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.erasure.find import find, is_lost
from jobs.erasure.kinds import (
    CARRIED_OUT,
    COMPLETE,
    EPOCH,
    ERASED,
    ERASED_BEFORE,
    NOT_FOUND,
    RECORD,
    SHARED,
    UNLINKED,
    is_of_pass,
)
from jobs.erasure.ledger import going_items, unnoted
from jobs.erasure.requests import asked_since
from jobs.erasure.rows import stand_anywhere
from jobs.governance.tombstones import BATCH, FACE, IMAGE, SUBJECT, KeyRing, digests
from jobs.schemas import BASIS_LINKS, ERASURE_ITEMS, ERASURE_STEPS, IMAGES, PROCESSING_BASIS, TOMBSTONES
from jobs.tables.store import Warehouse, materialise

#: What the step COMPLETE has of a request, in numbers; beside its `outcome` and how often it was `asked` for, which
#: earlier releases did not record.
_COUNTED: Final = ("images", "faces", "records", "shared_images")
_COUNTS: Final = ", ".join(f"{name} bigint" for name in _COUNTED)


class Closed(NamedTuple):
    """How many requests a pass has completed; and how many stay open, by what they wait for: see `close`."""

    completed: int
    suspended: int
    unknown: int
    again: int


def close(
    warehouse: Warehouse,
    targets: DataFrame,
    found: DataFrame,
    items: DataFrame,
    ring: KeyRing,
    *,
    blind: bool,
    run_id: str,
    now: datetime,
    pass_did: dict[str, Any] | None = None,
) -> Closed:
    """Mark the requests of ``targets`` complete, but those of which something is on hold, not known, or came meanwhile.

    With what was found and how that ends it: once the items are gone, or a key has left the ring, nobody could tell.
    With how often it was asked for as this pass saw it, for `ask_again`; and with ``pass_did``, what the pass did:
    receipts need it, and the table of runs' steps may be removed.

    Not known is what to do for a person while images are linked to records that are not there: see `_unknown`. Or while
    none is linked to any (``blind``): see `is_blind`. Or for whatever is `unknown` of what was found.

    Those of a pass are complete with what is not on hold: what is will be due again, or here again, when the hold ends.
    """
    # What was asked for is an item, too, there or not; an image that was found has its image_id.
    kind, was_found = F.col("kind"), F.col("image_id").isNotNull()
    counts = items.groupBy("request_id").agg(
        F.count(F.when((kind == IMAGE) & was_found, 1)).alias("images"),
        *(F.count(F.when(kind == name, 1)).alias(f"{name}s") for name in (FACE, RECORD)),
        F.count(F.when(kind == SHARED, 1)).alias("shared_images"),
    )
    waiting = {**_waiting(warehouse, targets, found, blind=blind), "again": asked_since(warehouse, targets)}
    # How often one was asked for stands beside each of its targets.
    requests = targets.select("request_id", "asked").distinct().join(counts, "request_id", "left").fillna(0)
    requests, done = _that_wait(requests, waiting)
    nothing = ~_something(F.struct(*_COUNTED))
    numbers = [F.count_if(done), *(F.count_if(reason) for reason in waiting), F.count_if(done & nothing)]
    told = requests.agg(*numbers).first()
    assert told is not None  # noqa: S101 - an aggregate without groups always has its one row
    closed, of_nothing = Closed(*told[:-1]), told[-1]
    if closed.completed:
        rows = requests.where(done).withColumn("outcome", F.when(~nothing, ERASED))
        if of_nothing:
            before = _erased_before(warehouse, targets.join(rows.where(nothing), "request_id", "left_semi"), ring)
            rows = rows.join(before.withColumn("before", F.lit(ERASED_BEFORE)), "request_id", "left")
            rows = rows.withColumn("outcome", F.coalesce("outcome", "before", F.lit(NOT_FOUND)))
        rows = rows.select(
            "request_id",
            F.lit(COMPLETE).alias("step"),
            F.lit(run_id).alias("run_id"),
            F.to_json(F.struct(*_COUNTED, "outcome", "asked")).alias("result"),
            F.lit(now).cast("timestamp").alias("recorded_at"),
        )
        if pass_did is not None:
            at, did = F.lit(now).cast("timestamp"), F.lit(json.dumps(pass_did))
            row = warehouse.spark.range(1).select(
                F.lit(None).cast("string"), F.lit(CARRIED_OUT), F.lit(run_id), did, at
            )
            rows = rows.unionByName(row.toDF(*rows.columns))
        warehouse.append(rows, ERASURE_STEPS)
    return closed


def _waiting(warehouse: Warehouse, targets: DataFrame, found: DataFrame, *, blind: bool) -> dict[str, DataFrame]:
    """Requests (request_id) that stay open, by what they wait for: see `close`."""
    unknown = found.where(F.col("unknown") & ~is_of_pass()).select("request_id")
    return {
        "suspended": found.where(F.col("on_hold") & ~F.col("unknown") & ~is_of_pass()).select("request_id"),
        "unknown": _unknown(warehouse, targets, blind=blind).select("request_id").unionByName(unknown),
    }


def _that_wait(requests: DataFrame, waiting: Mapping[str, DataFrame]) -> tuple[DataFrame, Column]:
    """``requests``, each with whether it is among those ``waiting`` for a reason; and whether it is among none."""
    for reason, of_requests in waiting.items():
        marked = of_requests.select("request_id").distinct().withColumn(reason, F.lit(True))
        requests = requests.join(marked, "request_id", "left")
    return materialise(requests.fillna(False)), ~reduce(Column.__or__, [F.col(reason) for reason in waiting])


def idle(warehouse: Warehouse, targets: DataFrame) -> Closed | None:
    """How many requests would wait where a pass over ``targets`` could do nothing; None: it could.

    That is: complete one of them, write something down, or destroy a row. Only looks, in the order of what costs least.
    Not of requests of a pass, which none leaves open.
    """
    if not targets.where(is_of_pass()).isEmpty():
        return None
    blind, found = is_lost(warehouse), find(warehouse, targets)
    waiting = _waiting(warehouse, targets, found, blind=blind)
    requests, done = _that_wait(targets.select("request_id").distinct(), waiting)
    told = requests.agg(F.count_if(done), *(F.count_if(reason) for reason in waiting)).first()
    assert told is not None  # noqa: S101 - an aggregate without groups always has its one row
    done_now, suspended, unknown = told
    closed = Closed(done_now, suspended, unknown, again=0)
    if closed.completed or not unnoted(warehouse, found).isEmpty():
        return None
    return None if stand_anywhere(warehouse, going_items(warehouse, targets, found)) else closed


def _something(counts: Column) -> Column:
    return F.greatest(F.lit(0), *(counts[name] for name in _COUNTED)) > 0


def found_something() -> Column:
    """Whether anything was found of a request, by the `result` of its step COMPLETE."""
    return _something(F.from_json("result", _COUNTS))


def _erased_before(warehouse: Warehouse, targets: DataFrame, ring: KeyRing) -> DataFrame:
    """Requests (request_id) of ``targets`` that name what a request that is complete has erased, under whatever key.

    Told by tombstones: that request's own target is keyed with the key of its time, and may be another pseudonym.
    """
    kinds = {kind: kind for kind in (SUBJECT, IMAGE, BATCH)}
    named = targets.where(F.col("kind").isin(*kinds) & ~is_of_pass())
    named = named.select("request_id", *(F.when(F.col("kind") == kind, F.col("value")).alias(kind) for kind in kinds))
    keyed = digests(named, kinds, "request_id", ring, list(ring.keys)).where("digest IS NOT NULL")
    done = warehouse.read(ERASURE_STEPS).where((F.col("step") == COMPLETE) & found_something())
    stones = warehouse.read(TOMBSTONES).select("kind", "key_id", "digest", "request_id")
    erased = stones.join(done.select("request_id"), "request_id", "left_semi")
    found = keyed.join(erased, ["kind", "key_id", "digest"], "left_semi")
    return found.select(F.col("row_key").alias("request_id")).distinct()


def _unknown(warehouse: Warehouse, targets: DataFrame, *, blind: bool) -> DataFrame:
    """Requests (request_id) for people of whom there may be more than was found: links name records that are not there.

    Each may be one of theirs, whatever else was found of them, if it was there when they asked last. Without it nothing
    would lead to its pictures, ever, for its record is barred.
    """
    people = targets.where(F.col("kind") == SUBJECT).select("request_id", "asked_at")
    if blind or people.isEmpty():
        return people
    at = F.coalesce("recorded_at", F.lit(EPOCH).cast("timestamp"))
    first = _links_of_lost(warehouse).agg(F.min(at).alias("first"))
    return people.crossJoin(first).where("first <= coalesce(asked_at, first)")


def _links_of_lost(warehouse: Warehouse) -> DataFrame:
    """Links whose record is not there, as where its table was restored or removed."""
    records = warehouse.read(PROCESSING_BASIS).select("record_id")
    return warehouse.read(BASIS_LINKS).join(records, "record_id", "left_anti")


def lost_records(warehouse: Warehouse) -> DataFrame:
    """Records that are not there and that links name, as (kind, value); and images for whose links requests wait."""
    lost = _links_of_lost(warehouse).select("record_id").distinct()
    waiting = warehouse.read(ERASURE_ITEMS).where(F.col("kind") == UNLINKED).select(F.col("value").alias("image_id"))
    for spec, how in ((IMAGES, "left_semi"), (BASIS_LINKS, "left_anti")):
        waiting = waiting.join(warehouse.read(spec).select("image_id"), "image_id", how)
    parts = [lost.select(F.lit(RECORD).alias("kind"), F.col("record_id").alias("value"))]
    parts.append(waiting.distinct().select(F.lit(IMAGE).alias("kind"), F.col("image_id").alias("value")))
    return reduce(DataFrame.unionByName, parts)
