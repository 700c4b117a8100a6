"""Two tables of docs/operations.md, from a million to three billion images and by types of vectors: arithmetic alone.

python -m bench.scaling

Nothing here was run at these sizes. Costs an image and a row are what bench/results/ holds, the load's plan is that of
jobs/index/load_plan.py, and both are taken as proportional to their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from bench.record import result
from jobs.formatting import size
from jobs.index.import_records import LAG_S
from jobs.index.load_plan import LoadPlan, plan_load
from jobs.index.protocol import NUMBER_BYTES, Features
from jobs.index.staging import bucket_count
from jobs.planning.model import NightPlan, Pools, Work
from jobs.planning.needs import needs
from jobs.planning.rates import defaults
from jobs.settings import PlanningSettings, load_settings

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
BEGIN, END = "<!-- scaling: python -m bench.scaling -->\n", "<!-- end of scaling -->\n"
SIZES = {"1 million": 10**6, "100 million": 10**8, "3 billion": 3 * 10**9}
TYPES_BEGIN, TYPES_END = "<!-- vector types: python -m bench.scaling -->\n", "<!-- end of vector types -->\n"
NIGHT_H, WEEK_H = 8, 7 * 24
CORES = 8  # of an executor: conf/spark-*.conf
NEW_A_NIGHT = 0.001
REPLICAS = 2  # one of them may be lost, and faces are served still


def main() -> None:
    """Write each table between its two marks on the page."""
    PAGE.write_text(with_scaling(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def with_scaling(page: str) -> str:
    """The page's text with the tables of the committed results."""
    for begin, end, table in ((BEGIN, END, scaling()), (TYPES_BEGIN, TYPES_END, vector_types())):
        before, rest = page.split(begin)
        page = before + begin + "\n" + table + "\n" + end + rest.split(end)[1]
    return page


def scaling() -> str:
    """The table, and what its figures rest on."""
    measured = result("pipeline")
    machine, figures = measured["machine"], measured["figures"]
    # On so many cores at once, so an image costs a core that many times the wall clock's share.
    core_s = {
        dtype: figures[f"{name}_ms_an_image"]["median"] / 1000 * machine["cores"]
        for dtype, name in (("float32", "ours_spark"), ("bfloat16", "ours_spark_bf16"))
    }
    faces_each = defaults()["faces_each"]["value"]
    plans = [_plan(round(count * faces_each)) for count in SIZES.values()]
    executors = [_executors(count, core_s["float32"]) for count in SIZES.values()]

    def each(text: Callable[[int], str]) -> str:
        return " | ".join(text(count) for count in SIZES.values())

    def of_plan(text: Callable[[LoadPlan], str]) -> str:
        return " | ".join(text(plan) for plan in plans)

    rows = {
        "embed all once: core-hours": each(lambda n: _number(n * core_s["float32"] / 3600)),
        "the same in bfloat16": each(lambda n: _number(n * core_s["bfloat16"] / 3600)),
        f"executors of {CORES} cores to do it in a week": " | ".join(f"{n:,}" for n in executors),
        f"a night with {NEW_A_NIGHT:.1%} new images: core-hours": each(
            lambda n: _number(NEW_A_NIGHT * n * core_s["float32"] / 3600)
        ),
        "commits of 500,000 images": each(lambda n: f"{math.ceil(n / 500_000):,}"),
        "vectors shuffled at staging, and staged": of_plan(lambda p: size(p.staging_bytes)),
        "the same on each executor's disk": " | ".join(
            size(plan.staging_bytes / n) for plan, n in zip(plans, executors, strict=True)
        ),
        f"Milvus data nodes for an import in {NIGHT_H} hours": of_plan(lambda p: f"{p.jobs_in_flight:,}"),
        "staged files, one an import job; waves": of_plan(lambda p: f"{p.files:,}; {p.waves:,}"),
        # A window of jobs each, and one a minute: `ImportRecorder`.
        "commits for the import's record": of_plan(lambda p: f"{p.waves + math.ceil(p.seconds / LAG_S):,}"),
        "hours to import": of_plan(lambda p: _number(p.seconds / 3600)),
        "index (AUTO)": of_plan(lambda p: p.index.index_type),
        f"Milvus: memory, both collections, {REPLICAS} replicas": of_plan(lambda p: size(2 * p.memory_bytes)),
        "Milvus: storage, both collections": of_plan(lambda p: size(2 * p.stored_bytes)),
        "buckets of keys compared": of_plan(lambda p: f"{bucket_count(p.rows):,}"),
    }
    lines = [f"| images, with {faces_each:g} faces each | {' | '.join(SIZES)} |", "| --- |" + " ---: |" * len(SIZES)]
    lines += [f"| {name} | {values} |" for name, values in rows.items()]
    return "\n".join([*lines, "", _basis()]) + "\n"


