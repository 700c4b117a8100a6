"""Compactions: by hand, and what the server does by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from tests.milvus.servers.faults import Faults
from tests.milvus.servers.profiles import Profile
from tests.milvus.servers.store import L0, L1, Collection, Segment, Store

IDLE_S = 30.0
SHARE = 0.2
NO_JOB = -1


@dataclass
class Plan:
    """A part of a compaction: what it does when it ends."""

    job: int
    ends: float
    act: Callable[[], None]
    state: Literal["executing", "completed", "failed"] = "executing"


class Compactions:
    """Plans that run, and those that have."""

    def __init__(self, store: Store, profile: Profile, faults: Faults, *, plan_s: float = 2.0) -> None:
        self._store, self._profile, self._faults = store, profile, faults
        self.plan_s = plan_s
        self.plans: list[Plan] = []

    def start(self, collections: Iterable[Collection], *, l0: bool, now: float) -> tuple[int, int]:
        """A compaction by hand: its id and the number of its plans; without a plan there is no id."""
        job = self._store.number()
        acts: list[Callable[[], None]] = []
        for there in collections:
            if not (l0 and self._profile.has("l0-by-hand")):
                acts += [partial(self._rewrite, there, s) for s in there.at_level(L1, flushed=True) if s.visible]
            elif ripe := self._ripe(there):
                acts.append(partial(self._note_deletes, there, ripe))
        self.plans += [Plan(job, now + self.plan_s, act) for act in acts]
        return (job, len(acts)) if acts else (NO_JOB, 0)

    def count(self, job: int, state: str) -> int:
        """How many plans of a job are in a state."""
        return sum(plan.job == job and plan.state == state for plan in self.plans)

    def tick(self, now: float) -> None:
        """End the plans whose time has come, and do what is done by itself."""
        for plan in self.plans:
            if plan.state == "executing" and now >= plan.ends:
                failed = self._faults.take("compaction")
                plan.state = "failed" if failed else "completed"
                if not failed:
                    plan.act()
        for there in self._store.all():
            ripe = self._ripe(there)
            if ripe and all(now - segment.since > IDLE_S for segment in there.at_level(L0)):
                self._note_deletes(there, ripe)
            for segment in there.at_level(L1, flushed=True):
                if segment.rows and segment.deleted.mean() >= SHARE:
                    self._rewrite(there, segment)

    def _ripe(self, there: Collection) -> list[Segment]:
        """L0 segments that can be compacted: persistent and, in older servers, older than all that still grows."""
        growing = min((s.at for s in there.at_level(L1, flushed=False)), default=np.inf)
        bound = growing if self._profile.has("l0-behind-growing") else np.inf
        return [s for s in there.at_level(L0, flushed=True) if s.at < bound]

    @staticmethod
    def _note_deletes(there: Collection, deletes: list[Segment]) -> None:
        for segment in there.at_level(L1):
            for each in deletes:
                segment.deleted |= segment.hidden_by(each)
        there.segments = [s for s in there.segments if s not in deletes]

    def _rewrite(self, there: Collection, old: Segment) -> None:
        if old not in there.segments:
            return
        left = {name: column[~old.deleted] for name, column in old.columns.items()}
        new = Segment(self._store.number(), L1, old.key, left, old.at, flushed=True)
        there.segments = [s for s in there.segments if s is not old] + ([new] if new.rows else [])
