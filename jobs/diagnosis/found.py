"""What a check finds: how bad it is, what and where, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from jobs.errors import DependencyUnavailable, FaceReindexError

Level = Literal["ok", "warning", "failure", "not asked"]
#: What ends with another exit code than that of settings, or of a store out of reach: a defect of this program.
DEFECT: Final = 1


@dataclass(frozen=True)
class Found:
    """What a check says: how bad it is, what and where, and what to do next."""

    level: Level
    what: str
    next_step: str = ""
    exit_code: int = 0
    check: str = ""


def ok(what: str) -> Found:
    """All is well."""
    return Found("ok", what)


def warning(what: str, next_step: str) -> Found:
    """A night can be run, and should not be before this was looked at."""
    return Found("warning", what, next_step)


def failure(what: str, next_step: str, kind: type[FaceReindexError] = DependencyUnavailable) -> Found:
    """A night would fail."""
    return Found("failure", what, next_step, kind.exit_code)


def not_asked(why: str) -> Found:
    """Nothing is known of it; ``why`` says what it hung on."""
    return Found("not asked", why)
