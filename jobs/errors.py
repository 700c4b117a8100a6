"""Every error that Face Reindex raises on purpose, in one tree.

::

    FaceReindexError              exit 1
    ├── SettingsError             exit 2   usage or settings; a retry does not help
    ├── GovernanceError           exit 3   refused by governance; a retry does not help
    ├── NotProvenError            exit 4   the new index was not proven, so nothing was promoted
    ├── DependencyUnavailable     exit 5   Milvus, object store or download out of reach; retry helps
    │   ├── LeaseHeld             exit 5   another run holds the lease; retry after it ends
    │   ├── StoreMissing          exit 5   an erasure cannot see a store that this warehouse has filled
    │   └── NotCompacted          exit 5   Milvus hides deleted rows, and was not seen to have rewritten its segments
    ├── LeaseLost                 exit 5   another run took over; this one must not write any more
    ├── NotPermitted              exit 1   Milvus does not permit this account what it was to do
    ├── MixedFingerprints         exit 4   embeddings of two models would meet in one collection
    └── BadInput                  exit 1   an input as a whole is unusable (single rows become status rows)

`erase` ends with ``NOTHING_FOUND`` (exit 6), and no error, where all is done and what was asked for was not there.

A message says what went wrong, where, and the next step. It never holds an image, a vector, a
person's name or pseudonym, or a token.
"""

from __future__ import annotations

from typing import ClassVar, Final

#: A request for an erasure was carried out and found nothing, which is no success: the name may be spelt otherwise.
NOTHING_FOUND: Final = 6


class FaceReindexError(Exception):
    """Base of the tree. ``hint`` is the next step for the operator."""

    exit_code: ClassVar[int] = 1
    retry_helps: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message} Next step: {hint}")
        self.message, self.hint = message, hint or ""


class SettingsError(FaceReindexError):
    """A setting or an argument is wrong: names the file, the key and what would be right."""

    exit_code = 2


class GovernanceError(FaceReindexError):
    """Governance stops the job: no basis table, no purpose, nothing is permitted, or nobody said what permits it."""

    exit_code = 3


class NotProvenError(FaceReindexError):
    """Verification or reconciliation failed, so the alias was not switched."""

    exit_code = 4


class MixedFingerprints(NotProvenError):
    """Embeddings of two models would have met in one collection or chunk."""


class DependencyUnavailable(FaceReindexError):
    """Something outside is out of reach; the same command can succeed later."""

    exit_code = 5
    retry_helps = True


class LeaseHeld(DependencyUnavailable):
    """Another run is writing this warehouse."""


class StoreMissing(DependencyUnavailable):
    """A store that this warehouse has filled is not where the settings look; an erasure stays open."""


class NotCompacted(DependencyUnavailable):
    """Deleted rows are served no longer, and Milvus was not seen to have rewritten its segments without them."""


class LeaseLost(DependencyUnavailable):
    """This run was fenced off: a later run holds the lease now."""


class NotPermitted(FaceReindexError):
    """Milvus does not permit this account what it was to do; ``privilege``: what it needs, where the server tells."""

    def __init__(self, message: str, *, hint: str | None = None, privilege: str = "") -> None:
        super().__init__(message, hint=hint)
        self.privilege = privilege


class BadInput(FaceReindexError):
    """A source as a whole cannot be read."""
