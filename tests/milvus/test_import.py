"""Bulk import into a real server: exact, several at once, and through failures."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.errors import DependencyUnavailable, FaceReindexError, NotProvenError
from jobs.index.collections import default_index
from jobs.index.loader import MemoryRecorder, RebuildNeeded, StagedFile, import_path, load_files, sha256_of
from jobs.index.milvus import server as milvus_server_module
from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.index.verification import Sample, compare_all, exact_neighbours, prove
from tests.milvus.conftest import server_settings
from tests.milvus.rows import BUCKETS, DIM, INFO, bucket_of, make_keys, make_vectors, stage_files
from tests.milvus.server import MilvusStandalone

pytestmark = pytest.mark.milvus


@pytest.fixture
def name(server: VectorIndex, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"imp_{abs(hash(request.node.nodeid)):x}"
    server.create(name, dim=DIM, shards=2, properties=INFO)
    yield name
    server.drop(name)


def ready(index: VectorIndex, name: str, uri: str, rows: int) -> None:
    index.build_index(name, default_index(server_settings(uri), rows, embedded=False), timeout=120)
    index.load(name, timeout=120)


def test_the_server_is_told_apart(server: VectorIndex) -> None:
    assert server.server_version().startswith("v2.3.5")
    assert server.features.bulk_import
    assert server.features.files_per_job == 1
    assert not server.features.idempotent_import


def test_files_are_imported_several_at_once_and_proven(
    server: VectorIndex, milvus_server: MilvusStandalone, name: str, tmp_path: Path
) -> None:
    keys, vectors = make_keys(8_000), make_vectors(8_000)
    files = stage_files(tmp_path, keys, vectors, 4)
    settings = server_settings(milvus_server.uri, import_jobs=3)
    seen: list[tuple[int, int]] = []
    recorder = MemoryRecorder()
    result = load_files(
        server, name, files, settings, recorder=recorder, on_progress=lambda done, total: seen.append((done, total))
    )
    assert (result.rows, result.files, result.retried) == (8_000, 4, 0)
    assert seen[0] == (0, 8_000)
    assert seen[-1] == (8_000, 8_000)
    assert {state for _, state in recorder.known().values()} == {"done"}
    assert sorted(p for job in server.list_imports(name) for p in job.files) == [f.path for f in files]

    # A second run with the same record imports nothing; one without a record adopts what the server remembers.
    assert load_files(server, name, files, settings, recorder=recorder).skipped == 4
    assert load_files(server, name, files, settings, recorder=MemoryRecorder()).adopted == 4
    assert len(server.list_imports(name)) == 4

    ready(server, name, milvus_server.uri, 8_000)
    exact = exact_neighbours(vectors[:50], [(keys, vectors)], 10)
    proof = prove(
        server,
        name,
        expected_rows=8_000,
        compared=compare_all(server, name, lambda b: np.sort(keys[bucket_of(keys) == b]), range(BUCKETS)),
        sample=Sample(keys[:50], vectors[:50], exact.ids, exact.scores),
        recall_floor=0.99,
        canaries_absent=[4711],
    )
    assert proof.faults == ()
    assert proof.passed
    assert (proof.recall, proof.self_hit) == (1.0, 1.0)
    assert 0 < proof.latency_p50_ms <= proof.latency_p99_ms


def test_a_file_imported_twice_is_found_by_the_proof(
    server: VectorIndex, milvus_server: MilvusStandalone, name: str, tmp_path: Path
) -> None:
    keys, vectors = make_keys(1_000), make_vectors(1_000)
    (file,) = stage_files(tmp_path, keys, vectors, 1)
    for _ in range(2):
        job = server.start_import(name, [import_path(file.path)])
        while not (state := server.import_state(job)).finished:
            time.sleep(0.1)
        assert (state.state, state.rows) == ("done", 1_000)
    with pytest.raises(RebuildNeeded, match="imported twice"):
        load_files(server, name, [file], server_settings(milvus_server.uri), recorder=MemoryRecorder())
    ready(server, name, milvus_server.uri, 2_000)
    assert server.count(name) == 2_000
    assert server.count_ids(name, keys) == 2_000
    assert server.count_distinct_ids(name, keys) == 1_000
    exact = exact_neighbours(vectors[:20], [(keys, vectors)], 10)
    proof = prove(
        server,
        name,
        expected_rows=1_000,
        compared=compare_all(server, name, lambda b: np.sort(keys[bucket_of(keys) == b]), range(BUCKETS)),
        sample=Sample(keys[:20], vectors[:20], exact.ids, exact.scores),
        recall_floor=0.9,
    )
    assert not proof.passed
    assert (proof.keys_missing, proof.keys_unexpected, proof.keys_duplicated) == (0, 0, 1_000)
    # Erasing must take every copy.
    server.delete(name, keys[:10])
    assert server.count_ids(name, keys[:10]) == 0
    assert server.count(name) == 1_980


def test_a_corrupted_file_is_refused_before_any_import(
    server: VectorIndex, milvus_server: MilvusStandalone, name: str, tmp_path: Path
) -> None:
    files = stage_files(tmp_path, make_keys(400), make_vectors(400), 1)
    path = Path(files[0].path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(NotProvenError, match=r"Staged file 0 .* differs"):
        load_files(server, name, files, server_settings(milvus_server.uri), recorder=MemoryRecorder())
    assert server.list_imports(name) == []


def test_an_import_that_the_server_rejects_is_retried_and_then_given_up(
    server: VectorIndex, milvus_server: MilvusStandalone, name: str, tmp_path: Path
) -> None:
    keys = make_keys(100)
    wrong = stage_files(tmp_path, keys, make_vectors(100, dim=DIM // 2), 1)
    recorder = MemoryRecorder()
    with pytest.raises(RebuildNeeded, match="failed 2 times"):
        load_files(server, name, wrong, server_settings(milvus_server.uri, import_attempts=2), recorder=recorder)
    assert recorder.known()[0][1] == "failed"
    assert [job.state for job in server.list_imports(name)] == ["failed", "failed"]


def test_rows_are_inserted_where_that_is_asked_for(
    server: VectorIndex, milvus_server: MilvusStandalone, name: str, tmp_path: Path
) -> None:
    keys = make_keys(1_000)
    files = stage_files(tmp_path, keys, make_vectors(1_000), 2)
    settings = server_settings(milvus_server.uri, load_by="insert")
    for _ in range(2):
        load_files(server, name, files, settings, recorder=MemoryRecorder())
    ready(server, name, milvus_server.uri, 1_000)
    assert server.count(name) == 1_000


def test_parquet_that_spark_wrote_is_imported(
    server: VectorIndex, milvus_server: MilvusStandalone, name: str, tmp_path: Path
) -> None:
    # Written once by Spark 4.2.0 and kept, for a JVM costs more than all the rest of this test:
    # spark.range(500).select(xxhash64(id) as face_id, 16 × 0.25f as embedding, pmod(id, 4), 3L, 0L).coalesce(1)
    path = tmp_path / "part-00000.snappy.parquet"
    shutil.copy(Path(__file__).parent / "data" / "spark-4.2.0.snappy.parquet", path)
    staged = [StagedFile(str(path), pq.read_metadata(path).num_rows, path.stat().st_size, sha256_of(str(path)), 0)]
    assert sum(file.rows for file in staged) == 500
    load_files(server, name, staged, server_settings(milvus_server.uri), recorder=MemoryRecorder())
    ready(server, name, milvus_server.uri, 500)
    assert server.count(name) == 500
    assert server.count_bucket(name, 1) == 125


def test_a_server_out_of_reach_is_said_so_in_bounded_time() -> None:
    start = time.monotonic()
    with pytest.raises(DependencyUnavailable, match=r"127\.0\.0\.1:1"):
        connect(server_settings("http://127.0.0.1:1"))
    assert time.monotonic() - start < 60


def test_wrong_credentials_and_a_port_that_is_no_milvus_look_alike_and_both_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(milvus_server_module, "CONNECT_TIMEOUT_S", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DependencyUnavailable, match="FACE_REINDEX_MILVUS_TOKEN"):
            connect(server_settings(f"http://127.0.0.1:{silent.getsockname()[1]}"))


def test_sigkill_of_the_server_in_mid_import_ends_exact_and_keeps_the_rest(
    server: VectorIndex, milvus_server: MilvusStandalone, name: str, tmp_path: Path
) -> None:
    live, alias = f"{name}_live", f"{name}_alias"
    old_keys, old_vectors = make_keys(500, seed=1), make_vectors(500, seed=1)
    server.create(live, dim=DIM, shards=1, properties=INFO)
    old_files = stage_files(tmp_path / "old", old_keys, old_vectors, 1)
    load_files(server, live, old_files, server_settings(milvus_server.uri), recorder=MemoryRecorder())
    server.switch_alias(alias, live)

    keys, vectors = make_keys(24_000), make_vectors(24_000)
    files = stage_files(tmp_path / "new", keys, vectors, 6)
    settings = server_settings(milvus_server.uri, import_jobs=3, import_timeout_s=30)
    recorder = MemoryRecorder()

    def crash() -> None:
        while len(recorder.kept) < 4:
            time.sleep(0.01)
        milvus_server.kill()
        milvus_server.start()

    crashing = threading.Thread(target=crash)
    crashing.start()
    try:
        try:
            result = load_files(server, name, files, settings, recorder=recorder)
        except RebuildNeeded:
            # A job that never ends, or a file half loaded: then, and only then, the collection is rebuilt.
            server.drop(name)
            server.create(name, dim=DIM, shards=2, properties=INFO)
            patient = server_settings(milvus_server.uri)
            result = load_files(server, name, files, patient, recorder=MemoryRecorder())
    finally:
        crashing.join()
    assert result.rows == 24_000
    ready(server, name, milvus_server.uri, 24_000)
    assert server.count(name) == 24_000
    assert np.concatenate(list(server.keys(name))).tolist() == sorted(keys.tolist())

    # The driver's connection lived through it; what was there before is there, and live.
    assert server.alias_target(alias) == live
    assert server.info(live) == INFO
    ready(server, live, milvus_server.uri, 500)
    assert server.count(alias) == 500
    ids, _ = server.search(alias, old_vectors[:20], 1)
    assert ids[:, 0].tolist() == old_keys[:20].tolist()
    with pytest.raises(FaceReindexError, match="is live"):
        server.drop(live)
    server.drop_alias(alias)
    server.drop(live)
