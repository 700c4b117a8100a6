"""Who may ask the double what, in which database and on which port: known from source, not run."""

from __future__ import annotations

from pathlib import Path

import grpc  # type: ignore[import-untyped]  # it ships no types
import pytest
import requests
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from jobs.index.milvus.calls import prepare_pymilvus
from tests.milvus.asking import NAME, OTHER, PASSWORD, USER, asking, versions
from tests.milvus.servers.facts import shows
from tests.milvus.servers.rest import PREFIX

pytestmark = pytest.mark.unit

DATABASE = "faces"
ROOT = "root:Milvus"


@versions()
@shows("unauthenticated")
def test_without_the_right_credentials_it_is_401(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path, authorization=True) as ask:
        ask.collection()
        body = {"collectionName": NAME}
        for credentials, status in (("", 401), ("root:wrong", 401), (ROOT, 200)):
            got, content = ask.post("list", body, credentials=credentials)
            assert (got, content["code"]) == (status, 1800 if status == 401 else 0)
        prepare_pymilvus()
        with pytest.raises((MilvusException, grpc.RpcError)):
            MilvusClient(ask.double.uri, token=f"root:{PASSWORD}", timeout=1)


@versions()
@shows("forbidden", "create-privilege", "grants-by-database", "database-by-body")
def test_without_the_privilege_it_is_403(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path, authorization=True) as ask:
        ask.collection(NAME, DATABASE)
        ask.collection(NAME)
        mine = ask.permit("Collection", "Import", name=NAME, database=DATABASE)
        body = {"collectionName": NAME, "files": [["/a.parquet"]]}
        status, content = ask.post("create", body, credentials=mine)
        assert (status, content["code"]) == (403, 65535)
        assert "permission deny to loads in the `default` database" in content["message"]
        assert ask.post("create", {**body, "dbName": DATABASE}, credentials=mine)[0] == 200
        assert ask.post("create", body, credentials=mine, DB_Name=DATABASE)[0] == 200


@versions(has="unknown-database-first")
@shows("unknown-database-first")
def test_2_4_looks_for_the_database_first(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path) as ask:
        assert ask.code("describe", {"jobId": "1"}, DB_Name="nobodys") == 800


@versions(has="describe-own-collection")
@shows("database-by-header", "describe-own-collection", "forbidden")
def test_a_job_is_described_in_the_database_of_the_header(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path, authorization=True) as ask:
        ask.collection(NAME, DATABASE)
        mine = ask.permit("Collection", "Import", database=DATABASE)
        body = {"collectionName": NAME, "files": [[ask.file()]], "dbName": DATABASE}
        job = ask.post("create", body, credentials=mine)[1]["data"]["jobId"]
        by_job = {"jobId": job, "dbName": DATABASE}
        routes = ["describe", *(("commit", "abort") if ask.core.profile.has("two-phases") else ())]
        for route in routes:
            assert ask.post(route, by_job, credentials=mine)[0] == 403
            assert ask.post(route, by_job, credentials=mine, DB_Name=DATABASE)[0] == 200


@versions(has="describe-own-collection")
@shows("describe-own-collection", "database-by-body")
def test_a_list_leaves_out_what_one_may_not_see_without_a_word(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path, authorization=True) as ask:
        for name in (NAME, OTHER):
            ask.collection(name, DATABASE)
            body = {"collectionName": name, "files": [["/a.parquet"]], "dbName": DATABASE}
            assert ask.post("create", body, credentials=ROOT)[0] == 200
        mine = ask.permit("Collection", "Import", name=NAME, database=DATABASE)
        for database, names in ((DATABASE, [NAME]), ("default", [])):
            status, content = ask.post("list", {"dbName": database}, credentials=mine)
            assert status == 200
            assert [record["collectionName"] for record in content["data"]["records"]] == names


@versions(has="describe-any-collection")
@shows("describe-any-collection", "database-by-header")
def test_up_to_2_5_a_description_needs_import_on_every_collection(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path, authorization=True) as ask:
        ask.collection(NAME, DATABASE)
        mine = ask.permit("Collection", "Import", name=NAME, database=DATABASE)
        body = {"collectionName": NAME, "files": [["/a.parquet"]], "dbName": DATABASE}
        job = ask.post("create", body, credentials=mine)[1]["data"]["jobId"]
        assert ask.post("list", {"collectionName": NAME, "dbName": DATABASE}, credentials=mine)[0] == 200
        assert ask.post("describe", {"jobId": job}, credentials=mine, DB_Name=DATABASE)[0] == 403
        ask.permit("Collection", "Import", database=DATABASE)
        assert ask.post("describe", {"jobId": job, "dbName": DATABASE}, credentials=mine)[0] == 403
        assert ask.post("describe", {"jobId": job}, credentials=mine, DB_Name=DATABASE)[0] == 200


