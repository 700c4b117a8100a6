"""Numbers and lists as people read them, in plan, report and messages: counts, bytes, times, shares, rates, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def thousands(number: float) -> str:
    """A number in full.

    >>> thousands(3_000_000_000)
    '3,000,000,000'
    """
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """So many of something, in words that fit one of it.

    >>> counted(1, "image"), counted(0, "face"), counted(1_200, "basis record")
    ('1 image', '0 faces', '1200 basis records')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def the_first(names: Sequence[str], most: int) -> str:
    """At most so many names, and how many more there are.

    >>> the_first(["a", "b", "c"], 2), the_first(["a", "b"], 2)
    ('a, b and 1 more', 'a, b')
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def short(number: int) -> str:
    """A count for a table or a diagram, where there is room for a few characters: from a million on three digits.

    >>> short(999_999), short(1_000_000), short(12_340_000), short(3_000_000_000)
    ('999,999', '1.00 mn', '12.3 mn', '3.00 bn')
    """
    for unit, name in ((10**9, "bn"), (10**6, "mn")):
        if number >= unit:
            return f"{digits(number / unit)} {name}"
    return thousands(number)


def digits(value: float) -> str:
    """A measure, such as a rate, with as many digits as mean something: three, and all before the point.

    >>> digits(0.4567), digits(18.23), digits(12345.6)
    ('0.46', '18.2', '12,346')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(number: float) -> str:
    """Bytes in the binary unit that suits them.

    >>> size(900), size(5_000_000), size(3 * 2**51)
    ('900 B', '4.8 MiB', '6,144.0 TiB')
    """
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"


def duration(seconds: float) -> str:
    """A time that was measured: 0.4 s, 38 s, 2 min 14 s, 3 h 5 min.

    >>> duration(134), duration(0.42), duration(11100), duration(59.7)
    ('2 min 14 s', '0.4 s', '3 h 5 min', '1 min 0 s')
    """
    if round(seconds) < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{minutes} min {rest} s" if hours == 0 else f"{hours} h {left} min"


def span(seconds: float) -> str:
    """A time that is estimated, in one unit: it is not known to the second.

    >>> span(0.2), span(89), span(90), span(5399), span(5400)
    ('under 1 s', '89 s', '2 min', '90 min', '1.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def percent(share: float, places: int = 1) -> str:
    """A share of one, in per cent.

    >>> percent(0.1234), percent(1, 0)
    ('12.3 %', '100 %')
    """
    return f"{100 * share:.{places}f} %"
