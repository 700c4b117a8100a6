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

# Whatever the language: #REF!, #BEZUG!, #\u00a1DIV/0!, #NAME?, #\u00bfNOMBRE?; Bloomberg's `#N/A N/A`; LibreOffice's
# Err:502; a column too narrow. (What is capitals alone is known by `_is_error`.)
_ERROR: Final = re.compile(
    r"#[\u00a1\u00bf]?[^\W\d_][^\Wa-z]*(?:/[^\Wa-z]+)?[!?]|#N/A .*|##+"
    # English and others, Portuguese, French, Polish, Czech, Russian, Ukrainian, Swedish, Turkish.
    r"|(?:Err|Erro|Erreur|B\u0142\u0105d|Chyba|\u041e\u0448\u0438\u0431\u043a\u0430|"
    r"\u041f\u043e\u043c\u0438\u043b\u043a\u0430|Fel|Hata)[ \u00a0]?:\d{3}"
)
# What SQL, Python, pandas, NumPy and JSON write for nothing, by case: Null and Nan are people's names.
_NOTHING: Final = frozenset(["NULL", "null", "(null)", "[null]", "\\N", "None", "nan", "NaN", "-nan", "NaT", "<NA>"])
# Where a person's name should stand, nobody's is (R's word among them).
_NOBODY: Final = frozenset([*_NOTHING, "NA", "N/A", "n/a", "none", "nil", "undefined"])

# By which marks people and programs keep a spreadsheet from reading a text as a number: '0012, '+49, ="0012". And the
# quotes of a word processor, or of another CSV, about the whole. (No single ones: 'Ala' is a name, so is 't Hooft.)
_MARKED: Final = re.compile(
    '\'[0-9=+@-].*|=[ ]*".*|".*"|[\u201c\u201d\u201e].*[\u201c\u201d]|\u00ab.*\u00bb|\u00bb.*\u00ab', re.DOTALL
)
# UTF-8 that was read as Windows-1252 or Latin-1: each byte of a letter is a character of its own. The second is a sign
# that no word goes on with; behind \u00c3, by which most letters of western Europe begin, any but a no-break space,
# for Portuguese words end with that (and so \u00e0 alone is not seen).
_SECOND: Final = (
    "\u0080-\u009f\u00a1-\u00bf\u20ac\u201a\u201e\u2026\u2020\u2021\u02c6\u2030\u2039\u201c\u201d\u2022\u02dc"
    "\u2122\u203a"
)
_MORE: Final = "\u0192\u0160\u0152\u017d\u0161\u0153\u017e\u0178\u2018\u2019\u2013\u2014"
_LATIN, _CYRILLIC = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f", "\u0400-\u04ff"
_MISREAD: Final = re.compile(
    f"\u00c3[{_SECOND}{_MORE}]|[\u00c2\u00c4\u00c5\u00ce-\u00d1\u00d8-\u00da][{_SECOND}]"
    f"|[\u00e0-\u00ef][{_SECOND}{_MORE}][{_SECOND}{_MORE}]"
    # The same by a Mac, which has signs of mathematics there; and one alphabet read as another.
    f"|[\u2202-\u2265]|[{_LATIN}][{_CYRILLIC}]|[{_CYRILLIC}][{_LATIN}]"
)
# What web pages, addresses and JSON write for a letter. (An id may have been made so.)
_WRITTEN_OUT: Final = re.compile(r"&(?:[A-Za-z]{2,8}|#\d+|#x[0-9A-Fa-f]+);|(?:%[0-9A-Fa-f]{2}){2}|\\u[0-9A-Fa-f]{4}")

#: Ends of lines to some programs and white space to others: one name or two.
MAYBE_END: Final = re.compile(r"[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")