@versions(has="describe-global")
@shows("describe-global", "describe-ungrantable", "database-by-header")
def test_up_to_2_6_6_description_and_list_need_global_privileges(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path, authorization=True) as ask:
        ask.collection()
        mine = ask.permit("Collection", "Import")
        job = ask.post("create", {"collectionName": NAME, "files": [["/a.parquet"]]}, credentials=mine)[1]["data"][
            "jobId"
        ]
        calls = (("describe", {"jobId": job}), ("list", {"collectionName": NAME}))
        assert [ask.post(route, body, credentials=mine)[0] for route, body in calls] == [403, 403]
        prepare_pymilvus()
        root = MilvusClient(ask.double.uri, token=ROOT, timeout=10)
        for privilege in ("GetImportProgress", "ListImport"):
            with pytest.raises(MilvusException, match="not found the privilege"):
                root.grant_privilege("role", "Global", privilege, "*")
        root.grant_privilege("role", "Global", "*", "*")
        root.close()
        for route, body in calls:
            assert ask.post(route, body, credentials=mine)[0] == 200
            assert ask.post(route, body, credentials=mine, DB_Name=DATABASE)[0] == 403


@versions()
@shows("grants-by-database", "grants-told-by-database")
def test_grants_are_of_a_database_and_told_by_it(version: str, tmp_path: Path) -> None:
    with asking(version, tmp_path, authorization=True) as ask:
        ask.collection(NAME, DATABASE)
        ask.collection(NAME)
        prepare_pymilvus()
        root = MilvusClient(ask.double.uri, token=ROOT, timeout=10)
        root.create_user(USER, PASSWORD)
        root.create_role("role")
        root.grant_role(USER, "role")
        root.grant_privilege("role", "Collection", "Load", "*", db_name=DATABASE)
        assert root.describe_role("role")["privileges"] == []
        (told,) = root.describe_role("role", db_name=DATABASE)["privileges"]
        assert (told["object_type"], told["privilege"], told["db_name"]) == ("Collection", "Load", DATABASE)
        root.close()
        of_it = MilvusClient(ask.double.uri, token=ROOT, db_name=DATABASE, timeout=10)
        assert of_it.describe_role("role")["privileges"] == [told]
        of_it.close()
        for database, why in ((DATABASE, "no vector index"), ("default", "permission deny")):
            client = MilvusClient(ask.double.uri, token=f"{USER}:{PASSWORD}", db_name=database, timeout=10)
            with pytest.raises((MilvusException, grpc.RpcError), match=why):
                client.load_collection(NAME)
            client.close()


@versions()
@shows("tls-own-port")
def test_with_tls_there_is_no_http_on_the_port_of_grpc(version: str, tmp_path: Path, self_signed: Path) -> None:
    with asking(version, tmp_path, tls=self_signed) as ask:
        ask.collection()
        prepare_pymilvus()
        pem = str(self_signed / "ca.pem")
        client = MilvusClient(ask.double.uri, server_pem_path=pem, timeout=60)
        assert client.list_collections() == [NAME]
        client.close()
        with pytest.raises(requests.RequestException):
            requests.post(f"{ask.double.uri}{PREFIX}list", json={}, verify=pem, timeout=5)
        assert requests.post(f"{ask.double.rest_uri}{PREFIX}list", json={}, verify=pem, timeout=60).json()["code"] == 0
        assert ask.double.rest_uri != ask.double.uri


@shows("client-certificate")
def test_pymilvus_shows_a_certificate_only_where_all_three_files_are_named(tmp_path: Path, self_signed: Path) -> None:
    with asking("2.6.24", tmp_path, tls=self_signed, mutual=True) as ask:
        ca, key = str(self_signed / "ca.pem"), str(self_signed / "server.key")
        prepare_pymilvus()
        with pytest.raises((MilvusException, grpc.RpcError)):
            MilvusClient(ask.double.uri, server_pem_path=ca, client_pem_path=ca, client_key_path=key, timeout=2)
        client = MilvusClient(ask.double.uri, ca_pem_path=ca, client_pem_path=ca, client_key_path=key, timeout=60)
        assert client.list_collections() == []
        client.close()
        url = f"{ask.double.rest_uri}{PREFIX}list"
        assert requests.post(url, json={}, verify=ca, cert=(ca, key), timeout=60).json()["code"] == 0
        with pytest.raises(requests.RequestException):
            requests.post(url, json={}, verify=ca, timeout=5)
