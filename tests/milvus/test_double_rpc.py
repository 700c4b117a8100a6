"""The double's segments, compactions, flushes and indexes over gRPC, asked by pymilvus: known from source, not run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from jobs.index.milvus.calls import prepare_pymilvus
from tests.milvus.asking import LATER, NAME, OTHER, ROWS, Asking, asking, keys_of, versions
from tests.milvus.rows import DIM
from tests.milvus.servers.facts import shows
from tests.milvus.servers.store import Collection

pytestmark = pytest.mark.unit

KEYS = keys_of()
GONE = KEYS[:4]
"""A tenth of the rows: less than what starts a compaction by itself."""


@contextmanager
def connected(ask: Asking) -> Iterator[MilvusClient]:
    prepare_pymilvus()
    client = MilvusClient(ask.double.uri, timeout=10)
    try:
        yield client
    finally:
        client.close()


def filled(ask: Asking) -> Collection:
    """A collection with one imported segment."""
    there = ask.collection()
    ask.create(ask.file())
    ask.skip(LATER)
    return there


def levels(client: MilvusClient) -> list[int]:
    """Levels of persistent segments, as the protocol counts them: 1 is L0, 2 is L1."""
    return sorted(segment.level for segment in client.list_persistent_segments(NAME))


def compact(ask: Asking, client: MilvusClient, **how: Any) -> tuple[int, Any]:
    """Id of a compaction and its state when its time is over."""
    job = client.compact(NAME, **how)
    ask.skip(3.0)
    return job, client._get_connection().get_compaction_state(job)


@versions()
@shows("deletes-in-l0", "manual-leaves-l0", "segments-with-level", "plans-counted")
def test_a_compaction_by_hand_rewrites_rows_without_new_deletes(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        there = filled(ask)
        client.delete(NAME, ids=GONE.tolist())
        # What is deleted and not flushed stands in no persistent segment at all.
        assert levels(client) == [2]
        client.flush(NAME)
        assert levels(client) == [1, 2]
        job, state = compact(ask, client)
        assert job > 0
        assert (state.state_name, state.completed) == ("Completed", 1)
        assert len(there.seen()["face_id"]) == ROWS - len(GONE)
        assert there.stored(GONE) == len(GONE)
        assert levels(client) == [1, 2]


@versions()
@shows("compaction-by-id")
def test_2_4_compacts_every_collection_where_one_is_named_and_not_numbered(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        filled(ask)
        other = ask.collection(OTHER)
        ask.create(ask.file(), name=OTHER)
        ask.skip(LATER)
        before = other.segments[0].number
        compact(ask, client)
        assert (other.segments[0].number != before) == (version == "2.4.13")


@versions(has="l0-by-hand")
@shows("l0-by-hand", "deletes-in-l0")
def test_l0_by_hand_and_then_a_compaction_take_the_rows_away(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        there = filled(ask)
        client.delete(NAME, ids=GONE.tolist())
        client.flush(NAME)
        compact(ask, client, is_l0=True)
        assert levels(client) == [2]
        assert there.stored(GONE) == len(GONE)
        compact(ask, client)
        assert there.stored(GONE) == 0
        assert sorted(there.seen()["face_id"].tolist()) == sorted(KEYS[4:].tolist())


@versions(lacks="l0-by-hand")
@shows("l0-by-hand")
def test_before_2_6_3_a_wish_for_l0_is_not_understood(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        filled(ask)
        client.delete(NAME, ids=GONE.tolist())
        client.flush(NAME)
        compact(ask, client, is_l0=True)
        assert levels(client) == [1, 2]


@versions()
@shows("l0-when-idle")
def test_l0_goes_by_itself_half_a_minute_after_the_last_delete(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        there = filled(ask)
        client.delete(NAME, ids=GONE.tolist())
        client.flush(NAME)
        ask.skip(25)
        assert levels(client) == [1, 2]
        ask.skip(10)
        assert levels(client) == [2]
        assert there.stored(GONE) == len(GONE)
        compact(ask, client)
        assert there.stored(GONE) == 0


@versions(has="l0-by-hand")
@shows("l0-behind-growing")
def test_before_2_6_8_l0_stays_behind_rows_that_are_not_flushed(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        there = filled(ask)
        ask.core.store.write(there, {name: column[:1] for name, column in there.seen().items()})
        ask.core.store.delete(there, GONE)
        there.at_level("L0")[0].flushed = True
        assert (client.compact(NAME, is_l0=True) == -1) == (version == "2.6.7")
        client.flush(NAME)
        ask.core.store.delete(there, GONE)
        there.at_level("L0")[-1].flushed = True
        assert client.compact(NAME, is_l0=True) > 0


@versions()
@shows("rewritten-by-share")
def test_a_segment_of_which_a_fifth_is_deleted_is_rewritten_by_itself(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        there = filled(ask)
        client.delete(NAME, ids=KEYS[: ROWS // 5].tolist())
        client.flush(NAME)
        ask.skip(40)
        ask.skip(1)
        assert there.stored(KEYS[: ROWS // 5]) == 0


@versions()
@shows("no-plan-no-job", "completed-whatever")
def test_a_compaction_without_a_plan_has_no_job_and_is_completed(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        ask.collection()
        job, state = compact(ask, client)
        assert (job, state.state_name) == (-1, "Completed")
        assert (state.in_executing, state.in_timeout, state.completed) == (0, 0, 0)


@versions()
@shows("completed-whatever", "plans-counted")
def test_a_compaction_whose_plans_failed_is_completed(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        filled(ask)
        ask.core.faults.add("compaction", "fail")
        job = client.compact(NAME)
        assert client.get_compaction_state(job) == "Executing"
        ask.skip(3.0)
        assert client.get_compaction_state(job) == "Completed"
        assert ask.core.compactions.count(job, "failed") == 1
        assert client._get_connection().get_compaction_state(job).completed == 0


@versions()
@shows("flush-rate", "flush-asked-again")
def test_a_collection_is_flushed_once_in_ten_seconds(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        ask.collection()
        client.flush(NAME)
        with pytest.raises(MilvusException, match="rate limit") as caught:
            client.flush(NAME, timeout=4)
        assert caught.value.code == 8
        # pymilvus asked more than once.
        assert ask.core.calls.count("Flush") > 2
        ask.core.clock.skip(10.1)
        client.flush(NAME)


@versions()
@shows("cagra-without-cosine")
def test_2_4_refuses_cagra_by_cosine(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        ask.collection()
        params = client.prepare_index_params()
        params.add_index("embedding", index_type="GPU_CAGRA", metric_type="COSINE")
        if version == "2.4.13":
            with pytest.raises(MilvusException, match="metric type"):
                client.create_index(NAME, params, sync=False)
        else:
            client.create_index(NAME, params, sync=False)
            assert client.list_indexes(NAME) != []


@versions()
@shows("cagra-of-float32", "cagra-without-bfloat16")
def test_cagra_is_built_over_float16_from_2_5_on_and_never_over_bfloat16(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        params = client.prepare_index_params()
        params.add_index("embedding", index_type="GPU_CAGRA", metric_type="IP")
        for kind, refused in (("Float16Vector", version == "2.4.13"), ("BFloat16Vector", True), ("FloatVector", False)):
            ask.collection(kind, kind=kind)
            if refused:
                with pytest.raises(MilvusException, match=f"{kind} can't build with this index GPU_CAGRA"):
                    client.create_index(kind, params, sync=False)
            else:
                client.create_index(kind, params, sync=False)
            others = client.prepare_index_params()
            others.add_index("embedding", index_type="IVF_SQ8", metric_type="COSINE", params={"nlist": 16})
            client.create_index(kind, others, sync=False)


@versions()
@pytest.mark.parametrize("kind", ["Float16Vector", "BFloat16Vector"])
@shows(
    "half-insert-floats-refused", "half-insert-floats-taken", "half-insert-finite", "half-search-refused",
    "half-search-converted",
)  # fmt: skip
def test_vectors_of_16_bits_travel_as_bytes(version: str, kind: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        there = ask.collection(kind=kind)
        zeros = dict.fromkeys(("bucket", "purposes", "expires_at"), 0)

        def write(key: int, vector: bytes | list[float]) -> None:
            client.upsert(NAME, [{"face_id": key, "embedding": vector, **zeros}], timeout=10)

        # 1 in both types: their exponents have 5 and 8 bits.
        one = {"Float16Vector": b"\x00\x3c", "BFloat16Vector": b"\x80\x3f"}[kind]
        write(1, one + b"\0" * (2 * DIM - 2))
        with pytest.raises(MilvusException, match="nan or infinity"):
            write(2, b"\xff\xff" * DIM)
        floats = [1.0] + [0.0] * (DIM - 1)
        if version.startswith("3."):
            write(3, floats)
            write(1, floats)
        else:
            with pytest.raises(MilvusException, match="is illegal"):
                write(3, floats)
        assert there.seen()["embedding"][0].tobytes()[:2] == one
        params = client.prepare_index_params()
        params.add_index("embedding", index_type="FLAT", metric_type="COSINE")
        client.create_index(NAME, params, sync=False)
        client.load_collection(NAME)
        # pymilvus asks the schema for the type of bytes where the field is named, and takes them for bits otherwise.
        how = {"anns_field": "embedding", "limit": 1, "search_params": {"metric_type": "COSINE"}}
        found = client.search(NAME, [one + b"\0" * (2 * DIM - 2)], **how)
        assert found[0][0]["distance"] == 1
        if version in ("2.6.24", "3.0.0", "3.0.2"):
            assert client.search(NAME, [floats], **how)[0][0]["distance"] == 1
        else:
            with pytest.raises(MilvusException, match="vector type must be the same"):
                client.search(NAME, [floats], **how)


@versions()
def test_rows_are_counted_found_and_counted_again_after_a_restart(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask, connected(ask) as client:
        filled(ask)
        params = client.prepare_index_params()
        params.add_index("embedding", index_type="FLAT", metric_type="COSINE")
        client.create_index(NAME, params, sync=False)
        with pytest.raises(MilvusException, match="not loaded"):
            client.query(NAME, filter="", output_fields=["count(*)"])
        client.load_collection(NAME)
        ask.double.restart()
        for expression, rows in (
            ("", ROWS),
            (f"face_id in [{KEYS[0]},{KEYS[1]},12]", 2),
            (f"face_id >= {np.sort(KEYS)[10]} and face_id < {np.sort(KEYS)[13]}", 3),
        ):
            (found,) = client.query(NAME, filter=expression, output_fields=["count(*)"])
            assert found["count(*)"] == rows
        with pytest.raises(MilvusException, match="cannot parse"):
            client.query(NAME, filter="face_id like 3", output_fields=["face_id"])
        (row,) = client.query(NAME, filter=f"face_id in [{KEYS[3]}]", output_fields=["face_id", "embedding"])
        found = client.search(NAME, data=[row["embedding"]], limit=2, search_params={"metric_type": "COSINE"})
        assert found[0][0]["face_id"] == KEYS[3]


@versions()
@shows("not-now")
def test_a_server_that_starts_says_that_it_is_not_ready(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        job = ask.create(ask.file())
        ask.double.restart(starting_s=5.0)
        assert ask.code("describe", {"jobId": job}) == 1
        ask.core.clock.skip(6.0)
        assert ask.job(job)["state"] == "Importing"
