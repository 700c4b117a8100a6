"""What fills no field, and names that only look alike."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.governance.blanks import filled, is_plain, plain, stripped

pytestmark = pytest.mark.unit

SHOWN_LIKE_NOTHING = "\u034f\u115f\u1160\u17b4\u180b\u2800\u3164\ufe00\uffa0\U000e0100"


def test_every_character_of_space_control_and_format_is_blank() -> None:
    blank = {chr(code) for code in range(sys.maxunicode + 1) if not filled(chr(code))}
    kinds = ("Cc", "Cf", "Zs", "Zl", "Zp")
    assert blank >= {c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in kinds or c.isspace()}
    assert blank >= set(SHOWN_LIKE_NOTHING)
    # Nothing that shows: what is beyond those kinds is a mark, a filler or not assigned.
    assert {unicodedata.category(c) for c in blank} <= {*kinds, "Mn", "Cn", "Lo", "So"}
    assert {c for c in blank if unicodedata.category(c) in ("Lo", "So")} == set("\u115f\u1160\u2800\u3164\uffa0")


@given(st.text())
def test_a_plain_name_is_what_it_looks_like(name: str) -> None:
    assert is_plain(plain(name))
    assert is_plain(name) == (plain(name) == name)
    assert filled(name) == (stripped(name) != "")
    assert stripped(stripped(name)) == stripped(name)


def test_names_that_look_alike_are_one_plain_name() -> None:
    assert {plain(name) for name in ("r 1", " r 1\t", "r\u00a01", "r\u200b \u200b1", "r  1\x00")} == {"r 1"}
    assert plain("e\u0301") == "\u00e9"
    assert not is_plain("e\u0301")
    assert not filled(None)
