"""The commands that there are, named here once more."""

from __future__ import annotations

COMMANDS = {
    "ingest", "reindex", "embed", "load", "verify", "promote", "rollback", "sync", "erase", "expire", "status",
    "evaluate", "doctor", "calibrate", "plan", "report",
}  # fmt: skip
