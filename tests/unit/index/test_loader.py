"""Exactly once, whatever the server does: every failure that was seen, and a kill at every step.

The servers are doubles (tests/milvus/servers), and what is compared is what they hold, row by row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import DependencyUnavailable, LeaseLost, NotProvenError
from jobs.index import bulk_import
from jobs.index.bulk_import import Importer, Pulse
from jobs.index.import_records import DONE, FAILED, LAG_S, STARTED, FileState
from jobs.index.loader import MemoryRecorder, RebuildNeeded, StagedFile, import_path, load_files, sha256_of
from jobs.index.milvus.embedded import EmbeddedIndex
from jobs.index.protocol import CollectionInfo, ImportState
from jobs.settings import Settings
from tests.milvus.rows import DIM, INFO, make_keys, make_vectors, stage_files
from tests.milvus.servers.faults import (
    CUT,
    FAIL,
    FAIL_HALF,
    FAIL_SHOWN,
    LOST,
    SHORT,
    STALL,
    STALL_SHOWN,
    TWICE,
)
from tests.milvus.servers.imports import Pace
from tests.milvus.servers.profiles import PROFILES, TASKS, Profile
from tests.milvus.serving import Served, served, settings_of

pytestmark = pytest.mark.unit

ROWS, FILES, NAME = 60, 6, "faces_r1"
MANY_FILES, TWO_PHASES, KEYED = PROFILES["2.5"], PROFILES["3.0.0"], PROFILES["2.6.24"]
AT_ONCE = Pace(0.0, 0.0, 0.0, 0.0, 0.0)
A_FILE_A_JOB = 3
"""With so many jobs at once as half of the files, servers of many files a job get one file in each."""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_import, "POLL_S", 0.0)
    monkeypatch.setattr(bulk_import, "OUTAGE_POLL_S", 0.0)
    monkeypatch.setattr(bulk_import, "STRAY_POLL_S", 0.0)
    monkeypatch.setattr(bulk_import, "CLEAN_UP_S", 0.0)


@pytest.fixture
def clean_up(server: Served) -> None:
    """Before keys are counted the server has looked for what failed tasks have brought."""
    server.core.faults.always["ReleaseCollection"] = lambda: server.core.clock.skip(360.0)


@pytest.fixture(scope="module")
def keys() -> np.ndarray:
    return make_keys(ROWS)


@pytest.fixture(scope="module")
def files(keys: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[StagedFile]:
    return stage_files(tmp_path_factory.mktemp("staged"), keys, make_vectors(ROWS), FILES)


class Servers:
    """A double of each version that is asked for, with an empty collection; what it was told is forgotten each time."""

    def __init__(self, open_until: ExitStack) -> None:
        self._open_until = open_until
        self._running: dict[str, Served] = {}

    def __call__(self, profile: Profile = TASKS) -> Served:
        if profile.version not in self._running:
            self._running[profile.version] = self._open_until.enter_context(served(profile))
        server = self._running[profile.version]
        server.core.faults.clear()
        server.core.imports.pace = AT_ONCE
        server.core.asked.clear()
        empty(server)
        return server


def empty(server: Served, info: CollectionInfo = INFO) -> None:
    """The collection, made anew, of which no job is known."""
    server.core.store.drop("default", NAME)
    server.core.imports.jobs.clear()
    server.index.create(NAME, dim=DIM, shards=1, properties=info)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as open_until:
        yield Servers(open_until)


@pytest.fixture
def server(servers: Servers) -> Served:
    """One of 2.3.5, whose tasks are of one file."""
    return servers()


def settings(server: Served, **milvus: object) -> Settings:
    return settings_of(server.double, **{"import_timeout_s": 0.05, "ready_timeout_s": 0.05, **milvus})


def exact(server: Served, keys: np.ndarray) -> bool:
    return server.keys(NAME) == sorted(keys.tolist())


def jobs(server: Served) -> list[list[str]]:
    """Files of each job that the server knows."""
    return [[path for entry in job.files for path in entry] for job in server.core.imports.jobs.values()]


def test_all_files_are_imported_with_a_bound_on_jobs(server: Served, files: list[StagedFile], keys: np.ndarray) -> None:
    running: list[int] = []

    def look() -> None:
        running.append(sum(job.state != "Completed" for job in server.core.imports.jobs.values()))

    server.core.imports.pace = replace(AT_ONCE, importing=1.0)
    server.core.faults.always["Import"] = look
    server.core.faults.always["GetImportState"] = lambda: server.core.clock.skip(0.6)
    told = settings(server, import_jobs=2, import_timeout_s=30)
    result = load_files(server.index, NAME, files, told, recorder=MemoryRecorder())
    assert (result.rows, result.files, result.skipped, result.adopted, result.retried) == (ROWS, FILES, 0, 0, 0)
    assert max(running) == 1  # beside the one that is started
    assert exact(server, keys)


@pytest.mark.parametrize("fault", [FAIL, CUT])
def test_a_file_of_which_nothing_is_there_is_imported_again(
    server: Served, files: list[StagedFile], keys: np.ndarray, fault: str
) -> None:
    words = ["", "", fault, "", "", "", fault]
    server.core.faults.add("Import" if fault == CUT else "job", *words)
    assert load_files(server.index, NAME, files, settings(server), recorder=MemoryRecorder()).retried == 2
    assert exact(server, keys)
    assert not server.there(NAME).loaded


@pytest.mark.parametrize("fault", [STALL_SHOWN, LOST, "forgotten"])
def test_a_file_that_is_there_after_all_is_not_imported_again(
    server: Served, files: list[StagedFile], keys: np.ndarray, fault: str
) -> None:
    recorder = MemoryRecorder()
    if fault == LOST:
        server.core.faults.add("Import", "", "", LOST)
    elif fault == "forgotten":
        server.core.faults.add("GetImportState", "", "", server.core.imports.jobs.clear)
    else:
        server.core.faults.add(files[2].path, fault)
    assert load_files(server.index, NAME, files, settings(server), recorder=recorder).retried == 0
    assert exact(server, keys)
    assert recorder.known()[2][1] == "done"


@pytest.mark.parametrize("fault", [FAIL_SHOWN, FAIL_HALF])
def test_what_a_failed_task_has_brought_is_waited_for_to_go_and_imported_again(
    server: Served, files: list[StagedFile], keys: np.ndarray, fault: str, clean_up: None
) -> None:
    server.core.faults.add(files[2].path, fault)
    recorder = MemoryRecorder()
    assert load_files(server.index, NAME, files, settings(server), recorder=recorder).retried == 1
    server.core.clock.skip(3600.0)
    assert exact(server, keys)
    assert recorder.known()[2][1] == "done"


@pytest.mark.parametrize(("fault", "waits"), [(FAIL, False), (FAIL_HALF, True), (FAIL_SHOWN, True)])
def test_only_what_a_failed_task_has_shown_is_waited_for(
    server: Served, files: list[StagedFile], monkeypatch: pytest.MonkeyPatch, fault: str, waits: bool
) -> None:
    monkeypatch.setattr(bulk_import, "CLEAN_UP_S", -1.0)
    server.core.faults.add(files[2].path, fault)
    # Nobody can sleep for less than no time.
    with pytest.raises(ValueError, match="non-negative") if waits else nullcontext():
        assert load_files(server.index, NAME, files, settings(server), recorder=MemoryRecorder()).retried == 1


@pytest.mark.parametrize(
    ("what", "fault", "message"),
    [
        ("job", FAIL_HALF, "5 of 10 keys found in 5 rows, and its job has failed: the server drops them"),
        ("job", FAIL_SHOWN, "10 of 10 keys found in 10 rows, and its job has failed: the server drops them"),
        ("job", STALL, "its job still runs"),
        ("Import", TWICE, "Staged file 2 is in doubt|imported twice"),
    ],
)
def test_where_doubt_stays_the_collection_is_to_be_rebuilt(
    server: Served, files: list[StagedFile], keys: np.ndarray, what: str, fault: str, message: str
) -> None:
    server.core.faults.add(what, "", "", fault)
    with pytest.raises(RebuildNeeded, match=message):
        load_files(server.index, NAME, files, settings(server), recorder=MemoryRecorder())
    empty(server)
    load_files(server.index, NAME, files, settings(server), recorder=MemoryRecorder())
    assert exact(server, keys)


def test_a_file_that_keeps_failing_is_given_up(server: Served, files: list[StagedFile]) -> None:
    server.core.faults.add(files[0].path, *[FAIL] * 9)
    with pytest.raises(RebuildNeeded, match=r"file\(s\) 0 .* failed 3 times"):
        load_files(server.index, NAME, files, settings(server, import_attempts=3), recorder=MemoryRecorder())


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


def kill_at_job(server: Served, monkeypatch: pytest.MonkeyPatch, step: int, *, started: bool) -> None:
    """The process ends at the n-th job that it starts: before or after the server has it."""
    start, left = server.index.start_import, [step]

    def killed(name: str, files: Sequence[str], *, token: str = "") -> str:
        left[0] -= 1
        if left[0] == 0 and not started:
            raise Killed
        job_id = start(name, files, token=token)
        if left[0] == 0:
            raise Killed
        return job_id

    monkeypatch.setattr(server.index, "start_import", killed)


def killed_and_restarted(
    server: Served, files: list[StagedFile], recorder: MemoryRecorder, *, remembers: bool = True
) -> None:
    """What was not on record is gone with the process; ``remembers``: the server still knows its jobs."""
    told = settings(server, import_jobs=2)
    with pytest.raises(Killed):
        load_files(server.index, NAME, files, told, recorder=recorder)
    if not remembers:
        server.core.imports.jobs.clear()  # task records live only hours on a server
    again = MemoryRecorder(recorder.kept)
    load_files(server.index, NAME, files, told, recorder=again)
    assert {file.state for file in again.kept.values()} == {DONE}


COMMITS = 7
"""Three times two jobs, their end, a failure, the job for it, its end."""
JOBS = FILES + 1
"""One a file, and that after the failure."""
CASES = list(itertools.product(range(1, COMMITS + 1), (True, False), (True, False)))


@pytest.mark.parametrize(("step", "recorded", "remembers"), CASES)
def test_killed_at_any_commit_a_restarted_load_is_exact(
    server: Served,
    files: list[StagedFile],
    keys: np.ndarray,
    clean_up: None,
    step: int,
    recorded: bool,
    remembers: bool,
) -> None:
    server.core.faults.add(files[1].path, FAIL)
    server.core.faults.add(files[4].path, FAIL_SHOWN)
    killed_and_restarted(server, files, KilledAt(step, recorded=recorded), remembers=remembers)
    assert exact(server, keys)


@pytest.mark.parametrize(
    ("step", "started", "remembers"), list(itertools.product(range(1, JOBS + 1), (True, False), (True, False)))
)
def test_killed_at_any_job_a_restarted_load_is_exact(
    server: Served,
    files: list[StagedFile],
    keys: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    clean_up: None,
    step: int,
    started: bool,
    remembers: bool,
) -> None:
    server.core.faults.add(files[1].path, FAIL)
    server.core.faults.add(files[4].path, FAIL_SHOWN)
    kill_at_job(server, monkeypatch, step, started=started)
    killed_and_restarted(server, files, MemoryRecorder(), remembers=remembers)
    assert exact(server, keys)


# -- commits -----------------------------------------------------------------------------------------------------------


class Counted(MemoryRecorder):
    """Counts its commits."""

    commits = 0

    def _record(self, files: Mapping[int, FileState]) -> None:
        self.commits += 1
        super()._record(files)


def test_many_jobs_are_one_commit_before_any_of_them_is_started(server: Served, tmp_path: Path) -> None:
    many = stage_files(tmp_path, make_keys(48), make_vectors(48), 24)
    recorder, ahead = Counted(), list[int]()
    server.core.faults.always["Import"] = lambda: ahead.append(len(recorder.kept) - len(jobs(server)))
    load_files(server.index, NAME, many, settings(server, import_jobs=8), recorder=recorder)
    # Each of them, and the others that may be started beside it.
    assert ahead == 3 * [8, 7, 6, 5, 4, 3, 2, 1]
    # Three times eight jobs, and the end of the last.
    assert recorder.commits == 4
    assert {(file.state, bool(file.job_id)) for file in recorder.kept.values()} == {(DONE, True)}
    assert all(file.began and file.ended and file.began <= file.ended for file in recorder.kept.values())


def test_jobs_of_many_files_are_noted_one_by_one(
    servers: Servers, files: list[StagedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill the keys of all that was noted and not started are looked for."""
    monkeypatch.setattr(bulk_import, "NOTED_FILES", 3)
    server, recorder, ahead = servers(MANY_FILES), Counted(), list[int]()
    server.core.faults.always["create"] = lambda: ahead.append(len(recorder.kept) - sum(map(len, jobs(server))))
    load_files(server.index, NAME, files, settings(server, import_jobs=2), recorder=recorder)
    assert (ahead, recorder.commits) == ([2, 2, 2], 4)


