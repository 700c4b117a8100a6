"""What is kept about a load while it runs, so that a restarted one neither loses a file nor loads one twice."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from jobs.errors import FaceReindexError

STARTED, DONE, FAILED = "started", "done", "failed"

#: So many seconds what has become of jobs may wait for others, to be put on record with them.
LAG_S: Final = 60.0


class KnownImport(NamedTuple):
    """What is known about a file: its last job, and how it ended (``started``: not yet)."""

    job_id: str
    state: str


@dataclass(frozen=True)
class FileState:
    """The last that is known about a file.

    ``failed``: how often its import was over without having loaded it. ``began``, ``ended``: when its job was started,
    and seen to be over, in seconds since 1970.
    """

    job_id: str = ""
    state: str = STARTED
    failed: int = 0
    began: float | None = None
    ended: float | None = None


class ImportRecorder(ABC):
    """Where outcomes are kept: Milvus forgets its own after hours.

    What a job may be started for is on record before it is (`starting`). That it was started, and how it ended, waits
    for the next of those, or for `LAG_S`: what a kill takes of it the server tells again, or the file's own keys do. So
    a load makes one commit for as many jobs as may be in flight (of 64 files at the most, where jobs take fewer), and
    one a minute: for a million files, a job each and 17 in flight, 58,824, and 60 an hour. Were each start and each end
    a commit, it would make two million.
    """

    def __init__(self) -> None:
        self._known: dict[int, FileState] | None = None
        self._waiting: set[int] = set()
        self._since = 0.0

    @abstractmethod
    def _on_record(self) -> Mapping[int, FileState]:
        """All files on record."""

    @abstractmethod
    def _record(self, files: Mapping[int, FileState]) -> None:
        """Put so much on record in one commit: all of it, or nothing."""

    def check(self) -> None:  # noqa: B027 - most are nobody else's
        """Raise where the record is another's by now; asked before each job is started."""

    def starting(self, numbers: Iterable[int]) -> None:
        """Jobs may be started for these files from now on: on record once this returns, and so is all that waited.

        Told before any row of a collection is on its way.
        """
        self._tell(numbers, lambda former: FileState(failed=former.failed))
        self.commit()

    def started(self, numbers: Sequence[int], job_id: str) -> None:
        """A job was started for these files."""
        now = time.time()
        self._tell(numbers, lambda former: FileState(job_id, failed=former.failed, began=now))

    def finished(self, numbers: Sequence[int], state: str) -> None:
        """The files are loaded (``done``) or their job is over without that (``failed``, which does not wait)."""
        now, failed = time.time(), state == FAILED
        self._tell(numbers, lambda former: replace(former, state=state, failed=former.failed + failed, ended=now))
        if failed:
            self.commit()

    def commit(self, *, after_s: float = 0.0) -> None:
        """Put on record what waits, if anything has waited for ``after_s``."""
        if self._waiting and time.monotonic() - self._since >= after_s:
            self._record({number: self._files[number] for number in sorted(self._waiting)})
            self._waiting.clear()

    @contextmanager
    def committed_at_the_end(self) -> Iterator[None]:
        """What waits is on record once this is left, also by an error: else whoever resumes a load whose server was
        away for too long would have to count keys, and for that index and load all that is there."""
        try:
            yield
        except Exception:
            # Of both it is the first that says what to do.
            with suppress(FaceReindexError):
                self.commit()
            raise
        self.commit()

    def known(self) -> Mapping[int, tuple[str, str]]:
        """All files, on record or about to be: (job id, state)."""
        return {number: KnownImport(file.job_id, file.state) for number, file in self._files.items()}

    def attempt(self, numbers: Sequence[int]) -> int:
        """How often the import of these files was over without having loaded them: of that one which failed most."""
        return max((self._files[number].failed for number in numbers if number in self._files), default=0)

    def _tell(self, numbers: Iterable[int], change: Callable[[FileState], FileState]) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        for number in numbers:
            self._files[number] = change(self._files.get(number, FileState()))
            self._waiting.add(number)

    @property
    def _files(self) -> dict[int, FileState]:
        if self._known is None:
            self._known = dict(self._on_record())
        return self._known


class MemoryRecorder(ImportRecorder):
    """Keeps the record in memory: for tests, and for loads that need not survive.

    ``kept``: the record of an earlier load, which goes on; what waits to be on record is in no other recorder.
    """

    def __init__(self, kept: dict[int, FileState] | None = None) -> None:
        super().__init__()
        self.kept = {} if kept is None else kept

    def _on_record(self) -> Mapping[int, FileState]:
        return self.kept

    def _record(self, files: Mapping[int, FileState]) -> None:
        self.kept.update(files)


@dataclass(frozen=True)
class LoadResult:
    """What a load did."""

    rows: int
    files: int
    skipped: int = 0
    adopted: int = 0
    retried: int = 0
