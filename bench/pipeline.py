"""Stored images to embeddings, side by side: facenet-pytorch as its README shows, the same in Spark, ours, the limit.

    python -m bench.pipeline              # about ten minutes on two cores; writes bench/results/pipeline.{json,png}
    python -m bench.pipeline --images 24 --rounds 1

All of them see the same photographs (bench/photos.py) with the same networks (random weights: they cost what trained
ones do) on the same cores. Rounds alternate between them, for a shared machine drifts; the median of each is reported.
Time runs from stored bytes to embeddings, after each has loaded its networks and done a few images.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench import record
from bench.photos import MIXED, Photo, make_photos

WORKERS = 2
WARM = 6
Run = Callable[[], float]


def main() -> None:
    """Measure, write, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    photos = make_photos(MIXED, arguments.images)
    with tempfile.TemporaryDirectory(prefix="face-reindex-bench-") as folder:
        model = _model(Path(folder))
        few = photos[: max(WARM, len(photos) // 4)]
        contestants: dict[str, tuple[Callable[[], Any], Sequence[Photo]]] = {
            "naive_full": (lambda: _naive_alone(few, 0), few),
            "naive_same_size": (lambda: _naive_alone(few, 640), few),
            "ours": (lambda: _in_processes(_ours, photos, model), photos),
            "limit": (lambda: _in_processes(_limit, photos, model), photos),
        }
        session = _SparkSide(Path(folder), photos, few, model)
        contestants["predict_batch_udf"] = (session.predict_batch, few)
        contestants["ours_spark"] = (session.ours, photos)
        times: dict[str, list[float]] = {name: [] for name in contestants}
        extra: dict[str, Any] = {}
        for _ in range(arguments.rounds):
            for name, (measure, shown) in contestants.items():
                seconds, facts = measure()
                times[name].append(1000 * seconds / len(shown))
                extra[name] = facts
                print(f"{name:<18} {times[name][-1]:8.1f} ms an image", flush=True)
        session.stop()
    _write(times, extra, photos, arguments.rounds)


def _model(folder: Path) -> str:
    from udfs.weights import build_model_file, resolve_weights

    return str(build_model_file(resolve_weights("random", cache_dir=folder), folder / "model.pt"))


def _naive_alone(photos: Sequence[Photo], side: int) -> tuple[float, dict[str, Any]]:
    """In a process of its own, whose threads nobody has set."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OMP_")}
    try:
        with get_context("spawn").Pool(1) as pool:
            return pool.apply(_naive, (photos, side))
    finally:
        os.environ.update(kept)


def _naive(photos: Sequence[Photo], side: int) -> tuple[float, dict[str, Any]]:
    """facenet-pytorch's README: MTCNN on one image at a time, then InceptionResnetV1 on its faces."""
    import torch
    from facenet_pytorch import MTCNN, InceptionResnetV1

    torch.set_num_threads(WORKERS)
    detector, net = MTCNN(keep_all=True), InceptionResnetV1(pretrained=None).eval()
    for photo in photos[:WARM]:
        _naive_one(detector, net, photo.content, side)
    begin, faces = time.perf_counter(), 0
    for photo in photos:
        faces += _naive_one(detector, net, photo.content, side)
    return time.perf_counter() - begin, {"faces": faces}


def _naive_one(detector: Any, net: Any, content: bytes, side: int) -> int:
    import torch
    from PIL import Image

    image = Image.open(io.BytesIO(content)).convert("RGB")
    if side:
        image.thumbnail((side, side))
    with torch.no_grad():
        crops = detector(image)
        return 0 if crops is None else len(net(crops))


def _in_processes(
    work: Callable[[str, Sequence[Photo]], tuple[Run, dict[str, Any]]], photos: Sequence[Photo], model: str
) -> tuple[float, dict[str, Any]]:
    """``work`` on one thread in each of as many processes as there are cores, each with its share of the images."""
    context = get_context("spawn")
    barrier, answers = context.Barrier(WORKERS), context.Queue()
    processes = [
        context.Process(target=_child, args=(work, photos[n::WORKERS], model, barrier, answers)) for n in range(WORKERS)
    ]
    for process in processes:
        process.start()
    results = [answers.get(timeout=900) for _ in processes]
    for process in processes:
        process.join()
    facts = {
        key: sum(r[2][key] for r in results) / (len(photos) if key.endswith("_ms") else 1) for key in results[0][2]
    }
    facts["peak_rss_mib"] = max(r[3] for r in results)
    return max(r[1] for r in results) - min(r[0] for r in results), facts


def _child(work: Any, photos: Sequence[Photo], model: str, barrier: Any, answers: Any) -> None:
    import udfs.device  # noqa: F401 - before torch, as in a Spark worker: it says how OpenMP's threads wait
    import torch  # isort: skip

    torch.set_num_threads(1)
    run, facts = work(model, photos)
    barrier.wait()
    begin = time.time()
    run()
    answers.put((begin, time.time(), facts, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))


def _ours(model: str, photos: Sequence[Photo]) -> tuple[Run, dict[str, Any]]:
    from udfs.pipeline import Pipeline

    pipeline, facts = Pipeline(model), {"faces": 0}
    items = _items(photos)
    list(pipeline.run(items[:WARM]))

    def run() -> float:
        facts["faces"] = sum(len(result.faces) for result in pipeline.run(items))
        return 0.0

    return run, facts


def _items(photos: Sequence[Photo]) -> list[Any]:
    from udfs.coverage import CoveredPrincipal
    from udfs.results import ImageInput

    everybody = tuple(CoveredPrincipal(f"r{n}", f"p{n}") for n in range(32))
    return [ImageInput(str(n), content=photo.content, covered=everybody) for n, photo in enumerate(photos)]


def _limit(model: str, photos: Sequence[Photo]) -> tuple[Run, dict[str, Any]]:
    """The bare work: libjpeg-turbo alone, each network alone on ready tensors of the shapes and counts that occur."""
    import simplejpeg
    import torch

    from udfs.nets import build_nets, read_model_file

    nets = build_nets(read_model_file(model))
    shapes, faces = _shapes(nets, photos)
    facts = {"faces": faces, "decode_ms": 0.0, "pnet_ms": 0.0, "rnet_ms": 0.0, "onet_ms": 0.0, "resnet_ms": 0.0}

    def timed(name: str, call: Callable[[], Any]) -> None:
        begin = time.perf_counter()
        call()
        facts[name] += 1000 * (time.perf_counter() - begin)

    def run() -> float:
        for photo in photos:
            factor = next((f for f in (8, 4, 2) if max(photo.width, photo.height) // f >= 1280), 1)
            least = {"min_height": photo.height // factor, "min_width": photo.width // factor, "min_factor": factor}
            timed("decode_ms", lambda data=photo.content, least=least: simplejpeg.decode_jpeg(data, **least))  # type: ignore[misc]
        with torch.inference_mode():
            for name, shape in shapes:
                ready = torch.rand(shape).contiguous(memory_format=torch.channels_last)
                net = getattr(nets, name)
                timed(f"{name}_ms", lambda net=net, ready=ready: net(ready))  # type: ignore[misc]
        return 0.0

    return run, facts


def _shapes(nets: Any, photos: Sequence[Photo]) -> tuple[list[tuple[str, tuple[int, ...]]], int]:
    """What the networks are shown when these photographs are detected and embedded, and the number of faces."""
    from dataclasses import replace

    from udfs.decode import decode, detection_view
    from udfs.detect import Detector
    from udfs.params import PipelineParams

    shapes: list[tuple[str, tuple[int, ...]]] = []

    def noting(name: str) -> Any:
        net = getattr(nets, name)

        class Noting:
            weight = net.weight

            def __call__(self, pixels: Any) -> Any:
                shapes.append((name, tuple(pixels.shape)))
                return net(pixels)

        return Noting()

    params = PipelineParams()
    detector = Detector(replace(nets, **{name: noting(name) for name in ("pnet", "rnet", "onet")}), params)
    faces = 0
    for start in range(0, len(photos), 8):
        views = [detection_view(decode(photo.content, params), params).pixels for photo in photos[start : start + 8]]
        faces += sum(int((found.confidence >= params.min_confidence).sum()) for found in detector.detect(views))
    shapes += [("resnet", (16, 3, 160, 160))] * (faces // 16)
    if faces % 16:
        shapes.append(("resnet", (faces % 16, 3, 160, 160)))
    return shapes, faces


class _SparkSide:
    """Images from a Delta table, through Spark, embeddings to Parquet files."""

    def __init__(self, folder: Path, photos: Sequence[Photo], few: Sequence[Photo], model: str) -> None:
        # For the Python workers, which both contestants share: one thread a core, and none that spins.
        os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
        from jobs.session import open_session

        self._spark = open_session("bench pipeline")
        self._folder, self._model = folder, model
        self._tables = {name: self._table(name, shown) for name, shown in (("all", photos), ("few", few))}
        self.ours()
        self.predict_batch()

    def _table(self, name: str, photos: Sequence[Photo]) -> str:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = str(self._folder / name)
        everybody = [{"record_id": f"r{n}", "principal": f"p{n}", "box": None} for n in range(32)]
        covered = pa.list_(
            pa.struct([("record_id", pa.string()), ("principal", pa.string()), ("box", pa.list_(pa.float32()))])
        )
        source = self._folder / f"{name}-source"
        source.mkdir()
        # A file a core and more, so that the end of one task does not leave a core without work for long.
        for part in range(4 * WORKERS):
            shown = photos[part :: 4 * WORKERS]
            columns = {
                "image_id": pa.array([f"{part}/{n}" for n in range(len(shown))]),
                "content": pa.array([photo.content for photo in shown], pa.binary()),
                "covered": pa.array([everybody] * len(shown), covered),
            }
            pq.write_table(pa.table(columns), source / f"{part}.parquet")
        self._spark.read.parquet(str(source)).write.format("delta").save(path)
        return path

    def ours(self) -> tuple[float, dict[str, Any]]:
        from udfs.fingerprint import model_fingerprint
        from udfs.nets import read_model_file
        from udfs.params import PipelineParams
        from udfs.spark import RESULT_SCHEMA, EmbedSpec, embed_arrow

        params = PipelineParams()
        spec = EmbedSpec(self._model, model_fingerprint(read_model_file(self._model).state_dicts, params), params)
        images = self._spark.read.format("delta").load(self._tables["all"])
        return self._timed(images.mapInArrow(embed_arrow(spec), RESULT_SCHEMA))

    def predict_batch(self) -> tuple[float, dict[str, Any]]:
        from pyspark.ml.functions import predict_batch_udf
        from pyspark.sql import functions as F
        from pyspark.sql.types import ArrayType, FloatType

        predict = predict_batch_udf(_predictor, return_type=ArrayType(FloatType()), batch_size=16)
        images = self._spark.read.format("delta").load(self._tables["few"])
        return self._timed(images.select("image_id", predict(F.col("content")).alias("embedding")))

    def _timed(self, frame: Any) -> tuple[float, dict[str, Any]]:
        begin = time.perf_counter()
        frame.write.mode("overwrite").parquet(str(self._folder / "out"))
        return time.perf_counter() - begin, {}

    def stop(self) -> None:
        self._spark.stop()


def _predictor() -> Callable[[Any], Any]:
    """What `predict_batch_udf` asks for: load once, then predict a batch of columns. The first face of each image."""
    import numpy as np
    import torch
    from facenet_pytorch import MTCNN, InceptionResnetV1
    from PIL import Image

    torch.set_num_threads(1)
    detector, net = MTCNN(keep_all=True), InceptionResnetV1(pretrained=None).eval()

    def predict(contents: Any) -> Any:
        out = np.zeros((len(contents), 512), np.float32)
        for row, content in enumerate(contents):
            image = Image.open(io.BytesIO(content)).convert("RGB")
            image.thumbnail((640, 640))
            with torch.no_grad():
                crops = detector(image)
                if crops is not None:
                    out[row] = net(crops)[0].numpy()
        return out

    return predict


def _write(times: dict[str, list[float]], extra: dict[str, Any], photos: Sequence[Photo], rounds: int) -> None:
    middle = {name: statistics.median(values) for name, values in times.items()}
    figures: dict[str, Any] = {
        f"{name}_ms_an_image": {"median": round(middle[name], 1), "all": [round(v, 1) for v in values]}
        for name, values in times.items()
    }
    # The parts of the limit were timed in processes side by side: an image costs the wall clock its share.
    figures["limit_parts_ms_an_image"] = {
        key.removesuffix("_ms"): round(value / WORKERS, 2)
        for key, value in extra["limit"].items()
        if key.endswith("_ms")
    }
    figures["peak_rss_mib_of_a_worker"] = extra["ours"]["peak_rss_mib"]
    figures["faces"] = extra["ours"]["faces"]
    limit = sum(figures["limit_parts_ms_an_image"].values())
    figures["limit_ms_an_image"] = {"median": round(limit, 1), "note": "the sum of the parts, last round"}
    ratios = {
        "ours_spark_to_naive_full": middle["naive_full"] / middle["ours_spark"],
        "ours_spark_to_naive_same_size": middle["naive_same_size"] / middle["ours_spark"],
        "ours_spark_to_predict_batch_udf": middle["predict_batch_udf"] / middle["ours_spark"],
        "ours_spark_to_ours": middle["ours"] / middle["ours_spark"],
        "ours_spark_to_limit": limit / middle["ours_spark"],
    }
    megapixels = sum(photo.width * photo.height for photo in photos) / len(photos) / 1e6
    setting = {"photographs": MIXED.name, "images": len(photos), "mean_megapixels": round(megapixels, 2),
               "rounds": rounds, "workers": WORKERS, "weights": "random (untrained)"}  # fmt: skip
    path = record.write("pipeline", figures, ratios, setting=setting)
    _plot(figures, path.with_suffix(".png"))
    print(f"\n{path}")
    for name, value in ratios.items():
        print(f"{name:<34} {value:6.2f}")


def _plot(figures: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = {"naive_full": "facenet-pytorch, full size", "naive_same_size": "facenet-pytorch, 640 px",
             "predict_batch_udf": "the same in Spark\n(predict_batch_udf)", "ours_spark": "ours in Spark",
             "ours": "ours without Spark", "limit": "bare limit"}  # fmt: skip
    values = [figures[f"{name}_ms_an_image"]["median"] for name in names]
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    bars = axes.barh(list(names.values()), values, color=["#9aa5b1"] * 3 + ["#2f6fab"] * 2 + ["#444444"])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds an image, two cores (less is better)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
