"""Numbers are written the same wherever people read them."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.formatting import counted, digits, duration, percent, short, size, span, thousands

pytestmark = pytest.mark.unit

JOBS = Path(__file__).parents[2] / "jobs"
COUNTED = re.compile(r" (?:images|faces|runs|requests|receipts|records|links|tombstones)\b(?!/)")


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (lambda number: counted(number, "image"), {0: "0 images", 1: "1 image", 2: "2 images"}),
        (thousands, {0: "0", 9_999: "9,999", 3 * 10**9: "3,000,000,000"}),
        (short, {9_999: "9,999", 999_999: "999,999", 10**6: "1.00 mn", 211_000_000: "211 mn", 3 * 10**9: "3.00 bn"}),
        (digits, {0.4567: "0.46", 18.23: "18.2", 100: "100", 12_345.6: "12,346"}),
        (size, {0: "0 B", 900: "900 B", 2048: "2.0 KiB", 5_000_000: "4.8 MiB", 2**51: "2,048.0 TiB"}),
        (duration, {0.42: "0.4 s", 38: "38 s", 59.7: "1 min 0 s", 134: "2 min 14 s", 11_100: "3 h 5 min"}),
        (span, {0.2: "under 1 s", 89: "89 s", 90: "2 min", 5399: "90 min", 5400: "1.5 h"}),
        (percent, {0: "0.0 %", 0.1234: "12.3 %", 1: "100.0 %"}),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(function: Callable[[float], str], values: dict[float, str]) -> None:
    assert {value: function(value) for value in values} == values


def test_a_share_has_as_many_places_as_there_is_room_for() -> None:
    assert percent(0.1234, 0) == "12 %"


def counts_in_texts(path: Path) -> Iterator[tuple[str, str]]:
    """What is put into texts and may be one, and what stands behind it there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        values = node.values if isinstance(node, ast.JoinedStr) else []
        for value, behind in itertools.pairwise(values):
            if isinstance(value, ast.FormattedValue) and isinstance(behind, ast.Constant):
                name, form = ast.unparse(value.value), ast.unparse(value.format_spec) if value.format_spec else ""
                # A mean has decimals; a bound of ours is more than one, and has a name in capitals.
                if not name.isupper() and "." not in form:
                    yield name, str(behind.value)


def test_what_a_job_ends_with_says_of_one_that_it_is_one() -> None:
    """ "1 images" and "1 requests complete" stood there."""
    paths = [path for folder in (JOBS, JOBS / "steps", JOBS / "reporting") for path in folder.glob("*.py")]
    assert len(paths) > 40
    found = [(path.name, *count) for path in paths for count in counts_in_texts(path)]
    assert [count for count in found if COUNTED.match(count[2])] == []


def test_a_quote_in_a_cell_is_doubled_by_whoever_writes_csv() -> None:
    """Spark's own way is a backslash, which no other reader of CSV takes for one."""
    calls = [
        call
        for path in JOBS.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".write.csv")
    ]
    assert len(calls) == 2
    assert [[ast.unparse(k.value) for k in call.keywords if k.arg == "escape"] for call in calls] == [["'\"'"]] * 2
