"""Exactly once, whatever the server does: every failure that was seen, and a kill at every step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import DependencyUnavailable, NotProvenError
from jobs.index import bulk_import
from jobs.index.loader import MemoryRecorder, RebuildNeeded, StagedFile, import_path, load_files, sha256_of
from jobs.index.protocol import Features
from jobs.settings import Settings
from tests.milvus.fake import FakeIndex
from tests.milvus.rows import DIM, INFO, make_keys, make_vectors, stage_files

pytestmark = pytest.mark.unit

ROWS, FILES, NAME = 60, 6, "faces_r1"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_import, "POLL_S", 0.0)
    monkeypatch.setattr(bulk_import, "OUTAGE_POLL_S", 0.0)
    monkeypatch.setattr(bulk_import, "STRAY_POLL_S", 0.0)


@pytest.fixture(scope="module")
def keys() -> np.ndarray:
    return make_keys(ROWS)


@pytest.fixture(scope="module")
def files(keys: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[StagedFile]:
    return stage_files(tmp_path_factory.mktemp("staged"), keys, make_vectors(ROWS), FILES)


def settings(**milvus: object) -> Settings:
    return Settings.model_validate(
        {"milvus": {"uri": "http://fake:19530", "import_timeout_s": 0.05, "ready_timeout_s": 0.05, **milvus}}
    )


def new_index() -> FakeIndex:
    index = FakeIndex()
    index.create(NAME, dim=DIM, shards=1, properties=INFO)
    return index


def exact(index: FakeIndex, keys: np.ndarray) -> bool:
    return sorted(index.collections[NAME].ids.tolist()) == sorted(keys.tolist())


def test_all_files_are_imported_with_a_bound_on_jobs(files: list[StagedFile], keys: np.ndarray) -> None:
    index, recorder = new_index(), MemoryRecorder()
    result = load_files(index, NAME, files, settings(import_jobs=2), recorder=recorder)
    assert (result.rows, result.files, result.skipped, result.adopted, result.retried) == (ROWS, FILES, 0, 0, 0)
    assert index.most_in_flight == 2
    assert exact(index, keys)


@pytest.mark.parametrize("fault", ["fail", "refused"])
def test_a_file_of_which_nothing_is_there_is_imported_again(
    files: list[StagedFile], keys: np.ndarray, fault: str
) -> None:
    index = new_index()
    index.faults = {files[2].path: [fault, fault]}
    assert load_files(index, NAME, files, settings(), recorder=MemoryRecorder()).retried == 2
    assert exact(index, keys)
    assert not index.collections[NAME].loaded


@pytest.mark.parametrize("fault", ["fail_loaded", "stall_loaded", "lost", "forgotten"])
def test_a_file_that_is_there_after_all_is_not_imported_again(
    files: list[StagedFile], keys: np.ndarray, fault: str
) -> None:
    index, recorder = new_index(), MemoryRecorder()
    index.faults = {files[2].path: [fault]}
    assert load_files(index, NAME, files, settings(), recorder=recorder).retried == 0
    assert exact(index, keys)
    assert recorder.known()[2][1] == "done"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("fail_partial", "5 of 10 keys found in 5 rows"),
        ("stall", "its job still runs"),
        ("twice", "Staged file 2 is in doubt|imported twice"),
    ],
)
def test_where_doubt_stays_the_collection_is_to_be_rebuilt(
    files: list[StagedFile], keys: np.ndarray, fault: str, message: str
) -> None:
    index = new_index()
    index.faults = {files[2].path: [fault]}
    with pytest.raises(RebuildNeeded, match=message):
        load_files(index, NAME, files, settings(), recorder=MemoryRecorder())
    index.drop(NAME)
    index.jobs.clear()
    index.create(NAME, dim=DIM, shards=1, properties=INFO)
    load_files(index, NAME, files, settings(), recorder=MemoryRecorder())
    assert exact(index, keys)


def test_a_file_that_keeps_failing_is_given_up(files: list[StagedFile]) -> None:
    index = new_index()
    index.faults = {files[0].path: ["fail"] * 9}
    with pytest.raises(RebuildNeeded, match=r"file\(s\) 0 .* failed 3 times"):
        load_files(index, NAME, files, settings(import_attempts=3), recorder=MemoryRecorder())


class Killed(BaseException):
    """A process that ends between two steps."""


class KilledAt(MemoryRecorder):
    """Ends the process at the n-th step: before or after it reaches the record."""

    def __init__(self, step: int, *, recorded: bool) -> None:
        super().__init__()
        self._left, self._recorded = step, recorded

    def _tick(self) -> bool:
        self._left -= 1
        return self._left == 0

    def started(self, numbers: Sequence[int], job_id: str) -> None:
        now = self._tick()
        if now and not self._recorded:
            raise Killed
        super().started(numbers, job_id)
        if now:
            raise Killed

    def finished(self, numbers: Sequence[int], state: str) -> None:
        now = self._tick()
        if now and not self._recorded:
            raise Killed
        super().finished(numbers, state)
        if now:
            raise Killed


CASES = list(itertools.product(range(1, 2 * FILES + 2), (True, False), (True, False)))


@pytest.mark.parametrize(("step", "recorded", "remembers"), CASES)
def test_killed_at_any_step_a_restarted_load_is_exact(
    files: list[StagedFile], keys: np.ndarray, step: int, recorded: bool, remembers: bool
) -> None:
    index, recorder = new_index(), KilledAt(step, recorded=recorded)
    index.faults = {files[1].path: ["fail"], files[4].path: ["fail_loaded"]}
    with pytest.raises(Killed):
        load_files(index, NAME, files, settings(import_jobs=2), recorder=recorder)
    if not remembers:
        index.jobs.clear()  # task records live only hours on a server
    load_files(index, NAME, files, settings(import_jobs=2), recorder=recorder)
    assert exact(index, keys)
    assert {state for _, state in recorder.known().values()} == {"done"}


@pytest.mark.parametrize("by", ["import", "insert"])
def test_guarantee_9_a_collection_is_on_record_before_a_row_is_on_its_way(
    files: list[StagedFile], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Killed in between, an erasure that meets another index would not know that there is one to look at."""
    index, recorder = new_index(), MemoryRecorder()
    index.features = Features("fake", bulk_import=by == "import", files_per_job=1)
    seen: list[bool] = []

    def killed(*_: object, **__: object) -> None:
        seen.append(bool(recorder.known()))
        raise Killed

    monkeypatch.setattr(index, "start_import" if by == "import" else "insert", killed)
    with pytest.raises(Killed):
        load_files(index, NAME, files, settings(), recorder=recorder)
    assert seen == [True]


