"""Faces from Delta into a searchable Milvus collection: bulk import against RPC insert, and what limits both.

    python -m bench.loading              # about fifteen minutes on two cores; writes bench/results/loading.{json,png}

On the standalone server of the `milvus` wheel, with the invented faces of bench/faces.py. Rounds alternate.

* ``bulk``: staged by Spark with all checks, imported, indexed, loaded. ``rpc``: pymilvus inserts from Spark's
  partitions, as the Spark connector does, then flushed, indexed, loaded. Both end when a search answers.
* ``staging`` against Spark's plain Parquet writing of the same rows, and against reading the bytes back.
* cost of a row from 10,000 to 1,000,000.
* index types: build and load, recall@10 of held-out queries against exact truth over the whole table, latency.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import record

SIZES = (10_000, 100_000, 1_000_000)
MAIN = 100_000
TYPES = ("FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN")
QUERIES = 200
BATCH = 1_000


def main() -> None:
    """Measure, write, and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.loading")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rows", type=int, default=MAIN)
    arguments = parser.parse_args()
    from tests.milvus.server import MilvusStandalone

    with (
        tempfile.TemporaryDirectory(prefix="face-reindex-bench-") as name,
        MilvusStandalone(Path(name) / "m") as server,
    ):
        bench = Loading(Path(name), server.uri)
        figures, ratios = bench.compare(arguments.rows, arguments.rounds)
        figures["growth"], more = bench.growth(sorted(arguments.sizes))
        figures["index_types"] = bench.index_types(arguments.rows)
        bench.stop()
    setting = {"server": "Milvus 2.3.5 standalone", "dimensions": 512, "rows": arguments.rows,
               "rounds": arguments.rounds, "vectors": "clustered, 1,000 centres"}  # fmt: skip
    path = record.write("loading", figures, ratios | more, setting=setting)
    _plot(figures, path.with_suffix(".png"))
    print(path)


