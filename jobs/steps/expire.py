"""Destruction of what has reached its end."""

from __future__ import annotations

from jobs.erasure.run import Outcome, erase_pending
from jobs.governance import retention
from jobs.governance.gate import gate_warehouse
from jobs.index.protocol import VectorIndex
from jobs.runs.record import JobContext, Run
from jobs.steps.gate import gate_step


def expire_steps(run: Run, index: VectorIndex, *, sweep: bool) -> Outcome:
    """Destroy what is due, and carry out every open erasure (of holds that were lifted, too).

    ``sweep``: see `erase_pending`.
    """
    due = retention.due(run.warehouse, run.settings, gate_step(run, to_destroy=True), now=run.job.clock())
    return erase_pending(run, index, due=due, sweep=sweep)


def due_now(job_: JobContext) -> dict[str, int]:
    """What would be destroyed, in numbers by kind."""
    gated = gate_warehouse(job_.warehouse, job_.settings, now=job_.clock(), to_destroy=True)
    due = retention.due(job_.warehouse, job_.settings, gated, now=job_.clock())
    return {row["kind"]: row["count"] for row in due.groupBy("kind").count().collect()}
