"""Exactly once, whatever the server does: every failure that was seen, and a kill at every step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import DependencyUnavailable, LeaseLost, NotProvenError
from jobs.index import bulk_import
from jobs.index.bulk_import import Importer, Pulse
from jobs.index.import_records import DONE, FAILED, LAG_S, STARTED, FileState
from jobs.index.loader import MemoryRecorder, RebuildNeeded, StagedFile, import_path, load_files, sha256_of
from jobs.index.protocol import Features, ImportState
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
    """Ends the process at the n-th commit: before or after it is one."""

    def __init__(self, step: int, *, recorded: bool) -> None:
        super().__init__()
        self._left, self._recorded = step, recorded

    def _record(self, files: Mapping[int, FileState]) -> None:
        self._left -= 1
        if self._left == 0 and not self._recorded:
            raise Killed
        super()._record(files)
        if self._left == 0:
            raise Killed


class KilledStarting(FakeIndex):
    """Ends the process at the n-th job: before or after the server has it."""

    def __init__(self, step: int, *, started: bool) -> None:
        super().__init__()
        self._left, self._started = step, started
        self.create(NAME, dim=DIM, shards=1, properties=INFO)

    def start_import(self, name: str, files: Sequence[str], *, token: str = "") -> str:
        self._left -= 1
        if self._left == 0 and not self._started:
            raise Killed
        job_id = super().start_import(name, files, token=token)
        if self._left == 0:
            raise Killed
        return job_id


def killed_and_restarted(index: FakeIndex, files: list[StagedFile], recorder: MemoryRecorder, remembers: bool) -> None:
    """What was not on record is gone with the process; ``remembers``: the server still knows its jobs."""
    with pytest.raises(Killed):
        load_files(index, NAME, files, settings(import_jobs=2), recorder=recorder)
    if not remembers:
        index.jobs.clear()  # task records live only hours on a server
    again = MemoryRecorder(recorder.kept)
    load_files(index, NAME, files, settings(import_jobs=2), recorder=again)
    assert {file.state for file in again.kept.values()} == {"done"}


COMMITS, JOBS = (
    7,
    FILES + 1,
)  # three times two jobs, their end, a failure, the job for it, its end; a job each, and that
CASES = list(itertools.product(range(1, COMMITS + 1), (True, False), (True, False)))


@pytest.mark.parametrize(("step", "recorded", "remembers"), CASES)
def test_killed_at_any_commit_a_restarted_load_is_exact(
    files: list[StagedFile], keys: np.ndarray, step: int, recorded: bool, remembers: bool
) -> None:
    index = new_index()
    index.faults = {files[1].path: ["fail"], files[4].path: ["fail_loaded"]}
    killed_and_restarted(index, files, KilledAt(step, recorded=recorded), remembers)
    assert exact(index, keys)


@pytest.mark.parametrize(
    ("step", "started", "remembers"), list(itertools.product(range(1, JOBS + 1), (True, False), (True, False)))
)
def test_killed_at_any_job_a_restarted_load_is_exact(
    files: list[StagedFile], keys: np.ndarray, step: int, started: bool, remembers: bool
) -> None:
    index = KilledStarting(step, started=started)
    index.faults = {files[1].path: ["fail"], files[4].path: ["fail_loaded"]}
    killed_and_restarted(index, files, MemoryRecorder(), remembers)
    assert exact(index, keys)


# -- commits -----------------------------------------------------------------------------------------------------------


class Counted(MemoryRecorder):
    """Counts its commits."""

    commits = 0

    def _record(self, files: Mapping[int, FileState]) -> None:
        self.commits += 1
        super()._record(files)


def test_many_jobs_are_one_commit_before_any_of_them_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = stage_files(tmp_path, make_keys(48), make_vectors(48), 24)
    index, recorder = new_index(), Counted()
    start, numbers = index.start_import, {file.path: file.file_no for file in many}
    unknown: list[int] = []

    def started(name: str, paths: Sequence[str], *, token: str = "") -> str:
        unknown.extend(numbers[path] for path in paths if numbers[path] not in recorder.kept)
        return start(name, paths, token=token)

    monkeypatch.setattr(index, "start_import", started)
    load_files(index, NAME, many, settings(import_jobs=8), recorder=recorder)
    assert (len(index.jobs), unknown) == (24, [])
    # Three times eight jobs, and the end of the last.
    assert recorder.commits == 4
    assert {(file.state, bool(file.job_id)) for file in recorder.kept.values()} == {("done", True)}
    assert all(file.began and file.ended and file.began <= file.ended for file in recorder.kept.values())


def test_jobs_of_many_files_are_noted_one_by_one(files: list[StagedFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill the keys of all that was noted and not started are looked for."""
    monkeypatch.setattr(bulk_import, "NOTED_FILES", 3)
    index, recorder = new_index(), Counted()
    index.features = Features("fake", bulk_import=True, files_per_job=2)
    start, ahead = index.start_import, []

    def started(name: str, paths: Sequence[str], *, token: str = "") -> str:
        ahead.append(len(recorder.kept) - len(index.jobs) * 2)
        return start(name, paths, token=token)

    monkeypatch.setattr(index, "start_import", started)
    load_files(index, NAME, files, settings(import_jobs=2), recorder=recorder)
    assert (ahead, recorder.commits) == ([2, 2, 2], 4)