@pytest.mark.parametrize("two_phase", [False, True])
@pytest.mark.parametrize(("step", "recorded", "remembers"), [c for c in CASES if c[0] <= 7])
def test_killed_with_several_files_a_job(
    files: list[StagedFile], keys: np.ndarray, step: int, recorded: bool, remembers: bool, two_phase: bool
) -> None:
    index, recorder = new_index(), KilledAt(step, recorded=recorded)
    index.features = Features("fake", bulk_import=True, files_per_job=2, two_phase_import=two_phase)
    index.faults = {files[3].path: ["fail"]}
    with pytest.raises(Killed):
        load_files(index, NAME, files, settings(import_jobs=2), recorder=recorder)
    if not remembers and not two_phase:
        index.jobs.clear()
    load_files(index, NAME, files, settings(import_jobs=2), recorder=recorder)
    assert exact(index, keys)
    assert {state for _, state in recorder.known().values()} == {"done"}


def test_files_share_jobs_where_the_server_takes_several(files: list[StagedFile], keys: np.ndarray) -> None:
    index = new_index()
    index.features = Features("fake", bulk_import=True, files_per_job=1024)
    load_files(index, NAME, files, settings(import_jobs=1), recorder=MemoryRecorder())
    # Two jobs for the one that may run at a time: not one of six, which a single node might get.
    assert sorted(len(state.files) for _, state in index.jobs.values()) == [3, 3]
    assert exact(index, keys)


@pytest.mark.parametrize("fault", ["short", "stall", "fail", "refused"])
def test_in_two_phases_a_job_in_doubt_is_aborted_and_repeated(
    files: list[StagedFile], keys: np.ndarray, fault: str
) -> None:
    index = new_index()
    index.features = Features("fake", bulk_import=True, files_per_job=1, two_phase_import=True)
    index.faults = {files[2].path: [fault]}
    assert load_files(index, NAME, files, settings(), recorder=MemoryRecorder()).retried == 1
    assert exact(index, keys)
    assert not index.staged


