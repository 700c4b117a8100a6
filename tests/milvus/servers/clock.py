"""Time of a double: as fast as a test needs it."""

from __future__ import annotations

import time


class Clock:
    """Seconds that run ``speed`` times as fast as ours, and can be skipped."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._began = time.monotonic()
        self._skipped = 0.0

    def now(self) -> float:
        """Seconds since the double was made."""
        return (time.monotonic() - self._began) * self._speed + self._skipped

    def skip(self, seconds: float) -> None:
        """Let time pass at once."""
        self._skipped += seconds
