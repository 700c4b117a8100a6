"""The pipeline inside Spark: a `mapInArrow` function and a pandas UDF over the same inner function.

The model file travels by ``--files`` (or ``SparkContext.addFile``) and is loaded once per Python worker, so
``spark.python.worker.reuse`` should stay on.
"""

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from udfs.arrays import EMBEDDING_DIM
from udfs.coverage import CoveredPrincipal
from udfs.device import Placement, WithoutGpu, apply_share, apply_threads, pick_device
from udfs.params import MIB, PipelineParams
from udfs.pipeline import Pipeline
from udfs.results import Face, ImageInput, ImageResult

INPUT_COLUMNS = ("image_id", "content", "uri", "content_sha256", "covered", "root")

RESULT_SCHEMA = (
    "image_id string, status string, reason string, width int, height int, "
    "faces array<struct<face_index: int, box: array<float>, landmarks: array<float>, confidence: float, "
    "basis_record_ids: array<string>, embedding: array<float>>>, "
    "dropped struct<too_small: int, low_confidence: int, over_limit: int, uncovered: int>, "
    "device string, network_s float, elapsed_s float"
)

# Results in one Arrow batch. A face is about 2.2 kB, so a batch stays far below Spark's 64 MB.
_ROWS_PER_BATCH = 256
_FACES_PER_BATCH = 4096

_DROPPED = ("too_small", "low_confidence", "over_limit", "uncovered")


@dataclass(frozen=True)
class EmbedSpec:
    """All that a Python worker needs to know; small and picklable.

    * ``model_name``: name of the model file among the files that Spark ships, or an absolute path.
    * ``fingerprint``: of the model and ``params``; a worker that loads anything else raises.
    * ``device``: ``auto`` (the task's GPU, else the processor), ``cpu``, ``cuda`` or ``cuda:N``.
    * ``central_only``: for evaluation only, and ``boxes_only``: see `Pipeline`.
    * ``cpu_threads``: torch threads of one worker; 0 means what the environment or the task's cpus say.
    * ``gpu_share``: GPUs that the stage asks Spark for, for each task. 0: none; a part of one: a worker may take that
      part of its GPU's memory.
    * ``without_gpu``: what a task does that was to compute on a GPU and cannot: see `pick_device`.
    * ``roots``: folders and ``s3://bucket/prefix`` that ``uri`` may be read from; a row's own ``root`` counts as well.
    """

    model_name: str
    fingerprint: str
    params: PipelineParams = field(default_factory=PipelineParams)
    device: str = "auto"
    cpu_threads: int = 0
    decode_threads: int = 2
    detect_batch: int = 0
    embed_batch: int = 0
    queue_bytes: int = 256 * MIB
    read_timeout_s: float = 30.0
    read_retries: int = 2
    store_patience_s: float = 0.0
    compiled: bool = False
    central_only: bool = False
    roots: tuple[str, ...] = ()
    boxes_only: bool = False
    gpu_share: float = 0.0
    without_gpu: WithoutGpu = "fail"


# By process, model file and spec, and by placement; the one used last is the last.
_pipelines: dict[tuple[tuple[int, str, EmbedSpec], Placement], Pipeline] = {}

#: Told of each batch that is done: images, those of them that were decoded, faces embedded, bytes read.
Counted = Callable[[int, int, int, int], None]


