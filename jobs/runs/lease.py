"""One writer at a time: a lease with a fencing token, kept in a Delta table.

Each acquisition appends a row with the next token under the Delta transaction (name, token): of two runs that race
for one token, Delta lets one commit (it raises for the other, or skips it), so every writer reads back who won.
This is the atomic commit of Delta and nothing more; on plain S3 without a commit coordinator Delta itself allows
one driver only (docs/operations.md).

The token is in every commit that is made under the lease (`Warehouse.fence`). Who takes the lease from a run that did
not give it back cannot know whether that run is dead or only sleeps, and so shuts it out of every table before the
first read (`Warehouse.fence_off`). A run that gave it back has no write to come, and nothing needs to be shut.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from jobs.errors import LeaseHeld, LeaseLost
from jobs.schemas import IMAGES, LEASES, PROCESSING_BASIS, RUNS
from jobs.tables.store import Warehouse

LEASE_NAME: Final = "warehouse"


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LeaseState:
    """The last act on the lease, and until when that holds."""

    token: int
    run_id: str
    action: str
    until: datetime

    def holds(self, now: datetime) -> bool:
        """Whether the run has it at ``now``."""
        return self.action != "release" and self.until > now


def last_act(warehouse: Warehouse) -> LeaseState | None:
    """The last act on the lease; None where nobody ever took it."""
    rows = warehouse.rows(
        LEASES,
        "token, run_id, action, expires_at",
        where="name = {name}",
        order_by="token DESC, at DESC, expires_at",
        limit=1,
        name=LEASE_NAME,
    )
    return LeaseState(rows[0]["token"], rows[0]["run_id"], rows[0]["action"], rows[0]["expires_at"]) if rows else None


def _by(last: LeaseState | None, run_id: str) -> str:
    if last is None:
        return "another run"
    return "a later start of it" if last.run_id == run_id else f"run {last.run_id}"


class Lease:
    """The right to write the warehouse, held by one run; renewed by a thread, and in every commit by its token."""

    def __init__(
        self, warehouse: Warehouse, run_id: str, ttl_s: float, *, clock: Callable[[], datetime] = _utc_now
    ) -> None:
        self._warehouse = warehouse
        self._run_id = run_id
        self._ttl = timedelta(seconds=ttl_s)
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._renewals = 0
        self._confirmed = 0.0
        self.token = 0

    def acquire(self, above: int = 0) -> int:
        """Take the lease and return its token; the same run may take it again at once (after a kill).

        Args:
            above: a token that is known to have been given; the new one is greater.

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
        token = max(last.token if last else self._unknown(now), above) + 1
        self._write(token, "acquire", 0)
        winner = last_act(self._warehouse)
        if winner is None or winner.token != token or winner.run_id != self._run_id:
            raise LeaseHeld("Another run took the lease at the same moment.", hint="start again when it has ended.")
        self.token = token
        if above or (last is not None and last.action != "release"):
            # Not given back if this fails: the next run has to do it.
            self._warehouse.fence_off(token)
        self._confirmed = time.monotonic()
        return token

    def _unknown(self, now: datetime) -> int:
        """A token above all that were given before `leases` was removed: tables know those, and would skip them."""
        there = any(self._warehouse.exists(spec) for spec in (RUNS, IMAGES, PROCESSING_BASIS))
        return int(now.timestamp()) if there else 0

    def keep(self) -> None:
        """Renew in the background until `release`."""
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self, max_age_s: float = 0.0) -> None:
        """Raise LeaseLost if a later token exists: what this run has written since is not in any table.

        An answer of the last ``max_age_s`` seconds will do where nothing but time is lost by going on.
        """
        if time.monotonic() - self._confirmed < max_age_s:
            return
        last = last_act(self._warehouse)
        if last is None or last.token != self.token:
            raise LeaseLost(
                f"Run {self._run_id} was silent for so long that {_by(last, self._run_id)} took over; it has stopped, "
                "and nothing that it did since is in any table.",
                hint=f"see `status`; `--run-id {self._run_id}` goes on from its last recorded step when the other has "
                "ended.",
            )
        self._confirmed = time.monotonic()

    def release(self, *, clean: bool = True) -> None:
        """Give the lease back; not ``clean``: something of this run may still be on its way to a commit."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._ttl.total_seconds())
        self._renewals += 1
        self._write(self.token, "release" if clean else "interrupt", self._renewals)

    def _renew(self) -> None:
        self._warehouse.spark.sparkContext.setJobDescription(f"{self._run_id}: renew the lease")
        while not self._stop.wait(self._ttl.total_seconds() / 3):
            self._renewals += 1
            self._write(self.token, "renew", self._renewals)

    def _write(self, token: int, action: str, renewal: int) -> None:
        from delta.exceptions import ConcurrentTransactionException

        now = self._clock()
        until = now if action in ("release", "interrupt") else now + self._ttl
        row = (LEASE_NAME, token, self._run_id, action, now, until)
        name = f"{LEASE_NAME}/acquire" if action == "acquire" else f"{LEASE_NAME}/{token}"
        version = token if action == "acquire" else renewal
        try:
            self._warehouse.append([row], LEASES, transaction=name, transaction_version=version)
        except ConcurrentTransactionException:
            # Somebody else committed this very token; the caller reads back and sees who.
            return
