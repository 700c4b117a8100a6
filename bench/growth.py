"""What an image costs when there are more of them, and when there are more workers.

    python -m bench.growth                # about five minutes on two cores; writes bench/results/growth.{json,png}

Small pictures, most of them without a face, so that ten thousand are affordable: what grows with the number is not the
networks' work, but whatever Spark, queues and memory add. The middle size is run before and after the large one, for a
shared machine drifts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import record, weights
from bench.photos import THUMBNAILS, make_photos
from bench.spark import SparkSide, model_file

DISTINCT = 250
SIZES = (100, 1_000, 10_000)
PER_FILE = 500


def main() -> None:
    """Measure in a process for each number of workers, and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth")
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    arguments = parser.parse_args()
    if arguments.workers:
        print(json.dumps(_measure(arguments.workers, arguments.sizes)))
        return
    small, middle, large = sorted(arguments.sizes)
    two = _in_process(2, [small, middle, large, middle, small])
    one = _in_process(1, [middle])
    two_again = _in_process(2, [middle])
    cost = {size: statistics.mean(1000 * s / n for n, s in two if n == size) for size in (small, middle, large)}
    alone = 1000 * one[0][1] / middle
    pair = 1000 * statistics.mean([two_again[0][1] / middle, cost[middle] / 1000])
    figures = {"ms_an_image": {str(size): round(value, 2) for size, value in cost.items()},
               "ms_an_image_by_workers": {"1": round(alone, 2), "2": round(pair, 2)},
               "all_runs_of_2_workers": [[n, round(1000 * s / n, 2)] for n, s in [*two, *two_again]]}  # fmt: skip
    ratios = {
        f"cost_at_{large}_to_{middle}": cost[large] / cost[middle],
        f"cost_at_{middle}_to_{small}": cost[middle] / cost[small],
        "two_workers_to_one": alone / pair,
    }
    setting = {"photographs": THUMBNAILS.name, "distinct": DISTINCT, "weights": weights.label(weights.demo_weights())}
    path = record.write("growth", figures, ratios, setting=setting)
    _plot(cost, {1: alone, 2: pair}, path.with_suffix(".png"))
    print(path)


def _in_process(workers: int, sizes: list[int]) -> list[tuple[int, float]]:
    command = [sys.executable, "-m", "bench.growth", "--workers", str(workers), "--sizes", *map(str, sizes)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: list[tuple[int, float]] = json.loads(answer.stdout.splitlines()[-1])
    print(workers, "workers:", measured, flush=True)
    return measured


def _measure(workers: int, sizes: list[int]) -> list[tuple[int, float]]:
    photos = make_photos(THUMBNAILS, DISTINCT)
    with tempfile.TemporaryDirectory(prefix="face-reindex-bench-") as name:
        spark = SparkSide(Path(name), model_file(Path(name)), workers)
        tables = {}
        for size in set(sizes):
            shown = photos[: min(size, DISTINCT)]
            files = max(2, size // PER_FILE)
            tables[size] = spark.table(str(size), shown, times=size // len(shown), files=files)
        spark.ours(tables[min(sizes)])
        measured = [(size, spark.ours(tables[size])) for size in sizes]
        spark.stop()
    return measured


def _plot(cost: dict[int, float], by_workers: dict[int, float], path: Path) -> None:
    figure, axes = record.canvas(8, 3.2, columns=2)
    for place, values, label in ((0, cost, "images in the job, 2 workers"), (1, by_workers, "workers, 1,000 images")):
        names = [f"{key:,}" for key in values]
        bars = axes[place].bar(names, list(values.values()), width=0.6, color="#2f6fab")
        axes[place].bar_label(bars, fmt="%.1f", padding=2)
        axes[place].set_xlabel(label)
    axes[0].set_ylabel("ms an image")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
