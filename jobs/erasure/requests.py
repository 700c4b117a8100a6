"""Requests for erasure: written down, barred by their tombstones from that moment on, open until a pass closes them.

A request names a person (`subject`: a pseudonym), an image, a source batch, or, for an expiry, a basis record. Requests
of a pass itself are those over all that is due (EXPIRY) and over all that came back (SWEEP).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.kinds import (
    BEGUN,
    COMPLETE,
    EPOCH,
    EXPIRY,
    LINK,
    NAMED_COLUMNS,
    ORPHAN,
    RECORD,
    SETTLED,
    SWEEP,
    VOID,
    Target,
    is_of_pass,
)
from jobs.governance.tombstones import BATCH, EXPIRED, FACE, IMAGE, SUBJECT, KeyRing
from jobs.schemas import ERASURE_ITEMS, ERASURE_REQUESTS, ERASURE_STEPS, PROCESSING_BASIS, SOURCE_BATCHES, TOMBSTONES
from jobs.tables.store import Warehouse, looked_up, materialise

_ASKED: Final = (SUBJECT, IMAGE, BATCH, EXPIRED, RECORD, FACE, LINK, ORPHAN)


def request(warehouse: Warehouse, targets: Sequence[Target], ring: KeyRing, *, run_id: str, now: datetime) -> list[str]:
    """Write requests down, and the tombstones of what they name, so that nothing of it is indexed from now on.

    No lease is needed: rows are only added. A target with an unfinished request keeps it, and is barred anew: what was
    said of it since the former time is over as well. If a pass completes it meanwhile it is asked for anew: here, or,
    where that pass saw the tombstones first, by it (`ask_again`). Returns the requests' ids.
    """
    ids = {target: f"er-{ring.digest(target.kind, target.value)[:20]}-{now:%Y%m%dT%H%M%S}" for target in targets}
    pending = open_requests(warehouse)
    open_ones = {row["target"]: row["request_id"] for row in pending.select("target", "request_id").collect()}
    kept = {target: _digests(target, ring) & open_ones.keys() for target in ids}
    fresh = {t: i for t, i in ids.items() if not kept[t]}
    ids |= {t: open_ones[min(kept[t])] for t in ids if t not in fresh}
    spark = warehouse.spark
    known = _named_by(warehouse, [i for t, i in ids.items() if t not in fresh])
    named = [(i, t.kind, value) for t, i in ids.items() for value in t.values]
    said = _last_said(warehouse, named, ring)
    if fresh:
        # First of all: items without their request would be nobody's. And tombstones before items, for a pass may come
        # in between, and carry these out.
        rows = [(i, t.kind, ring.digest(t.kind, t.value), ring.current, run_id, now) for t, i in fresh.items()]
        warehouse.append(spark.createDataFrame(rows, ERASURE_REQUESTS.columns), ERASURE_REQUESTS)
    stones = [
        (kind, ring.current, ring.digest(kind, value), i, max(now, said.get(i, now)))
        for i, kind, value in named
        if kind in (IMAGE, SUBJECT, BATCH)
    ]
    if stones:
        warehouse.append(spark.createDataFrame(stones, TOMBSTONES.columns), TOMBSTONES)
    # Without its image_id, which an item has that was found: nobody knows yet whether this one is there.
    items = [(i, kind, value, None) for i, kind, value in named if (i, value) not in known]
    if items:
        warehouse.append(spark.createDataFrame(items, ERASURE_ITEMS.columns), ERASURE_ITEMS)
    if len(fresh) < len(ids):
        # Else the pass saw what was written here, or is yet to see it: `close`, `ask_again`.
        left = {row["request_id"] for row in open_requests(warehouse).select("request_id").collect()}
        closed = [t for t, i in ids.items() if t not in fresh and i not in left]
        if closed:
            ids |= dict(zip(closed, request(warehouse, closed, ring, run_id=run_id, now=now), strict=True))
    return [ids[target] for target in targets]


def _digests(target: Target, ring: KeyRing) -> set[str]:
    """What a request for ``target`` may stand under: its keys may have been other ones then."""
    return {ring.digest(target.kind, value, key_id) for value in target.values for key_id in ring.keys}


def _last_said(warehouse: Warehouse, named: list[tuple[str, str, str]], ring: KeyRing) -> dict[str, datetime]:
    """By request, the time of the last that is on record of those whom it names: an event, an assessment, an erasure.

    Where a clock was ahead, or a year mistyped, that is later than now: the erasure counts from then, else the very
    same line would be a consent given since. What was said by records that are erased is known by their tombstones:
    those of other pseudonyms, if keys have changed.
    """
    named = [row for row in named if row[1] in (SUBJECT, BATCH)]
    if not named:
        return {}
    stones = [(i, kind, ring.digest(kind, value, key_id)) for i, kind, value in named for key_id in ring.keys]
    names = looked_up(warehouse.spark.createDataFrame(named + stones, NAMED_COLUMNS), len(named) + len(stones))
    event = F.array_max(F.transform("events", lambda event: event["event_time"]))
    said = [
        warehouse.read(spec).select(kind.alias("kind"), F.col(column).alias("value"), at.alias("at"))
        for spec, kind, column, at in (
            (PROCESSING_BASIS, F.lit(SUBJECT), "pii_principal_id", event),
            (SOURCE_BATCHES, F.lit(BATCH), "source_batch_id", F.col("assessed_at")),
            (TOMBSTONES, F.col("kind"), "digest", F.col("recorded_at")),
        )
    ]
    last = reduce(DataFrame.unionByName, said).join(names, ["kind", "value"]).groupBy("request_id")
    rows = last.agg(F.unix_micros(F.max("at")).alias("at")).dropna().collect()
    return {row["request_id"]: EPOCH + timedelta(microseconds=row["at"]) for row in rows}


def _named_by(warehouse: Warehouse, request_ids: list[str]) -> set[tuple[str, str]]:
    """(request_id, value) of what open requests name already."""
    if not request_ids:
        return set()
    targets = _targets(warehouse).where(F.col("request_id").isin(request_ids))
    return {(row["request_id"], row["value"]) for row in targets.select("request_id", "value").collect()}


def request_all(warehouse: Warehouse, due: DataFrame, ring: KeyRing, *, kind: str, run_id: str, now: datetime) -> int:
    """Write one request (EXPIRY or SWEEP) down for everything that is ``due`` (kind, value); returns how many rows."""
    # With the time: what a run that is resumed finds is not part of a request that it has completed before.
    request_id = f"er-{kind}-{run_id}-{now:%Y%m%dT%H%M%S}"
    known = _targets(warehouse).select("kind", "value")
    rows = materialise(due.join(known, ["kind", "value"], "left_anti"))
    count = rows.count()
    if count:
        image = F.when(F.col("kind") == IMAGE, F.col("value"))
        row = (request_id, kind, ring.digest(kind, run_id), ring.current, run_id, now)
        warehouse.append(warehouse.spark.createDataFrame([row], ERASURE_REQUESTS.columns), ERASURE_REQUESTS)
        items = rows.select(F.lit(request_id).alias("request_id"), "kind", "value", image.alias("image_id"))
        warehouse.append(items, ERASURE_ITEMS)
    return count


def strike_off(warehouse: Warehouse, *, run_id: str, now: datetime) -> None:
    """Take back every request of a pass (EXPIRY, SWEEP) that was cut off before it began to destroy rows.

    What was due then need not be due now, for a permission may have been renewed; what is, is asked for anew.
    """
    begun = warehouse.read(ERASURE_STEPS).where(F.col("step") == BEGUN).select("request_id")
    idle = open_requests(warehouse).where(F.col("kind").isin(EXPIRY, SWEEP)).join(begun, "request_id", "left_anti")
    note_step(warehouse, idle, VOID, run_id=run_id, now=now)


def note_step(warehouse: Warehouse, requests: DataFrame, step: str, *, run_id: str, now: datetime) -> None:
    """Record a step of ``requests`` (request_id) that have not had it."""
    had = warehouse.read(ERASURE_STEPS).where(F.col("step") == step).select("request_id")
    ids = requests.select("request_id").distinct().join(had, "request_id", "left_anti")
    at = F.lit(now).cast("timestamp").alias("recorded_at")
    rows = ids.select(
        "request_id", F.lit(step).alias("step"), F.lit(run_id).alias("run_id"), F.lit("{}").alias("result"), at
    )
    rows = materialise(rows)
    if not rows.isEmpty():
        warehouse.append(rows, ERASURE_STEPS)


def open_requests(warehouse: Warehouse) -> DataFrame:
    """Requests that are neither complete nor taken back, as ERASURE_REQUESTS has them."""
    finished = warehouse.read(ERASURE_STEPS).where(F.col("step").isin(COMPLETE, VOID)).select("request_id")
    return warehouse.read(ERASURE_REQUESTS).join(finished, "request_id", "left_anti")


def pending(warehouse: Warehouse) -> DataFrame:
    """Targets of the requests that are not complete, as TARGETS has them."""
    stones = warehouse.read(TOMBSTONES).where(F.col("kind").isin(SUBJECT, BATCH))
    asked = stones.groupBy("request_id").agg(F.count("*").alias("asked"), F.max("recorded_at").alias("asked_at"))
    return _targets(warehouse).join(asked, "request_id", "left").fillna(0, ["asked"])


def _targets(warehouse: Warehouse) -> DataFrame:
    """What the requests that are not complete name: request_id, kind, value."""
    asked = warehouse.read(ERASURE_ITEMS).where(F.col("kind").isin(*_ASKED))
    # Of the items found later, an image is none that was asked for, if its request is of another kind.
    wanted = open_requests(warehouse).select("request_id", F.col("kind").alias("asked"))
    meant = (F.col("kind") == F.col("asked")) | F.col("asked").isin(EXPIRY, SWEEP)
    return asked.join(wanted, "request_id").where(meant).select("request_id", "kind", "value")


def asked_since(warehouse: Warehouse, targets: DataFrame) -> DataFrame:
    """Requests (request_id) that were asked for again, or by more names, since ``targets`` was read.

    That needs no lease, and what their people have consented to in between was not looked for. (An image is barred for
    good, and nobody adds to the request of a pass.)
    """
    asked = ["request_id", "kind", "value", "asked"]
    return pending(warehouse).where(~is_of_pass()).join(targets, asked, "left_anti")


def ask_again(warehouse: Warehouse, over: DataFrame, count: int, *, run_id: str, now: datetime) -> int:
    """Ask anew for what was asked for once more just before its request was closed; returns how many.

    ``over``: as `unsettled` has it, with ``count`` that have been asked for. `close` looks for that before it closes,
    and `request` looks whether it is still open: in between, neither sees the other. So each looks once more behind
    what it has written; here there are more tombstones then than the pass saw. They go with the new request, under the
    time that they count from, and so do all names. Repeating it is harmless: behind a pass that was cut off the next
    one looks at what is not settled, and the names stay until then.
    """
    closed = looked_up(over.where("asked IS NOT NULL").select("request_id", "asked"), count)
    names = F.col("kind").isin(SUBJECT, BATCH)
    stones = warehouse.read(TOMBSTONES).where(names).join(closed, "request_id")
    more = stones.groupBy("request_id", "asked").count().where("count > asked")
    # Without a name it was cleaned up before it was asked for: then `request` saw that it was closed.
    named = warehouse.read(ERASURE_ITEMS).where(names).select("request_id")
    again = materialise(more.join(named, "request_id", "left_semi").select("request_id"))
    if not (asked := again.count()):
        return 0
    new = {"request_id": F.concat("request_id", F.lit("-again"))}
    of_request = {"run_id": F.lit(run_id), "requested_at": F.lit(now).cast("timestamp")}
    # In the order of `request`.
    for spec, key, values in (
        (ERASURE_REQUESTS, ["request_id"], new | of_request),
        (TOMBSTONES, ["request_id", "kind", "key_id", "digest", "recorded_at"], new),
        (ERASURE_ITEMS, ["request_id", "kind", "value"], new),
    ):
        rows = warehouse.read(spec).where(names).join(looked_up(again, asked), "request_id").withColumns(values)
        warehouse.append(materialise(rows.join(warehouse.read(spec).select(*key), key, "left_anti")), spec)
    return asked


def unsettled(warehouse: Warehouse) -> DataFrame:
    """Requests that are over, and have not been cleaned up behind: request_id, step, run_id, recorded_at, asked.

    ``asked``: how often a person or a batch was asked for by one that is complete, as the pass saw it that closed it.
    """
    steps = warehouse.read(ERASURE_STEPS)
    settled = steps.where(F.col("step") == SETTLED).select("request_id")
    over = steps.where(F.col("step").isin(COMPLETE, VOID)).join(settled, "request_id", "left_anti")
    asked = F.expr("nullif(CAST(get_json_object(result, '$.asked') AS BIGINT), 0)").alias("asked")
    return over.select("request_id", "step", "run_id", "recorded_at", asked)


def forget_items(warehouse: Warehouse) -> bool:
    """Delete the items of requests that are over, for what they name is gone, and of none. Whether there were any."""
    # Before the requests: one is written before its items, so what has none then never had one.
    items = warehouse.read(ERASURE_ITEMS).select("request_id").distinct()
    nobodys = items.join(warehouse.read(ERASURE_REQUESTS).select("request_id"), "request_id", "left_anti")
    over = warehouse.read(ERASURE_STEPS).where(F.col("step").isin(COMPLETE, VOID)).select("request_id")
    leftover = materialise(items.join(over, "request_id", "left_semi").unionByName(nobodys))
    if leftover.isEmpty():
        return False
    warehouse.delete_matching(ERASURE_ITEMS, leftover, ["request_id"])
    return True


def settle(warehouse: Warehouse, over: DataFrame, *, run_id: str, now: datetime) -> None:
    """Mark requests that are ``over`` as settled."""
    note_step(warehouse, over, SETTLED, run_id=run_id, now=now)
