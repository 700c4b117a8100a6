"""Requests that stay open, for a legal hold or for what is lost, and no pass where none could do anything for them.

A pass goes through all stores, and every night that has not come to its end loads anew after it. While a request
waits, each `sync` would make one. So one that leaves requests waiting looks behind itself: where the next could do
nothing (`idle`), it says so on record, with the commits of the tables that this was read from. While these stand, no
pass is made; where they do not, `idle` is asked again, for the same requests. Anything else makes a pass: a request
that came, was asked for again or has lost its reason to wait; and a pass that was cut off, which may have left
collections and files as they were.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.closing import idle
from jobs.erasure.requests import pending
from jobs.erasure.rows import TABLES
from jobs.governance.tombstones import key_ring
from jobs.runs.record import Run, utc_now
from jobs.runs.results import FoundToErase, LeftWaiting
from jobs.schemas import (
    BASIS_QUARANTINE,
    ERASURE_ITEMS,
    ERASURE_REQUESTS,
    ERASURE_STEPS,
    RUN_STEPS,
    SOURCE_BATCHES,
    TOMBSTONES,
)
from jobs.tables.store import Warehouse, materialise

#: Nothing is open.
NOBODY: Final = LeftWaiting(suspended=0, unknown=0, requests="", read={})
# What requests are open, and all that `idle` goes by.
_READ: Final = (*TABLES, BASIS_QUARANTINE, SOURCE_BATCHES, ERASURE_REQUESTS, ERASURE_ITEMS, ERASURE_STEPS, TOMBSTONES)


def still_waiting(run: Run) -> LeftWaiting | None:
    """The open requests, where a pass has left all of them waiting and the next could do nothing; None: it could."""
    last = _last(run.warehouse)
    if last is None:
        return None
    # First of all: what is committed in between is read too, and looks like a change the next time.
    read = run.warehouse.last_commits(_READ)
    if read == last.read:
        return last
    targets = materialise(pending(run.warehouse))
    return _look(run, targets, read) if _digest(run, targets) == last.requests else None


def note_waiting(run: Run, passed: DataFrame) -> None:
    """Put on record that a pass over ``passed`` left requests waiting, where the next could do nothing for them."""
    read = run.warehouse.last_commits(_READ)
    targets = materialise(pending(run.warehouse))
    # One that came meanwhile has to have its own: collections may hold what was staged before.
    if targets.exceptAll(passed).isEmpty():
        _look(run, targets, read)


def _look(run: Run, targets: DataFrame, read: dict[str, str]) -> LeftWaiting | None:
    began = utc_now()
    with run.job.watching(LeftWaiting.name(), "see whether requests that wait have to wait still"):
        closed = idle(run.warehouse, targets)
    if closed is None:
        return None
    left = LeftWaiting(suspended=closed.suspended, unknown=closed.unknown, requests=_digest(run, targets), read=read)
    run.record_since(began, left)
    return left


def _last(warehouse: Warehouse) -> LeftWaiting | None:
    """What was said last of requests that wait; None: nothing, or a pass has begun since."""
    kinds = f"({LeftWaiting.condition()} OR {FoundToErase.condition()}) AND state = 'done'"
    # By the tokens: of two machines, one clock may be behind.
    order = "coalesce(fencing_token, 0) DESC, ended_at DESC"
    rows = warehouse.rows(RUN_STEPS, "step, result", where=kinds, order_by=order, limit=1)
    if not rows or not LeftWaiting.is_name(rows[0]["step"]):
        return None
    return LeftWaiting.of_record(json.loads(rows[0]["result"]))


def _digest(run: Run, targets: DataFrame) -> str:
    """What tells ``targets`` (as TARGETS has them) from others: keyed, for it is kept when what they name is gone."""
    digest = hashlib.sha256()
    columns = ("request_id", "kind", "value", "asked", F.unix_micros("asked_at").alias("asked_at"))
    for row in targets.select(*columns).orderBy("request_id", "kind", "value").toLocalIterator():
        digest.update(json.dumps(tuple(row)).encode())
    return key_ring(run.settings).digest("waiting", digest.hexdigest())
