"""Which files are read as basis records: the one that was named, and no other; and none is passed over in silence."""

from __future__ import annotations

import pytest

from jobs.governance.basis_files import escaped, overlooked

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "unseen",
    ["_w.jsonl", ".w.jsonl", "sub/z.jsonl", "day=1/_w.jsonl", "_day=1/sub/w.jsonl", ".day=1/w.jsonl",
     "w.jsonl._COPYING_", "_committed_", ".w.crc/w.jsonl", "_delta_log/00.json"]
)  # fmt: skip
def test_guarantee_4_a_file_that_spark_passes_over_is_told(unseen: str) -> None:
    """There may be a withdrawal in it."""
    assert overlooked(["a.jsonl", unseen, "b.csv"]) == [unseen]


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a_b.jsonl", "part-00000.json", "_x=1", "day=1/w.jsonl", "day=1/hour=2/w.jsonl", "_day=1/w.jsonl",
     "_SUCCESS", "._SUCCESS.crc", ".part-00000.json.crc", "day=1/._SUCCESS.crc", "_started_123", "_committed_123",
     ".DS_Store"]
)  # fmt: skip
def test_what_is_read_and_the_marks_of_programs_are_not_told_of(name: str) -> None:
    assert overlooked([name]) == []


@pytest.mark.parametrize(
    ("place", "pattern"),
    [
        ("s3a://bucket/basis 2026,1.jsonl", "s3a://bucket/basis 2026,1.jsonl"),
        ("basis[1].jsonl", r"basis\[1\].jsonl"),
        ("a{1,2}.jsonl", r"a\{1,2\}.jsonl"),
        ("*?\\.jsonl", r"\*\?\\.jsonl"),
    ],
)
def test_the_name_of_a_file_is_no_pattern(place: str, pattern: str) -> None:
    assert escaped(place) == pattern
