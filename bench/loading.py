"""Faces from Delta into a searchable Milvus collection: bulk import against RPC insert, and what limits both.

    python -m bench.loading              # about ten minutes on two cores; writes bench/results/loading.{json,png}

On the standalone server of the `milvus` wheel, with the invented faces of bench/faces.py. Rounds alternate.

* ``bulk``: staged by Spark with all checks, imported, indexed, loaded. ``rpc``: pymilvus inserts from Spark's
  partitions, as the Spark connector does, then flushed, indexed, loaded. Both end when a search answers.
* ``staging`` against Spark's plain Parquet writing of the same rows, and against reading the bytes back.
* cost of a row from 10,000 to 1,000,000.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import record
from bench.faces import SHAPE
from bench.record import Stopwatch
from bench.server import SERVER, Collections, server
from udfs.arrays import EMBEDDING_DIM

SIZES = (10_000, 100_000, 1_000_000)
MAIN = 100_000
BATCH = 1_000


def main() -> None:
    """Measure, write, and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.loading")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rows", type=int, default=MAIN)
    arguments = parser.parse_args()
    with server() as (folder, running):
        bench = Loading("loading", folder, running.uri)
        figures, ratios = bench.compare(arguments.rows, arguments.rounds)
        figures["growth"], more = bench.growth(sorted(arguments.sizes))
        bench.stop()
    setting = {"server": SERVER, "dimensions": EMBEDDING_DIM, "rows": arguments.rows, "rounds": arguments.rounds,
               "vectors": SHAPE}  # fmt: skip
    path = record.write("loading", figures, ratios | more, setting=setting)
    _plot(figures, path.with_suffix(".png"))
    print(path)


class Loading(Collections):
    """What a row costs by each way."""

    def compare(self, rows: int, rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
        """Bulk against RPC, staging against plain writing."""
        table = self.table(rows)
        ways: dict[str, Callable[[], dict[str, float]]] = {
            "bulk": lambda: self._bulk(table, rows),
            "rpc": lambda: self._rpc(table, rows),
            "plain": lambda: self._plain(table),
        }
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for way, measure in ways.items():
                runs[way].append(measure())
                print(way, {k: round(v, 2) for k, v in runs[way][-1].items()}, flush=True)
        figures = {
            f"{way}_s": {part: round(statistics.median(run[part] for run in found), 2) for part in found[0]}
            for way, found in runs.items()
        }
        bulk, rpc, plain = (figures[f"{way}_s"] for way in ways)
        ratios = {
            "bulk_to_rpc_end_to_end": sum(rpc.values()) / sum(bulk.values()),
            "bulk_to_rpc_without_index_and_load": rpc["insert"] / (bulk["stage"] + bulk["import"]),
            "import_to_rpc_insert": rpc["insert"] / bulk["import"],
            "staging_to_plain_writing": plain["write"] / bulk["stage"],
            "import_to_reading_the_bytes": plain["read"] / bulk["import"],
        }
        return {"rows_per_s": {"bulk": round(rows / (bulk["stage"] + bulk["import"])),
                               "rpc": round(rows / rpc["insert"])}, **figures}, ratios  # fmt: skip

    def growth(self, sizes: list[int]) -> tuple[dict[str, Any], dict[str, float]]:
        """Microseconds a row, by the number of rows; indexed FLAT, for a graph's cost grows by itself."""
        self.choose("FLAT")
        cost: dict[str, dict[str, float]] = {}
        for size in sizes:
            parts = self._bulk(self.table(size), size)
            cost[str(size)] = {part: round(1e6 * seconds / size, 1) for part, seconds in parts.items()}
            print("growth", size, cost[str(size)], flush=True)
        loaded = {size: cost[str(size)]["stage"] + cost[str(size)]["import"] for size in sizes}
        whole = {size: sum(cost[str(size)].values()) for size in sizes}
        large, middle = sizes[-1], sizes[-2]
        return {"us_a_row": cost}, {
            f"cost_of_a_row_at_{large}_to_{middle}": loaded[large] / loaded[middle],
            f"cost_of_a_row_with_index_at_{large}_to_{middle}": whole[large] / whole[middle],
        }

    # -- the ways ------------------------------------------------------------------------------------------------------

    def _bulk(self, table: str, rows: int) -> dict[str, float]:
        name, watch = self.new(), Stopwatch()
        staged = self.stage(table, name)
        watch.lap("stage")
        self.import_files(name, staged)
        watch.lap("import")
        self.searchable(name, rows)
        watch.lap("index and load")
        self.index.drop(name)
        return watch.laps

    def _rpc(self, table: str, rows: int) -> dict[str, float]:
        name, watch, uri = self.new(), Stopwatch(), self.settings.milvus.uri

        def insert(batches: Iterator[Any]) -> Iterator[Any]:
            from pymilvus import MilvusClient

            client = MilvusClient(uri)
            for batch in batches:
                keys = batch.column("face_id").to_numpy()
                vectors = batch.column("embedding").flatten().to_numpy().reshape(len(batch), -1)
                for start in range(0, len(keys), BATCH):
                    part = range(start, min(start + BATCH, len(keys)))
                    client.insert(name, [{"face_id": int(keys[i]), "embedding": vectors[i], "bucket": int(keys[i] % 4),
                                          "purposes": 1, "expires_at": 0} for i in part])  # fmt: skip
                yield batch.select(["face_id"])

        frame = self.spark.read.format("delta").load(table).select("face_id", "embedding")
        frame.mapInArrow(insert, "face_id bigint").write.format("noop").mode("overwrite").save()
        self.index.flush(name, timeout=300)
        watch.lap("insert")
        self.searchable(name, rows)
        watch.lap("index and load")
        self.index.drop(name)
        return watch.laps

    def _plain(self, table: str) -> dict[str, float]:
        path, watch = self.folder / f"plain-{time.monotonic_ns()}", Stopwatch()
        frame = self.spark.read.format("delta").load(table).select("face_id", "embedding")
        frame.write.option("compression", "none").parquet(str(path))
        watch.lap("write")
        for file in path.glob("*.parquet"):
            file.read_bytes()
        watch.lap("read")
        return watch.laps


def _plot(figures: dict[str, Any], path: Path) -> None:
    figure, axes = record.canvas(6.5, 2.4)
    colours = {"stage": "#2f6fab", "import": "#6fa3d0", "insert": "#9aa5b1", "index and load": "#d9dee3"}
    for row, way in enumerate(("bulk", "rpc")):
        left = 0.0
        for part, seconds in figures[f"{way}_s"].items():
            axes.barh(row, seconds, left=left, color=colours[part], label=part)
            left += seconds
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=4)
    axes.set_yticks([0, 1], ["bulk import", "RPC insert"])
    axes.invert_yaxis()
    axes.set_xlabel("seconds to a searchable collection")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
