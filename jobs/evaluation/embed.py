"""The configured model on labelled pairs: embed their pictures on executors, score the pairs, say what they show.

Nothing of it is stored: vectors and scores stay in memory, and only aggregates come out (Guarantees 3 and 15).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyspark.sql import functions as F

from jobs.embedding.chunks import gpu_profile
from jobs.embedding.model import Model, find_model, ship_model
from jobs.errors import BadInput
from jobs.evaluation.summary import counts, evaluate_pairs
from jobs.tables.sources import file_uri
from udfs.arrays import EMBEDDING_DIM
from udfs.spark import RESULT_SCHEMA, embed_arrow
from udfs.statuses import Status

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

    from jobs.evaluation.pairs import Pairs
    from jobs.runs.record import JobContext
    from jobs.settings import Settings

_PAIRS_AT_ONCE: Final = 65_536
_INPUT: Final = (
    "image_id string, uri string, covered array<struct<record_id: string, principal: string, box: array<float>>>"
)
# The pipeline opens no picture that nobody speaks for. Here the operator does, by --lawful-basis.
_STATED: Final = [("stated", "evaluation", None)]


@dataclass(frozen=True)
class Embedded:
    """One vector for each picture, where a face was found in it; why not, and how many faces beside were left alone."""

    vectors: NDArray[np.float32]
    found: NDArray[np.bool_]
    failed: dict[str, int]
    beside: int


def evaluate(job: JobContext, pairs: Pairs, images: str) -> dict[str, Any]:
    """Embed, compare, count: the content of evaluation.json."""
    model = find_model(job.settings)
    job.console.step("model", model.weights.label, **model.described())
    job.console.step("evaluate", "embedding", pictures=len(pairs.images), weights=model.weights.label)
    embedded = embed_pictures(job.spark, images, pairs.images, model, job.settings)
    job.console.step("evaluate", "comparing", pairs=len(pairs), without_face=sum(embedded.failed.values()))
    weights = model.weights
    return {
        "at": job.clock().isoformat(timespec="seconds"),
        "weights": {
            "label": weights.label,
            "trained": weights.trained,
            "sha256": weights.sha256,
            "origin": weights.origin,
            "licence": weights.licence,
        },
        "fingerprint": model.fingerprint,
        "parameters": model.params.to_dict(),
        "pairs": {**counts(pairs), "sha256": pairs.sha256},
        "pictures": {"embedded": int(embedded.found.sum()), "failed": embedded.failed, "faces_beside": embedded.beside},
        **evaluate_pairs(pairs, cosines(embedded, pairs), embedded.found),
    }


def embed_pictures(
    spark: SparkSession, folder: str, images: tuple[str, ...], model: Model, settings: Settings
) -> Embedded:
    """Embed the most central face of each picture below ``folder``, on executors; each picture once.

    Raises:
        BadInput: pictures are missing or cannot be read, so that the evaluation would not be that of the pairs file.
    """
    root = file_uri(spark, folder).rstrip("/")
    spec = replace(ship_model(spark, model, settings), central_only=True, boxes_only=False, roots=(root,))
    rows = [(str(number), f"{root}/{name}", _STATED) for number, name in enumerate(images)]
    tasks = max(
        min(spark.sparkContext.defaultParallelism, len(rows)), -(-len(rows) // settings.executor.partition_images)
    )
    wanted = spark.createDataFrame(rows, _INPUT).repartition(tasks)
    results = wanted.mapInArrow(embed_arrow(spec), RESULT_SCHEMA, profile=gpu_profile(spark, settings))
    vector = F.get("faces", F.lit(0))["embedding"].alias("vector")
    table = results.select("image_id", "status", "reason", vector, "dropped.uncovered").toArrow()
    return _gathered(table, len(images))


def _gathered(table: pa.Table, images: int) -> Embedded:
    """The executors' rows, in whatever order they came, by the number of the picture."""
    vectors, found = np.zeros((images, EMBEDDING_DIM), np.float32), np.zeros(images, bool)
    outcomes: Counter[tuple[str, str]] = Counter()
    for batch in table.to_batches():
        columns = (batch.column(name).to_pylist() for name in ("image_id", "status", "reason"))
        for row, (number, status, reason) in enumerate(zip(*columns, strict=True)):
            if status == Status.EMBEDDED:
                vectors[int(number)], found[int(number)] = batch.column("vector")[row].values.to_numpy(), True
            else:
                outcomes[status, reason] += 1
    _all_readable(outcomes, images)
    failed = {f"{status}: {reason}": number for (status, reason), number in sorted(outcomes.items())}
    return Embedded(vectors, found, failed, sum(table.column("uncovered").to_pylist()))


def _all_readable(outcomes: Counter[tuple[str, str]], of: int) -> None:
    missing = {reason: number for (status, reason), number in sorted(outcomes.items()) if status == Status.UNREADABLE}
    if missing:
        why = ", ".join(f"{reason}: {number}" for reason, number in missing.items())
        raise BadInput(
            f"{sum(missing.values())} of {of} pictures cannot be read ({why}).",
            hint="check --images: LFW's NAME/NAME_0001.jpg, or the paths of the CSV, must lie below it.",
        )


def cosines(embedded: Embedded, pairs: Pairs) -> NDArray[np.float64]:
    """The cosine of each pair of vectors."""
    scores = np.empty(len(pairs), np.float64)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        left, right = (embedded.vectors[side[part]].astype(np.float64) for side in (pairs.left, pairs.right))
        scores[part] = np.einsum("ij,ij->i", left, right)
    return scores
