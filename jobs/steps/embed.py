"""Embedding: refusals recorded, unpermitted faces removed, new and changed images embedded chunk by chunk."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING

from jobs.errors import SettingsError
from jobs.formatting import counted
from jobs.governance.gate import Gated
from jobs.runs.machines import cluster_resources
from jobs.runs.record import Run, utc_now
from jobs.runs.results import Device, Embedded, Planned, RemovedFromTable, Screened
from jobs.schemas import IMAGE_STATUS
from jobs.steps.accumulators import Counters
from jobs.steps.gate import gate_step, refused_text

if TYPE_CHECKING:
    from jobs.embedding.chunks import Chunk, Worklist
    from udfs.spark import EmbedSpec


def embed_steps(run: Run, *, recompute: bool, limit: int | None = None) -> None:
    """Record refusals, remove unpermitted faces, embed new and changed images (at most ``limit``) chunk by chunk."""
    from jobs.embedding.chunks import Chunk, plan_chunks, worklist
    from jobs.embedding.faces import remove_unpermitted_faces
    from jobs.embedding.status import computed

    warehouse = run.warehouse
    spec = prepare_model(run)
    with run.step(Screened) as screening:
        gated = gate_step(run)
        screening.result = _screened(gated, spec.fingerprint, run)
    everything = run.gate.of_all_images(gated)
    with run.step(RemovedFromTable) as removing:
        removing.result = RemovedFromTable(faces=remove_unpermitted_faces(warehouse, everything, now=utc_now()))
    done = computed(warehouse.read(IMAGE_STATUS), spec.fingerprint, run.run_id, recompute=recompute)

    def listed() -> Worklist:
        with run.job.watching("plan", "list the images to embed"):
            return worklist(gated, done, limit)

    # The plan is kept: a resumed run must cut the same chunks, for their names tell which are done.
    plan = run.result(Planned)
    if plan is None:
        with run.step(Planned) as planning:
            work = listed()
            cut = plan_chunks(work, run.settings.executor.chunk_images)
            planning.result = plan = Planned(chunks=tuple(map(astuple, cut)), images=sum(c.images for c in cut))
    else:
        work = listed()
    _embed(run, work, [Chunk(*numbers) for numbers in plan.chunks], spec, recompute=recompute)


def _embed(run: Run, work: Worklist, chunks: list[Chunk], spec: EmbedSpec, *, recompute: bool) -> None:
    total = sum(chunk.images for chunk in chunks)
    before = sum(chunk.images for chunk in chunks if run.result(Embedded, chunk.name) is not None)
    counters = Counters(run.job.spark.sparkContext)
    run.metrics.also(counters.totals())
    with run.job.console.meter("embed", "images") as show:
        for number, chunk in enumerate(work.in_turn(chunks), 1):
            run.once(
                Embedded,
                lambda chunk=chunk: _embedded(run, work, chunk, spec, counters, recompute=recompute),  # type: ignore[misc]
                chunk.name,
                words=f"embed chunk {number} of {len(chunks)} ({counted(chunk.images, 'image')})",
                on_look=lambda: show(min(total, before + counters.images.value), total),
            )


def _embedded(
    run: Run, work: Worklist, chunk: Chunk, spec: EmbedSpec, counters: Counters, *, recompute: bool
) -> Embedded:
    from jobs.embedding.chunks import embed_chunk

    warehouse, settings = run.warehouse, run.settings
    totals = embed_chunk(
        warehouse,
        work,
        chunk,
        spec,
        settings,
        run_id=run.run_id,
        now=utc_now(),
        recompute=recompute,
        counted=counters.add,
    )
    return Embedded(
        images=totals.images,
        faces=totals.faces,
        statuses=totals.statuses,
        device=Device(names=totals.devices, network_s=totals.network_s, elapsed_s=totals.elapsed_s),
        machines=cluster_resources(warehouse.spark, settings),
    )


def _screened(gated: Gated, fingerprint: str, run: Run) -> Screened:
    from jobs.embedding.status import record_refusals

    machines = cluster_resources(run.job.spark, run.settings)
    refusals = record_refusals(run.warehouse, gated, run_id=run.run_id, now=run.job.clock())
    reasons = {row["reason"]: row["count"] for row in gated.decisions.groupBy("reason").count().collect()}
    accepted = reasons.pop(None, 0)
    return Screened(
        images=accepted + sum(reasons.values()),
        accepted=accepted,
        refused=sum(reasons.values()),
        newly_refused=refusals,
        reasons=reasons,
        fingerprint=fingerprint,
        weights=run.facts.get("weights"),
        machines=machines,
    )


def embedded_message(run: Run) -> str:
    """One line: what was embedded now, what was reused."""
    chunks = run.parts(Embedded).values()
    images, faces = sum(chunk.images for chunk in chunks), sum(chunk.faces for chunk in chunks)
    gate = run.result(Screened) or Screened()
    return (
        f"{counted(images, 'image')} embedded ({counted(faces, 'face')}), {(gate.accepted or 0) - images} reused, "
        f"{refused_text(gate.reasons)}; weights {run.facts.get('weights')}"
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
