"""Users, roles and grants. A grant is of a database: `rights.permits` is what a request is judged by."""

from __future__ import annotations

from typing import NamedTuple

from tests.milvus.servers.store import Refused

ANY = "*"


class Grant(NamedTuple):
    """A privilege on an object (``Collection`` or ``Global``) of this name, or of any, in a database, or in any."""

    kind: str
    privilege: str
    name: str
    database: str


class Rights:
    """Who may do what; nothing is checked unless authorization is on."""

    def __init__(self, *, checked: bool) -> None:
        self.checked = checked
        self.users = {"root": "Milvus"}
        self.roles: dict[str, set[Grant]] = {"admin": set(), "public": set()}
        self.members: dict[str, set[str]] = {}

    def user_of(self, credentials: str) -> str:
        """The user of ``name:password``."""
        if not self.checked:
            return "root"
        name, _, password = credentials.partition(":")
        if not name or self.users.get(name) != password:
            raise Refused(1800, "user hasn't authenticated", http=401)
        return name

    def require(self, user: str, kind: str, privilege: str, name: str, database: str) -> None:
        """Refuse what no grant permits."""
        if not self.permits(user, kind, privilege, name, database):
            raise Refused(
                65535,
                f"rpc error: code = PermissionDenied desc = Privilege{privilege}: permission deny to {user} in the "
                f"`{database}` database",
                http=403,
            )

    def permits(self, user: str, kind: str, privilege: str, name: str, database: str) -> bool:
        """Whether a role of the user has the privilege."""
        if not self.checked or user == "root":
            return True
        grants = {g for role in self.members.get(user, ()) for g in self.roles.get(role, ())}
        return any(
            g.kind == kind
            and g.privilege in (privilege, ANY)
            and g.name in (name, ANY)
            and g.database in (database, ANY)
            for g in grants
        )
