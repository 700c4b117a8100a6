"""Stored images to embeddings: facenet-pytorch as its README shows, the same in frameworks, ours, and the bare limit.

    python -m bench.pipeline              # about eight minutes on two cores; writes bench/results/pipeline.{json,png}
    python -m bench.pipeline --images 16 --rounds 1

Side by side, all of them see the same photographs (bench/photos.py) with the same networks on the same cores: ours with
the weights of bench/weights.py, facenet-pytorch's as its constructor leaves them, for weights cost nothing. Rounds
alternate between them, for a shared machine drifts; the median of each is reported.
Time runs from stored bytes to embeddings, after each has loaded its networks and done a few images. The faster ones
are given the photographs several times over, so that a Spark job's second of planning weighs what it does at scale.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench import limit, naive, record
from bench.naive import WARM, WORKERS
from bench.photos import MIXED, Photo, make_photos
from bench.spark import SparkSide, model_file, write_parquet
from bench.weights import demo_weights, label

NAMES = {
    "naive_full": "facenet-pytorch, full size",
    "naive_same_size": "facenet-pytorch, 640 px",
    "predict_batch_udf": "in Spark by predict_batch_udf",
    "ray_data": "in Ray Data",
    "daft": "in Daft",
    "ours_spark": "ours in Spark",
    "ours": "ours without Spark",
    "limit": "bare limit",
    "ours_spark_bf16": "ours in Spark, bfloat16",
    "limit_bf16": "bare limit, bfloat16",
}
OTHERS = ("predict_batch_udf", "ray_data", "daft")
TIMES = 6


def main() -> None:
    """Measure, write, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    photos = make_photos(MIXED, arguments.images)
    many = list(photos) * TIMES
    with tempfile.TemporaryDirectory(prefix="face-reindex-bench-") as name:
        folder = Path(name)
        model = model_file(folder)
        write_parquet(folder / "parquet", photos)
        spark = SparkSide(folder, model, WORKERS)
        once, often = spark.table("once", photos), spark.table("often", photos, times=TIMES, files=2 * WORKERS)
        contestants: dict[str, tuple[Callable[[], naive.Measured], int]] = {
            "naive_full": (lambda: naive.alone(photos, 0), len(photos)),
            "naive_same_size": (lambda: naive.alone(photos, naive.SIDE), len(photos)),
            "predict_batch_udf": (lambda: (spark.predict_batch(once), {}), len(photos)),
            "ray_data": (lambda: naive.in_ray(folder / "parquet"), len(photos)),
            "daft": (lambda: naive.in_daft(folder / "parquet"), len(photos)),
            "ours_spark": (lambda: (spark.ours(often), {}), len(many)),
            "ours_spark_bf16": (lambda: (spark.ours(often, "bfloat16"), {}), len(many)),
            "ours": (lambda: _in_processes(_ours, many, model), len(many)),
            "limit": (lambda: _in_processes(limit.prepare, photos, model), len(photos)),
        }
        spark.ours(once)
        spark.predict_batch(once)
        times: dict[str, list[float]] = {name: [] for name in contestants}
        facts: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
        for _ in range(arguments.rounds):
            for contestant, (measure, count) in contestants.items():
                seconds, told = measure()
                times[contestant].append(1000 * seconds / count)
                facts[contestant].append(told)
                print(f"{contestant:<18} {times[contestant][-1]:8.1f} ms an image  {told}", flush=True)
        spark.stop()
    _write(times, facts, photos, arguments.rounds)


def _in_processes(
    work: Callable[[str, Sequence[Photo]], tuple[Callable[[], None], dict[str, Any]]],
    photos: Sequence[Photo],
    model: str,
) -> naive.Measured:
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


def _ours(model: str, photos: Sequence[Photo]) -> tuple[Callable[[], None], dict[str, Any]]:
    from udfs.coverage import CoveredPrincipal
    from udfs.pipeline import Pipeline
    from udfs.results import ImageInput

    pipeline, facts = Pipeline(model), {"faces": 0}
    everybody = tuple(CoveredPrincipal(f"r{n}", f"p{n}") for n in range(32))
    items = [ImageInput(str(n), content=photo.content, covered=everybody) for n, photo in enumerate(photos)]
    list(pipeline.run(items[:WARM]))

    def run() -> None:
        facts["faces"] = sum(len(result.faces) for result in pipeline.run(items))

    return run, facts


def _write(
    times: dict[str, list[float]], facts: dict[str, list[dict[str, Any]]], photos: Sequence[Photo], rounds: int
) -> None:
    # The limit is the sum of its parts, which were timed in processes side by side: a wall clock sees their share.
    keys = [key for key in facts["limit"][0] if key.endswith("_ms")]
    for limited, other in (("limit", "resnet_bf16_ms"), ("limit_bf16", "resnet_ms")):
        times[limited] = [sum(told[key] for key in keys if key != other) / WORKERS for told in facts["limit"]]
    parts = {
        key.removesuffix("_ms"): round(statistics.median(told[key] for told in facts["limit"]) / WORKERS, 2)
        for key in keys
    }
    middle = {name: statistics.median(times[name]) for name in NAMES}
    figures: dict[str, Any] = {
        f"{name}_ms_an_image": {"median": round(middle[name], 1), "all": [round(v, 1) for v in times[name]]}
        for name in NAMES
    }
    figures["limit_parts_ms_an_image"] = parts
    figures["peak_rss_mib_of_a_worker"] = max(told["peak_rss_mib"] for told in facts["ours"])
    figures["faces"] = {name: told[-1]["faces"] for name, told in facts.items() if "faces" in told[-1]}
    figures["faces"]["ours"] /= TIMES
    best = min(OTHERS, key=lambda name: middle[name])
    ratios = {
        f"{own}_to_{other}": middle[other] / middle[own]
        for own, limited in (("ours_spark", "limit"), ("ours_spark_bf16", "limit_bf16"))
        for other in ("naive_full", "naive_same_size", *OTHERS, limited)
    }
    ratios["ours_spark_to_ours"] = middle["ours"] / middle["ours_spark"]
    ratios["ours_spark_to_best_framework"] = middle[best] / middle["ours_spark"]
    ratios["ours_spark_bf16_to_best_framework"] = middle[best] / middle["ours_spark_bf16"]
    megapixels = sum(photo.width * photo.height for photo in photos) / len(photos) / 1e6
    setting = {"photographs": MIXED.name, "images": len(photos), "mean_megapixels": round(megapixels, 2),
               "rounds": rounds, "workers": WORKERS, "weights": label(demo_weights())}  # fmt: skip
    path = record.write("pipeline", figures, ratios, setting=setting)
    _plot(middle, path.with_suffix(".png"))
    print(path)


def _plot(middle: dict[str, float], path: Path) -> None:
    figure, axes = record.canvas(8, 4)
    colours = ["#2f6fab" if name.startswith("ours") else "#444444" if name.startswith("limit") else "#9aa5b1"
               for name in NAMES]  # fmt: skip
    bars = axes.barh(list(NAMES.values()), [middle[name] for name in NAMES], color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel(f"milliseconds an image, {WORKERS} cores (less is better)")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
