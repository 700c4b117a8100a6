"""The double refuses what servers refuse, over HTTP: known from source, not run.

Each test names the facts that it shows (`tests/milvus/servers/facts.py`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import requests

from tests.milvus.asking import HOUR, LATER, NAME, OTHER, ROWS, SOON, asking, keys_of, versions
from tests.milvus.rows import DIM, make_keys, make_table, make_vectors
from tests.milvus.servers.facts import shows
from tests.milvus.servers.faults import CUT, LATE, LOST
from tests.milvus.servers.rest import PREFIX

pytestmark = pytest.mark.unit


# -- requests and answers ----------------------------------------------------------------------------------------------


@versions()
@shows("string-values", "errors-in-200")
def test_a_body_of_other_types_is_refused(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        for body in (
            {"collectionName": NAME, "files": ["a.parquet"]},
            {"collectionName": NAME, "files": [["a.parquet"]], "options": {"auto_commit": False}},
        ):
            assert ask.code("create", body) == 1801
        assert ask.code("describe", {"jobId": 7}) == 1801
        assert ask.code("describe", {}) == 1802
        assert ask.code("create", {"collectionName": NAME}) == 1802


@versions()
@shows("describe", "unknown-route")
def test_routes_that_are_not_there_answer_404_without_json(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        job = ask.create(ask.file())
        assert ask.post("describe", {"jobId": job}) == ask.post("get_progress", {"jobId": job})
        assert ask.post("no_such_route", {"jobId": job}) == (404, "404 page not found")
        assert requests.get(f"{ask.double.rest_uri}{PREFIX}list", timeout=10).status_code == 404


@versions(lacks="two-phases")
@shows("unknown-route")
def test_before_3_0_there_is_no_commit_and_no_abort(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        job = ask.create(ask.file(), auto_commit="false")
        for route in ("commit", "abort"):
            assert ask.post(route, {"jobId": job})[0] == 404
        ask.skip(LATER)
        assert ask.job(job)["state"] == "Completed"


@versions(has="timeout-as-text")
@shows("timeout-as-text")
def test_a_late_answer_of_2_4_is_408_in_text(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        ask.core.faults.add("create", LATE)
        body = {"collectionName": NAME, "files": [[ask.file()]]}
        assert ask.post("create", body) == (408, "timeout")
        assert len(ask.core.imports.jobs) == 1


@versions(has="timeout-as-json")
@shows("timeout-as-json")
def test_a_late_answer_is_408_in_json_and_the_job_is_there(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        ask.core.faults.add("create", LATE)
        status, content = ask.post("create", {"collectionName": NAME, "files": [[ask.file()]]})
        assert (status, content["code"]) == (408, 10001)
        assert len(ask.core.imports.jobs) == 1


@versions()
@shows("timeout-by-header")
def test_a_header_says_how_long_a_call_may_take(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        ask.core.slow_s = 40.0
        assert ask.post("list", {})[0] == 408
        assert ask.post("list", {}, Request_Timeout="55")[0] == 200


@versions()
@shows("not-now", "errors-in-200")
def test_not_now_comes_with_http_200(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        ask.core.faults.add("list", "not ready", "unavailable", "rate limited")
        codes = [ask.code("list", {"collectionName": NAME}) for _ in range(4)]
        assert codes == [1, 2, 8, 0]


@versions()
def test_an_answer_can_be_lost_and_a_request_cut(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        for word, jobs in ((CUT, 0), (LOST, 1)):
            ask.core.faults.add("create", word)
            with pytest.raises(requests.ConnectionError):
                ask.create(ask.file())
            assert len(ask.core.imports.jobs) == jobs


# -- jobs --------------------------------------------------------------------------------------------------------------


@versions()
@shows("details-after-preimport", "file-name-in-brackets", "progress-by-stage", "list-without-files")
def test_a_job_tells_of_its_files_only_after_preimport(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        there, path = ask.collection(), ask.file()
        job = ask.create(path)
        young = ask.job(job)
        assert (young["state"], young["progress"], young["details"], young["totalRows"]) == ("Pending", 0, [], 0)
        ask.skip(SOON)
        young = ask.job(job)
        assert (young["state"], young["details"], young["totalRows"]) == ("Importing", [], 0)
        assert 10 <= young["progress"] < 40
        ask.skip(SOON)
        older = ask.job(job)
        assert 40 <= older["progress"] < 70
        assert [detail["fileName"] for detail in older["details"]] == [f"[{path}]"]
        assert 0 < older["importedRows"] < older["totalRows"] == ROWS
        assert len(there.seen()["face_id"]) == 0
        ask.skip(LATER)
        done = ask.job(job)
        assert (done["state"], done["progress"], done["importedRows"]) == ("Completed", 100, ROWS)
        assert sorted(there.seen()["face_id"].tolist()) == sorted(keys_of().tolist())
        (record,) = ask.post("list", {"collectionName": NAME})[1]["data"]["records"]
        assert record == {"jobId": job, "collectionName": NAME, "state": "Completed", "progress": 100}


@versions()
@shows("errors-in-200")
def test_a_list_is_of_one_collection_or_of_all(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        ask.collection(OTHER)
        ask.create(ask.file())
        for body, jobs in (({"collectionName": NAME}, 1), ({"collectionName": OTHER}, 0), ({}, 1)):
            assert len(ask.post("list", body)[1]["data"]["records"]) == jobs
        assert ask.code("list", {"collectionName": "nobodys"}) == 100


@versions(has="forgotten-after-3h")
@shows("forgotten-after-3h", "unknown-job-2100", "unknown-job-2101")
def test_a_job_is_forgotten_three_hours_after_its_end(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        there = ask.collection()
        job = ask.create(ask.file())
        ask.skip(LATER)
        ask.skip(2.9 * HOUR)
        assert ask.job(job)["state"] == "Completed"
        ask.skip(0.2 * HOUR)
        assert ask.code("describe", {"jobId": job}) == ask.core.profile.unknown_job
        assert ask.post("list", {"collectionName": NAME})[1]["data"]["records"] == []
        assert len(there.seen()["face_id"]) == ROWS


@versions(has="forgotten-after-24h")
@shows("forgotten-after-24h", "unknown-job-2101")
def test_a_job_of_a_newer_server_is_forgotten_after_a_day(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        job = ask.create(ask.file())
        ask.skip(LATER)
        ask.skip(23 * HOUR)
        assert ask.job(job)["state"] == "Completed"
        ask.skip(2 * HOUR)
        assert ask.code("describe", {"jobId": job}) == 2101


@versions()
@shows("deadline-by-option")
def test_a_deadline_ends_a_job_that_runs_and_its_rows_do_not_come(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        there, path = ask.collection(), ask.file()
        body = {"collectionName": NAME, "files": [[path]], "options": {"timeout": "90"}}
        assert ask.code("create", body) == 2100
        ask.core.imports.pace.importing = 2 * HOUR
        job = ask.create(path, timeout="1h30m")
        ask.skip(1.4 * HOUR)
        assert ask.job(job)["state"] == "Importing"
        ask.skip(0.2 * HOUR)
        assert (ask.job(job)["state"], ask.job(job)["reason"]) == ("Failed", "import timeout")
        ask.skip(HOUR)
        assert there.stored(keys_of()) == 0


@versions(has="deadline-fails-completed")
@shows("deadline-fails-completed")
def test_before_2_6_7_a_deadline_takes_away_what_was_imported_before_it(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        there = ask.collection()
        job = ask.create(ask.file(), timeout="1h")
        ask.skip(LATER)
        assert (ask.job(job)["state"], len(there.seen()["face_id"])) == ("Completed", ROWS)
        ask.skip(HOUR)
        assert (ask.job(job)["state"], ask.job(job)["reason"]) == ("Failed", "import timeout")
        assert (len(there.seen()["face_id"]), there.stored(keys_of())) == (0, 0)
        # One that is so far off that the job is forgotten before it does no harm.
        ask.create(ask.file(), timeout="4h")
        ask.skip(LATER)
        ask.skip(5 * HOUR)
        assert len(there.seen()["face_id"]) == ROWS


@versions(lacks="deadline-fails-completed")
@shows("deadline-fails-completed")
def test_from_2_6_7_on_what_is_completed_stays(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        there = ask.collection()
        job = ask.create(ask.file(), timeout="1h")
        ask.skip(LATER)
        ask.skip(1.5 * HOUR)
        assert (ask.job(job)["state"], len(there.seen()["face_id"])) == ("Completed", ROWS)


@versions()
@shows("jobs-of-a-dropped-collection")
def test_the_jobs_of_a_dropped_collection_fail(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        job = ask.create(ask.file())
        ask.core.store.drop("default", NAME)
        assert ask.job(job)["state"] == "Failed"
        assert ask.job(job)["reason"].endswith("dropped")


@versions()
@shows("files-a-request", "no-files", "file-types")
def test_files_are_counted_and_judged_by_their_ending(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        for files, code in (
            ([["/a.parquet"]] * 1024, 0),
            ([["/a.parquet"]] * 1025, 2100),
            ([[]], 1100),
            ([["/a.txt"]], 2100),
            ([["/a.parquet", "/b.parquet"]], 2100),
        ):
            assert ask.code("create", {"collectionName": NAME, "files": files}) == code, files[:1]


@versions()
@shows("jobs-at-once")
def test_jobs_that_run_are_counted(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        ask.core.imports.max_jobs = 1
        ask.create(path := ask.file())
        counted = ask.core.profile.has("jobs-at-once")
        code = ask.code("create", {"collectionName": NAME, "files": [[path]]})
        assert code == (ask.core.profile.unknown_job if counted else 0)
        ask.skip(LATER)
        ask.create(path)


@versions()
@shows("file-bytes")
def test_a_file_that_is_too_large_fails_its_job(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        assert ask.core.imports.max_bytes == 16 * 2**30
        ask.core.imports.max_bytes = 100
        job = ask.create(ask.file())
        ask.skip(LATER)
        told = ask.job(job)
        assert told["state"] == "Failed"
        assert "maximum limit" in told["reason"]
        assert told["details"] == []


@versions()
@shows("paths-as-given")
def test_a_path_is_taken_as_it_is_given(version: str, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    (bucket / "staging").mkdir(parents=True)
    with asking(version, bucket / "staging", bucket=bucket) as ask:
        there = ask.collection()
        ask.file("a.parquet")
        jobs = [ask.create(path) for path in ("staging/a.parquet", "s3a://bucket/staging/a.parquet", "no.parquet")]
        ask.skip(LATER)
        assert [ask.job(job)["state"] for job in jobs] == ["Completed", "Failed", "Failed"]
        assert len(there.seen()["face_id"]) == ROWS


@versions(has="paths-confined")
@shows("paths-confined")
def test_a_newer_server_refuses_its_own_folders_and_relative_paths(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        for path in ("/var/lib/milvus/insert_log/1/2.parquet", "a.parquet"):
            assert ask.code("create", {"collectionName": NAME, "files": [[path]]}) == 2100


# -- Parquet -----------------------------------------------------------------------------------------------------------


def fails(version: str, folder: Path, table: pa.Table, kind: str = "FloatVector") -> str:
    """Why an import of a table into a collection with vectors of a kind fails; empty where it does not."""
    with asking(version, folder) as ask:
        ask.collection(kind=kind)
        job = ask.create(ask.file("odd.parquet", table))
        ask.skip(LATER)
        told = ask.job(job)
        assert told["state"] in ("Failed", "Completed")
        return str(told.get("reason", ""))


def changed(name: str, column: pa.Array) -> pa.Table:
    table = make_table(make_keys(ROWS), make_vectors(ROWS))
    return table.set_column(table.column_names.index(name), name, column)


FIXED = pa.FixedSizeListArray.from_arrays(pa.array(make_vectors(ROWS).ravel()), DIM)


@versions()
@shows("parquet-types", "parquet-length")
def test_columns_of_other_types_or_lengths_fail_the_job(version: str, tmp_path: Path) -> None:
    whole = make_table(make_keys(ROWS), make_vectors(ROWS))
    assert fails(version, tmp_path, whole) == ""
    assert fails(version, tmp_path, changed("bucket", pa.array(np.ones(ROWS, np.int32)))) == ""
    doubles = pa.array(make_vectors(ROWS).astype(np.float64).tolist(), pa.list_(pa.float64()))
    assert fails(version, tmp_path, changed("embedding", doubles)) == ""
    for table, why in (
        (whole.drop_columns(["purposes"]), "'purposes' not in arrow schema"),
        (changed("bucket", pa.array(np.ones(ROWS))), "'bucket' type mis-match"),
        (changed("bucket", pa.array(np.ones(ROWS, np.uint32))), "'bucket' type mis-match"),
        (changed("embedding", pa.array(["x"] * ROWS)), "'embedding' type mis-match"),
        (make_table(make_keys(ROWS), make_vectors(ROWS, DIM // 2)), f"expected {DIM} but got {DIM // 2}"),
    ):
        assert why in fails(version, tmp_path, table)


@versions()
@shows("parquet-extra-refused", "parquet-extra-ignored")
def test_a_further_column_fails_the_job_before_2_6(version: str, tmp_path: Path) -> None:
    table = make_table(make_keys(ROWS), make_vectors(ROWS)).append_column("more", pa.array([0] * ROWS))
    refused = version in ("2.4.13", "2.5")
    assert ("more is not in schema" in fails(version, tmp_path, table)) == refused


@versions()
@shows("parquet-fixed-refused", "parquet-fixed-taken")
def test_a_list_of_fixed_size_is_taken_from_2_6_17_on(version: str, tmp_path: Path) -> None:
    refused = version in ("2.4.13", "2.5", "2.6.0", "2.6.7")
    assert ("type mis-match" in fails(version, tmp_path, changed("embedding", FIXED))) == refused


@versions()
@pytest.mark.parametrize("kind", ["Float16Vector", "BFloat16Vector"])
@shows("half-parquet-bytes", "half-parquet-length", "half-parquet-floats-refused", "half-parquet-floats-taken")
def test_vectors_of_16_bits_come_as_bytes(version: str, kind: str, tmp_path: Path) -> None:
    numbers = np.zeros((ROWS, 2 * DIM), np.uint8)
    lists = pa.array(numbers.tolist(), pa.list_(pa.uint8()))
    assert fails(version, tmp_path, changed("embedding", pa.array([row.tobytes() for row in numbers])), kind) == ""
    assert fails(version, tmp_path, changed("embedding", lists), kind) == ""
    short = pa.array(numbers[:, 1:].tolist(), pa.list_(pa.uint8()))
    assert f"expected {2 * DIM}" in fails(version, tmp_path, changed("embedding", short), kind)
    # Two rows of bytes that are too long and too short by as much: the server sees nothing.
    uneven = [b"\0" * (2 * DIM + 2), b"\0" * (2 * DIM - 2), *[b"\0" * 2 * DIM] * (ROWS - 2)]
    assert fails(version, tmp_path, changed("embedding", pa.array(uneven)), kind) == ""
    floats = fails(version, tmp_path, make_table(make_keys(ROWS), make_vectors(ROWS)), kind)
    assert ("type mis-match" in floats) == (not version.startswith("3."))
    assert "type mis-match" in fails(version, tmp_path, changed("embedding", pa.array([numbers[0].tobytes()] * ROWS)))


@versions()
def test_what_is_no_parquet_fails_the_job(version: str, tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with asking(version, tmp_path) as ask:
        ask.collection()
        job = ask.create(str(tmp_path / "bad.parquet"))
        ask.skip(LATER)
        assert "parquet" in ask.job(job)["reason"]


# -- two phases --------------------------------------------------------------------------------------------------------


@versions(has="two-phases")
@shows("two-phases", "commit-conditions")
def test_rows_are_invisible_until_they_are_committed(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        there = ask.collection()
        job = ask.create(ask.file(), auto_commit="false")
        assert ask.code("commit", {"jobId": job}) == 2100
        ask.skip(LATER)
        assert ask.job(job)["state"] == "Uncommitted"
        assert ask.job(job)["importedRows"] == ROWS
        assert len(there.seen()["face_id"]) == 0
        assert [ask.code("commit", {"jobId": job}) for _ in range(2)] == [0, 0]
        assert ask.job(job)["state"] == "Committing"
        ask.skip(LATER)
        assert ask.job(job)["state"] == "Completed"
        assert len(there.seen()["face_id"]) == ROWS
        assert ask.code("commit", {"jobId": job}) == 0
        assert ask.code("commit", {"jobId": "4711"}) == 2101
        assert ask.code("commit", {"jobId": "x"}) == 1100


@versions(has="two-phases")
@shows("two-phases", "abort-conditions", "commit-conditions")
def test_what_is_aborted_does_not_come_and_what_is_committed_stays(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        there = ask.collection()
        young, ready, whole = (ask.create(ask.file(), auto_commit="false") for _ in range(3))
        assert ask.code("abort", {"jobId": young}) == 0
        ask.skip(LATER)
        assert ask.code("commit", {"jobId": whole}) == 0
        assert [ask.code("abort", {"jobId": job}) for job in (ready, ready, whole)] == [0, 0, 2100]
        assert ask.code("commit", {"jobId": ready}) == 2100
        ask.skip(LATER)
        assert [ask.job(job)["state"] for job in (young, ready, whole)] == ["Failed", "Failed", "Completed"]
        assert ask.job(young)["reason"] == "aborted by user"
        assert len(there.seen()["face_id"]) == ROWS
        assert ask.code("abort", {"jobId": "4711"}) == 2101


@versions(has="two-phases")
@shows("two-phases", "abort-conditions", "commit-conditions")
def test_a_job_that_commits_by_itself_is_left_alone(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        job = ask.create(ask.file())
        assert ask.code("abort", {"jobId": job}) == 2100
        ask.core.imports.pace.committing = HOUR
        ask.skip(LATER)
        assert ask.job(job)["state"] == "Importing"
        assert ask.code("abort", {"jobId": job}) == 2100
        ask.skip(HOUR)
        assert ask.job(job)["state"] == "Completed"


# -- keys --------------------------------------------------------------------------------------------------------------


@versions(has="key-header")
@shows("key-header", "key-scope", "key-not-payload", "key-of-a-failed-job", "key-form", "key-for-24h")
def test_a_key_makes_a_second_request_the_same_job(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        ask.collection(OTHER)
        path = ask.file()
        job = ask.create(path, key="run-1")
        assert ask.create(ask.file("b.parquet"), key="run-1") == job
        assert len({job, ask.create(path, key="run-2"), ask.create(path, key="run-1", name=OTHER)}) == 3
        body = {"collectionName": NAME, "files": [[path]]}
        assert ask.code("create", body, Idempotency_Key="x" * 257) == 1100
        ask.core.faults.add("job", "fail")
        failed = ask.create(path, key="run-3")
        ask.skip(LATER)
        assert ask.job(failed)["state"] == "Failed"
        assert ask.create(path, key="run-3") == failed
        ask.skip(24.5 * HOUR)
        assert ask.create(path, key="run-1") != job


@versions(has="key-header")
@shows("key-of-a-forgotten-job")
def test_a_key_whose_job_is_forgotten_is_refused(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        path = ask.file()
        job = ask.create(path, key="run-1")
        del ask.core.imports.jobs[int(job)]
        body = {"collectionName": NAME, "files": [[path]]}
        assert ask.code("create", body, Idempotency_Key="run-1") != 0


@versions(lacks="key-header")
@shows("key-header")
def test_an_older_server_ignores_a_key(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        path = ask.file()
        assert ask.create(path, key="run-1") != ask.create(path, key="run-1")


# -- a cluster that replicates -----------------------------------------------------------------------------------------


@versions(has="no-import-under-replication")
@shows("no-import-under-replication", "no-auto-commit-under-replication")
def test_a_cluster_that_replicates_refuses_imports(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        ask.collection()
        ask.core.imports.replicating = True
        body = {"collectionName": NAME, "files": [[ask.file()]]}
        two_phases = body | {"options": {"auto_commit": "false"}}
        assert ask.code("create", two_phases) == 3000
        ask.core.imports.allowed_when_replicating = True
        assert ask.code("create", body) == 3000
        assert ask.code("create", two_phases) == (0 if ask.core.profile.has("two-phases") else 3000)
