"""What a run may be called: its id stands in tables, names of files and, for good, in the audit trail."""

from __future__ import annotations

import re
from typing import Final

from jobs.errors import SettingsError

RUN_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


def checked_run_id(text: str) -> str:
    """``text``, which is a run's id.

    Raises:
        SettingsError: it is none; what it is instead is not repeated.
    """
    if not re.fullmatch(RUN_ID, text):
        raise SettingsError("--run-id: letters, digits, '_', '.' and '-' only, at most 100.")
    return text