def embed_arrow(
    spec: EmbedSpec, counted: Counted | None = None
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``DataFrame.mapInArrow(embed_arrow(spec), RESULT_SCHEMA)``.

    Input columns: image_id string, content binary, uri string, content_sha256 string, covered
    array<struct<record_id string, principal string, box array<float>>>, root string (what ``uri`` must lie below, if
    not below ``spec.roots``); others are ignored. Output:
    `RESULT_SCHEMA`, one row per image, in order. ``counted`` is called in the worker: by it a driver can have
    accumulators.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pipeline = worker_pipeline(spec)
        images = (image for batch in batches for image in _from_arrow(batch))
        for results in _grouped(pipeline.run(images)):
            if counted is not None:
                decoded = sum(result.width is not None for result in results)
                faces, read = sum(len(r.faces) for r in results), sum(r.byte_size for r in results)
                counted(len(results), decoded, faces, read)
            yield results_to_arrow(results)

    return run


def detect_and_embed(spec: EmbedSpec) -> Any:
    """A pandas UDF from one struct with the input columns of `embed_arrow` to `RESULT_SCHEMA`.

    For SQL and notebooks: ``detect_and_embed(spec)(struct("image_id", "content", "uri", "content_sha256",
    "covered", "root"))``. On clusters `embed_arrow` is the better one: it takes a resource profile and copies less.
    """
    from pyspark.sql.pandas.functions import pandas_udf

    def run(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        yield from embed_frames(spec, frames)

    return pandas_udf(run, RESULT_SCHEMA)  # type: ignore[call-overload]  # its stubs ask for a functionType


def embed_frames(spec: EmbedSpec, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The inner function of `detect_and_embed`: each frame of images becomes a frame of results, row by row."""
    pipeline = worker_pipeline(spec)
    sizes: list[int] = []

    def images() -> Iterator[ImageInput]:
        for frame in frames:
            sizes.append(len(frame))
            for row in frame.to_dict("records"):
                yield _image(*(row.get(name) for name in INPUT_COLUMNS))

    # Spark wants as many rows back as it gave, in total; frames are rebuilt so that none grows without bound.
    results = pipeline.run(images())
    for result in results:
        size = sizes.pop(0)
        while size == 0:
            yield _frame([])
            size = sizes.pop(0)
        yield _frame([result, *(next(results) for _ in range(size - 1))])
    for _ in sizes:
        yield _frame([])


def worker_pipeline(spec: EmbedSpec) -> Pipeline:
    """The pipeline of this Python worker for its task's device, built on first use.

    Raises `FingerprintMismatch`, and `DeviceUnavailable` where the task was to compute on a GPU and cannot.
    """
    placement = pick_device(
        spec.device,
        cpu_threads=spec.cpu_threads or None,
        gpu_wanted=spec.gpu_share > 0,
        without_gpu=spec.without_gpu,
    )
    path = _model_path(spec.model_name)
    # Two models in one worker would double its memory; a run has one, so the last one asked for is kept. Of that one
    # there is a pipeline for each GPU: Spark gives a worker that it uses again whichever is free.
    run = (os.getpid(), str(path), spec)
    others = [key for key in _pipelines if key[0] != run]
    for other in others:
        del _pipelines[other]
    if others:
        gc.collect()  # a pipeline refers to itself: two models at once would not fit into the memory of one
    key = (run, placement)
    last = next(reversed(_pipelines), None)
    if key != last:
        if last is not None:
            _pipelines[last].rest()  # the GPU that this worker leaves is another one's now
        apply_threads(placement)
        apply_share(placement, spec.gpu_share)
        _pipelines[key] = _pipelines.pop(key) if key in _pipelines else _built(spec, path, placement)
    return _pipelines[key]


def _built(spec: EmbedSpec, path: Path, placement: Placement) -> Pipeline:
    return Pipeline(
        path,
        spec.params,
        placement=placement,
        decode_threads=spec.decode_threads,
        embed_batch=spec.embed_batch,
        detect_batch=spec.detect_batch,
        queue_bytes=spec.queue_bytes,
        read_timeout_s=spec.read_timeout_s,
        read_retries=spec.read_retries,
        store_patience_s=spec.store_patience_s,
        compiled=spec.compiled,
        central_only=spec.central_only,
        roots=spec.roots,
        boxes_only=spec.boxes_only,
        expected_fingerprint=spec.fingerprint,
    )


def results_to_arrow(results: list[ImageResult]) -> pa.RecordBatch:
    """Results as one Arrow batch of `RESULT_SCHEMA`; vectors go over as one block, not number by number."""
    faces = [face for result in results for face in result.faces]
    columns = {
        "image_id": pa.array([r.image_id for r in results], pa.string()),
        "status": pa.array([r.status for r in results], pa.string()),
        "reason": pa.array([r.reason for r in results], pa.string()),
        "width": pa.array([r.width for r in results], pa.int32()),
        "height": pa.array([r.height for r in results], pa.int32()),
        "faces": _lists([len(r.faces) for r in results], _faces_to_arrow(faces)),
        "dropped": pa.StructArray.from_arrays(
            [pa.array([getattr(r.dropped, name) for r in results], pa.int32()) for name in _DROPPED], list(_DROPPED)
        ),
        "device": pa.array([r.device for r in results], pa.string()),
        "network_s": pa.array([r.network_s for r in results], pa.float32()),
        "elapsed_s": pa.array([r.elapsed_s for r in results], pa.float32()),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def _faces_to_arrow(faces: list[Face]) -> pa.StructArray:
    records = [face.basis_record_ids for face in faces]
    columns = {
        "face_index": pa.array([f.face_index for f in faces], pa.int32()),
        "box": _vectors([f.box for f in faces], 4),
        "landmarks": _vectors([f.landmarks for f in faces], 10),
        "confidence": pa.array([f.confidence for f in faces], pa.float32()),
        "basis_record_ids": _lists(
            [len(ids) for ids in records], pa.array(list(chain.from_iterable(records)), pa.string())
        ),
        "embedding": _vectors([f.embedding for f in faces], EMBEDDING_DIM),
    }
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def _vectors(rows: list[Any], width: int) -> pa.ListArray:
    block = np.concatenate(rows) if rows else np.zeros(0, np.float32)
    return _lists([width] * len(rows), pa.array(block.astype(np.float32, copy=False), pa.float32()))


def _lists(lengths: list[int], values: pa.Array) -> pa.ListArray:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _grouped(results: Iterable[ImageResult]) -> Iterator[list[ImageResult]]:
    group: list[ImageResult] = []
    faces = 0
    for result in results:
        group.append(result)
        faces += len(result.faces)
        if len(group) >= _ROWS_PER_BATCH or faces >= _FACES_PER_BATCH:
            yield group
            group, faces = [], 0
    if group:
        yield group


def _from_arrow(batch: pa.RecordBatch) -> Iterator[ImageInput]:
    names = set(batch.schema.names)
    missing = [name for name in INPUT_COLUMNS if name not in names and name in ("image_id", "covered")]
    if missing or not names & {"content", "uri"}:
        raise ValueError(f"input columns must be {', '.join(INPUT_COLUMNS)}; missing: {missing or ['content']}")
    nothing = pa.nulls(batch.num_rows)
    columns = [batch.column(name) if name in names else nothing for name in INPUT_COLUMNS]
    # Row by row: a column of pictures turned into Python objects at once would double the batch's memory.
    for row in range(batch.num_rows):
        yield _image(*(column[row].as_py() for column in columns))


def _image(image_id: Any, content: Any, uri: Any, content_sha256: Any, covered: Any, root: Any) -> ImageInput:
    entries = () if covered is None else tuple(_principal(entry) for entry in covered)
    return ImageInput(
        image_id=image_id,
        content=None if content is None else bytes(content),
        uri=uri or None,
        content_sha256=content_sha256 or None,
        covered=entries,
        root=root or None,
    )


def _principal(entry: Any) -> CoveredPrincipal:
    values = entry if isinstance(entry, dict) else entry.asDict()
    box = values.get("box")
    return CoveredPrincipal(
        record_id=values["record_id"] or "",
        principal=values["principal"] or "",
        box=None if box is None else tuple(float("nan") if v is None else float(v) for v in box),
    )


def _frame(results: list[ImageResult]) -> pd.DataFrame:
    return results_to_arrow(results).to_pandas()


def _model_path(name: str) -> Path:
    if Path(name).is_absolute():
        return Path(name)
    from pyspark import SparkFiles

    return Path(SparkFiles.get(name))
