"""Random histories as a state machine of hypothesis: its rules are the jobs, and each step sends rules of many cells.

Findings are collected and not raised, for hypothesis would play hours again to make an example smaller; a finding's own
history (one cell, and the schedule so far) is small already.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, assume, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.histories.cells import RULES, SHAPES
from tests.histories.machine import ANEW, KEPT, Player
from tests.histories.schedules import (
    BATCH_WORDS,
    GRAVE,
    KILLABLE,
    LAW_WORDS,
    OTHERS,
    POINTS,
    WORDS,
    given_again,
    lost_table,
    sparing,
)
from tests.histories.world import World

PLAIN = (*(word for word in WORDS if word.islower() and word != "resume"), *BATCH_WORDS, *LAW_WORDS)
TELLING = ("sync", "erase", "expire", "reindex", "rollback")
SEEDS = st.integers(0, 2**32 - 1)
AT = st.sampled_from(POINTS) | st.integers(0, 30).map(str)


class Histories(RuleBasedStateMachine):
    """One random history. ``make_world`` and ``played`` are set by `play_random`."""

    make_world: Callable[[], World]
    played: Callable[[Player], Any]
    cells = 300

    def __init__(self) -> None:
        super().__init__()
        self.player: Player | None = None
        self.grave = False

    @initialize(number=SEEDS)
    def begin(self, number: int) -> None:
        """Cells, their first ingest and night, and a copy of all that put aside."""
        # hypothesis begins with the simplest of all histories, whatever its seed, and would end with that one.
        assume(number)
        self.rng = random.Random(number)
        made = [
            (f"c{n:04d}", self.rng.choice(list(SHAPES)), "part" if n % 10 == 7 else "main", ())
            for n in range(self.cells)
        ]
        self.player = Player(type(self).make_world(), ((KEPT, "boxed", "main", ()), *made))
        self.player.begin()
        self.player.step("reindex")
        self.player.step("back up")

    def _step(self, word: str, number: int, *, grave: bool = False) -> None:
        assert self.player is not None
        rng, rules = random.Random(number), {}
        for name in self.player.cells:
            if name != KEPT and rng.random() < 0.4:
                rules[name] = rng.choice(RULES + GRAVE * 2)
        if len(self.player.schedule) % 4 != 2:
            rules = {n: r for n, r in rules.items() if sparing((r,), self.player.cells[n].batch) == (r,)}
        self.player.step(word, rules)
        self.grave = grave

    @rule(word=st.sampled_from(PLAIN), number=SEEDS)
    def job(self, word: str, number: int) -> None:
        """Any job or event."""
        self._step(word, number, grave=word in ("erase", "expire", "restore images", "restore index.db"))

    @rule(job=st.sampled_from(KILLABLE), at=AT, number=SEEDS)
    def kill(self, job: str, at: str, number: int) -> None:
        """A job is killed."""
        self._step(f"{job}!{at}", number, grave=True)

    @rule(job=st.sampled_from(KILLABLE), at=AT, other=st.sampled_from(OTHERS), number=SEEDS)
    def zombie(self, job: str, at: str, other: str, number: int) -> None:
        """A job goes on after its lease."""
        self._step(f"{job}~{at}>{other}", number, grave=True)

    @rule(job=st.sampled_from(KILLABLE), at=AT, other=st.sampled_from(("erase", "sync")), number=SEEDS)
    def meeting(self, job: str, at: str, other: str, number: int) -> None:
        """An erasure meets a job."""
        self._step(f"{job}^{at}>{other}", number, grave=True)

    @rule(number=SEEDS)
    def again(self, number: int) -> None:
        """An ingest, or what asks for erasures, is cut off and given again."""
        self._step(given_again(random.Random(number)), number, grave=True)

    @rule(number=SEEDS)
    def lose_table(self, number: int) -> None:
        """A table is lost while a job runs."""
        self._step(lost_table(random.Random(number)), number, grave=True)

    @rule(where=st.sampled_from(("same", "elsewhere")), job=st.sampled_from(ANEW), number=SEEDS)
    def otherwise(self, where: str, job: str, number: int) -> None:
        """A job under an id that has been, or with settings that lead to another index."""
        self._step(f"{where} {job}", number, grave=True)

    @precondition(lambda self: self.player is not None and self.player.killed is not None)
    @rule(number=SEEDS)
    def resume(self, number: int) -> None:
        """What was killed is run again by its id."""
        self._step("resume", number)

    @precondition(lambda self: self.grave)
    @rule(word=st.sampled_from(TELLING), number=SEEDS)
    def what_tells(self, word: str, number: int) -> None:
        """After what is grave, what has to show it."""
        self._step(word, number)

    def teardown(self) -> None:
        """Hand the history over."""
        if self.player is not None:
            type(self).played(self.player)


def play_random(
    make_world: Callable[[], World], played: Callable[[Player], Any], *, number: int, cells: int, steps: int = 12
) -> None:
    """One random history of this seed."""

    class Seeded(Histories):
        pass

    Seeded.make_world, Seeded.played, Seeded.cells = staticmethod(make_world), staticmethod(played), cells
    profile = settings(
        max_examples=1, stateful_step_count=steps, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    run_state_machine_as_test(seed(number)(Seeded), settings=profile)
