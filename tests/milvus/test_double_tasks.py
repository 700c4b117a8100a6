"""The double's import tasks of 2.3, and what it can be told to do wrong.

The tasks are there for failures that a real server does not show when it is asked to; that one is in test_import.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pymilvus.exceptions import MilvusException

from jobs.errors import DependencyUnavailable
from jobs.index.milvus.server import ServerIndex
from tests.milvus.asking import HOUR, LATER, NAME, ROWS, SOON, Asking, asking, keys_of
from tests.milvus.servers.double import MilvusDouble
from tests.milvus.servers.facts import shows
from tests.milvus.servers.faults import CUT, FAIL_HALF, FAIL_SHOWN, IGNORED, LOST, SHORT, STALL_SHOWN, TWICE
from tests.milvus.servers.profiles import TASKS
from tests.milvus.serving import settings_of

pytestmark = pytest.mark.unit


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Asking]:
    with MilvusDouble(TASKS, speed=0.0) as double:
        ask = Asking(double, tmp_path)
        ask.collection()
        yield ask


@pytest.fixture
def index(ask: Asking) -> Iterator[ServerIndex]:
    with ServerIndex.open(settings_of(ask.double)) as index:
        yield index


@shows("tasks")
def test_a_task_is_of_one_file_and_names_it_from_the_beginning(ask: Asking, index: ServerIndex) -> None:
    path = ask.file()
    task = index.start_import(NAME, [path])
    states = []
    for seconds in (0.0, SOON, SOON, 3.0, LATER):
        ask.skip(seconds)
        found = index.import_state(task)
        assert found.files == (path,)
        states.append((found.state, found.rows))
    assert [state for state, _ in states] == ["pending", "running", "running", "running", "done"]
    assert states[-1] == ("done", ROWS)
    assert index.list_imports(NAME) == [found]
    assert sorted(ask.core.store.get("default", NAME).seen()["face_id"].tolist()) == sorted(keys_of().tolist())
    with pytest.raises(MilvusException, match="only accepts one file"):
        index.client._get_connection().do_bulk_insert(NAME, "", [path, path], 5.0, retry_times=0)


@shows("tasks", "tasks-forgotten")
def test_a_task_is_forgotten_a_day_after_it_was_made(ask: Asking, index: ServerIndex) -> None:
    task = index.start_import(NAME, [ask.file()])
    ask.skip(23.9 * HOUR)
    assert index.import_state(task).state == "done"
    ask.skip(0.2 * HOUR)
    assert index.import_state(task).state == "unknown"
    assert index.list_imports(NAME) == []


@pytest.mark.parametrize(("word", "rows"), [(FAIL_SHOWN, ROWS), (FAIL_HALF, ROWS // 2)])
@shows("rows-before-completed", "failed-tasks-cleaned")
def test_what_a_failed_task_has_brought_may_be_seen_until_it_is_cleaned_up(
    ask: Asking, index: ServerIndex, word: str, rows: int
) -> None:
    there = ask.core.store.get("default", NAME)
    ask.core.faults.add("job", word)
    task = index.start_import(NAME, [ask.file()])
    ask.skip(LATER)
    assert (index.import_state(task).state, len(there.seen()["face_id"])) == ("failed", rows)
    ask.skip(300.0)
    assert (len(there.seen()["face_id"]), there.stored(keys_of())) == (0, 0)


@shows("rows-before-completed")
def test_a_task_may_be_told_as_under_way_when_all_of_its_rows_are_seen(ask: Asking, index: ServerIndex) -> None:
    ask.core.faults.add("job", STALL_SHOWN)
    task = index.start_import(NAME, [ask.file()])
    ask.skip(HOUR)
    assert index.import_state(task).state == "running"
    assert len(ask.core.store.get("default", NAME).seen()["face_id"]) == ROWS


def test_there_is_no_import_over_rest_before_2_4(ask: Asking) -> None:
    assert ask.post("list", {}) == (404, "404 page not found")


# -- what the double can be told to do wrong ---------------------------------------------------------------------------


def test_a_call_over_grpc_can_be_cut_lost_done_twice_or_ignored(ask: Asking, index: ServerIndex) -> None:
    path = ask.file()
    for word, jobs in ((CUT, 0), (LOST, 1), (TWICE, 3)):
        ask.core.faults.add("Import", word)
        if word == TWICE:
            index.start_import(NAME, [path])
        else:
            with pytest.raises(DependencyUnavailable):
                index.start_import(NAME, [path])
        assert len(ask.core.imports.jobs) == jobs
    ask.core.faults.add("CreateAlias", IGNORED)
    index.switch_alias("faces", NAME)
    assert index.alias_target("faces") is None


def test_a_fault_can_be_of_a_file_happen_each_time_and_do_something_first(ask: Asking, index: ServerIndex) -> None:
    path, done = ask.file(), list[str]()
    ask.core.faults.add(path, SHORT)
    ask.core.faults.always["Import"] = lambda: done.append("each")
    ask.core.faults.add("Import", lambda: done.append("once"))
    tasks = [index.start_import(NAME, [path]) for _ in range(2)]
    ask.skip(LATER)
    assert [index.import_state(task).rows for task in tasks] == [ROWS - 1, ROWS]
    assert done == ["each", "once", "each"]


def test_searches_can_miss_rows_and_something_can_answer_in_the_servers_place(tmp_path: Path) -> None:
    with asking("2.6.24", tmp_path) as ask, ServerIndex.open(settings_of(ask.double)) as index:
        there = ask.collection()
        ask.create(ask.file())
        ask.skip(LATER)
        there.indexes["embedding"] = {"index_name": "embedding", "index_type": "FLAT", "metric_type": "COSINE"}
        there.loaded = True
        vectors = there.seen()["embedding"]
        ask.core.misses_every = 4
        ids, _ = index.search(NAME, vectors, 1)
        missed = ids[:, 0] != there.seen()["face_id"]
        assert np.flatnonzero(missed).tolist() == list(range(0, ROWS, 4))
        ask.core.misses_every = 1
        assert np.isneginf(index.search(NAME, vectors[:1], 3)[1]).all()
        ask.core.between["list"] = (503, "upstream")
        assert ask.post("list", {}) == (503, "upstream")
