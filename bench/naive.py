"""facenet-pytorch as its README shows it, alone and in the frameworks that people put it into.

`alone` is the README's loop. The others run `Naive`: the same two networks, an image at a time through MTCNN (it takes
batches of equal sizes only), the faces of one batch of images through InceptionResnetV1 in one pass. Each framework
runs two workers with one thread each, the fastest on two cores.

Ray Data and Daft start their workers for each query, so that loading the networks would be counted with the images.
Their time is therefore what their workers spend in `Naive`; reading, writing and the framework are left out, in their
favour.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.photos import Photo
from udfs.arrays import EMBEDDING_DIM

WORKERS = 2
WARM = 6
SIDE = 640
BATCH = 16
Measured = tuple[float, dict[str, Any]]


class Naive:
    """MTCNN and InceptionResnetV1, loaded once; call with JPEGs for the embeddings [faces, 512] of each."""

    def __init__(self, threads: int = 1) -> None:
        import torch
        from facenet_pytorch import MTCNN, InceptionResnetV1

        torch.set_num_threads(threads)
        self._detector, self._net = MTCNN(keep_all=True), InceptionResnetV1(pretrained=None).eval()

    def __call__(self, contents: Sequence[bytes], side: int = SIDE) -> list[np.ndarray[Any, Any]]:
        import torch
        from PIL import Image

        crops = []
        with torch.no_grad():
            for content in contents:
                image = Image.open(io.BytesIO(content)).convert("RGB")
                if side:
                    image.thumbnail((side, side))
                found = self._detector(image)
                crops.append(torch.zeros(0, 3, 160, 160) if found is None else found)
            together = torch.cat(crops)
            vectors = self._net(together) if len(together) else torch.zeros(0, EMBEDDING_DIM)
        return [part.numpy() for part in torch.split(vectors, [len(part) for part in crops])]


def alone(photos: Sequence[Photo], side: int) -> Measured:
    """One process with a thread a core, and threads' defaults that nobody has changed; ``side`` 0 is full size."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OMP_")}
    try:
        with get_context("spawn").Pool(1) as pool:
            return pool.apply(_loop, (photos, side))
    finally:
        os.environ.update(kept)


def _loop(photos: Sequence[Photo], side: int) -> Measured:
    naive = Naive(WORKERS)
    for photo in photos[:WARM]:
        naive([photo.content], side)
    begin, faces = time.perf_counter(), 0
    for photo in photos:
        faces += len(naive([photo.content], side)[0])
    return time.perf_counter() - begin, {"faces": faces}


def predictor() -> Callable[[Any], Any]:
    """For `predict_batch_udf`, which returns one array of fixed size for a row: the first face of each image."""
    naive = Naive()

    def predict(contents: Any) -> Any:
        return np.stack([v[0] if len(v) else np.zeros(EMBEDDING_DIM, np.float32) for v in naive(list(contents))])

    return predict


class _Timed:
    """A batch's embeddings with the clock before and after them.

    Workers wait for each other once they have loaded: otherwise the first would have done most before the other starts.
    """

    def __init__(self, meet: Path) -> None:
        self._naive = Naive()
        self._worker = os.getpid()
        meet.mkdir(exist_ok=True)
        (meet / str(self._worker)).touch()
        end = time.monotonic() + 60
        while len(list(meet.iterdir())) < WORKERS and time.monotonic() < end:
            time.sleep(0.05)

    def __call__(self, contents: Sequence[bytes]) -> tuple[list[Any], float, float, int]:
        begin = time.time()
        vectors = [v.tolist() for v in self._naive(contents)]
        return vectors, begin, time.time(), self._worker


def in_ray(source: Path) -> Measured:
    """Ray Data: `map_batches` with two actors over Parquet files with a column ``content``."""
    import ray

    meet = _meeting_place(source)

    class Embed(_Timed):
        def __init__(self) -> None:
            super().__init__(meet)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
            vectors, begin, end, worker = super().__call__(list(batch["content"]))
            count = len(vectors)
            return {"faces": np.array([len(v) for v in vectors]), "embedding": vectors, "begin": np.full(count, begin),
                    "end": np.full(count, end), "worker": np.full(count, worker)}  # fmt: skip

    # Two processors for the actors, and one so that reading never waits for them.
    ray.init(num_cpus=WORKERS + 1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        images = ray.data.read_parquet(str(source), columns=["content"]).repartition(4 * WORKERS)
        # One task at a time for each: with more in flight, the actor that is ready first takes all of a small set.
        pool = ray.data.ActorPoolStrategy(size=WORKERS, max_tasks_in_flight_per_actor=1)
        embedded = images.map_batches(Embed, batch_size=BATCH, compute=pool)
        return _busy(embedded.select_columns(["begin", "end", "worker", "faces"]).take_all())
    finally:
        ray.shutdown()


def in_daft(source: Path) -> Measured:
    """Daft: a class of two processes over Parquet files with a column ``content``."""
    import daft

    meet = _meeting_place(source)
    whole, real = daft.DataType.int64(), daft.DataType.float64()
    vectors = daft.DataType.list(daft.DataType.list(daft.DataType.float32()))
    shape = {"faces": whole, "embedding": vectors, "begin": real, "end": real, "worker": whole}

    @daft.cls(max_concurrency=WORKERS, use_process=True)
    class Embed:
        def __init__(self) -> None:
            self._timed = _Timed(meet)

        @daft.method.batch(return_dtype=daft.DataType.struct(shape), batch_size=BATCH)  # type: ignore[untyped-decorator]
        def embed(self, content: daft.Series) -> list[dict[str, Any]]:
            vectors, begin, end, worker = self._timed(content.to_pylist())
            return [{"faces": len(v), "embedding": v, "begin": begin, "end": end, "worker": worker} for v in vectors]

    images = daft.read_parquet(f"{source}/*.parquet")
    answers = images.select(Embed().embed(images["content"]).alias("out")).to_pydict()["out"]
    return _busy(answers)


def _meeting_place(source: Path) -> Path:
    return source.with_name(f"meet-{time.monotonic_ns()}")


def _busy(rows: Sequence[dict[str, Any]]) -> Measured:
    """The time that workers were busy, shared between them, and what they found."""
    batches = {(row["worker"], row["begin"]): row["end"] - row["begin"] for row in rows}
    workers = len({row["worker"] for row in rows})
    facts = {"faces": sum(row["faces"] for row in rows), "images": len(rows), "workers": workers}
    return sum(batches.values()) / workers, facts
