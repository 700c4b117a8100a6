"""The two roles that an index needs, with no privilege more: one that loads, one that reads through the alias.

    FACE_REINDEX_MILVUS_TOKEN=root:… python -m jobs.index.roles --config conf/prod.yaml --loader loader --reader app

Milvus checks nothing unless the server runs with ``common.security.authorizationEnabled``. Users are made by whoever
runs the server; this gives them their role. Repeating it changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import pyarrow as pa

from jobs.errors import FaceReindexError, NotPermitted, SettingsError
from jobs.index.milvus.calls import call
from jobs.index.milvus.server import ServerIndex
from jobs.index.milvus.vectors import encode
from jobs.index.milvus.versions import UNGRANTABLE_IMPORT
from jobs.index.protocol import (
    METRIC,
    SCALARS,
    VECTOR,
    CollectionInfo,
    Features,
    Vectors,
    VectorType,
    parse_version,
)
from jobs.settings import load_settings

_ANY = "*"
LOADER, READER = "face_reindex_loader", "face_reindex_reader"

# Object, privilege: found by trying each call of a run on 2.3.5 with authorization. (To move an alias is CreateAlias.)
# Milvus knows a collection by its whole name or "*", and a run's collection has a new name: so the loader may do these
# things to every collection of the database. A database of its own keeps it from others'.
PRIVILEGES: dict[str, tuple[tuple[str, str], ...]] = {
    LOADER: (
        ("Global", "CreateCollection"),
        ("Global", "DropCollection"),
        ("Global", "DescribeCollection"),
        ("Global", "ShowCollections"),
        ("Global", "CreateAlias"),
        ("Global", "DescribeAlias"),
        ("Global", "ListAliases"),
        ("Global", "DropAlias"),
        ("Collection", "CreateIndex"),
        ("Collection", "IndexDetail"),
        ("Collection", "Load"),
        ("Collection", "Release"),
        ("Collection", "GetLoadState"),
        ("Collection", "Import"),
        ("Collection", "Insert"),
        ("Collection", "Upsert"),
        ("Collection", "Delete"),
        ("Collection", "Flush"),
        ("Collection", "GetFlushState"),
        ("Collection", "Compaction"),
        ("Collection", "Query"),
        ("Collection", "Search"),
    ),
    READER: (("Collection", "Search"), ("Collection", "Query")),
}


def create_roles(index: ServerIndex, database: str) -> dict[str, list[str]]:
    """Make both roles and grant what is missing; returns the privileges granted now, by role."""
    client = index.client
    there = set(call("list roles", "", client.list_roles))
    granted: dict[str, list[str]] = {}
    for role, privileges in PRIVILEGES.items():
        if role not in there:
            call("create a role", role, lambda role=role: client.create_role(role))  # type: ignore[misc]
        has = _granted(client, role, database)
        granted[role] = []
        for kind, privilege in privileges:
            if (kind, privilege) in has:
                continue
            call(
                f"grant {privilege}",
                role,
                lambda role=role, kind=kind, privilege=privilege: client.grant_privilege(  # type: ignore[misc]
                    role, kind, privilege, _ANY, db_name=database
                ),
            )
            granted[role].append(privilege)
    return granted


def _granted(client: Any, role: str, database: str) -> set[tuple[str, str]]:
    """What a role may do to every collection of this database (object, privilege).

    Grants are of a database, and one that is not named is `default`: its grants would stand for those of a new one
    (2.5.27 internal/metastore/kv/rootcoord/kv_catalog.go ListGrant).
    """
    found = call("describe a role", role, lambda: client.describe_role(role, db_name=database))
    return {
        (grant["object_type"], grant["privilege"])
        for grant in found.get("privileges", ())
        if grant.get("object_name") == _ANY and (grant.get("db_name") or "default") in (database, _ANY)
    }


def warnings(features: Features) -> list[str]:
    """What these roles cannot do on a server, for want of privileges that it grants."""
    if not UNGRANTABLE_IMPORT.holds(parse_version(features.version)):
        return []
    return [
        f"Milvus {features.version}: the loader's role is not enough for bulk imports, for 2.6.0 to 2.6.6 ask for "
        "global privileges that no role can be given. Upgrade to 2.6.7, or set milvus.load_by=insert."
    ]


def differences(index: ServerIndex, database: str) -> dict[str, dict[str, list[str]]]:
    """By role: the privileges that are ``missing`` in this database, and those that are ``beyond`` what it needs.

    Raises:
        NotPermitted: this account may not look at roles.
    """
    there = set(call("list roles", "", index.client.list_roles))
    found = {}
    for role, needed in PRIVILEGES.items():
        has = _granted(index.client, role, database) if role in there else set()
        found[role] = {
            "missing": [privilege for kind, privilege in needed if (kind, privilege) not in has],
            "beyond": sorted(privilege for kind, privilege in has - set(needed)),
        }
    return found


def permitted_calls(
    index: ServerIndex, collection: str, vector: Vectors, vector_type: VectorType = "float32"
) -> dict[str, bool]:
    """By privilege, whether the account of ``index`` may do so to a collection that is lost in nothing thereby.

    ``vector``: what to search for, and a row to write (float32). ``vector_type``: of the collection's vectors.

    Raises:
        FaceReindexError: a call failed for another reason.
    """
    asked: list[Any] = [vector.tolist()] if vector_type == "float32" else encode(vector[None], vector_type)
    # By its name pymilvus learns the field's type, as which bytes are sent.
    how: dict[str, Any] = {"anns_field": VECTOR, "limit": 1, "search_params": {"metric_type": METRIC}}
    found = partial(index.client.search, collection, asked, **how)
    row = {name: pa.array([0], pa.int64()) for name in SCALARS} | {VECTOR: pa.array([vector], pa.list_(pa.float32()))}
    alias, info = f"{collection}_reader", CollectionInfo("", "", trained=False, label="", created_at="")
    calls: dict[str, Callable[[], object]] = {
        "Search": lambda: call("answer a search", collection, found),
        "Query": lambda: index.count(collection),
        "Upsert": lambda: index.insert(collection, pa.table(row)),
        "Delete": lambda: index.delete(collection, [0]),
        "CreateAlias": lambda: call("create an alias", alias, lambda: index.client.create_alias(collection, alias)),
        "DropAlias": lambda: call("drop an alias", alias, lambda: index.client.drop_alias(alias)),
        "CreateCollection": lambda: index.create(f"{collection}_readers", dim=len(vector), shards=1, properties=info),
        "Release": lambda: index.release(collection),
        "DropCollection": lambda: index.client.drop_collection(collection),
    }
    return {privilege: _is_permitted(privilege, ask) for privilege, ask in calls.items()}


def _is_permitted(privilege: str, ask: Callable[[], object]) -> bool:
    try:
        call(f"be asked for {privilege}", "", ask)
    except NotPermitted:
        return False
    return True


@click.command("roles", help=__doc__)
@click.option("--config", type=click.Path(), help="YAML settings file (docs/settings.md).")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one setting; repeatable.")
@click.option("--loader", multiple=True, metavar="USER", help="Give this user the loader's role.")
@click.option("--reader", multiple=True, metavar="USER", help="Give this user the reader's role.")
def main(config: str | None, overrides: tuple[str, ...], loader: tuple[str, ...], reader: tuple[str, ...]) -> None:
    """Make the roles."""
    try:
        settings = load_settings(config, overrides)
        if settings.embedded:
            raise SettingsError("milvus.uri is an embedded index, which has no users and no roles.")
        with ServerIndex.open(settings) as index:
            for text in warnings(index.features):
                click.echo(text, err=True)
            for role, privileges in create_roles(index, settings.milvus.database).items():
                click.echo(f"{role}: {', '.join(privileges) or 'nothing new'}")
            for role, users in ((LOADER, loader), (READER, reader)):
                for user in users:
                    call("grant a role", role, lambda user=user, role=role: index.client.grant_role(user, role))  # type: ignore[misc]
                    click.echo(f"{user}: {role}")
    except FaceReindexError as error:
        click.echo(f"roles: failed: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
