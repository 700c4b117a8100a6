"""The audit trail: events chained by their hashes, so that a change or a cut is seen (Guarantee 14).

Each event's digest covers the event and the digest before it. A table of its own cannot show that its end was cut off,
or all of it written anew: for that the head (number and digest of the last event) is exported after each run, to a file
that the operator keeps where this program cannot write (object lock, another account). `verify --audit` compares every
head with the chain (`runs/evidence.py`).

Events name runs, requests and counts; no image, person or name.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import BadInput, NotProvenError
from jobs.run_ids import RUN_ID
from jobs.schemas import AUDIT_EVENTS

if TYPE_CHECKING:
    from jobs.tables.store import Warehouse

_START: Final = "0" * 64
_ATTEMPTS: Final = 20


@dataclass(frozen=True)
class Head:
    """The last event: how many there are, and its digest."""

    seq: int
    digest: str


_NO_EVENT: Final = Head(0, _START)


def append(warehouse: Warehouse, kind: str, run_id: str, facts: dict[str, Any], *, now: datetime) -> Head:
    """Add one event to the chain. Of writers that race for one number Delta takes the first; the other tries again.

    Raises:
        BadInput: ``kind`` or ``run_id`` is no plain word: `verify` could not tell such an event from a forged one.
    """
    if not (re.fullmatch(RUN_ID, kind) and re.fullmatch(RUN_ID, run_id)):
        raise BadInput("An audit event takes a kind and a run id of letters, digits, '_', '.' and '-' only.")
    from delta.exceptions import ConcurrentTransactionException

    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    for _ in range(_ATTEMPTS):
        last = head(warehouse)
        seq = last.seq + 1
        digest = _digest(seq, int(now.timestamp() * 1e6), kind, run_id, text, last.digest)
        row = (seq, now, kind, run_id, text, last.digest, digest)
        try:
            # One transaction name with the number as its version: of two writers of one number Delta takes the first.
            warehouse.append([row], AUDIT_EVENTS, transaction="chain", transaction_version=seq)
        except ConcurrentTransactionException:
            continue
        if warehouse.rows(AUDIT_EVENTS, "seq", where="seq = {seq} AND digest = {digest}", seq=seq, digest=digest):
            return Head(seq, digest)
    raise NotProvenError("The audit trail could not be written: others wrote it all the time.", hint="run it again.")


def head(warehouse: Warehouse) -> Head:
    """The last event; number 0 where there is none."""
    rows = warehouse.rows(AUDIT_EVENTS, "seq, digest", order_by="seq DESC, digest DESC", limit=1)
    return Head(**rows[0]) if rows else _NO_EVENT


def verify(events: DataFrame) -> Head:
    """Check every digest, every link and the numbering of ``events``, by executors; returns the last.

    Raises:
        NotProvenError: an event was changed, removed, moved or added.
    """
    # Of these events, and not `head`: others may have been added since.
    told = events.agg(F.max(F.struct("seq", "digest")).alias("last"), F.count("*").alias("n")).first()
    assert told is not None  # noqa: S101 - an aggregate without groups always has its one row
    last = _NO_EVENT if told["last"] is None else Head(**told["last"].asDict())
    fields: list[Column | str] = [
        F.col("seq").cast("string"), F.unix_micros("at").cast("string"), "kind",
        F.coalesce("run_id", F.lit("")), F.coalesce("facts", F.lit("")), "previous",
    ]  # fmt: skip
    own = F.sha2(F.concat_ws("\n", *fields), 256)
    before = events.select((F.col("seq") + 1).alias("seq"), F.col("digest").alias("digest_before"))
    checked = events.withColumn("own", own).join(before, "seq", "left")
    link = F.coalesce("digest_before", F.lit(_START))
    # Where a field is null or goes over a line, its text would do for another event.
    whole = [F.col(name).isNotNull() for name in ("seq", "at", "kind", "previous")]
    whole += [~F.coalesce(F.contains(F.col(name), F.lit("\n")), F.lit(False)) for name in ("kind", "run_id", "facts")]
    follows = reduce(
        Column.__and__, whole, F.col("own").eqNullSafe(F.col("digest")) & F.col("previous").eqNullSafe(link)
    )
    first = checked.where(~follows).agg(F.min("seq").alias("seq"), F.count("*").alias("n")).first()
    assert first is not None  # noqa: S101 - as above
    if first["n"]:
        raise NotProvenError(
            f"Audit event {first['seq']} was changed, or one before it removed ({first['n']} events do not follow).",
            hint="compare the table with its backup; do not write to it.",
        )
    if told["n"] != last.seq:
        raise NotProvenError(f"The audit trail has {told['n']} events where {last.seq} are numbered.")
    return last


def _digest(seq: int, at_us: int, kind: str, run_id: str, facts: str, previous: str) -> str:
    return hashlib.sha256("\n".join([str(seq), str(at_us), kind, run_id, facts, previous]).encode()).hexdigest()
