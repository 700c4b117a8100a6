"""Names, index parameters, versions, secrets and errors: what needs no Milvus."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pyarrow as pa
import pytest
from pymilvus.client.types import LoadState
from pymilvus.exceptions import MilvusException

from jobs.errors import DependencyUnavailable, FaceReindexError, NotPermitted, SettingsError
from jobs.index.collections import belongs_to, collection_name, collections_of, default_index
from jobs.index.milvus import versions
from jobs.index.milvus.calls import Patience, call, safe_text, translate
from jobs.index.milvus.client import MilvusIndex
from jobs.index.milvus.server import bearer, tls
from jobs.index.milvus.versions import detect
from jobs.index.protocol import CollectionInfo, IndexSpec, as_rows, parse_version
from jobs.settings import Settings
from tests.milvus.rows import INFO, make_keys, make_table, make_vectors
from tests.milvus.serving import served

pytestmark = pytest.mark.unit


def test_names_follow_milvus_rules_and_belong_to_one_alias() -> None:
    name = collection_name("faces", "2026-01-31T02:00:00Z/ü")
    assert name == "faces_2026_01_31T02_00_00Z__"
    with pytest.raises(ValueError, match="exceeds 255"):
        collection_name("faces", "x" * 250)
    info = CollectionInfo(**{**INFO.__dict__, "run_id": "1"})
    assert belongs_to("faces_eu", "faces_eu_1", info)
    assert not belongs_to("faces", "faces_eu_1", info)
    assert not belongs_to("faces", "faces_1", None)


def test_a_warehouse_knows_its_collections_behind_whatever_alias() -> None:
    made = {
        "faces_1": ("1", None),
        "faces_2": ("2", "here"),
        "faces_3": ("3", "there"),
        "people_1": ("1", "here"),
        "people_2": ("2", "there"),
    }
    with served() as server:
        for name, (run_id, warehouse) in made.items():
            info = CollectionInfo(**{**INFO.__dict__, "run_id": run_id, "warehouse": warehouse})
            server.index.create(name, dim=4, shards=1, properties=info)
        assert list(collections_of(server.index, "faces", "here")) == ["faces_1", "faces_2", "people_1"]


def test_info_travels_as_json_and_foreign_text_is_not_info() -> None:
    assert CollectionInfo.from_json(INFO.to_json()) == INFO
    for text in ("", "{}", "[]", "nonsense", '{"run_id": 1}'):
        assert CollectionInfo.from_json(text) is None


@pytest.mark.parametrize(
    ("index_type", "rows", "embedded", "expected"),
    [
        ("AUTO", 10, False, IndexSpec("FLAT")),
        ("AUTO", 50_000, True, IndexSpec("FLAT")),
        ("AUTO", 200_000_001, False, IndexSpec("IVF_SQ8", params={"nlist": 2048})),
        ("AUTO", 50_000, False, IndexSpec("HNSW", params={"M": 16, "efConstruction": 200})),
        ("HNSW", 10, True, IndexSpec("HNSW", params={"M": 16, "efConstruction": 200})),
        ("IVF_SQ8", 1_000_000, False, IndexSpec("IVF_SQ8", params={"nlist": 2048})),
        ("IVF_FLAT", 0, False, IndexSpec("IVF_FLAT", params={"nlist": 16})),
        ("IVF_PQ", 3_000_000_000, False, IndexSpec("IVF_PQ", params={"nlist": 2048, "m": 256, "nbits": 8})),
        ("SCANN", 100_000, False, IndexSpec("SCANN", params={"nlist": 1024})),
        ("DISKANN", 10, False, IndexSpec("DISKANN")),
    ],
)
def test_the_index_fits_the_rows(index_type: str, rows: int, embedded: bool, expected: IndexSpec) -> None:
    settings = Settings.model_validate({"milvus": {"index_type": index_type}})
    assert default_index(settings, rows, embedded=embedded) == expected


def test_search_parameters_grow_with_k() -> None:
    assert IndexSpec("HNSW").search_params(10) == {"ef": 128}
    assert IndexSpec("HNSW").search_params(1000) == {"ef": 2000}
    assert IndexSpec("IVF_SQ8", params={"nlist": 4096}).search_params(10) == {"nprobe": 1024}
    assert IndexSpec("IVF_PQ", params={"nlist": 1024}).search_params(10) == {"nprobe": 256}
    assert IndexSpec("SCANN", params={"nlist": 1024}).search_params(10) == {"nprobe": 256, "reorder_k": 200}
    assert IndexSpec("SCANN", params={"nlist": 1024}).search_params(100)["reorder_k"] == 2000
    assert IndexSpec("IVF_SQ8", params={"nlist": 4}).search_params(10) == {"nprobe": 4}
    assert IndexSpec("DISKANN").search_params(10) == {"search_list": 100}
    assert IndexSpec("FLAT").search_params(10) == {}


@pytest.mark.parametrize(
    ("version", "bulk", "files", "scalar", "keyed"),
    [
        ("v2.3.5-lite", True, 1, "STL_SORT", False),
        ("2.3.21", True, 1, "STL_SORT", False),
        ("v2.4.0", True, 1024, "INVERTED", False),
        ("v2.6.23", True, 1024, "INVERTED", False),
        ("v2.6.24", True, 1024, "INVERTED", True),
        ("v3.0.1", True, 1024, "INVERTED", False),
        ("3.0.2-gpu", True, 1024, "INVERTED", True),
        ("milvus_lite-3.2.2", False, 0, "INVERTED", False),
    ],
)
def test_features_follow_the_version(version: str, bulk: bool, files: int, scalar: str, keyed: bool) -> None:
    found = detect(version)
    assert (found.bulk_import, found.files_per_job, found.scalar_index, found.idempotent_import) == (
        bulk,
        files,
        scalar,
        keyed,
    )


@pytest.mark.parametrize(
    ("version", "two_phase", "level_zero", "asked_for", "refused"),
    [
        ("2.3.5", False, False, False, False),
        ("2.4.13", False, True, False, True),
        ("2.5.27", False, True, False, False),
        ("2.6.2", False, True, False, False),
        ("2.6.3", False, True, True, False),
        ("3.0.0-beta", False, True, True, False),
        ("3.0.0", True, True, True, False),
    ],
)
def test_what_differs_from_release_to_release(
    version: str, two_phase: bool, level_zero: bool, asked_for: bool, refused: bool
) -> None:
    found = detect(version)
    assert (found.two_phase_import, found.level_zero, found.compacts_level_zero) == (two_phase, level_zero, asked_for)
    assert found.refused_indexes == ({"GPU_CAGRA"} if refused else set())


def test_each_rule_says_where_it_was_read() -> None:
    rules = [rule for rule in vars(versions).values() if isinstance(rule, versions.Rule)]
    assert len(rules) >= 8
    for rule in rules:
        assert rule.says
        assert re.search(r"\d\.\d+|https://", rule.source), rule
        assert re.search(r"\.(go|md)\b|milvus-proto", rule.source), rule


def test_a_wait_ends_when_nothing_moves_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("jobs.index.milvus.calls.time.monotonic", lambda: clock[0])
    patience = Patience(60)
    for done in range(5):  # far longer than a minute in all
        patience.look(done, "The index of 'faces_1.vector'")
        clock[0] += 59
    clock[0] += 1
    patience.look(4, "it")  # a minute since it moved: not more than that
    clock[0] += 1
    with pytest.raises(DependencyUnavailable, match=r"'faces_1.vector' has made no progress for 60 s") as stopped:
        patience.look(4, "The index of 'faces_1.vector'")
    assert "milvus.index_timeout_s" in str(stopped.value)


class SlowLoad:
    """A client whose load gives up once, is asked again, and is then done in two looks."""

    def __init__(self, states: list[dict[str, Any]]) -> None:
        self.states, self.asked, self.counted = states, 0, 0

    def load_collection(self, *_: Any, **__: Any) -> None:
        self.asked += 1

    def get_load_state(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def query(self, *_: Any, **__: Any) -> None:
        self.counted += 1


def test_a_load_that_was_given_up_is_asked_for_again() -> None:
    client = SlowLoad(
        [
            {"state": LoadState.NotLoad},
            {"state": LoadState.Loading, "progress": 40},
            {"state": LoadState.Loaded},
        ]
    )
    MilvusIndex(client, "here", detect("2.3.5")).load("faces_1", timeout=60)
    assert (client.asked, client.counted) == (2, 1)


def test_a_load_without_progress_ends_as_something_to_retry() -> None:
    client = SlowLoad([{"state": LoadState.Loading, "progress": 40}])
    with pytest.raises(DependencyUnavailable, match="The load of 'faces_1' has made no progress"):
        MilvusIndex(client, "here", detect("2.3.5")).load("faces_1", timeout=0.3)
    assert client.counted == 0


def test_a_version_that_is_none_is_zero() -> None:
    assert parse_version("unknown") == (0, 0, 0)


def test_credentials_become_one_token() -> None:
    assert bearer(Settings()) == ""
    assert bearer(Settings.model_validate({"milvus_token": "t0ken", "milvus_user": "u"})) == "t0ken"
    assert bearer(Settings.model_validate({"milvus_user": "u", "milvus_password": "p"})) == "u:p"


class Rpc(grpc.RpcError):  # type: ignore[misc]  # it ships no types
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (Rpc(grpc.StatusCode.UNAVAILABLE), DependencyUnavailable, "reachable"),
        (Rpc(grpc.StatusCode.DEADLINE_EXCEEDED), DependencyUnavailable, "reachable"),
        (Rpc(grpc.StatusCode.UNAUTHENTICATED), FaceReindexError, "FACE_REINDEX_MILVUS_TOKEN"),
        (MilvusException(503, "channel not available"), DependencyUnavailable, "reachable"),
        (MilvusException(1, "service not ready"), DependencyUnavailable, "reachable"),
        (MilvusException(1100, "invalid parameter"), FaceReindexError, "invalid parameter"),
        (MilvusException(65535, "auth check failure, please check"), FaceReindexError, "credentials"),
        (ValueError("dimension"), FaceReindexError, "dimension"),
        (MilvusException(800, "database not found[database=mine]"), SettingsError, "milvus.database"),
        (MilvusException(1, "PrivilegeCompaction: permission deny"), NotPermitted, "jobs.index.roles"),
    ],
)
def test_errors_become_ours_with_the_collection_and_a_next_step(
    error: Exception, kind: type[FaceReindexError], words: str
) -> None:
    found = translate(error, "load", "'faces_r1' at http://h:1")
    assert type(found) is kind
    assert "faces_r1" in str(found)
    assert words in str(found)


@pytest.mark.parametrize(
    ("said", "privilege"),
    [("PrivilegeCompaction: permission deny", "Compaction"), ("permission deny", "")],
)
def test_a_refusal_names_the_privilege_where_the_server_does(said: str, privilege: str) -> None:
    found = translate(MilvusException(65535, said), "compact", "here")
    assert isinstance(found, NotPermitted)
    assert found.privilege == privilege


def test_no_vector_key_or_list_gets_into_a_message() -> None:
    told = safe_text(
        MilvusException(
            1, "cannot parse: face_id in [-8839128529463800330,5] [0.4519734, -0.2369681] key 8839128529463800330\nmore"
        )
    )
    assert "8839128" not in told
    assert "0.45" not in told
    assert "more" not in told
    assert "[collection=faces]" in safe_text(ValueError("not found[collection=faces]"))


def test_transient_failures_are_tried_again_and_others_are_not() -> None:
    tries = {"transient": 0, "final": 0}

    def flaky() -> str:
        tries["transient"] += 1
        if tries["transient"] < 3:
            raise MilvusException(503, "channel not available")
        return "answer"

    def broken() -> str:
        tries["final"] += 1
        raise MilvusException(1100, "invalid")

    assert call("ask", "x", flaky) == "answer"
    with pytest.raises(FaceReindexError, match="invalid") as caught:
        call("ask", "x", broken)
    assert tries == {"transient": 3, "final": 1}
    assert caught.value.__suppress_context__


def test_patience_is_a_bound_in_time() -> None:
    def never() -> None:
        raise MilvusException(503, "channel not available")

    with pytest.raises(DependencyUnavailable):
        call("ask", "x", never, patience_s=0.3)
    with pytest.raises(DependencyUnavailable):
        call("ask", "x", never, attempts=1)


def test_batches_become_rows_whatever_their_chunks() -> None:
    keys, vectors = make_keys(10), make_vectors(10)
    table = make_table(keys, vectors)
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    for batch in (table, chunked, table.to_batches()[0]):
        scalars, found = as_rows(batch)
        assert scalars["face_id"] == keys.tolist()
        np.testing.assert_array_equal(found, vectors)
    _, found = as_rows(table.slice(4, 2))
    np.testing.assert_array_equal(found, vectors[4:6])
    assert as_rows(table.slice(0, 0))[1].shape == (0, 0)


@pytest.mark.parametrize(
    ("milvus", "message"),
    [
        ({"uri": "http://h:1", "ca_file": "/ca.pem"}, "need https"),
        ({"uri": "https://h:1", "client_cert_file": "/me.pem"}, "needs all three"),
        ({"uri": "https://h:1", "ca_file": "/ca.pem", "client_cert_file": "/me.pem"}, "needs all three"),
        ({"uri": "https://h:1", "ca_file": "/ca.pem", "client_key_file": "/me.key"}, "needs all three"),
        # pymilvus would drop both, and the server refuse a client without a certificate.
        ({"uri": "https://h:1", "client_cert_file": "/me.pem", "client_key_file": "/me.key"}, "needs all three"),
        ({"uri": "https://h:1", "ca_file": "/no/such.pem"}, "no such file"),
    ],
)
def test_tls_settings_that_cannot_be_meant(milvus: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        tls(Settings.model_validate({"milvus": milvus}))


def test_the_authority_alone_is_what_pymilvus_calls_the_servers(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("pem")
    settings = Settings.model_validate({"milvus": {"uri": "https://h:1", "ca_file": str(authority)}})
    assert tls(settings) == {"server_pem_path": str(authority)}


def test_mutual_tls_names_all_three_files(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("ca_file", "client_cert_file", "client_key_file")}
    for file in files.values():
        file.write_text("pem")
    milvus = {"uri": "https://h:1", **{name: str(file) for name, file in files.items()}}
    assert tls(Settings.model_validate({"milvus": milvus})) == {
        "ca_pem_path": str(files["ca_file"]),
        "client_pem_path": str(files["client_cert_file"]),
        "client_key_path": str(files["client_key_file"]),
    }


def test_a_token_is_in_no_text_of_the_settings() -> None:
    settings = Settings.model_validate({"milvus_token": "t0ken"})
    assert "t0ken" not in repr(settings) + settings.canonical_json() + json.dumps(settings.model_dump(mode="json"))
