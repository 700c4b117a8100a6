"""How much the executors do in a second, by part of the embedding stage, with photographs that show nothing.

No image of anybody is read: the photographs are made in the worker's memory out of random numbers, and what detection
takes for a face in them is covered by no record, so that nothing is embedded but noise. No vector leaves the worker.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import count, cycle
from os import getppid
from socket import gethostname
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
import simplejpeg
from PIL import Image

from jobs.embedding.chunks import gpu_profile
from jobs.errors import SettingsError
from udfs.arrays import UInt8
from udfs.decode import DecodeFailure, decode, detection_view
from udfs.params import PipelineParams
from udfs.spark import EmbedSpec, embed_arrow, worker_pipeline

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.settings import Settings

#: Decoding and detection as a night does them; the decoding threads' parts by themselves; the embedding network.
Part = Literal["images", "decoded", "cut", "embedded"]

MEASURED_SCHEMA: Final = "executor string, began double, ended double, amount bigint, devices array<string>"
# Log-uniform from 0.5 to 4 MP, as the benchmarks' photographs are, and two as small web pictures.
_MEGAPIXELS: Final = tuple(np.geomspace(0.5, 4.0, 14))
_ASPECTS: Final = (4 / 3, 3 / 2, 16 / 9, 1.0)
_SMALL: Final = ((640, 480), (480, 640))
_QUALITY: Final = 88
# A face's longer side as a part of the photograph's, from and to: as in the benchmarks' photographs.
_FACES: Final = (0.05, 0.33)
_IN_A_BATCH: Final = 4
_COVERED: Final = pa.list_(
    pa.struct([("record_id", pa.string()), ("principal", pa.string()), ("box", pa.list_(pa.float32()))])
)
# Without a record nothing is decoded. This one's person is in a corner where no face has room.
_NOBODY: Final = [{"record_id": "calibrate", "principal": "nobody", "box": [0.0, 0.0, 1.0, 1.0]}]


@dataclass(frozen=True)
class TaskMeasured:
    """What one task did: by the clock of its executor's machine, which is the same for all of its tasks."""

    executor: str
    began: float
    ended: float
    amount: int
    devices: tuple[str, ...] = ()


def check_limits(params: PipelineParams) -> None:
    """See that the largest photograph is decoded, for one that is refused costs no time.

    Raises:
        SettingsError: it is not.
    """
    try:
        decode(max(photographs(), key=len), params)
    except DecodeFailure as failure:
        raise SettingsError(
            f"Photographs of 4 MP are not decoded with these settings ({failure}), so they cannot be measured with.",
            hint="raise the limit of `detection` that it is (docs/settings.md).",
        ) from None


def measured(
    spark: SparkSession, settings: Settings, spec: EmbedSpec, part: Part, *, tasks: int, seconds: float
) -> list[TaskMeasured]:
    """Let so many ``tasks`` do a part for so many ``seconds``, under the embedding stage's resources.

    The networks are loaded before the clock runs. Workers are used again: the tasks of a second call begin together.
    """
    profile = gpu_profile(spark, settings)
    rows = spark.range(0, tasks, 1, tasks).mapInArrow(part_arrow(spec, part, seconds), MEASURED_SCHEMA, profile=profile)
    return [
        TaskMeasured(row["executor"], row["began"], row["ended"], row["amount"], tuple(row["devices"]))
        for row in rows.collect()
    ]


def an_executor(tasks: Iterable[TaskMeasured]) -> float:
    """The amount that an executor did in a second, on average over the executors.

    Counted from the first of its tasks to the last: tasks that did not run at once never make it look faster.
    """
    by_executor: dict[str, list[TaskMeasured]] = defaultdict(list)
    for task in tasks:
        by_executor[task.executor].append(task)
    rates = [
        sum(task.amount for task in mine) / (max(task.ended for task in mine) - min(task.began for task in mine))
        for mine in by_executor.values()
    ]
    return sum(rates) / len(rates)


