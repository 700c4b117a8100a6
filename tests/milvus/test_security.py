"""A server that checks who asks, and one that speaks TLS."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pytest
from click.testing import CliRunner
from pymilvus.exceptions import MilvusException

from jobs.diagnosis.found import Found
from jobs.errors import DependencyUnavailable, FaceReindexError
from jobs.index import roles
from jobs.index.loader import MemoryRecorder, load_files
from jobs.index.milvus import server as milvus_server
from jobs.index.milvus.server import ServerIndex
from jobs.index.protocol import IndexSpec
from jobs.settings import Settings
from tests.milvus.patient import examine
from tests.milvus.rows import DIM, INFO, make_keys, make_table, make_vectors, stage_files
from tests.milvus.server import MilvusStandalone, temporary

pytestmark = pytest.mark.milvus

ROOT, PASSWORD = "root:Milvus", "Only-For-Tests-1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority and a server's certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    request = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=face-reindex-tests"]
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
    for command in (
        [*request, "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"],
        [*request, "-keyout", "server.key", "-out", "server.csr"],
        ["openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
         "-days", "2", "-extfile", "san", "-out", "server.pem"],
    ):  # fmt: skip
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Iterator[MilvusStandalone]:
    """A server with both: authorization and TLS."""
    server = MilvusStandalone(tmp_path_factory.mktemp("guarded"), authorization=True, tls=authority)
    with temporary(server, server.kill):
        yield server


def open_as(token: str, server: MilvusStandalone, authority: Path) -> ServerIndex:
    milvus = {"uri": server.uri, "ca_file": str(authority / "ca.pem"), "ready_timeout_s": 60}
    return ServerIndex.open(Settings.model_validate({"milvus": milvus, "milvus_token": token}))


def test_the_loaders_role_is_enough_for_a_run_and_the_readers_for_a_search(
    guarded: MilvusStandalone, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = open_as(ROOT, guarded, authority)
    for user in ("loads", "reads"):
        root.client.create_user(user, PASSWORD)
    monkeypatch.setenv("FACE_REINDEX_MILVUS_TOKEN", ROOT)
    command = ["--set", f"milvus.uri={guarded.uri}", "--set", f"milvus.ca_file={authority / 'ca.pem'}",
               "--loader", "loads", "--reader", "reads"]  # fmt: skip
    done = CliRunner().invoke(roles.main, command)
    assert done.exit_code == 0, done.output
    assert "loads: face_reindex_loader" in done.output
    assert ROOT not in done.output
    again = CliRunner().invoke(roles.main, command)
    assert again.output.count("nothing new") == 2
    time.sleep(2)  # the proxy learns of it by a message

    loader = open_as(f"loads:{PASSWORD}", guarded, authority)
    reader = open_as(f"reads:{PASSWORD}", guarded, authority)
    keys, vectors = make_keys(2_000), make_vectors(2_000)
    settings = Settings.model_validate({"milvus": {"uri": guarded.uri, "ready_timeout_s": 60}})
    loader.create("faces_r1", dim=DIM, shards=1, properties=INFO)
    load_files(loader, "faces_r1", stage_files(tmp_path, keys, vectors, 2), settings, recorder=MemoryRecorder())
    loader.build_index("faces_r1", IndexSpec("FLAT"), timeout=60)
    loader.load("faces_r1", timeout=60)
    loader.switch_alias("faces", "faces_r1")
    loader.delete("faces_r1", keys[:5])
    loader.insert("faces_r1", make_table(keys[:1], vectors[:1]))
    assert loader.compact("faces_r1", timeout=60)
    assert loader.count("faces") == 1_996
    assert np.concatenate(list(loader.keys("faces_r1"))).tolist() == sorted(keys[[0, *range(5, 2_000)]].tolist())

    found = reader.client.search("faces", [vectors[7].tolist()], limit=1, search_params={"metric_type": "COSINE"})
    assert found[0][0]["id"] == keys[7]
    row = {"face_id": 1, "embedding": vectors[0].tolist(), "bucket": 0, "purposes": 1, "expires_at": 0}
    refused = (grpc.RpcError, MilvusException)
    for attempt in (
        lambda: reader.client.insert("faces", row),
        lambda: reader.client.delete("faces", ids=[1]),
        lambda: reader.client.drop_collection("faces_r1"),
        lambda: reader.client.create_alias("faces_r1", "mine"),
        lambda: reader.client.release_collection("faces_r1"),
        lambda: loader.client.create_user("third", PASSWORD),
        loader.client.list_users,
        lambda: loader.client.grant_role("loads", "admin"),
    ):
        with pytest.raises(refused, match="permission deny"):
            attempt()
    with pytest.raises(FaceReindexError, match="does not permit this account"):
        reader.create("faces_r2", dim=DIM, shards=1, properties=INFO)

    loader.release("faces_r1")
    loader.drop_alias("faces")
    loader.drop("faces_r1")
    assert loader.list_collections() == []


def test_doctor_tries_the_privileges_of_loader_and_reader_one_by_one(
    guarded: MilvusStandalone, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = open_as(ROOT, guarded, authority)
    for user in ("nights", "looks", "stranger"):
        root.client.create_user(user, PASSWORD)
    monkeypatch.setenv("FACE_REINDEX_MILVUS_TOKEN", ROOT)
    milvus = {"uri": guarded.uri, "ca_file": str(authority / "ca.pem"), "ready_timeout_s": 60}
    sets = [word for key in ("uri", "ca_file") for word in ("--set", f"milvus.{key}={milvus[key]}")]
    done = CliRunner().invoke(roles.main, [*sets, "--loader", "nights", "--reader", "looks"])
    assert done.exit_code == 0, done.output
    time.sleep(2)  # the proxy learns of it by a message

    def doctor(user: str, **more: str) -> dict[str, list[Found]]:
        token = ROOT if user == "root" else f"{user}:{PASSWORD}"
        settings = Settings.model_validate({"milvus": milvus, "milvus_token": token, **more})
        examination, found = examine(settings, tmp_path / f"{user}{len(more)}")
        assert PASSWORD not in str(examination.found)
        assert root.list_collections("face_reindex_doctor_") == []
        return found

    found = doctor("nights", milvus_reader_token=f"looks:{PASSWORD}")
    assert found["privileges"][0].what == "this account has the loader's 22 privileges: each was used"
    assert found["reader"][0].what.startswith("the reader's account has Search, Query, and is refused 7 other calls")
    assert found["roles"][0].level == "not asked"
    assert "may not look at roles" in found["roles"][0].what

    # As a reader that may do what a loader does, and as an account that may list and no more.
    root.client.grant_role("looks", roles.LOADER)
    root.client.create_role("lists")
    root.client.grant_privilege("lists", "Global", "ShowCollections", "*", db_name="default")
    root.client.grant_role("stranger", "lists")
    root.client.revoke_privilege(roles.LOADER, "Collection", "Compaction", "*", db_name="default")
    time.sleep(2)
    found = doctor("nights", milvus_reader_token=f"looks:{PASSWORD}")
    assert "does not permit this account to compact" in found["compact"][0].what
    assert found["privileges"][0].what == "this account lacks Compaction"
    assert (found["privileges"][0].level, found["privileges"][0].exit_code) == ("failure", 5)
    assert found["reader"][0].what == (
        "the reader's account has more than it needs: Upsert, Delete, CreateAlias, DropAlias, CreateCollection, "
        "Release, DropCollection"
    )
    assert found["drop"][0].level == "ok"
    found = doctor("stranger")
    assert found["privileges"][0].what == "this account lacks CreateCollection"
    assert "was not reached" in found["privileges"][1].what

    found = doctor("root")
    assert "an administrator's" in found["roles"][0].what
    assert found["roles"][1].what == "role face_reindex_loader lacks Compaction"
    assert found["roles"][2].what == "role face_reindex_reader has its 2 privileges and no other"
    root.client.grant_privilege(roles.LOADER, "Collection", "Compaction", "*", db_name="default")


def test_a_wrong_password_and_a_foreign_certificate_are_refused(
    guarded: MilvusStandalone, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_server, "CONNECT_TIMEOUT_S", 3.0)
    with pytest.raises(DependencyUnavailable, match="let us in") as caught:
        open_as("loads:wrong-password", guarded, authority)
    assert "wrong-password" not in str(caught.value)
    # Signed by nobody that this client knows. (Another user, for pymilvus shares connections of the same one.)
    open_as(ROOT, guarded, authority).client.create_user("fresh", PASSWORD)
    unknown = Settings.model_validate({"milvus": {"uri": guarded.uri}, "milvus_token": f"fresh:{PASSWORD}"})
    with pytest.raises(DependencyUnavailable, match="let us in"):
        ServerIndex.open(unknown)
    open_as(f"fresh:{PASSWORD}", guarded, authority).close()


def test_an_embedded_index_has_no_roles() -> None:
    done = CliRunner().invoke(roles.main, ["--set", "milvus.uri=faces.db"])
    assert done.exit_code == 2
    assert "no users and no roles" in done.output
