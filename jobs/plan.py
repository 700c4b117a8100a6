"""What a night would take, need and cost, and what limits it; nothing is written."""

from __future__ import annotations

from dataclasses import asdict

import click

from jobs.cli import Count, job
from jobs.planning.inputs import assumptions, faces_rate, plan_inputs, pools_for
from jobs.planning.model import Work, fit
from jobs.planning.needs import needs
from jobs.planning.text import notes, show, verdict
from jobs.planning.work import counted
from jobs.runs.history import last_fingerprint
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext

_EXAMPLES = """
python -m jobs.plan --config conf/local.yaml
python -m jobs.plan --config conf/cluster.yaml --images 3e9 --gpus 64 --hours 8
python -m jobs.plan --config conf/cluster.yaml --images 2e7 --cores 256 --data-nodes 4 --set planning.core_hour=0.04
"""


@job("plan", examples=_EXAMPLES, needs_write=False)
@click.option("--images", type=Count(), help="So many new images (such as 3e9); else those of the warehouse.")
@click.option("--faces-per-image", type=click.FloatRange(min=0), help="Else as in the warehouse, else as in bench/.")
@click.option("--gpus", type=Count(), help="GPUs of the executors; else this session's.")
@click.option("--cores", type=click.IntRange(min=1), help="Cores of the executors; else this session's.")
@click.option("--data-nodes", type=click.IntRange(min=1), help="Data nodes of Milvus; else `milvus.data_nodes`.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="The time that the night has.")
@click.option("--recompute", is_flag=True, help="Embed again what is unchanged, as after a change of the model.")
def main(
    job_: JobContext,
    images: int | None,
    faces_per_image: float | None,
    gpus: int | None,
    cores: int | None,
    data_nodes: int | None,
    hours: float | None,
    recompute: bool,
) -> Result:
    """What a night would take, need and cost, and what limits it. Reads metadata only, and writes nothing."""
    model = last_fingerprint(job_.warehouse, None)
    faces = faces_rate(job_, faces_per_image, model)
    work = Work(images, faces_each=faces.value) if images is not None else counted(job_, model, faces, recompute)
    view = plan_inputs(job_, work, data_nodes=data_nodes, hypothetical=images is not None)
    pools, whence = pools_for(job_, view.settings, gpus, cores)
    plan, load = view.night(pools), view.load(pools.data_nodes)
    late = hours is not None and plan.seconds > 3600 * hours
    would = fit(view.night, pools, 3600 * hours) if hours is not None and late else None
    copies = 2 if recompute else 1
    needed = needs(plan, work, load, view.settings.planning, keep=view.settings.milvus.keep_collections, models=copies)
    show(job_.console, work, plan, load, needed, view.settings)
    remarks = [*assumptions(view, faces, whence, model), *notes(plan, view.settings, hours)]
    for remark in remarks:
        job_.console.note(remark)
    data = {
        "work": asdict(work) | {"embedded": work.embedded, "faces": work.faces},
        "machines": asdict(pools),
        "stages": [asdict(line) for line in plan.stages],
        "seconds": plan.seconds,
        "limiting": asdict(plan.limiting),
        "fits": None if hours is None else not late,
        "fits_with": asdict(would) if would else None,
        "needs": asdict(needed),
        "import": {**asdict(load), "index": load.index.index_type},
        "notes": remarks,
    }
    return Result(verdict(plan, hours, would), data=data)


if __name__ == "__main__":
    main()
