"""What programs make of names and ids is known by its look; what real names and ids look like is not taken for it."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from jobs.governance.misread import _PAGES, is_misread
from jobs.governance.rewritten import holds_nothing, id_rewritten, name_lost

pytestmark = pytest.mark.unit

#: Lines of a language, or several, and names with `; ` between them: real ones, and such as are real by their letters.
REAL = [
    name
    for line in Path(__file__).with_name("real_names.txt").read_text(encoding="utf-8").splitlines()
    for name in line.partition(": ")[2].split("; ")
]


def read_as(name: str, page: str) -> str | None:
    """UTF-8 as a program reads it that takes it for this page; None where that cannot be, or changes nothing."""
    try:
        found = name.encode().decode(page)
    except UnicodeDecodeError:
        return None
    return found if found != name else None


def test_guarantee_9_no_real_name_is_taken_for_one_that_was_lost() -> None:
    """Whoever has it would be refused, and nobody in their file be erased."""
    assert len(set(REAL)) == len(REAL) > 500
    forms = {
        form
        for name in REAL
        for form in (
            name, name.upper(), name.lower(), name.title(), f"Jan \u201c{name}\u201d Li", f"({name})", f"{name}, Jan",
            name.replace(" ", "\u00a0"), name.replace(" ", "-"), unicodedata.normalize("NFD", name),
        )
    }  # fmt: skip
    assert {form: name_lost(form) for form in forms if name_lost(form)} == {}
    assert [form for form in forms if is_misread(f"{form}-000001")] == []


@pytest.mark.parametrize("page", _PAGES)
def test_guarantee_9_a_name_that_was_read_in_another_encoding_is_told(page: str) -> None:
    """Nearly all are. Some are too short to be told from a real one, or of letters that hardly any name has."""
    of_page = [text for name in REAL if (text := read_as(name, page))]
    beside_ascii = [text for text in of_page if re.search("[A-Za-z]{2}", text)]
    assert len(beside_ascii) > 60
    assert sum(name_lost(text) is not None for text in beside_ascii) >= 0.95 * len(beside_ascii)
    if page not in ("gbk", "big5", "cp932", "euc_jp", "cp949"):
        assert sum(name_lost(text) is not None for text in of_page) >= 0.9 * len(of_page)


@pytest.mark.parametrize(
    "name",
    [
        "M\u0102\u013dller",  # cp1250
        "M\u251c\u255dller",  # cp850
        "M\u7709ller",  # gbk
        "M\uff83\uff7cller",  # cp932
        "M\uccb4ller",  # cp949
        "M\u0393\u03cdller",  # cp1253, whose sign for that byte is a letter
        "O\x92Neill",  # a byte that is no character
        "O\u00e2\u20ac\u2122Neill",
        "\u0420\u0098\u0420\u0406\u0420\u00b0\u0420\u0405",  # one alphabet as that alphabet
        "\u010f\u00bb\u017cAnna",  # a byte order mark
        "MU\u00c3\u2018OZ",
        "M\u9ed1ller",  # a page of Windows read as one of China
        "Jos\u03b9",  # and as Greece's
        "Anna M\u0102\u013dller-Schmidt",
    ],
)
def test_guarantee_9_each_habit_of_reading(name: str) -> None:
    assert name_lost(name) == "MISREAD"


@pytest.mark.parametrize(
    "cell",
    [
        "Anna Example;Ben Example", "Anna Example; Ben Example", "Anna;", "Anna\tBen", "Anna / Ben", "Anna & Ben",
        "Anna + Ben", "Anna | Ben", "Anna\u00a0& Ben", "\u5f20\u4f1f\u3001\u674e\u5a1c",
        "\u5f20\u4f1f\uff1b\u674e\u5a1c",
        "\u5f20\u4f1f \uff0f \u674e\u5a1c", "\u0645\u062d\u0645\u062f\u061b \u0623\u062d\u0645\u062f",
    ],
)  # fmt: skip
def test_guarantee_9_two_names_in_a_cell_are_nobodys(cell: str) -> None:
    """The pseudonym of both is neither one's: whoever of them asks is not found."""
    assert name_lost(cell) == "MAYBE_TWO"


@pytest.mark.parametrize("name", ["E/1001", "AT&T", "Miller, Anna", "R+D", "Anna & ", "/ Anna", "a|b", "\tAnna\t"])
def test_what_stands_in_one_name_or_number_parts_none(name: str) -> None:
    assert name_lost(name) is None


@pytest.mark.parametrize(
    "record_id",
    [
        "01/fev", "jan/26", "01/set", "out/26", "26-Jan-26", "26-JAN-26", "26-Jan-2026 12:00", "1-Jan-26",
        "26. Jan. 2026",
        "sty-26", "01.lut", "\u044f\u043d\u0432.26", "01.\u044f\u043d\u0432", "Oca.26", "01.\u015eub",
        "\u03b9\u03b1\u03bd-26",
        "1\u67082\u65e5", "2026\u5e741\u67082\u65e5", "2026\u5e741\u6708", "1\uc6d4 2\uc77c", "maj-26", "tammi.26",
        "M\u0102\u013d-1", "r\u251c\u255d-1", "M\u7709-1",
    ],
)  # fmt: skip
def test_guarantee_4_an_id_that_a_program_made_a_date_of_or_misread_is_told(record_id: str) -> None:
    assert id_rewritten(record_id)


@pytest.mark.parametrize(
    "record_id",
    [
        "IMG-2024-01", "A/B-12", "E/1001", "DEC-12", "TEM-26", "set-01", "out-26", "2026/1", "12/345", "1.2.3",
        "pro-26",
        "Jan-000001", "r-01-feb", "may", "2026-Jan-x", "\u03b1Syn-12", "IFN\u03b3-001", "\u5f20\u4f1f-1", "\u6708-1",
        "M\u00fc-1",
        "staff/2026/000001", "\u041c\u0410\u0419-01",
    ],
)  # fmt: skip
def test_an_id_that_may_be_meant_is_left(record_id: str) -> None:
    assert not id_rewritten(record_id)


@pytest.mark.parametrize(
    "cell", ["(NULL)", "<NULL>", "[NULL]", "<null>", "1.#QNAN", "-1.#IND", "1.#INF", "1.#QNAN0", "Err: 502", "<NaN>"]
)
def test_guarantee_1_what_a_program_writes_for_nothing_is_nothing(cell: str) -> None:
    assert holds_nothing(cell)
    assert name_lost(cell) == "NO_NAME"