def vector_types() -> str:
    """What an index of three billion images takes by the type of its vectors, as IVF_SQ8 (AUTO) and as HNSW."""
    faces = round(SIZES["3 billion"] * defaults()["faces_each"]["value"])
    lines = [
        f"| {faces:,} faces, {SIZES['3 billion']:,} images | staged | a collection stored | three of them | "
        "peak, with staged files and the table | memory, live and new |",
        "| --- |" + " ---: |" * 5,
    ]
    for index_type in ("IVF_SQ8", "HNSW"):
        for vector_type, called in (("float32", "float32"), ("float16", "float16 or bfloat16")):
            plan = _plan(faces, f"milvus.vector_type={vector_type}", f"milvus.index_type={index_type}")
            # Of the night only its length counts for these, and they are asked for no length.
            needed = needs(
                NightPlan(Pools(0, 0, 0), ()),
                Work(new=0, faces_reused=faces),
                plan,
                PlanningSettings(),
                keep=2,
                models=1,
            )
            sizes = (
                needed.staging_bytes,
                needed.collection_bytes,
                needed.collections * needed.collection_bytes,
                needed.peak_bytes,
                needed.memory_bytes // REPLICAS,
            )
            lines.append(f"| {index_type}, {called} | {' | '.join(size(each) for each in sizes)} |")
    return "\n".join(lines) + "\n"


def _basis() -> str:
    measured, loading, indexed = result("pipeline"), result("loading"), result("index_types")
    machine, setting, figures = measured["machine"], measured["setting"], measured["figures"]
    by_rows = loading["figures"]["growth"]["us_a_row"]
    most = max(by_rows, key=int)
    hnsw, sq8 = (indexed["figures"][name]["build_s"] for name in ("HNSW", "IVF_SQ8"))
    return (
        f"It rests on {figures['ours_spark_ms_an_image']['median']:.0f} ms an image ({setting['photographs']}) with "
        f"{setting['workers']} Python workers of {figures['peak_rss_mib_of_a_worker'] / 1024:.1f} GiB on "
        f"{machine['cores']} cores of {machine['cpu']} ({machine['vector']}), {measured['date'][:10]}; and on "
        f"`milvus.import_rows_per_s` at its default of {load_settings().milvus.import_rows_per_s:,} a data node. On "
        f"that machine, which Spark and {loading['setting']['server']} shared, {int(most):,} rows took "
        f"{by_rows[most]['stage']:.0f} µs each to stage and {by_rows[most]['import']:.0f} µs to import. On "
        f"{indexed['machine']['cores']} cores {indexed['setting']['rows']:,} rows were indexed in {hnsw:.0f} s as HNSW "
        f"and in {sq8:.0f} s as IVF_SQ8."
    )


def _plan(rows: int, *overrides: str) -> LoadPlan:
    rate = load_settings().milvus.import_rows_per_s
    nodes = math.ceil(rows / (rate * NIGHT_H * 3600))
    settings = load_settings(
        overrides=[
            "milvus.uri=http://milvus.example:19530",
            f"milvus.data_nodes={nodes}",
            f"milvus.import_jobs={nodes}",
            f"milvus.replicas={REPLICAS}",
            *overrides,
        ]
    )
    return plan_load(
        rows,
        settings,
        Features(version="2.3.5", bulk_import=True, files_per_job=1, vector_types=frozenset(NUMBER_BYTES)),
    )


def _executors(images: int, core_s: float) -> int:
    return math.ceil(images * core_s / 3600 / WEEK_H / CORES)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    main()
