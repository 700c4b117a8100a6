"""A night's second half against a real cluster, and what becomes of it when parts of the cluster die.

Each case must end with the collection exactly as staged: 0 keys missing, 0 unexpected, 0 twice.
"""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from jobs.errors import FaceReindexError
from jobs.index.collections import collection_name
from tests.cluster.cluster import MilvusCluster
from tests.cluster.conftest import Night

ROWS = 40_000
IMPORTING = "import: started"


def exact(night: Night, result: dict[str, object], rows: int = ROWS) -> None:
    """What the run itself proved, and what the server says now."""
    proof = result["proof"]
    assert isinstance(proof, dict)
    found = {key: proof[f"keys_{key}"] for key in ("missing", "unexpected", "duplicated")}
    assert (proof["rows_found"], found) == (rows, {"missing": 0, "unexpected": 0, "duplicated": 0})
    assert proof["recall"] >= 0.95
    index = night.index()
    assert index.alias_target(night.alias) == result["collection"]
    assert index.count(night.alias) == rows
    index.close()


def test_spark_stages_through_s3a_and_no_data_node_gets_more_than_a_fifth_above_its_share(
    night: Night, cluster: MilvusCluster
) -> None:
    nodes = ("datanode-1", "datanode-2")
    before = [cluster.metric(node, "milvus_datanode_flush_buffer_op_count") for node in nodes]
    result = night.run("r1", ROWS)
    exact(night, result)
    assert result["files"] == 8
    after = [cluster.metric(node, "milvus_datanode_flush_buffer_op_count") for node in nodes]
    work = np.array(after) - np.array(before)
    print(f"\nimport spread over data nodes: {work.tolist()}, at most {work.max() / work.mean():.2f} x the mean")
    assert work.max() <= 1.2 * work.mean()


@pytest.mark.parametrize(("role", "sign"), [("datanode-1", IMPORTING), ("querynode-1", "index: started")])
def test_a_node_is_killed(night: Night, cluster: MilvusCluster, role: str, sign: str) -> None:
    process = night.start("r1", ROWS)
    night.until(sign, "r1")
    time.sleep(1.5)
    cluster.kill(role)
    time.sleep(15)
    cluster.start_one(role)
    exact(night, night.finish(process))


def test_a_data_node_is_killed_and_stays_away(night: Night, cluster: MilvusCluster) -> None:
    process = night.start("r1", ROWS)
    night.until(IMPORTING, "r1")
    time.sleep(1.5)
    cluster.kill("datanode-2")
    exact(night, night.finish(process, timeout=560))


def test_the_object_store_goes_and_comes_back(night: Night, cluster: MilvusCluster) -> None:
    process = night.start("r1", ROWS)
    night.until(IMPORTING, "r1")
    time.sleep(1)
    cluster.kill("s3")
    time.sleep(10)
    cluster.start_one("s3")
    exact(night, night.finish(process, timeout=560))


@pytest.mark.parametrize("seconds", [0.5, 3.0, 6.0])
def test_the_driver_is_killed_and_the_run_resumed(night: Night, seconds: float) -> None:
    process = night.start("r1", ROWS)
    night.until(IMPORTING, "r1")
    time.sleep(seconds)
    night.kill(process)
    exact(night, night.run("r1", ROWS))


@pytest.mark.parametrize("spoil", ["nan", "twice"])
def test_faces_that_milvus_would_take_are_refused_while_staging(night: Night, spoil: str) -> None:
    process = night.start("r1", 10_000, "--spoil", spoil)
    process.communicate(timeout=180)
    assert process.returncode == 4
    reason = {"nan": "1 of 10000 faces are unusable (NOT_FINITE)", "twice": "1 keys stand twice"}[spoil]
    assert reason in (night.folder / "r1.log").read_text()
    assert not night.index().exists(collection_name(night.alias, "r1"))


def test_staged_files_that_changed_are_refused_before_their_import(night: Night) -> None:
    """Flipped, truncated, or another in its place, whose rows would come twice."""
    night.run("r1", ROWS, "--until", "stage")
    target, other, *_ = night.staged()
    whole = target.read_bytes()
    middle = len(whole) // 2
    changes = {
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "truncated": whole[:middle],
        "duplicate": other.read_bytes(),
    }
    index, collection = night.index(), collection_name(night.alias, "r1")
    for kind, content in changes.items():
        target.write_bytes(content)
        process = night.start("r1", ROWS)
        process.communicate(timeout=300)
        assert process.returncode == 4, kind
        assert f"{target.name}) is not the file that was staged" in (night.folder / "r1.log").read_text()
        assert not any(target.name in path for job in index.list_imports(collection) for path in job.files), kind
        (night.folder / "r1.log").unlink()
    target.write_bytes(whole)
    exact(night, night.run("r1", ROWS))
    index.close()


def test_deletes_that_race_an_import_are_repeated_after_it(night: Night) -> None:
    """Milvus may drop a delete that meets an import (milvus #48472); afterwards it holds."""
    process = night.start("r1", ROWS, "--until", "index")
    night.until(IMPORTING, "r1")
    index, collection = night.index(), collection_name(night.alias, "r1")
    keys = night.keys()[:100]
    tried = 0
    while process.poll() is None:
        with contextlib.suppress(FaceReindexError):
            index.delete(collection, keys)
            tried += 1
        time.sleep(0.3)
    night.finish(process)
    index.load(collection, timeout=120)
    survived = index.count_ids(collection, keys)
    print(f"\n{tried} deletes raced the import; {survived} of {len(keys)} rows were there after it")
    index.delete(collection, keys)
    assert index.count_ids(collection, keys) == 0
    assert index.count(collection) == ROWS - len(keys)
    index.close()
