"""One writer at a time: a lease with a fencing token, kept in a Delta table.

Each acquisition appends a row with the next token under the Delta transaction (name, token): of two runs that race
for one token, Delta lets one commit (it raises for the other, or skips it), so every writer reads back who won.
This is the atomic commit of Delta and nothing more; on plain S3 without a commit coordinator Delta itself allows
one driver only (docs/operations.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pyspark.sql import functions as F

from jobs.errors import LeaseHeld, LeaseLost
from jobs.schemas import LEASES
from jobs.tables.store import Warehouse

LEASE_NAME: Final = "warehouse"


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Held:
    """The last act on the lease, and until when that holds."""

    token: int
    run_id: str
    action: str
    until: datetime

    def holds(self, now: datetime) -> bool:
        """Whether the run has it at ``now``."""
        return self.action != "release" and self.until > now


def last_act(warehouse: Warehouse) -> Held | None:
    """The last act on the lease; None where nobody ever took it."""
    rows = (
        warehouse.read(LEASES)
        .where(F.col("name") == LEASE_NAME)
        .orderBy(F.col("token").desc(), F.col("at").desc(), F.col("expires_at").asc())
        .limit(1)
        .select("token", "run_id", "action", F.unix_timestamp("expires_at").alias("until"))
        .collect()
    )
    if not rows:
        return None
    row = rows[0]
    return Held(int(row["token"]), row["run_id"], row["action"], datetime.fromtimestamp(row["until"], UTC))


class Lease:
    """The right to write the warehouse, held by one run; renewed by a thread, checked before every commit."""

    def __init__(
        self, warehouse: Warehouse, run_id: str, ttl_s: float, *, clock: Callable[[], datetime] = _utc_now
    ) -> None:
        self._warehouse = warehouse
        self._run_id = run_id
        self._ttl = timedelta(seconds=ttl_s)
        self._clock = clock
        self._stop = threading.Event()
        self._renewals = 0
        self._confirmed = 0.0
        self.token = 0

    def acquire(self) -> int:
        """Take the lease and return its token; the same run may take it again at once (after a kill).

        Raises:
            LeaseHeld: another run holds it and has been heard of within the time to live.
        """
        last = last_act(self._warehouse)
        now = self._clock()
        if last is not None and last.run_id != self._run_id and last.holds(now):
            raise LeaseHeld(
                f"Run {last.run_id} is writing this warehouse (lease until {last.until:%Y-%m-%d %H:%M:%S} UTC).",
                hint="wait for it to end; if its process is dead, the lease ends by itself at that time, "
                "or resume that run with --run-id.",
            )
        token = (last.token if last else 0) + 1
        self._write(token, "acquire", 0)
        winner = last_act(self._warehouse)
        if winner is None or winner.token != token or winner.run_id != self._run_id:
            raise LeaseHeld("Another run took the lease at the same moment.", hint="start again when it has ended.")
        self.token = token
        self._confirmed = time.monotonic()
        return token

    def keep(self) -> None:
        """Renew in the background until `release`."""
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def check(self, max_age_s: float = 0.0) -> None:
        """Raise LeaseLost if a later token exists: this run must not commit any more.

        An answer of the last ``max_age_s`` seconds is good enough where a late writer does no harm (a step's record).
        """
        if time.monotonic() - self._confirmed < max_age_s:
            return
        last = last_act(self._warehouse)
        if last is None or last.token != self.token:
            raise LeaseLost(
                f"Run {self._run_id} lost its lease to a later run and stopped before its next commit.",
                hint="see `status`; nothing of this run is live.",
            )
        self._confirmed = time.monotonic()

    def release(self) -> None:
        """Give the lease back."""
        self._stop.set()
        self._renewals += 1
        self._write(self.token, "release", self._renewals)

    def _renew(self) -> None:
        self._warehouse.spark.sparkContext.setJobDescription(f"{self._run_id}: renew the lease")
        while not self._stop.wait(self._ttl.total_seconds() / 3):
            self._renewals += 1
            self._write(self.token, "renew", self._renewals)

    def _write(self, token: int, action: str, renewal: int) -> None:
        from delta.exceptions import ConcurrentTransactionException

        now = self._clock()
        until = now if action == "release" else now + self._ttl
        row = self._warehouse.spark.createDataFrame(
            [(LEASE_NAME, token, self._run_id, action, now, until)], LEASES.columns
        )
        name = f"{LEASE_NAME}/acquire" if action == "acquire" else f"{LEASE_NAME}/{token}"
        version = token if action == "acquire" else renewal
        try:
            self._warehouse.append(row, LEASES, transaction=name, transaction_version=version)
        except ConcurrentTransactionException:
            # Somebody else committed this very token; the caller reads back and sees who.
            return