#: By which habit a name was lost.
REPLACED_CHARACTER: Final = "REPLACED_CHARACTER"
NUMBER_REWRITTEN: Final = "NUMBER_REWRITTEN"
NO_NAME: Final = "NO_NAME"
TEXT_MARKS: Final = "TEXT_MARKS"
MISREAD: Final = "MISREAD"
MAYBE_TWO: Final = "MAYBE_TWO"
#: What a person is told of each, behind where the name stands.
SAID_OF_LOST: Final = {
    REPLACED_CHARACTER: "holds a replaced character (U+FFFD, ?, \u00bf or SUB): the name is lost",
    NUMBER_REWRITTEN: "is a number that a program has rewritten (1.98501E+11, 123.0)",
    NO_NAME: "is no name: a spreadsheet's error, a program's word for nothing, or without letters and digits",
    TEXT_MARKS: 'has marks about it by which a program took it for a text (\'0012, ="0012", or quotes about the whole)',
    MAYBE_TWO: "holds a separator that may part two names (VT, FF, NEL, U+2028 or the like)",
    MISREAD: "was read in another encoding or alphabet than it was written in (M\u00c3\u00bcller, M&uuml;ller)",
}


def holds_nothing(cell: str) -> bool:
    """Whether a cell, or a value between its `;`, is a spreadsheet's error or a program's word for nothing.

    >>> holds_nothing("#REF!"), holds_nothing("a;#NV"), holds_nothing("NULL"), holds_nothing("Null")
    (True, True, True, False)
    """
    return any(part in _NOTHING or _is_error(part) for part in map(str.strip, (cell, *cell.split(";"))))


def _is_error(text: str) -> bool:
    """A spreadsheet's. Those for what is not there have no mark at their end, and a word of each language's own.

    >>> _is_error("#NEN\u00cd_K_DISPOZICI"), _is_error("#\u0394/\u03a5"), _is_error("#DIV/0!"), _is_error("#2025")
    (True, True, True, False)
    """
    text = unicodedata.normalize("NFC", text)
    word = text.removeprefix("#")
    if word != text and word[:1].isupper() and all(letter.isupper() or letter in "/_" for letter in word):
        return True
    return _ERROR.fullmatch(text) is not None


def name_lost(name: str) -> str | None:
    """By which habit the name or number of a person was lost; None: it was not.

    >>> name_lost("?ukasz Nowak"), name_lost("1.98501E+11"), name_lost("-"), name_lost("Jennifer Null")
    ('REPLACED_CHARACTER', 'NUMBER_REWRITTEN', 'NO_NAME', None)
    >>> name_lost("M\u00c3\u00bcller"), name_lost("'0012"), name_lost("'t Hooft")
    ('MISREAD', 'TEXT_MARKS', None)
    """
    if _LOST.search(name):
        return REPLACED_CHARACTER
    text = stripped(name)
    if _MISREAD.search(name) or _WRITTEN_OUT.search(name):
        return MISREAD
    if MAYBE_END.search(text):
        return MAYBE_TWO
    if _MARKED.fullmatch(text):
        return TEXT_MARKS
    if _POWER.fullmatch(text) or _FRACTION.fullmatch(text):
        return NUMBER_REWRITTEN
    nobody = text in _NOBODY or _is_error(text) or not any(unicodedata.category(c)[0] in "LN" for c in text)
    return NO_NAME if text and nobody else None


def id_rewritten(record_id: str) -> bool:
    """Whether an id has the look of one that a program rewrote.

    >>> id_rewritten("12.0"), id_rewritten("Jan 26"), id_rewritten("01.02.2026"), id_rewritten("DEC-12")
    (True, True, True, False)
    """
    if _MISREAD.search(record_id) or _MARKED.fullmatch(record_id):
        return True
    if _LOST.search(record_id) or _POWER.fullmatch(record_id) or _FRACTION.fullmatch(record_id):
        return True
    by_month = _DAY_OR_YEAR.fullmatch(record_id) and not re.search("[A-Z]{2}", record_id)
    return bool(by_month or _DATE.fullmatch(record_id))


def whole_number(record_id: str) -> str | None:
    """The number that an id such as 12.0 was, as far as it can be told."""
    return re.split("[.,]", record_id)[0] if _FRACTION.fullmatch(record_id) else None
