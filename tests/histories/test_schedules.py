"""What is played: every pair, every rule, histories that come back from their text, mends that stand in the code."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.histories.cells import RULES, SHAPES, Cell
from tests.histories.machine import GIVEN_AGAIN, JOBS, History, Player
from tests.histories.mends import MENDS, ROOT
from tests.histories.schedules import ONCE, QUICK, WORDS, every_pair, history_of, pairs_around, quick, schedules

pytestmark = pytest.mark.unit


def test_every_word_is_followed_by_each() -> None:
    line = every_pair(WORDS, random.Random(1))
    assert set(itertools.pairwise(line)) == set(itertools.product(WORDS, WORDS))


def test_every_pair_of_rules_is_played_around_a_job() -> None:
    wanted = len(RULES) ** 2
    found = {tuple(rule for rule in sequence if rule) for sequence in pairs_around(8, random.Random(1), wanted)}
    assert found == set(itertools.product(RULES, RULES))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_sends_something_in_every_shape(shape: str, rule: str) -> None:
    cell = Cell("c1", shape, "main", (), 1.0)
    sent = cell.do(rule, lambda: 2.0, 3.0)
    assert sent.lines or sent.pictures or sent.asked


def test_every_word_is_one_that_is_played() -> None:
    for schedule in itertools.islice(schedules(3), 40):
        for word in schedule:
            job = word.split("!")[0].split("~")[0].split("^")[0]
            name = word.replace(" ", "_")
            assert (
                job in (*JOBS, *GIVEN_AGAIN)
                or hasattr(Player, f"word_{name}")
                or hasattr(Player, f"word_{name.split('_')[0]}")
            ), word


def test_a_history_comes_back_from_its_text_and_is_the_same_each_time() -> None:
    history = quick(19, 60)
    assert History.from_json(history.to_json()) == history == quick(19, 60)
    assert history.schedule == QUICK
    assert {rules for _, rules in ONCE} <= {rules for _, _, _, rules in history.cells}
    assert history_of(QUICK, 1, 40) != history_of(QUICK, 2, 40)


@pytest.mark.parametrize("mend", yaml.safe_load(MENDS.read_text(encoding="utf-8")), ids=lambda mend: mend["name"])
def test_a_mend_that_is_taken_out_stands_in_the_code(mend: dict[str, Any]) -> None:
    for change in mend["take_out"]:
        source = Path(ROOT, *change["module"].split(".")).with_suffix(".py").read_text(encoding="utf-8")
        assert source.count(change["was"]) == 1
        compile(source.replace(change["was"], change["now"]), change["module"], "exec")
    schedule, cells = mend["history"]["schedule"], mend["history"]["cells"]
    assert History(tuple(schedule), tuple(map(tuple, cells)))
    assert all(len(rules) < len(schedule) for *_, rules in cells), "a rule comes before the job of its place, or never"
