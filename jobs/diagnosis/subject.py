"""What is looked at, and what one check hands on to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from jobs.diagnosis.worker import Worker
from jobs.errors import NotPermitted
from jobs.index.milvus.server import ServerIndex

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.index.protocol import VectorIndex
    from jobs.index.staging import Manifest
    from jobs.runs.record import JobContext
    from jobs.settings import Settings

#: Everything that a doctor makes has a name that begins so, and goes on with when.
PREFIX: Final = "face_reindex_doctor_"
_STAMP: Final = "%Y%m%dT%H%M%S"
# Longer than an examination can take; what is older was left by one that was killed.
_STALE: Final = timedelta(days=1)


def new_name(now: datetime) -> str:
    """A name for what is made: nobody else has it, and it tells its age."""
    return f"{PREFIX}{now:{_STAMP}}_{uuid4().hex[:8]}"


def is_stale(name: str, now: datetime) -> bool:
    """Whether a killed doctor left it, and not one that is at work.

    >>> is_stale("face_reindex_doctor_20260131T020000_ab12cd34", datetime(2026, 3, 1, tzinfo=UTC))
    True
    """
    if not name.startswith(PREFIX):
        return False
    try:
        made = datetime.strptime(name.removeprefix(PREFIX)[:15], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return False
    return now - made > _STALE


class Undo(NamedTuple):
    """How something that was made is taken away again; ``what`` names it, should that fail."""

    what: str
    undo: Callable[[], object]


@dataclass
class Subject:
    """A job's settings, session and stores, while `doctor` looks at them.

    ``seconds``: how long one check may wait for executors or for Milvus. ``name``: of whatever is made.
    """

    job: JobContext
    seconds: float
    name: str
    undos: list[Undo] = field(default_factory=list)
    workers: dict[str, Worker] = field(default_factory=dict)
    """What a worker of each executor said of itself."""
    opened: VectorIndex | None = None
    version: str = ""
    staged: Manifest | None = None
    rows: dict[int, int] = field(default_factory=dict)
    """Keys in the collection, and the place of the 1 in the vector of each."""
    used: set[str] = field(default_factory=set)
    """Privileges that this account was seen to have."""
    refused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Those that it lacks, as the server calls them; else all of those that a refused call needs."""

    @property
    def settings(self) -> Settings:
        """The job's settings."""
        return self.job.settings

    @property
    def spark(self) -> SparkSession:
        """The session; a check that asks for it needs `spark`."""
        return self.job.spark

    @property
    def index(self) -> VectorIndex:
        """The index; a check that asks for it needs `milvus`."""
        assert self.opened is not None  # noqa: S101 - what needs it is not asked where it could not be opened
        return self.opened

    @property
    def server(self) -> ServerIndex | None:
        """The index where it is a server's."""
        return self.opened if isinstance(self.opened, ServerIndex) else None

    def undo(self, what: str, how: Callable[[], object]) -> None:
        """Say, before ``what`` is made, how it is taken away again: also where there is nothing to take away."""
        self.undos.append(Undo(what, how))

    @contextmanager
    def using(self, *privileges: str) -> Iterator[None]:
        """Around calls that need these privileges: so it is known which of the loader's this account has."""
        try:
            yield
        except NotPermitted as error:
            if error.privilege:
                self.refused[error.privilege] = (error.privilege,)
            else:
                self.refused[" or ".join(privileges)] = privileges
            raise
        self.used.update(privileges)