def test_by_rows_all_files_are_one_commit_and_their_end_another(server: Served, files: list[StagedFile]) -> None:
    recorder = Counted()
    load_files(server.index, NAME, files, settings(server, load_by="insert"), recorder=recorder)
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


def test_no_job_is_started_by_who_has_lost_the_record(server: Served, files: list[StagedFile]) -> None:
    class Lost(MemoryRecorder):
        def check(self) -> None:
            if jobs(server):
                raise LeaseLost("another run took over")

    with pytest.raises(LeaseLost):
        load_files(server.index, NAME, files, settings(server, import_jobs=4), recorder=Lost())
    assert len(jobs(server)) == 1


def test_a_load_that_ends_with_an_error_has_its_jobs_on_record(servers: Servers, files: list[StagedFile]) -> None:
    server, recorder = servers(MANY_FILES), MemoryRecorder()
    server.core.faults.add("describe", *[""] * 3, *[CUT] * 999)
    with pytest.raises(DependencyUnavailable):
        load_files(server.index, NAME, files, settings(server, import_jobs=A_FILE_A_JOB), recorder=recorder)
    assert [file.state for file in recorder.kept.values()] == 3 * [DONE] + 3 * [STARTED]
    assert all(file.job_id for file in recorder.kept.values())


def test_what_a_resumed_load_has_followed_is_on_record_before_it_counts_keys(
    server: Served, files: list[StagedFile], keys: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes long where much is there: killed meanwhile, the next one may find no job at the server any more."""
    recorder = MemoryRecorder()
    recorder.starting(range(FILES))
    for file in files[:3]:
        server.index.start_import(NAME, [file.path])

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(server.index, "build_index", killed)
        with pytest.raises(Killed):
            load_files(server.index, NAME, files, settings(server), recorder=recorder)
    assert [file.state for file in recorder.kept.values()] == 3 * [DONE] + 3 * [STARTED]
    server.core.imports.jobs.clear()
    result = load_files(server.index, NAME, files, settings(server), recorder=MemoryRecorder(recorder.kept))
    assert (result.skipped, exact(server, keys)) == (3, True)


def test_why_a_load_ended_is_told_although_its_record_is_away_too() -> None:
    class Away(MemoryRecorder):
        def _record(self, files: Mapping[int, FileState]) -> None:
            raise DependencyUnavailable(f"{len(files)} files cannot be put on record")

    def load(recorder: Away, why: str) -> None:
        with recorder.committed_at_the_end():
            recorder.started([0], "7")
            if why:
                raise RebuildNeeded(why)

    with pytest.raises(RebuildNeeded, match="in doubt"):
        load(Away(), "in doubt")
    with pytest.raises(DependencyUnavailable, match="1 files"):
        load(Away(), "")


def test_what_a_last_look_at_keys_finds_is_on_record(server: Served, files: list[StagedFile]) -> None:
    recorder = MemoryRecorder()
    server.core.faults.add(files[2].path, STALL_SHOWN)
    load_files(server.index, NAME, files, settings(server, import_attempts=1), recorder=recorder)
    assert {file.state for file in recorder.kept.values()} == {DONE}


@pytest.mark.parametrize(("by", "call"), [("import", "Import"), ("insert", "Upsert")])
def test_guarantee_9_a_collection_is_on_record_before_a_row_is_on_its_way(
    server: Served, files: list[StagedFile], by: str, call: str
) -> None:
    """Killed in between, an erasure that meets another index would not know that there is one to look at."""
    recorder, seen = MemoryRecorder(), list[bool]()
    server.core.faults.add(call, lambda: seen.append(bool(recorder.kept)))
    load_files(server.index, NAME, files, settings(server, load_by=by), recorder=recorder)
    assert seen == [True]


@pytest.mark.parametrize(
    ("profile", "step", "recorded", "remembers"),
    [
        pytest.param(profile, *case, id=f"{profile.version}-{'-'.join(map(str, case))}")
        for profile in (MANY_FILES, TWO_PHASES)
        for case in CASES
        # One that has not committed its jobs has to know them.
        if case[0] < COMMITS and (case[2] or profile is MANY_FILES)
    ],
)
def test_killed_with_several_files_a_job(
    servers: Servers,
    files: list[StagedFile],
    keys: np.ndarray,
    step: int,
    recorded: bool,
    remembers: bool,
    profile: Profile,
) -> None:
    server, recorder = servers(profile), KilledAt(step, recorded=recorded)
    server.core.faults.add(files[3].path, FAIL)
    killed_and_restarted(server, files, recorder, remembers=remembers)
    assert max(map(len, jobs(server)), default=2) == 2
    assert exact(server, keys)


def test_files_share_jobs_where_the_server_takes_several(
    servers: Servers, files: list[StagedFile], keys: np.ndarray
) -> None:
    server = servers(MANY_FILES)
    load_files(server.index, NAME, files, settings(server, import_jobs=1), recorder=MemoryRecorder())
    # Two jobs for the one that may run at a time: not one of six, which a single node might get.
    assert [len(paths) for paths in jobs(server)] == [3, 3]
    assert exact(server, keys)


@pytest.mark.parametrize("fault", [SHORT, STALL, FAIL, CUT])
def test_in_two_phases_a_job_in_doubt_is_aborted_and_repeated(
    servers: Servers, files: list[StagedFile], keys: np.ndarray, fault: str
) -> None:
    server = servers(TWO_PHASES)
    server.core.faults.add("create" if fault == CUT else "job", "", "", fault)
    told = settings(server, import_jobs=A_FILE_A_JOB)
    assert load_files(server.index, NAME, files, told, recorder=MemoryRecorder()).retried == 1
    assert exact(server, keys)
    assert server.there(NAME).stored(keys) == ROWS
    assert {job.state for job in server.core.imports.jobs.values()} <= {"Completed", "Failed"}


# -- what the server runs and nobody follows --------------------------------------------------------------------------


def young(server: Served, looks: float) -> None:
    """A job is made whose answer is lost, and which is in pre-import for so many looks at the list of jobs."""
    server.core.faults.always["list"] = lambda: server.core.clock.skip(1.0)
    server.core.faults.always["describe"] = lambda: server.core.clock.skip(0.2)

    def begin() -> str:
        server.core.imports.pace = replace(AT_ONCE, preimport=looks - 0.5, importing=3.0)
        return LOST

    server.core.faults.add("create", "", begin)


@pytest.mark.parametrize("looks", [1, 2, 7])
def test_a_job_whose_request_was_never_answered_is_followed_and_not_repeated(
    servers: Servers, files: list[StagedFile], keys: np.ndarray, looks: int
) -> None:
    """It names no files while it is young: then it may hold every file in doubt."""
    server = servers(MANY_FILES)
    young(server, looks)
    told = settings(server, import_timeout_s=30, import_jobs=1)
    result = load_files(server.index, NAME, files, told, recorder=MemoryRecorder())
    assert (result.retried, result.adopted, len(jobs(server))) == (0, 3, 2)
    assert exact(server, keys)


def test_one_that_never_names_its_files_keeps_them_from_being_imported_again(
    servers: Servers, files: list[StagedFile]
) -> None:
    server = servers(MANY_FILES)
    young(server, 1e9)
    with pytest.raises(RebuildNeeded, match=r"Staged file 3 is in doubt.* its job still runs"):
        load_files(server.index, NAME, files, settings(server, import_jobs=1), recorder=MemoryRecorder())


def test_a_young_job_of_other_files_is_not_waited_for(servers: Servers, files: list[StagedFile]) -> None:
    server, recorder = servers(MANY_FILES), MemoryRecorder()
    server.core.imports.pace = replace(AT_ONCE, preimport=1e9)
    job = server.index.start_import(NAME, [files[0].path])
    recorder.started([0], job)  # it is on record, and stays young
    recorder.started([1], "")
    importer = Importer(server.index, NAME, files, settings(server), recorder, sha256_of, None)
    importer.doubtful = {1: (files[1], "no answer")}
    assert importer._strays(server.index.list_imports(NAME)) == {}
    importer.doubtful = {0: (files[0], "no answer")}
    assert importer._strays(server.index.list_imports(NAME)) == {job: None}


def test_two_jobs_of_one_file_that_nobody_follows_are_found_out(servers: Servers, files: list[StagedFile]) -> None:
    server, recorder = servers(MANY_FILES), MemoryRecorder()
    server.core.imports.pace = replace(AT_ONCE, preimport=0.5)
    server.core.faults.always["list"] = lambda: server.core.clock.skip(1.0)
    server.core.faults.add("create", LOST, LOST)
    for _ in range(2):
        with pytest.raises(DependencyUnavailable):
            server.index.start_import(NAME, [files[0].path])
    recorder.started([0], "")
    server.core.faults.always["describe"] = lambda: server.core.clock.skip(1.0)
    told = settings(server, import_timeout_s=30, import_jobs=A_FILE_A_JOB)
    with pytest.raises(RebuildNeeded, match="imported twice"):
        load_files(server.index, NAME, files, told, recorder=recorder)


def test_a_job_that_is_made_and_done_while_keys_are_counted_is_seen(
    server: Served, files: list[StagedFile], keys: np.ndarray
) -> None:
    """Its request got no answer, and was carried out late."""

    def late() -> None:
        assert server.core.calls.count("Query") > 0
        server.core.imports.create(server.there(NAME), [[files[2].path]], {}, "")

    server.core.faults.add("Import", "", "", CUT)
    # Asked for when the load begins, before the keys are counted, and after.
    server.core.faults.add("ListImportTasks", "", "", late)
    server.core.calls.clear()
    assert load_files(server.index, NAME, files, settings(server), recorder=MemoryRecorder()).retried == 0
    assert exact(server, keys)


def test_a_file_imported_twice_is_found_also_where_requests_carry_keys(
    servers: Servers, files: list[StagedFile]
) -> None:
    """By something in between that repeats a request, and not its headers."""
    server = servers(KEYED)

    def again() -> None:
        server.core.imports.create(server.there(NAME), [[files[2].path]], {}, "")

    server.core.faults.add("create", "", "", again)
    told = settings(server, import_jobs=A_FILE_A_JOB)
    with pytest.raises(RebuildNeeded, match="imported twice"):
        load_files(server.index, NAME, files, told, recorder=MemoryRecorder())


def test_the_servers_reason_is_in_the_message(server: Served, files: list[StagedFile]) -> None:
    server.core.faults.add(files[0].path, *[FAIL] * 9)
    why = r"of file 0 its import is failed with 0 of 10 rows: failed to import: disk quota exceeded"
    with pytest.raises(RebuildNeeded, match=why):
        load_files(server.index, NAME, files, settings(server), recorder=MemoryRecorder())


# -- keys of requests --------------------------------------------------------------------------------------------------


def tokens(server: Served) -> list[tuple[tuple[str, ...], str]]:
    """Files and key of each request for a job."""
    return [
        (tuple(path for entry in body["files"] for path in entry), headers["idempotency-key"])
        for route, body, headers in server.core.asked
        if route == "create"
    ]


def test_a_key_is_of_these_files_and_this_attempt(servers: Servers, files: list[StagedFile], keys: np.ndarray) -> None:
    server, recorder = servers(KEYED), MemoryRecorder()
    server.core.faults.add(files[2].path, FAIL)
    load_files(server.index, NAME, files, settings(server, import_jobs=A_FILE_A_JOB), recorder=recorder)
    asked = tokens(server)
    assert len({token for paths, token in asked if paths == (files[2].path,)}) == 2
    assert len({token for _, token in asked}) == FILES + 1
    assert all(len(token) <= 256 and token.isascii() and token.isprintable() for _, token in asked)
    assert exact(server, keys)


def test_a_restarted_load_has_the_key_of_its_attempt_and_no_former_one(
    servers: Servers, files: list[StagedFile]
) -> None:
    """A former one would be answered with the job that failed."""
    server, recorder = servers(KEYED), MemoryRecorder()
    server.core.faults.add(files[0].path, FAIL, FAIL)
    for _ in range(2):
        with pytest.raises(RebuildNeeded):
            load_files(server.index, NAME, files[:1], settings(server, import_attempts=1), recorder=recorder)
    load_files(server.index, NAME, files[:1], settings(server, import_attempts=1), recorder=recorder)
    first = tokens(server)
    assert len({token for _, token in first}) == 3
    empty(server)
    load_files(server.index, NAME, files[:1], settings(server), recorder=MemoryRecorder())
    assert tokens(server)[3] == first[0]


def test_a_collection_that_is_built_anew_has_other_keys(servers: Servers, files: list[StagedFile]) -> None:
    server = servers(KEYED)
    load_files(server.index, NAME, files[:1], settings(server), recorder=MemoryRecorder())
    empty(server, replace(INFO, created_at="2026-01-31T03:00:00+00:00"))
    load_files(server.index, NAME, files[:1], settings(server), recorder=MemoryRecorder())
    assert len({token for _, token in tokens(server)}) == 2


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


def test_progress_counts_the_rows_of_jobs_in_flight(server: Served, files: list[StagedFile]) -> None:
    seen: list[tuple[int, int]] = []
    server.core.imports.pace = replace(AT_ONCE, importing=1.0)
    server.core.faults.always["GetImportState"] = lambda: server.core.clock.skip(0.4)
    load_files(
        server.index,
        NAME,
        files,
        settings(server, import_timeout_s=30),
        recorder=MemoryRecorder(),
        on_progress=lambda *rows: seen.append(rows),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert (seen[0], seen[-1]) == ((0, ROWS), (ROWS, ROWS))
    assert any(done % 10 for done, _ in seen)  # not whole files alone


def test_jobs_that_still_run_are_adopted(server: Served, files: list[StagedFile], keys: np.ndarray) -> None:
    recorder = MemoryRecorder()
    server.core.imports.pace = replace(AT_ONCE, importing=5.0)
    server.core.faults.always["GetImportState"] = lambda: server.core.clock.skip(1.0)
    recorder.started([0], server.index.start_import(NAME, [files[0].path]))
    server.index.start_import(NAME, [files[1].path])  # killed before this one was recorded
    result = load_files(server.index, NAME, files, settings(server, import_timeout_s=30), recorder=recorder)
    assert (result.adopted, len(jobs(server))) == (2, FILES)
    assert exact(server, keys)


@pytest.mark.parametrize("by", ["import", "insert"])
def test_a_file_that_changed_after_staging_is_refused_before_its_rows_are_sent(
    server: Served, tmp_path: Path, keys: np.ndarray, by: str
) -> None:
    changed = stage_files(tmp_path, keys, make_vectors(ROWS), 2)
    path = Path(changed[1].path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(NotProvenError, match=r"Staged file 1 .*SHA-256 differs"):
        load_files(server.index, NAME, changed, settings(server, load_by=by), recorder=MemoryRecorder())
    assert len(server.keys(NAME)) <= changed[0].rows
    assert len(jobs(server)) <= 1


def test_the_digest_can_be_computed_elsewhere(server: Served, files: list[StagedFile]) -> None:
    asked: list[str] = []

    def digest(path: str) -> str:
        asked.append(path)
        return sha256_of(path)

    load_files(server.index, NAME, files, settings(server), recorder=MemoryRecorder(), digest=digest)
    assert asked == [file.path for file in files]


def test_rows_are_written_by_key_where_there_is_no_import(
    tmp_path: Path, files: list[StagedFile], keys: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.index.loader.LAG_S", 0.0)
    killed, progress = KilledAt(3, recorded=False), list[tuple[int, int]]()
    told = Settings.model_validate({"milvus": {"uri": str(tmp_path / "faces.db")}})
    with EmbeddedIndex.open(told) as index:
        index.create(NAME, dim=DIM, shards=1, properties=INFO)
        with pytest.raises(Killed):
            load_files(index, NAME, files, told, recorder=killed)
        recorder = MemoryRecorder(killed.kept)
        result = load_files(
            index, NAME, files, told, recorder=recorder, on_progress=lambda *rows: progress.append(rows)
        )
        assert result.skipped == 1
        index.load(NAME, timeout=60)
        assert index.count(NAME) == ROWS
        assert np.concatenate(list(index.keys(NAME))).tolist() == sorted(keys.tolist())
    assert progress == [(done, ROWS) for done in range(10, ROWS + 1, 10)]


@pytest.mark.parametrize("by", ["import", "insert"])
def test_a_manifest_that_counts_wrong_is_found(server: Served, files: list[StagedFile], by: str) -> None:
    first = files[0]
    wrong = StagedFile(first.path, first.rows + 1, first.bytes, first.sha256, 0)
    told = settings(server, load_by=by, import_attempts=1)
    with pytest.raises(NotProvenError, match="holds 10 rows where its manifest says 11"):
        load_files(server.index, NAME, [wrong], told, recorder=MemoryRecorder())


def test_two_files_with_one_number_are_refused(server: Served, files: list[StagedFile]) -> None:
    with pytest.raises(ValueError, match="same number"):
        load_files(server.index, NAME, [files[0], files[0]], settings(server), recorder=MemoryRecorder())


def test_an_outage_longer_than_the_patience_is_reported(servers: Servers, files: list[StagedFile]) -> None:
    server = servers(MANY_FILES)
    server.core.faults.add("describe", *[CUT] * 999)
    with pytest.raises(DependencyUnavailable):
        load_files(server.index, NAME, files, settings(server), recorder=MemoryRecorder())


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
