"""What is kept about a load while it runs, so that a restarted one neither loses a file nor loads one twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

STARTED, DONE, FAILED = "started", "done", "failed"


class KnownImport(NamedTuple):
    """What is on record about a file: its last job, and how it ended (``started``: not yet)."""

    job_id: str
    state: str


class ImportRecorder(Protocol):
    """Where outcomes are kept: Milvus forgets its own after hours."""

    def started(self, numbers: Sequence[int], job_id: str) -> None:
        """A job was started for the files of these numbers; all of them at once, or none.

        Told before any row of a collection is on its way; without a job id where it is not known, or not started yet.
        """

    def finished(self, numbers: Sequence[int], state: str) -> None:
        """The files are loaded (``done``) or their job is over without that (``failed``); all at once, or none."""

    def known(self) -> Mapping[int, tuple[str, str]]:
        """All files on record: (job id, state)."""

    def attempt(self, numbers: Sequence[int]) -> int:
        """How often the import of these files was over without having loaded them: of that one which failed most."""


class MemoryRecorder:
    """Keeps the record in memory: for tests, and for loads that need not survive."""

    def __init__(self) -> None:
        self._known: dict[int, KnownImport] = {}
        self._failed: dict[int, int] = {}

    def started(self, numbers: Sequence[int], job_id: str) -> None:
        """A job was started for the files of these numbers."""
        self._known.update({number: KnownImport(job_id, STARTED) for number in numbers})

    def finished(self, numbers: Sequence[int], state: str) -> None:
        """The files are loaded (``done``) or their job is over without that (``failed``)."""
        for number in numbers:
            job_id = self._known[number].job_id if number in self._known else ""
            self._known[number] = KnownImport(job_id, state)
            if state == FAILED:
                self._failed[number] = self._failed.get(number, 0) + 1

    def known(self) -> Mapping[int, tuple[str, str]]:
        """All files on record: (job id, state)."""
        return dict(self._known)

    def attempt(self, numbers: Sequence[int]) -> int:
        """How often the import of these files was over without having loaded them: of that one which failed most."""
        return max((self._failed.get(number, 0) for number in numbers), default=0)


@dataclass(frozen=True)
class LoadResult:
    """What a load did."""

    rows: int
    files: int
    skipped: int = 0
    adopted: int = 0
    retried: int = 0
