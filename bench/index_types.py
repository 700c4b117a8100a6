"""What each index type finds, how fast, and what it costs to build and keep, on vectors as trained networks make them.

    python -m bench.index_types          # about half an hour on two cores; writes bench/results/index_types.{json,png}

All types in one run, over the same rows of bench/faces.py on the standalone server of the `milvus` wheel, built with
the parameters that `milvus.index_type` gives for so many rows, and searched as the proof searches. A file of its own
and no part of bench/loading's: what stands in one file was measured together, on one machine and one commit.

* recall@10 against exact search over the whole table. What is searched for are pictures that are not in the table, of
  people who are: five to ten of the ten nearest are that person's, and easy to find; the others are strangers.
* latency of one search at a time; ``build_s`` and ``load_s`` of an imported collection.
* bytes a row: what the plan counts with (``planned``), and what Milvus has written as index files (``stored``; for FLAT
  none: it searches the rows themselves).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from bench import record
from bench.faces import SHAPE, other_pictures, person_of
from bench.server import PATIENCE_S, SEED, SERVER, SHARDS, Collections, server
from udfs.arrays import EMBEDDING_DIM

TYPES = ("FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN")
ROWS, QUERIES, K = 100_000, 200, 10
#: How often each query is timed: so that the 99th percentile rests on ten searches and not on two.
TIMES = 5


def main() -> None:
    """Measure, write, and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.index_types")
    parser.add_argument("--rows", type=int, default=ROWS)
    arguments = parser.parse_args()
    with server() as (folder, running):
        bench = IndexTypes("index types", folder, running.uri)
        figures = bench.measure(arguments.rows)
        bench.stop()
    setting = {"server": SERVER, "dimensions": EMBEDDING_DIM, "rows": arguments.rows, "shards": SHARDS,
               "vectors": SHAPE, "queries": f"{QUERIES} pictures that are not in the table, of people who are",
               "searches_timed": QUERIES * TIMES}  # fmt: skip
    path = record.write("index_types", figures, ratios(figures), setting=setting)
    draw(figures, path.with_suffix(".png"))
    print(path)


class IndexTypes(Collections):
    """Each index type over the same rows."""

    def measure(self, rows: int) -> dict[str, Any]:
        """Build, load, recall and latency of each."""
        from jobs.index.verification import exact_neighbours

        vectors, keys = self.in_memory(rows)
        queries = queries_of(rows)
        truth = exact_neighbours(queries, [(keys, vectors)], K).ids
        found: dict[str, Any] = {}
        for index_type in TYPES:
            self.choose(index_type)
            found[index_type] = self._one(rows, queries, truth)
            print(index_type, found[index_type], flush=True)
        return found

    def _one(self, rows: int, queries: Any, truth: Any) -> dict[str, Any]:
        from jobs.index.load_plan import index_bytes
        from jobs.index.verification import search_times_ms

        name, spec, before = self.imported(rows), self.spec(rows), self._stored()
        watch = record.Stopwatch()
        self.index.build_index(name, spec, timeout=PATIENCE_S)
        watch.lap("build")
        stored = self._stored() - before
        watch.lap("look")
        self.index.load(name, timeout=PATIENCE_S)
        watch.lap("load")
        ids, _ = self.index.search(name, queries, K)
        times = search_times_ms(self.index, name, np.tile(queries, (TIMES, 1)), K)
        self.index.drop(name)
        return {
            "parameters": dict(spec.params),
            "search": spec.search_params(K),
            "build_s": round(watch.laps["build"], 1),
            "load_s": round(watch.laps["load"], 1),
            "recall_at_10": round(recall(ids, truth), 4),
            **{f"p{rank}_ms": round(float(np.percentile(times, rank)), 3) for rank in (50, 95, 99)},
            "bytes_a_row": {"planned": index_bytes(spec, 1), "stored": round(stored / rows)},
        }

    def _stored(self) -> int:
        """Bytes of all index files of the server; those of dropped collections stay for hours."""
        folders = [path for path in self.folder.rglob("index_files") if path.is_dir()]
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())


def queries_of(rows: int) -> Any:
    """Pictures that are not among so many rows, each of another person who is."""
    people = int(person_of(np.array([rows - 1]))[0]) + 1
    chosen = np.random.default_rng(SEED).choice(people, min(QUERIES, people), replace=False)
    return other_pictures(chosen, SEED)


def recall(found: Any, truth: Any) -> float:
    """Which part of the true neighbours was found."""
    return float(np.mean([len(set(ids) & set(exact)) / len(exact) for ids, exact in zip(found, truth, strict=True)]))


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """How many times as fast as exact search each type answers."""
    exact = figures["FLAT"]["p50_ms"]
    return {f"{name}_to_FLAT": exact / found["p50_ms"] for name, found in figures.items() if name != "FLAT"}


def shown(parameters: dict[str, int]) -> str:
    """Parameters in a table's cell."""
    return " ".join(f"{name}={value}" for name, value in parameters.items())


def draw(figures: dict[str, Any], path: Path) -> None:
    """Recall against latency."""
    figure, axes = record.canvas(5, 3.4)
    for marker, (name, found) in zip("osD^vP", figures.items(), strict=True):
        axes.scatter(found["p50_ms"], found["recall_at_10"], marker=marker, label=name, alpha=0.8)
    axes.legend(fontsize=8, loc="lower right")
    axes.set_xlabel("median latency of one search, ms")
    axes.set_ylabel("recall@10")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
