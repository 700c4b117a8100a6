"""All that a server keeps over a restart, and what is done at each call: time passes, and the caller is judged."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tests.milvus.servers.clock import Clock
from tests.milvus.servers.compaction import Compactions
from tests.milvus.servers.faults import CODES, Faults
from tests.milvus.servers.imports import Imports
from tests.milvus.servers.profiles import Profile
from tests.milvus.servers.rights import Rights
from tests.milvus.servers.store import Collection, Refused, Store

FLUSHES_A_S = 0.1


class Core:
    """A server's state. ``bucket`` is the folder that stands for its bucket; without one it has local storage."""

    def __init__(
        self, profile: Profile, *, speed: float = 1.0, authorization: bool = False, bucket: Path | None = None
    ) -> None:
        self.profile = profile
        self.clock = Clock(speed)
        self.lock = threading.RLock()
        self.faults = Faults()
        self.store = Store()
        self.rights = Rights(checked=authorization)
        self.imports = Imports(self.store, profile, self.faults, self.clock, bucket)
        self.compactions = Compactions(self.store, profile, self.faults)
        self.calls: list[str] = []
        # Calls over HTTP: route, body, and headers in lower case.
        self.asked: list[tuple[str, Any, dict[str, str]]] = []
        # What something between the client and the server answers to a route in its place: status and text.
        self.between: dict[str, tuple[int, str]] = {}
        # Searches miss each row of that number, as an approximate index does; 1: all.
        self.misses_every = 0
        # Seconds of the server that a call over HTTP takes.
        self.slow_s = 0.0
        self.starting_until = 0.0

    def begin(self, call: str) -> str:
        """A call comes in; the word for what goes wrong with its answer.

        Raises:
            Refused: the server is not ready, or was told not to be.
        """
        self.calls.append(call)
        self.tick()
        if self.clock.now() < self.starting_until:
            raise Refused(1, "service not ready[proxy]: Initializing")
        word = self.faults.take(call)
        if word in CODES:
            raise Refused(CODES[word], f"service {word}")
        return word

    def tick(self) -> None:
        """Let everything come as far as its time has."""
        self.imports.tick()
        self.compactions.tick(self.clock.now())

    def flush(self, there: Collection) -> list[int]:
        """Make a collection's segments persistent, where that is permitted so soon after the last time."""
        now = self.clock.now()
        if there.last_flush is not None and now - there.last_flush < 1 / FLUSHES_A_S:
            raise Refused(8, "rate limit exceeded[rate=0.1]: request is rejected by grpc RateLimiter middleware")
        there.last_flush = now
        return self.store.flush(there, now)