def test_progress_counts_the_rows_of_jobs_in_flight(files: list[StagedFile]) -> None:
    seen: list[tuple[int, int]] = []
    load_files(
        new_index(), NAME, files, settings(), recorder=MemoryRecorder(), on_progress=lambda *rows: seen.append(rows)
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert (seen[0], seen[-1]) == ((0, ROWS), (ROWS, ROWS))


def test_jobs_that_still_run_are_adopted(files: list[StagedFile], keys: np.ndarray) -> None:
    index, recorder = new_index(), MemoryRecorder()
    recorder.started([0], index.start_import(NAME, [files[0].path]))
    index.start_import(NAME, [files[1].path])  # killed before this one was recorded
    result = load_files(index, NAME, files, settings(), recorder=recorder)
    assert (result.adopted, len(index.jobs)) == (2, FILES)
    assert exact(index, keys)


def test_a_file_that_changed_after_staging_is_refused_before_its_import(tmp_path: Path, keys: np.ndarray) -> None:
    changed = stage_files(tmp_path, keys, make_vectors(ROWS), 2)
    path = Path(changed[1].path)
    path.write_bytes(path.read_bytes()[:-1])
    for index in (new_index(), new_index()):
        index.features = Features("fake", bulk_import=index.collections == {}, files_per_job=1)
        with pytest.raises(NotProvenError, match=r"Staged file 1 .*SHA-256 differs"):
            load_files(index, NAME, changed, settings(), recorder=MemoryRecorder())
        assert len(index.collections[NAME].ids) <= changed[0].rows


def test_the_digest_can_be_computed_elsewhere(files: list[StagedFile]) -> None:
    asked: list[str] = []

    def digest(path: str) -> str:
        asked.append(path)
        return sha256_of(path)

    load_files(new_index(), NAME, files, settings(), recorder=MemoryRecorder(), digest=digest)
    assert asked == [file.path for file in files]


def test_rows_are_written_by_key_where_there_is_no_import(files: list[StagedFile], keys: np.ndarray) -> None:
    index = new_index()
    index.features = Features("lite", bulk_import=False)
    recorder = KilledAt(4, recorded=False)
    with pytest.raises(Killed):
        load_files(index, NAME, files, settings(), recorder=recorder)
    progress: list[tuple[int, int]] = []
    result = load_files(
        index, NAME, files, settings(), recorder=recorder, on_progress=lambda *rows: progress.append(rows)
    )
    assert result.skipped == 1
    assert exact(index, keys)
    assert progress == [(done, ROWS) for done in range(10, ROWS + 1, 10)]


def test_a_manifest_that_counts_wrong_is_found(files: list[StagedFile]) -> None:
    index = new_index()
    index.features = Features("lite", bulk_import=False)
    first = files[0]
    wrong = StagedFile(first.path, first.rows + 1, first.bytes, first.sha256, 0)
    for features in (index.features, FakeIndex().features):
        index.features = features
        with pytest.raises(NotProvenError, match="holds 10 rows where its manifest says 11"):
            load_files(index, NAME, [wrong], settings(import_attempts=1), recorder=MemoryRecorder())


def test_two_files_with_one_number_are_refused(files: list[StagedFile]) -> None:
    with pytest.raises(ValueError, match="same number"):
        load_files(new_index(), NAME, [files[0], files[0]], settings(), recorder=MemoryRecorder())


def test_an_outage_longer_than_the_patience_is_reported(
    files: list[StagedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = new_index()

    def gone(_: str) -> None:
        raise DependencyUnavailable("gone")

    monkeypatch.setattr(index, "import_state", gone)
    with pytest.raises(DependencyUnavailable):
        load_files(index, NAME, files, settings(), recorder=MemoryRecorder())


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/data/a b/p.parquet", "/data/a b/p.parquet"),
        ("file:///data/a%20b/p.parquet", "/data/a b/p.parquet"),
        ("s3a://bucket/x/y/p.parquet", "x/y/p.parquet"),
        ("s3://bucket/x/p.parquet", "x/p.parquet"),
    ],
)
def test_the_name_that_a_server_knows_a_file_by(uri: str, path: str) -> None:
    assert import_path(uri) == path


def test_a_file_that_is_gone_is_said_so() -> None:
    with pytest.raises(DependencyUnavailable, match="cannot be opened"):
        sha256_of("/no/such/file.parquet")
