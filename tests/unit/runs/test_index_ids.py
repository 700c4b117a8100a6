"""Which index a collection is in, and is about to be dropped from. (What follows: spark/erasure/test_stores.py.)"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.index.milvus.embedded import EmbeddedIndex
from jobs.runs.results import Dropped, Dropping
from jobs.runs.step_result import StepResult
from jobs.runs.stores import about_to_drop, drop, own_collections
from jobs.steps.load import _create
from tests.milvus.rows import INFO

pytestmark = pytest.mark.unit

_MILVUS = SimpleNamespace(alias="faces", shards=1, vector_type="float32")


@dataclass
class FakeRun:
    """A run of warehouse "here" that keeps what it puts on record."""

    run_id: str = "1"
    trained: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    warehouse: Any = field(default_factory=lambda: SimpleNamespace(identity="here"))
    settings: Any = field(
        default_factory=lambda: SimpleNamespace(milvus=_MILVUS, governance=SimpleNamespace(purposes=("search",)))
    )
    recorded: list[StepResult] = field(default_factory=list)

    def record(self, result: StepResult) -> None:
        self.recorded.append(result)


@pytest.fixture
def first(tmp_path: Path) -> Iterator[EmbeddedIndex]:
    with EmbeddedIndex(tmp_path / "first.db") as index:
        yield index


@pytest.fixture
def other(tmp_path: Path) -> Iterator[EmbeddedIndex]:
    with EmbeddedIndex(tmp_path / "other.db") as index:
        yield index


def ids(run: Any, index: EmbeddedIndex) -> dict[str, str]:
    return own_collections(run.warehouse, run.settings, index)


def test_guarantee_9_a_collection_is_of_the_index_of_those_beside_it_whatever_its_address(
    first: EmbeddedIndex, other: EmbeddedIndex
) -> None:
    run: Any = FakeRun()
    for index in (first, other):
        _create(run, index, "faces_1", "f" * 64)
    one, two = ids(run, first)["faces_1"], ids(run, other)["faces_1"]
    assert one != two
    # Handed on from night to night, also when the first is gone; another warehouse's collection has no part in it.
    first.create("faces_0", dim=4, shards=1, properties=replace(INFO, run_id="0", warehouse="there", index="0"))
    _create(run, first, "faces_2", "f" * 64)
    first.drop("faces_1")
    _create(run, first, "faces_3", "f" * 64)
    assert ids(run, first) == {"faces_2": one, "faces_3": one}


def test_guarantee_9_what_is_about_to_be_dropped_is_on_record_with_its_index(first: EmbeddedIndex) -> None:
    """By each id that its collections have for it: those of an earlier release have their names alone."""
    run: Any = FakeRun()
    index = first
    for run_id in ("7", "8"):
        index.create(f"faces_{run_id}", dim=4, shards=1, properties=replace(INFO, run_id=run_id))
    _create(run, index, "faces_9", "f" * 64)
    assert ids(run, index) == {"faces_7": "faces_7", "faces_8": "faces_8", "faces_9": "faces_7"}
    drop(run, index, "faces_7")
    assert run.recorded == [
        Dropping(dropped=("faces_7",), index=("faces_7", "faces_8")),
        Dropped(dropped=("faces_7",)),
    ]
    # What is left tells that it is the same index.
    assert set(ids(run, index).values()) == {"faces_7", "faces_8"}
    about_to_drop(run, index, [])
    assert len(run.recorded) == 2
