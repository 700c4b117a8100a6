"""The benchmark of index types: what is searched for, what is compared, and a row of its result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import index_types
from bench.faces import person_of, pictures
from bench.index_types import QUERIES, IndexTypes, queries_of, ratios, recall, shown
from bench.record import result
from bench.server import SEED
from jobs.index.protocol import CollectionInfo
from jobs.index.verification import exact_neighbours
from tests.milvus.serving import Served, served, settings_of
from udfs.arrays import EMBEDDING_DIM

pytestmark = pytest.mark.unit

ROWS, INDEX_FILE, SEARCHED = 1_800, 7_200, 40


class Offline(IndexTypes):
    """The benchmark without Spark, at a server's double whose index leaves a file, as with local storage."""

    def __init__(self, folder: Path, server: Served) -> None:
        self.settings = settings_of(server.double, index_type="IVF_PQ")
        self.index, self.folder, self.server = server.index, folder, server

    def imported(self, rows: int) -> str:
        self.index.create(
            "made", dim=EMBEDDING_DIM, shards=1, properties=CollectionInfo("0" * 64, "made", False, "", "")
        )
        self.server.write("made", np.arange(rows), pictures(np.arange(rows), SEED))
        self.server.core.faults.add("CreateIndex", self._leave_file)
        return "made"

    def _leave_file(self) -> None:
        place = self.folder / "m" / "data" / "index_files" / "7" / "1"
        place.mkdir(parents=True)
        (place / "part").write_bytes(bytes(INDEX_FILE))


def test_queries_are_other_pictures_of_people_who_are_there() -> None:
    queries, rows = queries_of(ROWS), pictures(np.arange(ROWS), SEED)
    assert queries.shape == (QUERIES, EMBEDDING_DIM)
    cosines = queries @ rows.T
    assert cosines.max() < 0.9999
    people = person_of(np.arange(ROWS))[np.argsort(-cosines, axis=1)[:, :10]]
    # Of most the nearest is the same person's, and no two are of one person.
    most = [np.bincount(of).argmax() for of in people]
    assert len(set(most)) > 0.95 * QUERIES
    assert np.mean([of[0] == person for of, person in zip(people, most, strict=True)]) > 0.95
    assert len(queries_of(20)) == len(set(person_of(np.arange(20)).tolist()))


def test_recall_is_the_part_of_the_true_neighbours() -> None:
    truth = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(truth[:, ::-1], truth) == 1.0
    assert recall(np.array([[1, 2, 9, 9], [5, 6, 7, 0]]), truth) == 0.625


def test_a_row_says_what_was_built_how_it_was_searched_and_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_types, "TIMES", 1)
    queries = queries_of(ROWS)[:SEARCHED]
    truth = exact_neighbours(queries, [(np.arange(ROWS), pictures(np.arange(ROWS), SEED))], 10).ids
    with served() as server:
        found = Offline(tmp_path, server)._one(ROWS, queries, truth)
        # One for all, one that warms up, and each alone.
        assert server.core.calls.count("Search") == 1 + 1 + SEARCHED
        assert not server.index.exists("made")
    assert found["parameters"] == {"nlist": 128, "m": 256, "nbits": 8}
    assert found["search"] == {"nprobe": 32}
    assert found["recall_at_10"] == 1.0
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    assert found["bytes_a_row"] == {"planned": 264, "stored": INDEX_FILE / ROWS}


def test_the_committed_result_has_what_the_tables_and_the_plan_read() -> None:
    committed = result("index_types")
    for found in committed["figures"].values():
        assert {"parameters", "search", "build_s", "recall_at_10", "p50_ms", "p99_ms", "bytes_a_row"} <= found.keys()
    assert committed["ratios"] == {name: round(value, 3) for name, value in ratios(committed["figures"]).items()}
    assert committed["setting"].keys() >= {"server", "rows", "shards", "vectors", "queries"}


def test_parameters_are_shown_as_settings_name_them() -> None:
    assert shown({"nlist": 1024, "m": 256}) == "nlist=1024 m=256"
    assert shown({}) == ""
