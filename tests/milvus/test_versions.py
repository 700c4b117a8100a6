"""Load, resume and erase against every version of the double: known from source, not run against such a server.

What is checked is what the double holds, row by row, and not what the client believes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.erasure.collections import erase_keys
from jobs.errors import FaceReindexError, SettingsError
from jobs.index import bulk_import
from jobs.index.import_records import MemoryRecorder
from jobs.index.loader import StagedFile, load_files
from jobs.index.milvus import compaction
from jobs.index.milvus.server import ServerIndex
from jobs.index.milvus.vectors import ROUNDING, decode, encode
from jobs.index.promotion import promote
from jobs.index.protocol import IndexSpec, VectorType
from jobs.index.roles import LOADER, create_roles
from jobs.index.staged_files import RebuildNeeded
from jobs.index.verification import Proof, Sample, compare_all, exact_neighbours, prove
from jobs.settings import Settings
from tests.milvus.asking import NAME, OTHER, PASSWORD, USER, versions
from tests.milvus.rows import BUCKETS, DIM, INFO, bucket_of, make_keys, make_table, make_vectors, stage_files
from tests.milvus.servers.double import MilvusDouble
from tests.milvus.servers.facts import shows
from tests.milvus.servers.faults import CUT, LATE, LOST
from tests.milvus.servers.profiles import PROFILES

pytestmark = pytest.mark.milvus

SPEED = 40.0
"""Seconds of the server in one of ours: a job takes a quarter of a second, and L0 is idle after one."""
ROWS, FILES = 120, 4
ROOT = "root:Milvus"
KEYS, VECTORS = make_keys(ROWS), make_vectors(ROWS)
HALF = pytest.mark.parametrize("vector_type", ["float16", "bfloat16"])
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_S", "OUTAGE_POLL_S", "STRAY_POLL_S"):
        monkeypatch.setattr(bulk_import, name, 0.05)
    for name in ("LOOK_S", "PLAN_LOOK_S"):
        monkeypatch.setattr(compaction, name, 0.05)
    monkeypatch.setattr(compaction, "FLUSH_S", 15 / SPEED)


@dataclass
class World:
    """A double, staged files, and what outlives a run: its record."""

    double: MilvusDouble
    files: list[StagedFile]
    database: str = "default"
    token: str | None = None
    milvus: dict[str, Any] = field(default_factory=dict)
    vector_type: VectorType = "float32"
    recorder: MemoryRecorder = field(default_factory=MemoryRecorder)

    @property
    def core(self) -> Any:
        return self.double.core

    def settings(self, **milvus: object) -> Settings:
        told = {"uri": self.double.uri, "database": self.database, "import_timeout_s": 8.0, "ready_timeout_s": 20.0}
        told["vector_type"] = self.vector_type
        return Settings.model_validate({"milvus": told | self.milvus | milvus, "milvus_token": self.token})

    @contextmanager
    def index(self, **milvus: object) -> Iterator[ServerIndex]:
        with ServerIndex.open(self.settings(**milvus)) as index:
            yield index

    def create(self, index: ServerIndex) -> None:
        index.create(NAME, dim=DIM, shards=1, properties=INFO, vector_type=self.vector_type)

    def load(self, index: ServerIndex, **milvus: object) -> Any:
        return load_files(index, NAME, self.files, self.settings(**milvus), recorder=self.recorder)

    def seen(self) -> list[int]:
        """All rows that a search would see, duplicates too."""
        return sorted(self.core.store.get(self.database, NAME).seen()["face_id"].tolist())

    def stored(self, keys: np.ndarray) -> int:
        return int(self.core.store.get(self.database, NAME).stored(keys))

    def jobs(self, *states: str) -> int:
        return sum(not states or job.state in states for job in self.core.imports.jobs.values())


@contextmanager
def world(version: str, folder: Path, vector_type: VectorType = "float32", **options: Any) -> Iterator[World]:
    files = stage_files(folder / "staged", KEYS, VECTORS, FILES, vector_type)
    with MilvusDouble(PROFILES[version], speed=SPEED, **options) as double:
        yield World(double, files, vector_type=vector_type)


def loaded(there: World, index: ServerIndex) -> None:
    """A collection that is loaded, and ready to be asked."""
    there.create(index)
    there.load(index)
    index.build_index(NAME, IndexSpec("FLAT"), timeout=10)
    index.load(NAME, timeout=10)


# -- load --------------------------------------------------------------------------------------------------------------


@versions()
def test_every_row_comes_once(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        result = there.load(index)
        assert (result.rows, result.files, result.retried) == (ROWS, FILES, 0)
        assert there.seen() == sorted(KEYS.tolist())
        again = there.load(index)
        assert (again.skipped, there.jobs()) == (FILES, there.jobs("Completed"))
        index.build_index(NAME, IndexSpec("FLAT"), timeout=10)
        index.load(NAME, timeout=10)
        assert index.count(NAME) == ROWS
        assert np.concatenate(list(index.keys(NAME))).tolist() == sorted(KEYS.tolist())


@versions()
@HALF
@shows("half-stored", "half-parquet-bytes", "half-insert-floats-refused", "half-search-refused")
def test_vectors_of_16_bits_are_loaded_read_back_and_proven(
    version: str, vector_type: VectorType, tmp_path: Path
) -> None:
    with world(version, tmp_path, vector_type) as there, there.index() as index:
        loaded(there, index)
        assert index.vector_type(NAME) == vector_type
        assert there.seen() == sorted(KEYS.tolist())
        stored = decode(b"".join(encode(VECTORS, vector_type)), vector_type, DIM)
        keys, read = index.fetch(NAME, KEYS)
        assert keys.tolist() == KEYS.tolist()
        # Every number as it was staged, and no further from the table's than half a unit of its last bit.
        assert np.array_equal(read, stored)
        assert (np.abs(read - VECTORS) <= ROUNDING[vector_type] * np.abs(VECTORS)).all()
        assert np.isin(index.peek(NAME, 5)[1], stored).all()
        proof = prove_stored(index, stored, vector_type, gone=KEYS[:0])
        assert proof.passed, proof.faults
        assert (proof.recall, proof.self_hit) == (1.0, 1.0)
        told = erase(there, index, KEYS[:4])
        assert told["compacted"]
        assert there.stored(KEYS[:4]) == 0
        index.load(NAME, timeout=10)
        index.insert(NAME, make_table(KEYS[:1], VECTORS[:1]))
        assert np.array_equal(index.fetch(NAME, KEYS[:1])[1], stored[:1])
        again = prove_stored(index, stored, vector_type, gone=KEYS[1:4])
        promote(index, "faces", NAME, proof=again, proven=[NAME], keep=2, timeout=10)
        assert index.search("faces", stored[5:7], 1)[0][:, 0].tolist() == KEYS[5:7].tolist()


def prove_stored(index: ServerIndex, stored: np.ndarray, vector_type: VectorType, gone: np.ndarray) -> Proof:
    """The proof of a collection that holds all rows but some that are gone, among them the canaries."""
    left = ~np.isin(KEYS, gone)
    keys, vectors = KEYS[left], stored[left]
    exact = exact_neighbours(vectors[:20], [(keys, vectors)], 10)
    return prove(
        index,
        NAME,
        expected_rows=len(keys),
        compared=compare_all(index, NAME, lambda b: keys[bucket_of(keys) == b], range(BUCKETS)),
        sample=Sample(keys[:20], vectors[:20], exact.ids, exact.scores, vector_type),
        recall_floor=0.95,
        canaries_absent=gone.tolist(),
        trained=False,
    )


@pytest.mark.parametrize("load_by", ["import", "insert"])
def test_files_of_one_type_are_not_loaded_into_a_collection_of_another(load_by: str, tmp_path: Path) -> None:
    with world("2.6.24", tmp_path, "float16") as there, there.index() as index:
        # The server would take these bytes for bfloat16: they are as long.
        there.milvus = {"load_by": load_by}
        index.create(NAME, dim=DIM, shards=1, properties=INFO, vector_type="bfloat16")
        with pytest.raises(SettingsError, match=r"float16.*holds vectors of bfloat16; nothing was loaded"):
            there.load(index)
        assert (there.seen(), there.jobs()) == ([], 0)
        # A row by itself is float32, and written as the collection has it.
        index.insert(NAME, make_table(KEYS[:1], VECTORS[:1]))
        index.build_index(NAME, IndexSpec("FLAT"), timeout=10)
        index.load(NAME, timeout=10)
        assert encode(index.fetch(NAME, KEYS[:1])[1], "bfloat16") == encode(VECTORS[:1], "bfloat16")


@HALF
def test_rows_of_staged_files_are_inserted_in_the_type_that_they_were_staged_in(
    vector_type: VectorType, tmp_path: Path
) -> None:
    with world("2.6.24", tmp_path, vector_type) as there, there.index() as index:
        there.milvus = {"load_by": "insert"}
        loaded(there, index)
        assert there.jobs() == 0
        assert encode(index.fetch(NAME, KEYS)[1], vector_type) == encode(VECTORS, vector_type)


def test_a_collection_of_bytes_that_are_another_types_is_not_proven(tmp_path: Path) -> None:
    with world("2.6.24", tmp_path, "float16") as there, there.index() as index:
        index.create(NAME, dim=DIM, shards=1, properties=INFO, vector_type="bfloat16")
        index.start_import(NAME, [file.path for file in there.files])
        await_end(there)
        index.build_index(NAME, IndexSpec("FLAT"), timeout=10)
        index.load(NAME, timeout=10)
        stored = decode(b"".join(encode(VECTORS, "float16")), "float16", DIM)
        proof = prove_stored(index, stored, "float16", gone=KEYS[:0])
        assert (proof.rows_found, proof.vectors_changed) == (ROWS, 20)
        assert "20 vectors of the sample are not those that were staged" in proof.faults
        assert not proof.passed


@versions()
def test_a_job_that_goes_on_is_waited_for_however_long(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        # Twice as long as one may be without progress.
        there.core.imports.pace.importing = 2.5 * SPEED
        result = there.load(index, import_timeout_s=1.25, import_jobs=FILES)
        assert result.retried == 0
        assert there.seen() == sorted(KEYS.tolist())


@versions()
def test_a_job_that_stands_still_is_given_up_and_the_load_says_so_or_ends_exact(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        there.core.faults.add("job", "stall")
        if there.core.profile.has("two-phases"):
            assert there.load(index, import_timeout_s=1.0).retried > 0
            assert there.seen() == sorted(KEYS.tolist())
            return
        # Nothing stops it before 3.0: the collection is to be built anew, and with it the job is over.
        with pytest.raises(RebuildNeeded, match="still runs"):
            there.load(index, import_timeout_s=1.0)
        index.drop(NAME)
        there.recorder = MemoryRecorder()
        there.create(index)
        there.load(index)
        assert there.seen() == sorted(KEYS.tolist())


@versions()
def test_a_job_that_fails_is_made_anew_and_its_reason_told_in_the_end(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        there.core.faults.add("job", "fail")
        assert there.load(index).retried > 0
        assert there.seen() == sorted(KEYS.tolist())
        index.drop(NAME)
        there.recorder = MemoryRecorder()
        there.create(index)
        there.core.faults.add("job", *["fail"] * 3 * FILES)
        with pytest.raises(RebuildNeeded, match="disk quota exceeded"):
            there.load(index, import_attempts=2)


@versions()
@shows("not-now")
def test_what_cannot_be_done_now_is_asked_again(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        there.core.faults.add("list", "not ready", "rate limited")
        there.core.faults.add("create", "rate limited", "not ready", "unavailable")
        there.core.faults.add("describe", "unavailable", "not ready", "rate limited")
        there.load(index)
        assert there.seen() == sorted(KEYS.tolist())


@versions(lacks="describe-global")
@shows("database-by-header", "grants-by-database", "grants-told-by-database")
def test_the_loaders_role_is_enough_in_a_database_of_its_own(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path, authorization=True) as there:
        there.core.store.databases.add("faces")
        there.database, there.token = "faces", ROOT
        with there.index() as root:
            # Roles of the same names in the default database stand for nothing here.
            create_roles(root, "default")
            create_roles(root, "faces")
            root.client.create_user(USER, PASSWORD)
            root.client.grant_role(USER, LOADER)
        there.token = f"{USER}:{PASSWORD}"
        with there.index() as index:
            loaded(there, index)
            assert there.seen() == sorted(KEYS.tolist())
            erase(there, index, KEYS[:4])


@versions(has="describe-global")
@shows("describe-global", "describe-ungrantable")
def test_with_2_6_0_and_authorization_one_is_told_to_upgrade(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path, authorization=True) as there:
        there.token = ROOT
        with there.index() as root:
            create_roles(root, "default")
            root.client.create_user(USER, PASSWORD)
            root.client.grant_role(USER, LOADER)
        there.token = f"{USER}:{PASSWORD}"
        with there.index() as index:
            there.create(index)
            with pytest.raises(FaceReindexError) as caught:
                there.load(index)
            assert "2.6.7" in str(caught.value)
            assert there.jobs() == 0


@versions()
@shows("unauthenticated", "forbidden")
def test_wrong_rights_are_not_called_an_outage(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path, authorization=True) as there:
        there.token = ROOT
        with there.index() as index:
            there.create(index)
            there.core.rights.users["root"] = "another"
            with pytest.raises(FaceReindexError, match="credentials"):
                there.load(index)


@versions()
@shows("tls-own-port")
def test_with_tls_imports_go_to_a_port_of_their_own(version: str, tmp_path: Path, self_signed: Path) -> None:
    with world(version, tmp_path, tls=self_signed) as there:
        there.milvus = {"ca_file": str(self_signed / "ca.pem")}
        with there.index() as index, pytest.raises(SettingsError, match="rest_uri"):
            index.check_imports()
        there.milvus |= {"rest_uri": there.double.rest_uri}
        with there.index() as index:
            index.check_imports()
            there.create(index)
            there.load(index)
            assert there.seen() == sorted(KEYS.tolist())


@versions()
@shows("paths-as-given")
def test_files_in_a_bucket_are_named_by_their_keys(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path, bucket=tmp_path) as there, there.index() as index:
        there.create(index)
        there.files = [replace(f, path=f"s3a://bucket/staged/{Path(f.path).name}") for f in there.files]
        sums = {file.path: file.sha256 for file in there.files}
        load_files(index, NAME, there.files, there.settings(), recorder=there.recorder, digest=sums.__getitem__)
        assert there.seen() == sorted(KEYS.tolist())


@versions(has="paths-confined")
@shows("paths-confined")
def test_staging_inside_of_the_servers_folders_is_told_as_that(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path / "insert_log") as there, there.index() as index:
        there.create(index)
        with pytest.raises(FaceReindexError, match=r"staging\.path"):
            there.load(index)


@versions(has="no-import-under-replication")
@shows("no-import-under-replication", "no-auto-commit-under-replication")
def test_a_cluster_that_replicates_is_told_as_that(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        there.core.imports.replicating = True
        with pytest.raises(FaceReindexError, match="replicat"):
            there.load(index)
        there.core.imports.allowed_when_replicating = True
        if there.core.profile.has("two-phases"):
            there.recorder = MemoryRecorder()
            there.load(index)
            assert there.seen() == sorted(KEYS.tolist())


# -- resume ------------------------------------------------------------------------------------------------------------


@versions()
@pytest.mark.parametrize("word", [LOST, LATE, CUT])
@shows("details-after-preimport", "key-header", "timeout-as-text", "timeout-as-json")
def test_a_create_whose_answer_is_lost_brings_no_row_twice(version: str, word: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        there.core.faults.add("create", "", word)
        # Young for long enough that a look at once finds no files.
        there.core.imports.pace.preimport = 0.5 * SPEED
        there.load(index)
        assert there.seen() == sorted(KEYS.tolist())


@versions()
@shows("unknown-job-2100", "unknown-job-2101", "forgotten-after-3h", "forgotten-after-24h")
def test_a_forgotten_job_is_found_by_its_keys(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        job = index.start_import(NAME, [file.path for file in there.files[:3]])
        there.recorder.started([0, 1, 2], job)
        await_end(there)
        there.core.clock.skip(30 * HOUR)
        assert index.import_state(job).state == "unknown"
        result = there.load(index)
        assert result.retried == 0
        assert there.seen() == sorted(KEYS.tolist())


@versions()
@shows("details-after-preimport")
def test_a_young_job_that_nobody_wrote_down_is_not_made_twice(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        there.core.imports.pace.pending = 1.0 * SPEED
        # Killed between the request and the record of its job.
        there.recorder.started([0], "")
        index.start_import(NAME, [there.files[0].path])
        there.load(index)
        assert there.seen() == sorted(KEYS.tolist())


class Killed(BaseException):
    pass


@versions()
def test_a_run_that_is_killed_between_two_looks_is_resumed(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        there.core.imports.pace.importing = 60.0 * SPEED

        def die(done: int, total: int) -> None:
            if there.jobs():
                raise Killed

        with pytest.raises(Killed):
            load_files(index, NAME, there.files, there.settings(), recorder=there.recorder, on_progress=die)
        assert there.jobs() > 0
        there.core.imports.pace.importing = SPEED
        # Of its jobs, what waited to be on record is gone.
        there.recorder = MemoryRecorder(there.recorder.kept)
        result = there.load(index)
        assert result.adopted > 0
        assert there.seen() == sorted(KEYS.tolist())


@versions()
@shows("not-now")
def test_a_server_that_starts_again_in_mid_import_is_waited_for(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        there.core.imports.pace.importing = 0.5 * SPEED

        def restart() -> None:
            while not there.jobs():
                time.sleep(0.01)
            there.double.stop()
            time.sleep(0.3)
            there.double.restart(starting_s=0.5 * SPEED)

        restarting = threading.Thread(target=restart)
        restarting.start()
        try:
            there.load(index)
        finally:
            restarting.join()
        assert there.seen() == sorted(KEYS.tolist())


@versions(has="deadline-fails-completed")
@shows("deadline-fails-completed", "deadline-by-option")
def test_no_deadline_of_a_job_takes_away_what_it_has_brought(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        there.create(index)
        there.load(index)
        for _ in range(60):
            there.core.clock.skip(HOUR)
            with there.core.lock:
                there.core.tick()
        assert there.seen() == sorted(KEYS.tolist())


def await_end(there: World) -> None:
    deadline = time.monotonic() + 10
    while there.jobs("Completed", "Uncommitted") < there.jobs() and time.monotonic() < deadline:
        time.sleep(0.05)
        with there.core.lock:
            there.core.tick()
    for number, job in there.core.imports.jobs.items():
        if job.state == "Uncommitted":
            there.core.imports.commit(number)
    time.sleep(5 / SPEED)
    with there.core.lock:
        there.core.tick()


# -- erase -------------------------------------------------------------------------------------------------------------


def erase(there: World, index: ServerIndex, keys: np.ndarray, **more: Any) -> dict[str, int | bool]:
    """Erase keys, in two pages; what the receipt is made of."""
    pages = np.array_split(keys, 2)
    told = erase_keys(
        index, [NAME], lambda _: lambda: iter(pages), keep=[NAME], load_timeout_s=10, compact_timeout_s=20, **more
    )
    return told[NAME]


@versions()
@shows("deletes-in-l0", "manual-leaves-l0", "l0-by-hand", "l0-when-idle", "segments-with-level", "compaction-by-id")
def test_a_compacted_collection_stores_nothing_of_what_was_erased(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        loaded(there, index)
        # Another one, which is not to be rewritten.
        index.create(OTHER, dim=DIM, shards=1, properties=INFO)
        load_files(index, OTHER, there.files[:1], there.settings(), recorder=MemoryRecorder())
        others = [segment.number for segment in there.core.store.get("default", OTHER).segments]
        gone = KEYS[: ROWS // 20]
        told = erase(there, index, gone)
        assert [segment.number for segment in there.core.store.get("default", OTHER).segments] == others
        assert told == {"before": ROWS, "erased": len(gone), "after": ROWS - len(gone), "left": 0, "compacted": True}
        assert there.stored(gone) == 0
        assert there.seen() == sorted(KEYS[len(gone) :].tolist())


@versions()
@shows("deletes-in-l0", "manual-leaves-l0")
def test_guarantee_10_rows_that_were_added_and_not_flushed_make_up_for_no_deleted_ones(
    version: str, tmp_path: Path
) -> None:
    """As many as `sync` has taken out, of an add that was killed; and nothing is left to take out."""
    more = make_keys(2, seed=1)
    with world(version, tmp_path) as there, there.index() as index:
        loaded(there, index)
        index.delete(NAME, KEYS[:2])
        index.flush(NAME, timeout=10)
        there.core.clock.skip(HOUR)
        with there.core.lock:
            there.core.tick()
        index.insert(NAME, make_table(more, make_vectors(2)))
        stored = index.client.list_persistent_segments(NAME)
        assert sum(int(segment.num_rows) for segment in stored) == index.count(NAME) == ROWS
        assert there.stored(KEYS[:2]) == 2
        there.core.clock.skip(HOUR)
        told = erase(there, index, KEYS[:2])
        assert told == {"before": ROWS, "erased": 0, "after": ROWS, "left": 0, "compacted": True}
        assert there.stored(KEYS[:2]) == 0
        assert there.seen() == sorted([*KEYS[2:].tolist(), *more.tolist()])


@versions()
@shows("flush-rate")
def test_an_erasure_flushes_once_and_not_once_a_page(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        loaded(there, index)
        before = there.core.calls.count("Flush")
        erase(there, index, KEYS[:8])
        # Once for the deletes; once more at most, where the segments show that they are not all there.
        assert there.core.calls.count("Flush") - before <= 2


@versions()
@shows("completed-whatever", "plans-counted")
def test_plans_that_fail_are_not_taken_for_a_compaction(version: str, tmp_path: Path) -> None:
    with world(version, tmp_path) as there, there.index() as index:
        loaded(there, index)
        there.core.faults.add("compaction", "fail", "fail")
        assert erase(there, index, KEYS[:4])["compacted"]
        assert there.stored(KEYS[:4]) == 0
        there.core.faults.add("compaction", *["fail"] * 200)
        notes: list[str] = []
        told = erase(there, index, KEYS[4:8], note=notes.append)
        assert (told["left"], told["compacted"]) == (0, False)
        assert there.stored(KEYS[4:8]) == 4
        assert len(notes) == 1
        assert "still stores" in notes[0]