class Loading:
    """One Spark session and one server."""

    def __init__(self, folder: Path, uri: str) -> None:
        from bench.faces import invented_faces
        from jobs.index.milvus.connect import connect
        from jobs.session import open_session
        from jobs.settings import Settings

        self._settings = Settings.model_validate({"milvus": {"uri": uri, "index_timeout_s": 1200}})
        self._spark = open_session("bench loading")
        self._index, self._folder, self._uri = connect(self._settings), folder, uri
        self._faces = invented_faces
        self._number = 0

    def compare(self, rows: int, rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
        """Bulk against RPC, staging against plain writing."""
        table = self._table(rows)
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
        self._settings = self._with_index("FLAT")
        cost: dict[str, dict[str, float]] = {}
        for size in sizes:
            parts = self._bulk(self._table(size), size)
            cost[str(size)] = {part: round(1e6 * seconds / size, 1) for part, seconds in parts.items()}
            print("growth", size, cost[str(size)], flush=True)
        loaded = {size: cost[str(size)]["stage"] + cost[str(size)]["import"] for size in sizes}
        whole = {size: sum(cost[str(size)].values()) for size in sizes}
        large, middle = sizes[-1], sizes[-2]
        return {"us_a_row": cost}, {
            f"cost_of_a_row_at_{large}_to_{middle}": loaded[large] / loaded[middle],
            f"cost_of_a_row_with_index_at_{large}_to_{middle}": whole[large] / whole[middle],
        }

    def index_types(self, rows: int) -> dict[str, Any]:
        """Build, load, recall and latency of each index type over the same rows."""
        from jobs.index.collections import default_index
        from jobs.index.verification import exact_neighbours, latency_ms

        vectors, keys = self._held(rows)
        queries = self._queries()
        truth = exact_neighbours(queries, [(keys, vectors)], 10)
        found: dict[str, Any] = {}
        for index_type in TYPES:
            settings = self._with_index(index_type)
            name = self._imported(rows)
            begin = time.monotonic()
            self._index.build_index(name, default_index(settings, rows, embedded=False), timeout=1200)
            built = time.monotonic()
            self._index.load(name, timeout=1200)
            loaded = time.monotonic()
            ids, _ = self._index.search(name, queries, 10)
            recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, truth.ids, strict=True)])
            p50, p99 = latency_ms(self._index, name, queries, 10)
            found[index_type] = {"build_s": round(built - begin, 1), "load_s": round(loaded - built, 1),
                                 "recall_at_10": round(float(recall), 4), "p50_ms": p50, "p99_ms": p99}  # fmt: skip
            print(index_type, found[index_type], flush=True)
            self._index.drop(name)
        return found

    # -- the ways ------------------------------------------------------------------------------------------------------

    def _bulk(self, table: str, rows: int) -> dict[str, float]:
        name, watch = self._new(), _Watch()
        staged = self._stage(table, name)
        watch.lap("stage")
        self._load_files(name, staged)
        watch.lap("import")
        self._searchable(name, rows)
        watch.lap("index and load")
        self._index.drop(name)
        return watch.laps

    def _rpc(self, table: str, rows: int) -> dict[str, float]:
        name, watch, uri = self._new(), _Watch(), self._uri

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

        frame = self._spark.read.format("delta").load(table).select("face_id", "embedding")
        frame.mapInArrow(insert, "face_id bigint").write.format("noop").mode("overwrite").save()
        self._index.flush(name, timeout=300)
        watch.lap("insert")
        self._searchable(name, rows)
        watch.lap("index and load")
        self._index.drop(name)
        return watch.laps

    def _plain(self, table: str) -> dict[str, float]:
        path, watch = self._folder / f"plain-{time.monotonic_ns()}", _Watch()
        frame = self._spark.read.format("delta").load(table).select("face_id", "embedding")
        frame.write.option("compression", "none").parquet(str(path))
        watch.lap("write")
        for file in path.glob("*.parquet"):
            file.read_bytes()
        watch.lap("read")
        return watch.laps

    # -- pieces --------------------------------------------------------------------------------------------------------

    def _with_index(self, index_type: str) -> Any:
        milvus = self._settings.milvus.model_copy(update={"index_type": index_type})
        return self._settings.model_copy(update={"milvus": milvus})

    def _table(self, rows: int) -> str:
        path = self._folder / f"faces-{rows}"
        if not path.exists():
            self._faces(self._spark, rows, 0).write.format("delta").save(str(path))
        return str(path)

    def _new(self) -> str:
        from jobs.index.protocol import CollectionInfo

        self._number += 1
        name = f"bench_{self._number}"
        info = CollectionInfo("0" * 64, name, False, "invented faces", "")
        self._index.create(name, dim=512, shards=2, properties=info)
        return name

    def _stage(self, table: str, name: str) -> Any:
        from jobs.index.load_plan import plan_load
        from jobs.index.staging import stage

        faces = self._spark.read.format("delta").load(table)
        return stage(
            faces,
            str(self._folder / f"staged-{name}"),
            purpose_flags=1,
            files_for=lambda rows: plan_load(rows, self._settings, self._index.features).files,
        )

    def _load_files(self, name: str, staged: Any) -> None:
        from jobs.index.loader import MemoryRecorder, load_files
        from jobs.index.staging import digests

        digest = digests(self._spark, staged.files)
        load_files(self._index, name, staged.files, self._settings, recorder=MemoryRecorder(), digest=digest)

    def _searchable(self, name: str, rows: int) -> None:
        from jobs.index.collections import default_index

        self._index.build_index(name, default_index(self._settings, rows, embedded=False), timeout=1200)
        self._index.load(name, timeout=1200)
        found = self._index.count(name)
        if found != rows:
            raise RuntimeError(f"{name} holds {found} rows where {rows} were loaded: no figure comes of this")

    def _imported(self, rows: int) -> str:
        name = self._new()
        self._load_files(name, self._stage(self._table(rows), name))
        return name

    def _held(self, rows: int) -> tuple[Any, Any]:
        import pyarrow as pa

        batches = self._spark.read.format("delta").load(self._table(rows)).select("face_id", "embedding").toArrow()
        flat = pa.concat_arrays(batches.column("embedding").chunks).flatten().to_numpy()
        return flat.reshape(rows, -1), batches.column("face_id").to_numpy()

    def _queries(self) -> np.ndarray[Any, Any]:
        """Faces of the same people that are not in the table."""
        from bench.faces import CENTRES, SPREAD, centres_of, unit

        rng = np.random.default_rng(99)
        chosen = centres_of(0)[rng.integers(0, CENTRES, QUERIES)]
        return np.asarray(unit(chosen + SPREAD * unit(rng.standard_normal((QUERIES, 512)))), np.float32)

    def stop(self) -> None:
        """End both."""
        self._index.close()
        self._spark.stop()


class _Watch:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._begin = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._begin = now - self._begin, now


def _plot(figures: dict[str, Any], path: Path) -> None:
    figure, axes = record.canvas(9, 3.4, columns=2)
    left = 0.0
    colours = {"stage": "#2f6fab", "import": "#6fa3d0", "insert": "#9aa5b1", "index and load": "#d9dee3"}
    for row, way in enumerate(("bulk", "rpc")):
        left = 0.0
        for part, seconds in figures[f"{way}_s"].items():
            axes[0].barh(row, seconds, left=left, color=colours[part], label=part)
            left += seconds
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes[0].legend(unique.values(), unique.keys(), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=4)
    axes[0].set_yticks([0, 1], ["bulk import", "RPC insert"])
    axes[0].invert_yaxis()
    axes[0].set_xlabel("seconds to a searchable collection")
    for marker, (name, found) in zip("osD^vP", figures["index_types"].items(), strict=True):
        axes[1].scatter(found["p50_ms"], found["recall_at_10"], marker=marker, label=name, alpha=0.8)
    axes[1].legend(fontsize=8, loc="lower right")
    axes[1].set_xlabel("median latency of one search, ms")
    axes[1].set_ylabel("recall@10")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
