"""Histories on a tiny warehouse against the oracle: the quick profile, and random ones for `make test-histories`.

What is played, compared and promised, and how a rule, a job or a shape is added: machine.py, cells.py, oracle.py.
The quick profile is one history of a fixed schedule and seed. Longer: `python -m tests.histories --minutes 120`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.histories.machine import play
from tests.histories.schedules import quick
from tests.histories.world import World

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Of the long tests while what it finds is being mended.
pytestmark = [pytest.mark.spark, pytest.mark.faults]

SEED, CELLS = 19, 300


@pytest.fixture
def world(spark: SparkSession, tmp_path: Path) -> Iterator[World]:
    made = World(spark, tmp_path / "world")
    made.install()
    yield made
    made.remove()


def test_guarantees_1_7_8_9_11_12_13_and_14_hold_on_the_quick_history(world: World) -> None:
    player = play(world, quick(SEED, CELLS))
    assert not player.findings, "\n\n".join(str(finding) for finding in player.findings)
