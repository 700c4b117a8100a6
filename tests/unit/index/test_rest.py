"""Imports over REST, against a local server that answers as Milvus's source says. Known from source, not run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.errors import DependencyUnavailable, FaceReindexError, NotPermitted, SettingsError
from jobs.index.milvus import rest as rest_module
from jobs.index.milvus.import_api import RestImportApi
from jobs.index.milvus.rest import Refused
from jobs.index.milvus.server import ServerIndex
from jobs.index.milvus.versions import detect
from jobs.settings import Settings
from tests.unit.index.rest_server import CUT, RestServer, ok, refused, serving

pytestmark = pytest.mark.unit

TOKEN = "loads:S3cret-Of-Nobody"  # noqa: S105 -- nobody has it


@pytest.fixture
def rest() -> Iterator[RestServer]:
    with serving() as server:
        yield server


def imports(rest: RestServer, version: str = "2.6.7", token: str = TOKEN, **milvus: Any) -> RestImportApi:
    settings = Settings.model_validate(
        {"milvus": {"uri": rest.uri, "database": "faces_db", "ready_timeout_s": 2.0, **milvus}}
    )
    return RestImportApi(settings, token, detect(version))


def job(state: str, rows: int = 0, *files: str, **more: Any) -> tuple[int, dict[str, Any]]:
    details = [{"fileName": f"[{file}]"} for file in files]
    return ok(state=state, importedRows=rows, progress=50, details=details, **more)


def test_every_call_names_the_database_in_its_header(rest: RestServer) -> None:
    """describe, commit and abort ignore what their body says of it."""
    rest.say("create", ok(jobId="448"))
    rest.say("describe", job("Completed", 7, "a/1.parquet"))
    rest.say("list", ok(records=[{"jobId": "448", "state": "Completed"}]))
    for action in ("commit", "abort"):
        rest.say(action, ok())
    api = imports(rest, "3.0.2")
    assert api.start("faces_r1", ["a/1.parquet", "a/2.parquet"], "key") == "448"
    (found,) = api.list("faces_r1")
    assert (found.state, found.rows, found.files) == ("done", 7, ("a/1.parquet",))
    api.commit("448")
    api.abort("448")
    assert rest.actions() == ["create", "list", "describe", "commit", "abort"]
    assert {request.headers["db-name"] for request in rest.asked} == {"faces_db"}
    assert {request.body["dbName"] for request in rest.asked} == {"faces_db"}
    assert {request.headers["authorization"] for request in rest.asked} == {f"Bearer {TOKEN}"}
    create = rest.asked[0]
    assert create.body["files"] == [["a/1.parquet"], ["a/2.parquet"]]
    assert create.body["options"] == {"auto_commit": "false"}
    assert create.headers["idempotency-key"] == "key"


def test_no_deadline_is_given_to_a_job(rest: RestServer) -> None:
    """Before 2.6.7 it fails a job that is complete as well, and its rows go."""
    rest.say("create", ok(jobId="448"))
    imports(rest, "2.5.27").start("faces_r1", ["a/1.parquet"], "")
    assert "options" not in rest.asked[0].body
    assert int(rest.asked[0].headers["request-timeout"]) > 30


@pytest.mark.parametrize(("version", "action"), [("2.4.12", "get_progress"), ("2.4.13", "describe")])
def test_a_job_is_asked_about_by_the_route_that_the_release_has(rest: RestServer, version: str, action: str) -> None:
    rest.say(action, job("Importing", 3))
    assert imports(rest, version).state("448").state == "running"


@pytest.mark.parametrize("code", [2100, 2101])
def test_a_job_that_is_forgotten_is_unknown_and_no_error(rest: RestServer, code: int) -> None:
    rest.say("describe", refused(code, "import job does not exist, jobID=448: importing data failed"))
    assert imports(rest).state("448").state == "unknown"


def test_a_young_job_names_no_files(rest: RestServer) -> None:
    rest.say("describe", ok(state="Importing", progress=10))
    found = imports(rest).state("448")
    assert (found.state, found.files) == ("running", ())


def test_the_reason_of_a_failure_is_told_without_numbers_of_data(rest: RestServer) -> None:
    rest.say("describe", job("Failed", reason="disk quota exceeded for key 8839128529463800330"))
    found = imports(rest).state("448")
    assert found.state == "failed"
    assert found.reason.startswith("disk quota exceeded")
    assert "8839128" not in found.reason


def test_a_failed_job_of_a_list_is_not_asked_about(rest: RestServer) -> None:
    rest.say("list", ok(records=[{"jobId": "1", "state": "Failed"}]))
    assert [found.state for found in imports(rest).list("faces_r1")] == ["failed"]
    assert rest.actions() == ["list"]


@pytest.mark.parametrize("code", sorted(rest_module.NOT_NOW))
def test_a_server_that_is_not_ready_is_asked_again(rest: RestServer, code: int) -> None:
    rest.say("create", refused(code, "service not ready"), refused(code, "service not ready"), ok(jobId="448"))
    assert imports(rest, "2.5.27").start("faces_r1", ["a/1.parquet"], "") == "448"
    rest.say("describe", refused(code, "rate limit exceeded"))
    with pytest.raises(DependencyUnavailable, match=f"code {code}: rate limit exceeded"):
        imports(rest).state("448")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (refused(1800, "user hasn't authenticated", 401), FaceReindexError, "FACE_REINDEX_MILVUS_TOKEN"),
        (
            refused(65535, "PrivilegeImport: permission deny to loads in the `default` database", 403),
            NotPermitted,
            "It lacks Import.*jobs.index.roles",
        ),
        ((404, "404 page not found"), SettingsError, "proxy.http.port"),
        ((200, "<html>"), SettingsError, "no REST interface of Milvus"),
        ((408, "timeout"), DependencyUnavailable, "in time"),
        ((503, "upstream"), DependencyUnavailable, "HTTP 503"),
        ((413, "too large"), FaceReindexError, "gateway"),
        (refused(1100, "invalid parameter"), Refused, "code 1100: invalid parameter"),
        (
            refused(3000, "import in replicating cluster is not supported yet: unsupported operation"),
            Refused,
            "enableInReplicatingCluster",
        ),
        (
            refused(2100, "import path files/insert_log/1 is not allowed: … is a Milvus internal storage directory"),
            Refused,
            "staging.path",
        ),
    ],
)
def test_an_answer_says_what_is_wrong_and_the_next_step(
    rest: RestServer, answer: Any, kind: type[FaceReindexError], words: str
) -> None:
    rest.say("list", answer)
    with pytest.raises(FaceReindexError, match=words) as caught:
        imports(rest).check()
    assert type(caught.value) is kind
    assert "127.0.0.1" in str(caught.value)
    assert "S3cret" not in str(caught.value)
    assert "loads" not in str(caught.value)


def test_a_token_that_comes_back_is_in_no_message(rest: RestServer) -> None:
    rest.say("list", refused(1100, f"bad header Bearer {TOKEN}"))
    with pytest.raises(Refused, match="code 1100") as caught:
        imports(rest).check()
    assert "S3cret" not in str(caught.value)


def test_a_release_that_cannot_be_given_the_privilege_says_so(rest: RestServer) -> None:
    rest.say("list", refused(65535, "PrivilegeListImport: permission deny", 403))
    with pytest.raises(FaceReindexError, match=r"upgrade it to 2\.6\.7"):
        imports(rest, "2.6.6").check()
    with pytest.raises(FaceReindexError, match=r"jobs\.index\.roles"):
        imports(rest, "2.6.7").check()


def test_out_of_reach_is_a_dependency() -> None:
    settings = Settings.model_validate({"milvus": {"uri": "http://127.0.0.1:1"}})
    with pytest.raises(DependencyUnavailable, match="ConnectionError"):
        RestImportApi(settings, "", detect("2.5.0")).start("c", ["f"], "")


# -- a lost answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [CUT, (408, "timeout"), refused(10001, "request timeout", 408)])
def test_with_a_key_a_request_whose_answer_was_lost_is_repeated_with_it(rest: RestServer, lost: Any) -> None:
    rest.say("create", lost, ok(jobId="448"))
    assert imports(rest, "2.6.24").start("faces_r1", ["a/1.parquet"], "the key") == "448"
    assert [request.headers["idempotency-key"] for request in rest.asked] == ["the key"] * 2


def test_without_one_it_is_not_repeated(rest: RestServer) -> None:
    rest.say("create", CUT, ok(jobId="448"))
    with pytest.raises(DependencyUnavailable):
        imports(rest, "2.6.23").start("faces_r1", ["a/1.parquet"], "the key")
    assert rest.actions() == ["create"]


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_with_tls_rest_needs_an_address_of_its_own(rest: RestServer) -> None:
    api = imports(rest, uri="https://milvus.example:19530")
    with pytest.raises(SettingsError, match=r"set milvus\.rest_uri to https"):
        api.check()
    assert rest.asked == []


def test_rest_goes_to_its_own_address(rest: RestServer) -> None:
    rest.say("list", ok(records=[]))
    imports(rest, uri="http://milvus.example:19530", rest_uri=f"{rest.uri}/").check()
    assert rest.actions() == ["list"]


def test_a_port_without_tls_is_told(rest: RestServer) -> None:
    rest.say("list", ok(records=[]))
    with pytest.raises(DependencyUnavailable, match=r"No TLS with Milvus.*check milvus\.rest_uri"):
        imports(rest, rest_uri=rest.uri.replace("http:", "https:")).check()


@pytest.mark.parametrize(
    ("uri", "rest_uri"),
    [
        ("https://h:19530", "http://h:9091"),
        ("https://h:19530", "h:9091"),
        ("https://h:19530", "https://user:word@h:9091"),
        ("http://h:19530", "http://h:9091/v2"),
    ],
)
def test_a_rest_address_that_cannot_be_meant_is_refused(uri: str, rest_uri: str) -> None:
    with pytest.raises(ValidationError, match="rest_uri"):
        Settings.model_validate({"milvus": {"uri": uri, "rest_uri": rest_uri}})


def test_before_staging_imports_are_asked_for_where_the_server_takes_them(rest: RestServer) -> None:
    rest.say("list", ok(records=[]))
    index = ServerIndex(None, rest.uri, detect("2.5.0"), imports(rest))
    index.check_imports()
    assert rest.actions() == ["list"]
    ServerIndex(None, rest.uri, detect("2.5.0"), None).check_imports()
