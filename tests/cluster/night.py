"""The second half of a night on invented faces: stage, import, index, prove, promote, by the jobs' own steps.

A process of its own, so that a test can kill it and start it again:

    python -m tests.cluster.night SETTINGS.yaml --run-id n1 --rows 100000

The faces are those of bench/faces.py. The last line of stdout is one JSON object with the seconds of each step.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.faces import invented_faces

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.runs.step_result import StepResult

FINGERPRINT = "0" * 64


def main() -> int:
    from jobs.errors import FaceReindexError

    parser = argparse.ArgumentParser()
    parser.add_argument("settings")
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--until", choices=("stage", "index", "promote"), default="promote")
    parser.add_argument("--spoil", choices=("nan", "twice"), help="what is wrong with one of the faces")
    arguments = parser.parse_args()
    try:
        print(json.dumps(run_night(arguments)), flush=True)
    except FaceReindexError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def run_night(arguments: argparse.Namespace) -> dict[str, Any]:
    from jobs.embedding.faces import PermittedFaces
    from jobs.index.collections import collection_name
    from jobs.index.milvus.connect import connect
    from jobs.runs.console import Console
    from jobs.runs.record import JobContext, open_run
    from jobs.runs.results import Imported, Indexed, Promoted, Staged, Verified
    from jobs.settings import load_settings
    from jobs.steps.load import build_and_load, import_staged, stage_faces, staged_files
    from jobs.tables.store import Warehouse

    settings = load_settings(arguments.settings)
    spark = session(Path(arguments.settings).parent)
    warehouse = Warehouse(spark, settings.warehouse, is_path=True)
    job = JobContext(settings, warehouse, Console(), arguments.run_id, False)
    seconds: dict[str, float] = {}

    def step(kind: type[StepResult], work: Callable[[], StepResult]) -> None:
        begin = time.monotonic()
        run.once(kind, work)
        seconds[kind.name()] = round(time.monotonic() - begin, 2)

    with open_run(job, "night") as run:
        run.facts["weights"] = "UNTRAINED invented faces"
        index = connect(settings)
        collection = collection_name(settings.milvus.alias, run.run_id)
        faces = spoilt(invented_faces(spark, arguments.rows, arguments.seed), arguments.spoil)
        step(Staged, lambda: stage_faces(run, index, PermittedFaces(faces, FINGERPRINT)))
        staged = staged_files(run)
        if arguments.until == "stage":
            return {"files": len(staged.files), "seconds": seconds}
        step(Imported, lambda: import_staged(run, index, collection, staged, FINGERPRINT))
        step(Indexed, lambda: build_and_load(run, index, collection, staged.rows))
        result = {"collection": collection, "files": len(staged.files), "seconds": seconds}
        if arguments.until == "promote":
            step(Verified, lambda: _prove(run, index, collection, staged))
            step(Promoted, lambda: _promote(run, index, collection))
            result["proof"] = _proof(run)
        index.close()
    return result


def _proof(run: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from jobs.runs.results import Verified

    return asdict(run.result(Verified).proof)


def _prove(run: Any, index: Any, collection: str, staged: Any) -> Any:
    """The proof of the collection; there are no images here, of which an outcome could be counted."""
    from jobs.errors import NotProvenError
    from jobs.index.ground_truth import recall_sample
    from jobs.index.permitted_keys import compare_keys
    from jobs.index.verification import prove
    from jobs.runs.results import Reconciled, Verified

    spark = run.job.spark
    nothing = spark.createDataFrame([], "face_id bigint")
    rows = staged.read(spark)
    keys = rows.select("face_id", "bucket")
    proof = prove(
        index,
        collection,
        expected_rows=staged.rows,
        compared=compare_keys(spark, index, collection, run.settings, keys, staged.buckets),
        sample=recall_sample(rows, nothing, size=run.settings.verify.recall_sample),
        recall_floor=run.settings.verify.recall_floor,
    )
    if not proof.passed:
        raise NotProvenError("; ".join(proof.faults))
    counts = Reconciled(images=0, statuses={}, reasons={}, faces=staged.rows)
    return Verified(collection=collection, proof=proof, counts=counts)


def _promote(run: Any, index: Any, collection: str) -> Any:
    from jobs.index.promotion import AliasWatch, promote
    from jobs.runs.results import Promoted, Verified

    milvus = run.settings.milvus
    live = index.alias_target(milvus.alias)
    done = promote(
        index,
        milvus.alias,
        collection,
        proof=run.result(Verified).proof,
        proven=[collection, *([live] if live else [])],
        keep=milvus.keep_collections,
        replicas=milvus.replicas,
        timeout=milvus.index_timeout_s,
        watch=AliasWatch(milvus.watch_s, milvus.watch_p99_ms),
    )
    return Promoted(alias=milvus.alias, previous=done.previous, current=done.current)


def spoilt(faces: DataFrame, how: str | None) -> DataFrame:
    """``faces`` with one vector that is not finite, or one key that stands twice."""
    from pyspark.sql import functions as F

    one = F.xxhash64(F.lit(7).cast("bigint"))
    if how == "nan":
        wrong = F.transform("embedding", lambda x: x * F.lit(float("nan")).cast("float"))
        return faces.withColumn("embedding", F.when(F.col("face_id") == one, wrong).otherwise(F.col("embedding")))
    return faces.unionByName(faces.where(F.col("face_id") == one)) if how == "twice" else faces


def session(folder: Path) -> SparkSession:
    """A local session; with ``folder``/spark.conf, what that adds (the object store)."""
    from jobs.session import open_session, packaged_conf

    extra = folder / "spark.conf"
    text = packaged_conf("spark-local.conf").read_text() + (extra.read_text() if extra.exists() else "")
    whole = folder / "spark-whole.conf"
    whole.write_text(text)
    spark = open_session("night", str(whole))
    spark.sparkContext.setLogLevel("ERROR")
    return spark


if __name__ == "__main__":
    sys.exit(main())
