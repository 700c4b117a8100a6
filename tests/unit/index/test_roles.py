"""Roles of one database: its own grants count, and what a release cannot grant is said."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.index.milvus.server import ServerIndex
from jobs.index.milvus.versions import detect
from jobs.index.roles import LOADER, PRIVILEGES, READER, create_roles, warnings

pytestmark = pytest.mark.unit


class Grants:
    """A pymilvus client over grants (role, object, privilege, name, database), as a server tells them.

    Those of one database and of `*`; where none is named, of `default` (kv_catalog.go, ListGrant).
    """

    def __init__(self) -> None:
        self.roles: list[str] = []
        self.grants: set[tuple[str, str, str, str, str]] = set()

    def list_roles(self) -> list[str]:
        return self.roles

    def create_role(self, role: str) -> None:
        self.roles.append(role)

    def describe_role(self, role: str, db_name: str = "") -> dict[str, Any]:
        of = {"*", db_name or "default"}
        found = [grant for grant in self.grants if grant[0] == role and grant[4] in of]
        keys = ("role_name", "object_type", "privilege", "object_name", "db_name")
        return {"role": role, "privileges": [dict(zip(keys, grant, strict=True)) for grant in found]}

    def grant_privilege(self, role: str, kind: str, privilege: str, name: str, *, db_name: str) -> None:
        self.grants.add((role, kind, privilege, name, db_name))


def index(client: Grants) -> ServerIndex:
    return ServerIndex(client, "http://h:19530", detect("2.6.7"), None)


def test_grants_of_the_default_database_do_not_stand_for_those_of_a_new_one() -> None:
    client = Grants()
    create_roles(index(client), "default")
    granted = create_roles(index(client), "faces_db")
    assert {role: len(granted[role]) for role in granted} == {r: len(p) for r, p in PRIVILEGES.items()}
    assert {grant[4] for grant in client.grants} == {"default", "faces_db"}
    assert create_roles(index(client), "faces_db") == {LOADER: [], READER: []}


def test_a_grant_on_one_collection_does_not_stand_for_one_on_all() -> None:
    client = Grants()
    client.roles = [LOADER, READER]
    client.grants = {(READER, "Collection", "Search", "faces_r1", "default")}
    assert create_roles(index(client), "default")[READER] == ["Search", "Query"]


@pytest.mark.parametrize(
    ("version", "said"), [("2.5.27", False), ("2.6.0", True), ("2.6.6", True), ("2.6.7", False), ("3.0.0", False)]
)
def test_a_release_that_cannot_grant_what_it_asks_for_is_named(version: str, said: bool) -> None:
    found = warnings(detect(version))
    assert bool(found) is said
    assert all("2.6.7" in text and version in text for text in found)
