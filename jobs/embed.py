"""Gate the images, then detect and embed the faces of those that a recorded basis permits."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import Result, job
from jobs.governance.gate import Gated, RunGate, gate_warehouse
from jobs.runs.machines import workers
from jobs.runs.record import Job, Run, open_run, utc_now
from jobs.schemas import IMAGE_STATUS
from jobs.steps.accumulators import Counters
from jobs.tables.store import materialise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.embedding.chunks import Chunk

_REASONS = 4


def gate_step(run: Run, *, to_destroy: bool = False) -> Gated:
    """The gate at this instant, over the images that the run began with. ``to_destroy``: see `gate_warehouse`."""
    with run.job.watching("gate", "ask the gate which images are permitted"):
        return _gate(run).decide(to_destroy=to_destroy)


def _gate(run: Run) -> RunGate:
    if run.gate is None:
        by = run.images_by or run.started_at
        run.gate = RunGate(run.warehouse, run.settings, clock=run.job.clock, ingested_by=by)
    return run.gate


def embed_steps(run: Run, *, recompute: bool, limit: int | None = None) -> None:
    """Refusals recorded, stale faces withdrawn, new and changed images (at most ``limit``) embedded chunk by chunk."""
    from jobs.embedding import chunks as table
    from jobs.embedding.model import prepare_model

    warehouse = run.warehouse
    spec = prepare_model(run)
    begun = run.begin("gate")
    gated = gate_step(run)
    machines = workers(warehouse.spark, run.settings)
    run.step("gate", lambda: _count(gated, spec.fingerprint, run) | machines, begun=begun, once=False)
    everything = _gate(run).of_all_images(gated)
    run.step("withdraw", lambda: {"faces": table.withdraw_stale(warehouse, everything, now=utc_now())}, once=False)
    done = table.computed(warehouse.read(IMAGE_STATUS), spec.fingerprint, run.run_id, recompute=recompute)
    new = gated.accepted.join(done, ["image_id", "input_digest"], "left_anti")
    begun = run.begin("plan")
    with run.job.watching("plan", "list the images to embed"):
        work = materialise(new if limit is None else new.limit(limit))
    chunk_images = run.settings.executor.chunk_images
    # The plan is kept: a resumed run must cut the same chunks, for their names tell which are done.
    plan = run.step("plan", lambda: _plan(table.plan_chunks(work, chunk_images)), begun=begun)
    chunks = [table.Chunk(*numbers) for numbers in plan["chunks"]]
    total = sum(chunk.images for chunk in chunks)
    before = sum(chunk.images for chunk in chunks if run.result(f"embed/{chunk.name}"))
    counters = Counters(run.job.spark.sparkContext)
    run.metrics.also(counters.totals())
    with run.job.console.meter("embed", "images") as show:
        for number, chunk in enumerate(chunks, 1):
            run.step(
                f"embed/{chunk.name}",
                lambda chunk=chunk: (  # type: ignore[misc]
                    table.embed_chunk(
                        warehouse,
                        work,
                        chunk,
                        spec,
                        run.settings,
                        run_id=run.run_id,
                        now=utc_now(),
                        recompute=recompute,
                        counted=counters.add,
                    )
                    | workers(warehouse.spark, run.settings)
                ),
                words=f"embed chunk {number} of {len(chunks)} ({chunk.images:,} images)",
                on_look=lambda: show(min(total, before + counters.images.value), total),
            )


def _plan(chunks: list[Chunk]) -> dict[str, Any]:
    return {"chunks": [astuple(c) for c in chunks], "images": sum(c.images for c in chunks)}


def _count(gated: Gated, fingerprint: str, run: Run) -> dict[str, Any]:
    from jobs.embedding.status import record_refusals

    refusals = record_refusals(run.warehouse, gated, run_id=run.run_id, now=run.job.clock())
    reasons = {row["reason"]: row["count"] for row in gated.decisions.groupBy("reason").count().collect()}
    accepted = reasons.pop(None, 0)
    return {
        "images": accepted + sum(reasons.values()),
        "accepted": accepted,
        "refused": sum(reasons.values()),
        "newly_refused": refusals,
        "reasons": reasons,
        "fingerprint": fingerprint,
        "weights": run.facts.get("weights"),
    }


def embedded_message(run: Run) -> str:
    """One line: what was embedded now, what was reused."""
    chunks = run.done_like("embed/").values()
    images, faces = sum(c["images"] for c in chunks), sum(c["faces"] for c in chunks)
    gate = run.result("gate") or {}
    return (
        f"{images} images embedded ({faces} faces), {gate.get('accepted', 0) - images} reused, "
        f"{refused_text(gate.get('reasons', {}))}; weights {run.facts.get('weights')}"
    )


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


def dry_run(job_: Job) -> Result:
    """What the gate would decide now; nothing is written."""
    gated = gate_warehouse(job_.warehouse, job_.settings, now=job_.clock())
    reasons = {row["reason"]: row["count"] for row in gated.decisions.groupBy("reason").count().collect()}
    accepted = reasons.pop(None, 0)
    return {
        "accepted": accepted,
        "refused": reasons,
        "message": f"dry run: {accepted} images would be embedded or reused, {refused_text(reasons)}",
    }


@job("embed", examples="python -m jobs.embed --config conf/local.yaml")
@click.option("--recompute", is_flag=True, help="Embed again what is unchanged.")
def main(job_: Job, recompute: bool) -> Result:
    """Gate the images, then detect and embed the faces of those that a recorded basis permits."""
    if job_.dry_run:
        return dry_run(job_)
    with open_run(job_, "embed") as run:
        embed_steps(run, recompute=recompute)
        run.facts["message"] = message = embedded_message(run)
        return {"run_id": run.run_id, "message": message}


if __name__ == "__main__":
    main()