def part_arrow(spec: EmbedSpec, part: Part, seconds: float) -> Callable[[Iterable[Any]], Iterator[pa.RecordBatch]]:
    """A function for ``DataFrame.mapInArrow`` that gives one row of `MEASURED_SCHEMA`, whatever comes in."""

    def run(batches: Iterable[Any]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            pass
        work = _WORK[part](spec)
        began = time.monotonic()
        amount, devices = work(began + seconds)
        # On one machine every process that Spark forks for an executor has the same parent.
        found = (f"{gethostname()}/{getppid()}", began, time.monotonic(), amount, sorted(devices))
        yield pa.RecordBatch.from_pylist([dict(zip(_SCHEMA.names, found, strict=True))], schema=_SCHEMA)

    return run


_SCHEMA: Final = pa.schema(
    [
        ("executor", pa.string()),
        ("began", pa.float64()),
        ("ended", pa.float64()),
        ("amount", pa.int64()),
        ("devices", pa.list_(pa.string())),
    ]
)
#: Works until a moment of `time.monotonic`, at least once; the amount that was done, and on which devices.
Work = Callable[[float], tuple[int, set[str]]]


def _images(spec: EmbedSpec) -> Work:
    """Photographs through the whole pipeline, as a night runs it."""
    pictures, run = photographs(), embed_arrow(spec)
    worker_pipeline(spec)

    def work(until: float) -> tuple[int, set[str]]:
        images, devices = 0, set[str]()
        for results in run(_batches(pictures, until)):
            images += results.num_rows
            devices.update(results.column("device").to_pylist())
        return images, devices

    return work


def _decoded(spec: EmbedSpec) -> Work:
    """Decoding, and shrinking to what detection sees, on the decoding threads alone."""

    def one(data: bytes) -> None:
        detection_view(decode(data, spec.params), spec.params)

    return _on_threads(spec, one, photographs())


def _cut(spec: EmbedSpec) -> Work:
    """Cutting crops out of decoded photographs, on the decoding threads alone."""
    embedder, rng = worker_pipeline(spec).embedder, np.random.default_rng(1)
    places = []
    for data in photographs()[:: len(photographs()) // 4]:
        pixels = decode(data, spec.params).pixels
        side = max(pixels.shape) * np.exp(rng.uniform(np.log(_FACES[0]), np.log(_FACES[1]), 8))
        left, top = (rng.uniform(0, np.maximum(1, pixels.shape[axis] - side)) for axis in (1, 0))
        places += [(pixels, box[None]) for box in np.stack([left, top, left + side, top + side], axis=1)]

    def one(place: tuple[UInt8, Any]) -> None:
        embedder.crops(*place)

    return _on_threads(spec, one, places)


def _on_threads(spec: EmbedSpec, one: Callable[[Any], None], things: Sequence[Any]) -> Work:
    def work(until: float) -> tuple[int, set[str]]:
        def loop(first: int) -> int:
            done = 0
            while not done or time.monotonic() < until:
                one(things[(first + done) % len(things)])
                done += 1
            return done

        with ThreadPoolExecutor(spec.decode_threads) as threads:
            done = sum(threads.map(loop, range(0, 5 * spec.decode_threads, 5)))
        return done, set()

    return work


def _embedded(spec: EmbedSpec) -> Work:
    """Full passes of the embedding network, over noise."""
    pipeline = worker_pipeline(spec)
    embedder, size = pipeline.embedder, spec.params.crop_size
    noise = np.random.default_rng(2).integers(0, 256, (embedder.batch, size, size, 3), np.uint8)
    # A GPU's first pass prepares the others.
    embedder.embed(noise)

    def work(until: float) -> tuple[int, set[str]]:
        done = 0
        while not done or time.monotonic() < until:
            embedder.embed(noise)
            done += len(noise)
        return done, {pipeline.placement.describe()}

    return work


_WORK: Final[dict[Part, Callable[[EmbedSpec], Work]]] = {
    "images": _images, "decoded": _decoded, "cut": _cut, "embedded": _embedded
}  # fmt: skip


def _batches(pictures: Sequence[bytes], until: float) -> Iterator[pa.RecordBatch]:
    """The same photographs again and again, as `embed_arrow` wants them, a few at a time; at least once."""
    endless, numbers = cycle(pictures), count()
    while True:
        contents = [next(endless) for _ in range(_IN_A_BATCH)]
        yield pa.RecordBatch.from_pydict(
            {
                "image_id": pa.array([str(next(numbers)) for _ in contents], pa.string()),
                "content": pa.array(contents, pa.binary()),
                "covered": pa.array([_NOBODY] * len(contents), _COVERED),
            }
        )
        if time.monotonic() >= until:
            return


@cache
def photographs() -> tuple[bytes, ...]:
    """JPEGs of the sizes that photographs have, of nothing; the same each time, large and small ones mixed."""
    rng = np.random.default_rng(0)
    sizes = [_sides(megapixels, _ASPECTS[i % len(_ASPECTS)]) for i, megapixels in enumerate(_MEGAPIXELS)]
    return tuple(_photograph(rng, *size) for size in rng.permutation([*sizes, *_SMALL]).tolist())


def _sides(megapixels: float, aspect: float) -> tuple[int, int]:
    return round(float(np.sqrt(1e6 * megapixels * aspect))), round(float(np.sqrt(1e6 * megapixels / aspect)))


def _photograph(rng: np.random.Generator, width: int, height: int) -> bytes:
    """Light and shade, blurred structure, and the noise of a sensor, which makes decoding a camera's JPEG slow."""

    def blurred(cell: int, spread: float) -> Any:
        coarse = rng.normal(0, spread, (height // cell + 2, width // cell + 2)).clip(-128, 127) + 128
        small = Image.fromarray(coarse.astype(np.uint8))
        return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16) - 128

    light = 128 + blurred(max(width, height) // 4, 45) + blurred(48, 18) + blurred(8, 10) + blurred(3, 8)
    tint = np.array([[[10, 0, -10]]], np.int16) + blurred(160, 12)[..., None] * np.array([[[1, 0, -1]]], np.int16)
    noise = rng.normal(0, 5, (height, width, 1)).astype(np.int16)
    pixels = (light[..., None] + tint + noise).clip(0, 255).astype(np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorspace="RGB", colorsubsampling="420"))