def test_by_rows_all_files_are_one_commit_and_their_end_another(files: list[StagedFile]) -> None:
    index, recorder = new_index(), Counted()
    index.features = Features("lite", bulk_import=False)
    load_files(index, NAME, files, settings(), recorder=recorder)
    assert recorder.commits == 2


def test_what_became_of_a_job_waits_for_others_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("jobs.index.import_records.time.monotonic", lambda: now[0])
    recorder = MemoryRecorder()
    recorder.starting([0, 1])
    recorder.started([0], "7")
    recorder.finished([0], DONE)
    now[0] += LAG_S - 1
    recorder.started([1], "8")
    recorder.commit(after_s=LAG_S)
    assert {file.job_id for file in recorder.kept.values()} == {""}
    now[0] += 2
    recorder.commit(after_s=LAG_S)
    assert [(file.job_id, file.state) for file in recorder.kept.values()] == [("7", DONE), ("8", STARTED)]
    recorder.finished([1], FAILED)
    assert recorder.kept[1].state == FAILED


def test_no_job_is_started_by_who_has_lost_the_record(files: list[StagedFile]) -> None:
    class Lost(MemoryRecorder):
        def check(self) -> None:
            if index.jobs:
                raise LeaseLost("another run took over")

    index = new_index()
    with pytest.raises(LeaseLost):
        load_files(index, NAME, files, settings(import_jobs=4), recorder=Lost())
    assert len(index.jobs) == 1


