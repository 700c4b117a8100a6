"""Numbers are written the same wherever people read them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.formatting import counted, digits, duration, percent, short, size, span, thousands

pytestmark = pytest.mark.unit


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
