"""How a job ends: what it says on its last line, its exit code, and what `--json` tells besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """What a job's function returns to `jobs.cli`; of a run also what its row in `runs` says (`Run.end`)."""

    message: str
    exit_code: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
