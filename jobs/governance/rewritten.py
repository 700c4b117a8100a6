"""What spreadsheets and programs make of a cell on its way into a file: known by its look, never turned back. Pure.

A name or an id that was rewritten is another one, or that of several people at once: who would be erased by it, or
which record withdrawn, would be guessed.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from jobs.governance.blanks import stripped
from jobs.texts import REPLACED

# Excel's plain CSV and most converters write ? for what their code page lacks, Oracle writes the Spanish one, others
# SUB. (`?` also in its full width, which a name is levelled to.)
_LOST: Final = re.compile(f"[?\uff1f\u00bf\x1a{REPLACED}]")
# 12 digits and more in Excel (1.98501E+11), a double in Java (1.98501011234E11). 12E5 alone may be an id.
_POWER: Final = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE][+-]\d+|[+-]?\d+[.,]\d+[eE]\d+", re.ASCII)
# A column of numbers in which one is missing is a column of fractions in pandas.
_FRACTION: Final = re.compile(r"[+-]?\d+[.,]0+", re.ASCII)
# Dates as a spreadsheet writes them; with a year of four digits, or 1.2.10 and 123-45-6789 would be among them.
_DATE: Final = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{4}(?:[ T,].*)?|\d{4}-\d\d-\d\d(?:[ T].*)?", re.ASCII)
_MONTH: Final = (
    "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|"  # English
    "m\u00e4r|mrz|mai|okt|dez|"  # German
    "janv|f\u00e9vr|mars|avr|juin|juil|ao\u00fbt|sept|d\u00e9c|"  # French
    "ene|abr|ago|dic|gen|mag|giu|lug|ott|mrt|mei|fev"  # Spanish, Italian, Dutch, Portuguese; set-01 may be a set
)
# 1-Feb, 01. Feb, Jan 26, Jan-26. Excel writes no month in capitals, so DEC-12 is an id.
_DAY_OR_YEAR: Final = re.compile(rf"\d{{1,2}}\.?[ -](?:{_MONTH})\.?|(?:{_MONTH})\.?[ -](?:\d\d|\d{{4}})", re.IGNORECASE)

# Whatever the language: #REF!, #BEZUG!, #\u00a1DIV/0!, #NAME?, #\u00bfNOMBRE?; LibreOffice's Err:502; a column too
# narrow.
_ERROR: Final = re.compile(
    r"#[\u00a1\u00bf]?[^\W\d_][^\Wa-z]*(?:/[^\Wa-z]+)?[!?]"
    r"|#(?:N/A|N/D|N/B|N/V|NV|I/T|\u041d/\u0414|YOK|HI\u00c1NYZIK|GETTING_DATA|#+)|Err:\d{3}"
)
# What SQL, Python, pandas, NumPy and JSON write for nothing, by case: Null and Nan are people's names.
_NOTHING: Final = frozenset(["NULL", "null", "(null)", "[null]", "\\N", "None", "nan", "NaN", "-nan", "NaT", "<NA>"])
# Where a person's name should stand, nobody's is (R's word among them).
_NOBODY: Final = frozenset([*_NOTHING, "NA", "N/A", "n/a", "none", "nil", "undefined"])

#: By which habit a name was lost.
REPLACED_CHARACTER: Final = "REPLACED_CHARACTER"
NUMBER_REWRITTEN: Final = "NUMBER_REWRITTEN"
NO_NAME: Final = "NO_NAME"
#: What a person is told of each, behind where the name stands.
SAID_OF_LOST: Final = {
    REPLACED_CHARACTER: "holds a replaced character (U+FFFD, ?, \u00bf or SUB): the name is lost",
    NUMBER_REWRITTEN: "is a number that a program has rewritten (1.98501E+11, 123.0)",
    NO_NAME: "is no name: a spreadsheet's error, a program's word for nothing, or without letters and digits",
}


def holds_nothing(cell: str) -> bool:
    """Whether a cell, or a value between its `;`, is a spreadsheet's error or a program's word for nothing.

    >>> holds_nothing("#REF!"), holds_nothing("a;#NV"), holds_nothing("NULL"), holds_nothing("Null")
    (True, True, True, False)
    """
    return any(part in _NOTHING or _ERROR.fullmatch(part) for part in map(str.strip, (cell, *cell.split(";"))))


def name_lost(name: str) -> str | None:
    """By which habit the name or number of a person was lost; None: it was not.

    >>> name_lost("?ukasz Nowak"), name_lost("1.98501E+11"), name_lost("-"), name_lost("Jennifer Null")
    ('REPLACED_CHARACTER', 'NUMBER_REWRITTEN', 'NO_NAME', None)
    """
    if _LOST.search(name):
        return REPLACED_CHARACTER
    text = stripped(name)
    if _POWER.fullmatch(text) or _FRACTION.fullmatch(text):
        return NUMBER_REWRITTEN
    nobody = text in _NOBODY or _ERROR.fullmatch(text) or not any(unicodedata.category(c)[0] in "LN" for c in text)
    return NO_NAME if text and nobody else None


def id_rewritten(record_id: str) -> bool:
    """Whether an id has the look of one that a program rewrote.

    >>> id_rewritten("12.0"), id_rewritten("Jan 26"), id_rewritten("01.02.2026"), id_rewritten("DEC-12")
    (True, True, True, False)
    """
    if _LOST.search(record_id) or _POWER.fullmatch(record_id) or _FRACTION.fullmatch(record_id):
        return True
    by_month = _DAY_OR_YEAR.fullmatch(record_id) and not re.search("[A-Z]{2}", record_id)
    return bool(by_month or _DATE.fullmatch(record_id))


def whole_number(record_id: str) -> str | None:
    """The number that an id such as 12.0 was, as far as it can be told."""
    return re.split("[.,]", record_id)[0] if _FRACTION.fullmatch(record_id) else None
