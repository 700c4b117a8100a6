"""Imports over REST, against the double of servers (tests/milvus/servers). Known from source, not run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
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
from tests.milvus.asking import LATER, NAME, ROWS, SOON, Asking, asking
from tests.milvus.servers.double import MilvusDouble
from tests.milvus.servers.faults import CODES, CUT, FAIL, LATE, LOST
from tests.milvus.servers.profiles import TASKS

pytestmark = pytest.mark.unit

DATABASE = "faces_db"
USER, PASSWORD = "loads", "S3cret-Of-Nobody"
TOKEN = f"{USER}:{PASSWORD}"
FILES = ["/a/1.parquet"]
"""Where it does not matter whether they are there: that is told only after pre-import."""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Callable[..., Asking]]:
    """Starts a double of a version that has a collection of ours."""
    running = []

    def start(version: str = "2.6.7", **options: Any) -> Asking:
        running.append(asking(version, tmp_path, **options))
        ask = running[-1].__enter__()
        ask.collection(NAME, DATABASE)
        return ask

    yield start
    for each in running:
        each.__exit__(None, None, None)


At = Callable[..., Asking]


def imports(ask: Asking, version: str = "", token: str = TOKEN, **milvus: Any) -> RestImportApi:
    """The client of a server of this version (that of the double)."""
    told = {"uri": ask.double.uri, "database": DATABASE, "ready_timeout_s": 30.0, **milvus}
    version = version or ask.core.profile.version
    return RestImportApi(Settings.model_validate({"milvus": told}), token, detect(version))


def routes(ask: Asking) -> list[str]:
    return [route for route, *_ in ask.core.asked]


def headers(ask: Asking, name: str) -> list[str | None]:
    return [found.get(name) for *_, found in ask.core.asked]


def test_every_call_names_the_database_in_its_header(at: At) -> None:
    """describe, commit and abort ignore what their body says of it."""
    ask = at("3.0.2")
    api, paths = imports(ask), [ask.file("1.parquet"), ask.file("2.parquet")]
    first = api.start(NAME, paths, "key")
    ask.skip(LATER)
    (found,) = api.list(NAME)
    assert (found.job_id, found.state, found.rows, found.files) == (first, "uncommitted", 2 * ROWS, tuple(paths))
    api.commit(first)
    api.abort(api.start(NAME, paths, "another key"))
    assert routes(ask) == ["create", "list", "describe", "commit", "create", "abort"]
    assert set(headers(ask, "db-name")) == {DATABASE}
    assert {body["dbName"] for _, body, _ in ask.core.asked} == {DATABASE}
    assert set(headers(ask, "authorization")) == {f"Bearer {TOKEN}"}
    _, body, sent = ask.core.asked[0]
    assert body["files"] == [[path] for path in paths]
    assert body["options"] == {"auto_commit": "false"}
    assert sent["idempotency-key"] == "key"


def test_no_deadline_is_given_to_a_job(at: At) -> None:
    """Before 2.6.7 it fails a job that is complete as well, and its rows go."""
    ask = at("2.5")
    imports(ask).start(NAME, FILES, "")
    ((_, body, sent),) = ask.core.asked
    assert "options" not in body
    assert int(sent["request-timeout"]) > 30


@pytest.mark.parametrize(("version", "route"), [("2.4.12", "get_progress"), ("2.4.13", "describe")])
def test_a_job_is_asked_about_by_the_route_that_the_release_has(at: At, version: str, route: str) -> None:
    ask = at("2.4.13")
    api = imports(ask, version)
    job = api.start(NAME, FILES, "")
    ask.skip(SOON)
    assert api.state(job).state == "running"
    assert routes(ask) == ["create", route]


@pytest.mark.parametrize(("version", "code"), [("2.5", 2100), ("2.6.24", 2101)])
def test_a_job_that_is_forgotten_is_unknown_and_no_error(at: At, version: str, code: int) -> None:
    ask = at(version)
    assert ask.core.profile.unknown_job == code
    assert imports(ask).state("448").state == "unknown"


def test_a_young_job_names_no_files(at: At) -> None:
    ask = at()
    api = imports(ask)
    job = api.start(NAME, FILES, "")
    ask.skip(SOON)
    found = api.state(job)
    assert (found.state, found.files) == ("running", ())


def failed(ask: Asking) -> str:
    """A job that has failed, and told of something that it read."""
    ask.core.faults.add("job", FAIL)
    number = imports(ask).start(NAME, [ask.file()], "")
    ask.skip(LATER)
    ask.core.imports.jobs[int(number)].reason = "disk quota exceeded for key 8839128529463800330"
    ask.core.asked.clear()
    return number


def test_the_reason_of_a_failure_is_told_without_numbers_of_data(at: At) -> None:
    ask = at()
    found = imports(ask).state(failed(ask))
    assert found.state == "failed"
    assert found.reason.startswith("disk quota exceeded")
    assert "8839128" not in found.reason


def test_a_failed_job_of_a_list_is_not_asked_about(at: At) -> None:
    ask = at()
    failed(ask)
    assert [found.state for found in imports(ask).list(NAME)] == ["failed"]
    assert routes(ask) == ["list"]


@pytest.mark.parametrize("word", ["not ready", "unavailable", "rate limited"])
def test_a_server_that_is_not_ready_is_asked_again(at: At, word: str) -> None:
    assert CODES[word] in rest_module.NOT_NOW
    ask = at("2.5")
    ask.core.faults.add("create", word, word)
    job = imports(ask).start(NAME, FILES, "")
    assert routes(ask) == ["create"] * 3
    ask.core.faults.add("describe", *[word] * 9)
    with pytest.raises(DependencyUnavailable, match=f"code {CODES[word]}: service {word}"):
        imports(ask).state(job)


def test_all_codes_that_say_not_now_are_tried() -> None:
    assert {code for code in CODES.values() if code != CODES["broken"]} == rest_module.NOT_NOW


# -- what is wrong, and the next step ----------------------------------------------------------------------------------


def check_with_another_password(at: At) -> None:
    imports(at(authorization=True)).check()


def check_without_the_privilege(at: At) -> None:
    ask = at("2.5", authorization=True)
    ask.core.rights.users[USER] = PASSWORD
    imports(ask).check()


def check_before_2_4(at: At) -> None:
    with MilvusDouble(TASKS) as double:
        imports(Asking(double, Path()), "2.5.0").check()


def check_behind(status: int, said: str) -> Callable[[At], None]:
    """Something stands before the server, and answers for it."""

    def check(at: At) -> None:
        ask = at()
        ask.core.between["list"] = (status, said)
        imports(ask).check()

    return check


def check_late(version: str) -> Callable[[At], None]:
    def check(at: At) -> None:
        ask = at(version)
        ask.core.faults.add("list", LATE)
        imports(ask).check()

    return check


def start_with_a_file_of_another_kind(at: At) -> None:
    imports(at()).start(NAME, ["/a/1.csv"], "")


def start_under_replication(at: At) -> None:
    ask = at("2.6.24")
    ask.core.imports.replicating = True
    imports(ask).start(NAME, FILES, "")


def start_from_the_servers_own_folder(at: At) -> None:
    imports(at("3.0.2")).start(NAME, ["/var/lib/milvus/insert_log/1.parquet"], "")


@pytest.mark.parametrize(
    ("ask", "kind", "words"),
    [
        (check_with_another_password, FaceReindexError, "FACE_REINDEX_MILVUS_TOKEN"),
        (check_without_the_privilege, NotPermitted, "It lacks Import.*jobs.index.roles"),
        (check_before_2_4, SettingsError, "proxy.http.port"),
        (check_behind(200, "<html>"), SettingsError, "no REST interface of Milvus"),
        (check_late("2.4.13"), DependencyUnavailable, "in time"),
        (check_late("2.6.7"), DependencyUnavailable, "in time"),
        (check_behind(503, "upstream"), DependencyUnavailable, "HTTP 503"),
        (check_behind(413, "too large"), FaceReindexError, "gateway"),
        (start_with_a_file_of_another_kind, Refused, "code 2100: unexpected file type"),
        (start_under_replication, Refused, "enableInReplicatingCluster"),
        (start_from_the_servers_own_folder, Refused, "staging.path"),
    ],
)
def test_an_answer_says_what_is_wrong_and_the_next_step(
    at: At, ask: Callable[[At], None], kind: type[FaceReindexError], words: str
) -> None:
    with pytest.raises(FaceReindexError, match=words) as caught:
        ask(at)
    assert type(caught.value) is kind
    assert "127.0.0.1" in str(caught.value)
    assert "S3cret" not in str(caught.value)
    assert USER not in str(caught.value)


def test_a_token_that_comes_back_is_in_no_message(at: At) -> None:
    said = json.dumps({"code": 1100, "message": f"bad header Bearer {TOKEN}"})
    with pytest.raises(Refused, match="code 1100") as caught:
        check_behind(200, said)(at)
    assert "S3cret" not in str(caught.value)


def test_a_release_that_cannot_be_given_the_privilege_says_so(at: At) -> None:
    ask = at("2.6.0", authorization=True)
    ask.permit("Collection", "Import", database=DATABASE)
    ask.core.rights.users[USER] = PASSWORD
    with pytest.raises(NotPermitted, match=r"upgrade it to 2\.6\.7"):
        imports(ask, "2.6.6").check()


def test_a_release_that_can_be_given_it_is_no_reason_to_upgrade(at: At) -> None:
    ask = at("2.6.7", authorization=True)
    ask.core.rights.users[USER] = PASSWORD
    with pytest.raises(NotPermitted, match=r"jobs\.index\.roles"):
        imports(ask).start(NAME, FILES, "")


def test_out_of_reach_is_a_dependency() -> None:
    settings = Settings.model_validate({"milvus": {"uri": "http://127.0.0.1:1"}})
    with pytest.raises(DependencyUnavailable, match="ConnectionError"):
        RestImportApi(settings, "", detect("2.5.0")).start("c", ["f"], "")


# -- a lost answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [CUT, LOST, LATE])
def test_with_a_key_a_request_whose_answer_was_lost_is_repeated_with_it(at: At, word: str) -> None:
    ask = at("2.6.24")
    ask.core.faults.add("create", word)
    job = imports(ask).start(NAME, FILES, "the key")
    assert headers(ask, "idempotency-key") == ["the key"] * 2
    assert list(ask.core.imports.jobs) == [int(job)]


def test_without_one_it_is_not_repeated(at: At) -> None:
    ask = at("2.6.7")
    ask.core.faults.add("create", CUT)
    with pytest.raises(DependencyUnavailable):
        imports(ask, "2.6.23").start(NAME, FILES, "the key")
    assert routes(ask) == ["create"]


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_with_tls_rest_needs_an_address_of_its_own(at: At) -> None:
    ask = at()
    api = imports(ask, uri="https://milvus.example:19530")
    with pytest.raises(SettingsError, match=r"set milvus\.rest_uri to https"):
        api.check()
    assert ask.core.asked == []


def test_rest_goes_to_its_own_address(at: At) -> None:
    ask = at()
    imports(ask, uri="http://milvus.example:19530", rest_uri=f"{ask.double.rest_uri}/").check()
    assert routes(ask) == ["list"]


def test_a_port_without_tls_is_told(at: At) -> None:
    ask = at()
    with pytest.raises(DependencyUnavailable, match=r"No TLS with Milvus.*check milvus\.rest_uri"):
        imports(ask, rest_uri=ask.double.rest_uri.replace("http:", "https:")).check()


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


def test_before_staging_imports_are_asked_for_where_the_server_takes_them(at: At) -> None:
    ask = at("2.5")
    ServerIndex(None, ask.double.uri, detect("2.5.0"), imports(ask)).check_imports()
    assert routes(ask) == ["list"]
    ServerIndex(None, ask.double.uri, detect("2.5.0"), None).check_imports()
    assert routes(ask) == ["list"]
