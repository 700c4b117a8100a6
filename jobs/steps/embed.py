"""Embedding: refusals recorded, stale faces withdrawn, new and changed images embedded chunk by chunk."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from jobs.errors import SettingsError
from jobs.governance.gate import Gated
from jobs.runs.machines import workers
from jobs.runs.record import Run, utc_now
from jobs.schemas import IMAGE_STATUS
from jobs.steps.accumulators import Counters
from jobs.steps.gate import gate_step, refused_text

if TYPE_CHECKING:
    from jobs.embedding.chunks import Chunk
    from udfs.spark import EmbedSpec


def embed_steps(run: Run, *, recompute: bool, limit: int | None = None) -> None:
    """Refusals recorded, stale faces withdrawn, new and changed images (at most ``limit``) embedded chunk by chunk."""
    from jobs.embedding.chunks import Chunk, embed_chunk, plan_chunks, worklist
    from jobs.embedding.faces import withdraw_stale
    from jobs.embedding.status import computed

    warehouse = run.warehouse
    spec = prepare_model(run)
    begun = run.begin("gate")
    gated = gate_step(run)
    machines = workers(warehouse.spark, run.settings)
    run.step("gate", lambda: _count(gated, spec.fingerprint, run) | machines, begun=begun, once=False)
    everything = run.gate.of_all_images(gated)
    run.step("withdraw", lambda: {"faces": withdraw_stale(warehouse, everything, now=utc_now())}, once=False)
    done = computed(warehouse.read(IMAGE_STATUS), spec.fingerprint, run.run_id, recompute=recompute)
    begun = run.begin("plan")
    with run.job.watching("plan", "list the images to embed"):
        work = worklist(gated, done, limit)
    chunk_images = run.settings.executor.chunk_images
    # The plan is kept: a resumed run must cut the same chunks, for their names tell which are done.
    plan = run.step("plan", lambda: _plan(plan_chunks(work, chunk_images)), begun=begun)
    chunks = [Chunk(*numbers) for numbers in plan["chunks"]]
    total = sum(chunk.images for chunk in chunks)
    before = sum(chunk.images for chunk in chunks if run.result(f"embed/{chunk.name}"))
    counters = Counters(run.job.spark.sparkContext)
    run.metrics.also(counters.totals())
    with run.job.console.meter("embed", "images") as show:
        for number, chunk in enumerate(chunks, 1):
            run.step(
                f"embed/{chunk.name}",
                lambda chunk=chunk: (  # type: ignore[misc]
                    embed_chunk(
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


def prepare_model(run: Run) -> EmbedSpec:
    """The model of a run, shipped, with its fingerprint noted on the run.

    Raises:
        DependencyUnavailable, SettingsError: as `find_model`; also where the run began with another model.
    """
    from jobs.embedding.model import find_model, ship_model

    model = find_model(run.settings)
    known = run.facts.get("model_fingerprint")
    if known and known != model.fingerprint:
        raise SettingsError(
            f"Run {run.run_id} began with another model (fingerprint {known[:12]}, now {model.fingerprint[:12]}).",
            hint="start a new run without --run-id.",
        )
    run.job.console.step("model", model.weights.label, **model.described())
    run.facts.update(model_fingerprint=model.fingerprint, weights=model.weights.label)
    return ship_model(run.job.spark, model, run.settings)
