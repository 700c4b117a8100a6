"""The gate, asked by a run; and what it said, in words."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.formatting import counted
from jobs.governance.gate import Gated, gate_warehouse
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, Run

_REASONS = 4


def gate_step(run: Run, *, to_destroy: bool = False) -> Gated:
    """The gate at this instant, over the images that the run began with. ``to_destroy``: see `gate_warehouse`."""
    with run.job.watching("gate", "ask the gate which images are permitted"):
        return run.gate.decide(to_destroy=to_destroy)


def refused_text(reasons: Mapping[str, int]) -> str:
    """How many were refused, and why: the most frequent reasons first.

    >>> refused_text({"NO_BASIS": 2, "CONSENT_ENDED": 10})
    '12 refused (10 CONSENT_ENDED, 2 NO_BASIS)'
    """
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} {reason}" for reason, count in most[:_REASONS]]
    if len(most) > _REASONS:
        shown.append(f"{sum(count for _, count in most[_REASONS:])} for other reasons")
    return f"{sum(reasons.values())} refused" + (f" ({', '.join(shown)})" if shown else "")


def dry_run(job_: JobContext) -> Result:
    """What the gate would decide now; nothing is written."""
    gated = gate_warehouse(job_.warehouse, job_.settings, now=job_.clock())
    reasons = {row["reason"]: row["count"] for row in gated.decisions.groupBy("reason").count().collect()}
    accepted = reasons.pop(None, 0)
    message = f"dry run: {counted(accepted, 'image')} would be embedded or reused, {refused_text(reasons)}"
    return Result(message, data={"accepted": accepted, "refused": reasons})