@pytest.mark.parametrize("by", ["import", "insert"])
def test_guarantee_9_a_collection_is_on_record_before_a_row_is_on_its_way(
    files: list[StagedFile], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Killed in between, an erasure that meets another index would not know that there is one to look at."""
    index, recorder = new_index(), MemoryRecorder()
    index.features = Features("fake", bulk_import=by == "import", files_per_job=1)
    seen: list[bool] = []

    def killed(*_: object, **__: object) -> None:
        seen.append(bool(recorder.kept))
        raise Killed

    monkeypatch.setattr(index, "start_import" if by == "import" else "insert", killed)
    with pytest.raises(Killed):
        load_files(index, NAME, files, settings(), recorder=recorder)
    assert seen == [True]


@pytest.mark.parametrize("two_phase", [False, True])
@pytest.mark.parametrize(("step", "recorded", "remembers"), [c for c in CASES if c[0] < COMMITS])
def test_killed_with_several_files_a_job(
    files: list[StagedFile], keys: np.ndarray, step: int, recorded: bool, remembers: bool, two_phase: bool
) -> None:
    index, recorder = new_index(), KilledAt(step, recorded=recorded)
    index.features = Features("fake", bulk_import=True, files_per_job=2, two_phase_import=two_phase)
    index.faults = {files[3].path: ["fail"]}
    killed_and_restarted(index, files, recorder, remembers or two_phase)
    assert exact(index, keys)


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


# -- what the server runs and nobody follows --------------------------------------------------------------------------


class Young(FakeIndex):
    """A server whose jobs name their files, and bring their rows, only after some looks at the list of them."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.young: dict[str, tuple[pa.Table, int]] = {}
        self.looks = looks

    def start_import(self, name: str, files: Sequence[str], *, token: str = "") -> str:
        lost = self.faults.get(files[0], [""])[0] == "lost"
        if not lost:
            return super().start_import(name, files, token=token)
        self.faults[files[0]].pop(0)
        self.last_job += 1
        job_id = str(self.last_job)
        self.jobs[job_id] = (name, ImportState(job_id, "running"))
        self.young[job_id] = (pa.concat_tables([pq.read_table(path) for path in files]), self.looks)
        self.named = tuple(files)
        raise DependencyUnavailable("no answer")

    def list_imports(self, name: str) -> list[ImportState]:
        for job_id, (table, looks) in list(self.young.items()):
            self.young[job_id] = (table, looks - 1)
            if looks <= 1:
                self.jobs[job_id] = (name, ImportState(job_id, "running", files=self.named))
        return super().list_imports(name)

    def import_state(self, job_id: str) -> ImportState:
        state = self.jobs[job_id][1]
        if job_id in self.young and state.files:
            table, _ = self.young.pop(job_id)
            self._import(self.jobs[job_id][0], table)
            self.jobs[job_id] = (self.jobs[job_id][0], replace(state, state="done", rows=table.num_rows))
        return super().import_state(job_id)


@pytest.mark.parametrize("looks", [1, 2, 7])
def test_a_job_whose_request_was_never_answered_is_followed_and_not_repeated(
    files: list[StagedFile], keys: np.ndarray, looks: int
) -> None:
    """It names no files while it is young: then it may hold every file in doubt."""
    index = Young(looks)
    index.create(NAME, dim=DIM, shards=1, properties=INFO)
    index.faults = {files[2].path: ["lost"]}
    result = load_files(index, NAME, files, settings(import_timeout_s=30), recorder=MemoryRecorder())
    assert (result.retried, result.adopted, len(index.jobs)) == (0, 1, FILES)
    assert exact(index, keys)


def test_one_that_never_names_its_files_keeps_them_from_being_imported_again(files: list[StagedFile]) -> None:
    index = Young(10**9)
    index.create(NAME, dim=DIM, shards=1, properties=INFO)
    index.faults = {files[2].path: ["lost"]}
    with pytest.raises(RebuildNeeded, match=r"Staged file 2 is in doubt.* its job still runs"):
        load_files(index, NAME, files, settings(), recorder=MemoryRecorder())


def test_a_young_job_of_other_files_is_not_waited_for(files: list[StagedFile], keys: np.ndarray) -> None:
    index, recorder = Young(10**9), MemoryRecorder()
    index.create(NAME, dim=DIM, shards=1, properties=INFO)
    index.faults = {files[0].path: ["lost"]}
    with pytest.raises(DependencyUnavailable):
        index.start_import(NAME, [files[0].path])
    recorder.started([0], "1")  # it is on record, and stays young
    recorder.started([1], "")
    importer = Importer(index, NAME, files, settings(), recorder, sha256_of, None)
    importer.doubtful = {1: (files[1], "no answer")}
    assert importer._strays(index.list_imports(NAME)) == {}
    importer.doubtful = {0: (files[0], "no answer")}
    assert importer._strays(index.list_imports(NAME)) == {"1": None}


def test_two_jobs_of_one_file_that_nobody_follows_are_found_out(files: list[StagedFile]) -> None:
    index = Young(1)
    index.create(NAME, dim=DIM, shards=1, properties=INFO)
    index.faults = {files[0].path: ["lost", "lost", "lost"]}
    for _ in range(2):
        with pytest.raises(DependencyUnavailable):
            index.start_import(NAME, [files[0].path])
    recorder = MemoryRecorder()
    recorder.started([0], "")
    index.faults = {}
    with pytest.raises(RebuildNeeded, match="imported twice"):
        load_files(index, NAME, files, settings(import_timeout_s=30), recorder=recorder)


def test_a_job_that_is_made_and_done_while_keys_are_counted_is_seen(
    files: list[StagedFile], keys: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request got no answer, and was carried out late."""
    index = new_index()
    index.faults = {files[2].path: ["refused"]}
    count, late = index.count_ids, [True]

    def counted(name: str, ids: np.ndarray | Sequence[int]) -> int:
        found = count(name, ids)
        if late:
            late.clear()
            index.start_import(NAME, [files[2].path])
        return found

    monkeypatch.setattr(index, "count_ids", counted)
    assert load_files(index, NAME, files, settings(), recorder=MemoryRecorder()).retried == 0
    assert exact(index, keys)


def test_a_file_imported_twice_is_found_also_where_requests_carry_keys(files: list[StagedFile]) -> None:
    index = new_index()
    index.features = Features("fake", bulk_import=True, files_per_job=1, idempotent_import=True)
    index.faults = {files[2].path: ["twice"]}
    with pytest.raises(RebuildNeeded, match="imported twice"):
        load_files(index, NAME, files, settings(), recorder=MemoryRecorder())


def test_the_servers_reason_is_in_the_message(files: list[StagedFile], monkeypatch: pytest.MonkeyPatch) -> None:
    index = new_index()
    index.faults = {files[0].path: ["fail"] * 9}
    ask = index.import_state

    def told(job_id: str) -> ImportState:
        state = ask(job_id)
        return replace(state, reason="disk quota exceeded") if state.state == "failed" else state

    monkeypatch.setattr(index, "import_state", told)
    with pytest.raises(RebuildNeeded, match=r"of file 0 its import is failed with 0 of 10 rows: disk quota exceeded"):
        load_files(index, NAME, files, settings(), recorder=MemoryRecorder())


# -- keys of requests --------------------------------------------------------------------------------------------------


class Tokens(FakeIndex):
    """Keeps the key of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[tuple[tuple[str, ...], str]] = []
        self.create(NAME, dim=DIM, shards=1, properties=INFO)

    def start_import(self, name: str, files: Sequence[str], *, token: str = "") -> str:
        self.tokens.append((tuple(files), token))
        return super().start_import(name, files, token=token)


def test_a_key_is_of_these_files_and_this_attempt(files: list[StagedFile]) -> None:
    index, recorder = Tokens(), MemoryRecorder()
    index.faults = {files[2].path: ["fail"]}
    load_files(index, NAME, files, settings(import_jobs=1), recorder=recorder)
    of_file = [token for paths, token in index.tokens if paths == (files[2].path,)]
    assert len(set(of_file)) == 2
    assert len({token for _, token in index.tokens}) == FILES + 1
    assert all(len(token) <= 256 and token.isascii() and token.isprintable() for _, token in index.tokens)


def test_a_restarted_load_has_the_key_of_its_attempt_and_no_former_one(files: list[StagedFile]) -> None:
    """A former one would be answered with the job that failed."""
    index, recorder = Tokens(), MemoryRecorder()
    index.faults = {files[0].path: ["fail", "fail", "ok"]}
    with pytest.raises(RebuildNeeded):
        load_files(index, NAME, files[:1], settings(import_attempts=1), recorder=recorder)
    with pytest.raises(RebuildNeeded):
        load_files(index, NAME, files[:1], settings(import_attempts=1), recorder=recorder)
    load_files(index, NAME, files[:1], settings(import_attempts=1), recorder=recorder)
    assert len({token for _, token in index.tokens}) == 3
    again = Tokens()
    load_files(again, NAME, files[:1], settings(), recorder=MemoryRecorder())
    assert again.tokens[0] == index.tokens[0]


def test_a_collection_that_is_built_anew_has_other_keys(files: list[StagedFile]) -> None:
    index = Tokens()
    load_files(index, NAME, files[:1], settings(), recorder=MemoryRecorder())
    index.drop(NAME)
    index.jobs.clear()
    later = replace(INFO, created_at="2026-01-31T03:00:00+00:00")
    index.create(NAME, dim=DIM, shards=1, properties=later)
    load_files(index, NAME, files[:1], settings(), recorder=MemoryRecorder())
    assert len({token for _, token in index.tokens}) == 2


# -- progress ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("jobs.index.bulk_import.time.monotonic", lambda: now[0])
    return now


def test_progress_renews_the_deadline_however_long_it_takes(clock: list[float]) -> None:
    pulse = Pulse(timeout_s=60, restarts=3)
    pulse.begin("1")
    for progress in range(100):
        clock[0] += 59
        assert pulse.look(ImportState("1", "running", progress=progress)) == ""
    for rows in range(1, 100):
        clock[0] += 59
        assert pulse.look(ImportState("1", "running", rows=rows, progress=99)) == ""
    clock[0] += 61
    assert "stalled at 99 % and 99 rows" in pulse.look(ImportState("1", "running", rows=99, progress=99))


def test_a_job_that_waits_for_others_is_not_stalled(clock: list[float]) -> None:
    pulse = Pulse(timeout_s=60, restarts=3)
    for job in ("1", "2"):
        pulse.begin(job)
    for progress in range(10):
        clock[0] += 59
        assert pulse.look(ImportState("1", "running", progress=progress)) == ""
        assert pulse.look(ImportState("2", "pending")) == ""
    clock[0] += 61
    assert pulse.look(ImportState("2", "pending"))


def test_a_job_that_begins_anew_is_given_time_but_not_for_ever(clock: list[float]) -> None:
    pulse = Pulse(timeout_s=60, restarts=3)
    pulse.begin("1")
    for _ in range(4):
        for progress in (10, 40, 60):
            clock[0] += 59
            assert pulse.look(ImportState("1", "running", progress=progress)) == ""
    clock[0] += 1
    assert "begun anew by the server 4 times" in pulse.look(ImportState("1", "running", progress=10))


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


def test_rows_are_written_by_key_where_there_is_no_import(
    files: list[StagedFile], keys: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = new_index()
    index.features = Features("lite", bulk_import=False)
    monkeypatch.setattr("jobs.index.loader.LAG_S", 0.0)
    killed = KilledAt(3, recorded=False)
    with pytest.raises(Killed):
        load_files(index, NAME, files, settings(), recorder=killed)
    progress: list[tuple[int, int]] = []
    recorder = MemoryRecorder(killed.kept)
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
