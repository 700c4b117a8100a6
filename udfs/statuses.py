"""How an image can end."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """How the pipeline ended with an image; a reason beside it says more."""

    EMBEDDED = "embedded"
    NO_FACE = "no_face"
    BROKEN = "broken"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    UNCOVERED_FACES = "uncovered_faces"


#: Every way in which an image can end.
STATUSES = tuple(Status)
