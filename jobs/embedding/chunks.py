"""From accepted images to rows of `embeddings` and `image_status`, chunk by chunk.

A chunk is a range of `images.part`. A run that was killed between its two appends finds the faces of the first by its
own name on them, and does not write them twice. What is done is known by (image_id, input_digest,
model_fingerprint) in `image_status`; the vectors themselves are never read to find out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.embedding.faces import face_rows
from jobs.embedding.status import INPUT, computed_rows
from jobs.governance.gate import Gated
from jobs.schemas import EMBEDDINGS, IMAGE_STATUS, IMAGES
from jobs.settings import Settings
from jobs.tables.store import Warehouse, materialise, reading_images
from udfs.spark import RESULT_SCHEMA, Counted, EmbedSpec, embed_arrow

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: So many rows of the worklist are kept in a partition: what a task reads of them.
ROWS_A_TASK: Final = 500_000


@dataclass(frozen=True)
class Chunk:
    """Parts ``first``…``last``, embedded and committed together, and how many images there are to embed in them."""

    first: int
    last: int
    images: int = 0

    @property
    def name(self) -> str:
        """Part of the name of its step."""
        return f"{self.first}-{self.last}"


@dataclass(eq=False)
class Worklist:
    """Images that the gate accepted, and that are to be embedded: what may be read and decoded, and nothing else may.

    Only `worklist` makes one, from decisions of the gate. ``rows``: theirs, which do not change any more. What is kept
    at hand of them is a copy, made again where an executor has taken it along.

    Spark cannot skip partitions of computed rows, so whoever looks for a chunk's reads all. That is done once for each
    group of chunks (`in_turn`), and a chunk looks for its own among the group's, once (`of`). In groups of √c, c chunks
    of n images, in a worklist of p partitions, take √c × p tasks and c × √c × n / `ROWS_A_TASK` more: 1.8 million
    where 6,000 chunks of 500,000 images lie in 16,384 partitions, and not 393 million.
    """

    rows: DataFrame
    _group: Chunk | None = field(default=None, init=False)
    _near: DataFrame | None = field(default=None, init=False)

    def in_turn(self, chunks: Sequence[Chunk]) -> Iterator[Chunk]:
        """The chunks, in the order of their parts; the work of a chunk's neighbours is at hand while it is its turn."""
        each = max(1, math.isqrt(len(chunks)))
        for start in range(0, len(chunks), each):
            group = chunks[start : start + each]
            with self._at_hand(group):
                yield from group

    @contextmanager
    def _at_hand(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        if len(chunks) == 1:
            yield
            return
        group = Chunk(chunks[0].first, chunks[-1].last, sum(chunk.images for chunk in chunks))
        with _kept(self.rows, group) as near:
            self._group, self._near = group, near
            try:
                yield
            finally:
                self._group = self._near = None

    @contextmanager
    def of(self, chunk: Chunk) -> Iterator[DataFrame]:
        """The work of a chunk, which may be read several times while this lasts."""
        group, near = self._group, self._near
        inside = group is not None and group.first <= chunk.first and chunk.last <= group.last
        with _kept(near if inside and near is not None else self.rows, chunk) as rows:
            yield rows


@contextmanager
def _kept(rows: DataFrame, chunk: Chunk) -> Iterator[DataFrame]:
    """The ``rows`` of a chunk in few partitions, computed once, at the first use."""
    mine = rows.where(F.col("part").between(chunk.first, chunk.last))
    # By a hash: done again after a loss, each row comes to the same task.
    kept = mine.repartition(max(1, -(-chunk.images // ROWS_A_TASK)), "image_id").persist(StorageLevel.DISK_ONLY)
    try:
        yield kept
    finally:
        kept.unpersist()


def worklist(gated: Gated, done: DataFrame, limit: int | None) -> Worklist:
    """Accepted images that are not ``done`` (image_id, input_digest), at most ``limit`` of them; computed once."""
    new = gated.accepted.join(done, list(INPUT), "left_anti")
    return Worklist(materialise(new if limit is None else new.limit(limit)))


@dataclass(frozen=True)
class ChunkTotals:
    """Images and faces of a chunk, images by status, and how long the networks computed of its workers' time."""

    images: int
    faces: int
    statuses: dict[str, int]
    devices: tuple[str, ...]
    network_s: float
    elapsed_s: float


def plan_chunks(work: Worklist, chunk_images: int) -> list[Chunk]:
    """Cut the parts that have work into ranges of about ``chunk_images`` images each."""
    sizes = work.rows.groupBy("part").count().orderBy("part").collect()
    chunks: list[Chunk] = []
    first, size = None, 0
    for row in sizes:
        first = row["part"] if first is None else first
        size += row["count"]
        if size >= chunk_images:
            chunks.append(Chunk(first, row["part"], size))
            first, size = None, 0
    if first is not None:
        chunks.append(Chunk(first, sizes[-1]["part"], size))
    return chunks


def embed_chunk(
    warehouse: Warehouse,
    wanted: Worklist,
    chunk: Chunk,
    spec: EmbedSpec,
    settings: Settings,
    *,
    run_id: str,
    now: datetime,
    recompute: bool,
    counted: Counted | None = None,
) -> ChunkTotals:
    """Detect, embed and commit one chunk; returns counts.

    ``counted`` is told, on the executors, of each batch that is done.
    """
    with wanted.of(chunk) as work:
        results = _results(warehouse, work, chunk, spec, settings, counted).persist(StorageLevel.DISK_ONLY)
        try:
            # This pass does the work; what follows reads its outcome.
            with reading_images(warehouse.spark):
                totals = _totals(results)
            # The left side's ids are the right side's: an inner join of equals, broadcast, so no vector is shuffled.
            stamped = results.join(F.broadcast(work.select(*INPUT)), "image_id")
            if recompute:
                # Only what another run computed: this run's own rows may stem from before a kill.
                for table in (EMBEDDINGS, IMAGE_STATUS):
                    _delete_former(warehouse, table, work, spec.fingerprint, run_id)
            faces = face_rows(stamped, spec.fingerprint, run_id)
            written = _written(warehouse, work, spec.fingerprint, run_id)
            if not written.isEmpty():
                faces = faces.join(F.broadcast(written), list(INPUT), "left_anti")
            warehouse.append(faces, EMBEDDINGS)
            warehouse.append(computed_rows(stamped, spec.fingerprint, run_id, now), IMAGE_STATUS)
        finally:
            results.unpersist()
        return totals


def _written(warehouse: Warehouse, work: DataFrame, fingerprint: str, run_id: str) -> DataFrame:
    """Inputs of ``work`` whose faces this very run has appended, and was killed before it appended their status."""
    mine = warehouse.read(EMBEDDINGS).where((F.col("model_fingerprint") == fingerprint) & (F.col("run_id") == run_id))
    return materialise(mine.select(*INPUT).join(F.broadcast(work.select(*INPUT)), list(INPUT), "left_semi"))


def _totals(results: DataFrame) -> ChunkTotals:
    rows = (
        results.groupBy("status", "device")
        .agg(
            F.count("*").alias("images"),
            F.sum(F.size("faces")).alias("faces"),
            F.sum("network_s").alias("network_s"),
            F.sum("elapsed_s").alias("elapsed_s"),
        )
        .collect()
    )
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row["status"]] = statuses.get(row["status"], 0) + row["images"]
    return ChunkTotals(
        images=sum(row["images"] for row in rows),
        faces=sum(row["faces"] for row in rows),
        statuses=statuses,
        devices=tuple(sorted({row["device"] for row in rows})),
        network_s=round(sum(row["network_s"] for row in rows), 3),
        elapsed_s=round(sum(row["elapsed_s"] for row in rows), 3),
    )


def _results(
    warehouse: Warehouse, work: DataFrame, chunk: Chunk, spec: EmbedSpec, settings: Settings, counted: Counted | None
) -> DataFrame:
    wanted = chunk_input(warehouse, work, chunk, settings.executor.partition_images)
    profile = gpu_profile(warehouse.spark, settings)
    return wanted.mapInArrow(embed_arrow(spec, counted), RESULT_SCHEMA, profile=profile)


def chunk_input(warehouse: Warehouse, work: DataFrame, chunk: Chunk, partition_images: int) -> DataFrame:
    """The images of one chunk, as `embed_arrow` wants them, cut into tasks of bounded work.

    Stored bytes stay where they are: tasks are cut by size, and so are about equally long. Rows of addresses are small,
    and a task cut by size would hold a hundred thousand: they are spread at random, which also separates huge pictures
    that were ingested side by side.
    """
    images = warehouse.read(IMAGES).where(F.col("part").between(chunk.first, chunk.last))
    columns = ["image_id", "content", "uri", "content_sha256", "root"]
    by_uri = F.coalesce("by_uri", F.lit(False))
    tasks = max(1, -(-work.count() // partition_images))
    spread = images.where(by_uri).select(*columns).repartition(tasks)
    rows = (
        images.where(~by_uri)
        .select(*columns)
        .unionByName(spread)
        .join(F.broadcast(work.select("image_id", "content_sha256", "covered")), ["image_id", "content_sha256"])
    )
    return rows.select("image_id", "content", "uri", "content_sha256", "covered", "root")


def gpu_profile(spark: SparkSession, settings: Settings) -> Any:
    """The embedding stage's resources: with dynamic allocation executors of its own, else only its tasks' share."""
    wanted = settings.executor
    if not wanted.gpus_per_task:
        return None
    from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests

    profile = ResourceProfileBuilder().require(TaskResourceRequests().cpus(1).resource("gpu", wanted.gpus_per_task))
    if spark.conf.get("spark.dynamicAllocation.enabled", "false") == "true":
        # The vendor makes it nvidia.com/gpu in a pod; Kubernetes needs it, and the others do not look.
        executors = ExecutorResourceRequests().resource(
            "gpu", wanted.gpus_per_executor, wanted.gpu_discovery_script or "", "nvidia.com"
        )
        profile = profile.require(executors)
    return profile.build


def _delete_former(warehouse: Warehouse, table: Any, work: DataFrame, fingerprint: str, run_id: str) -> None:
    former = warehouse.read(table).where((F.col("model_fingerprint") == fingerprint) & (F.col("run_id") != run_id))
    keys = former.select(*INPUT, "run_id").join(work.select(*INPUT), list(INPUT), "left_semi")
    warehouse.delete_matching(table, keys, [*INPUT, "run_id"])
