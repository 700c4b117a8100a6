"""What spreadsheets and programs make of a cell on its way into a file: known by its look, never turned back. Pure.

A name or an id that was rewritten is another one, or that of several people at once: who would be erased by it, or
which record withdrawn, would be guessed.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from jobs.governance.blanks import stripped
from jobs.governance.misread import is_misread
from jobs.texts import REPLACED

# Excel's plain CSV and most converters write ? for what their code page lacks, Oracle writes the Spanish one, others
# SUB, and what shows a text an empty box. (`?` also in its full width, which a name is levelled to.)
_LOST: Final = re.compile(f"[?\uff1f\u00bf\x1a\u25a0\u25a1\u25af\ufffc{REPLACED}]")
# 12 digits and more in Excel (1.98501E+11), a double in Java (1.98501011234E11). 12E5 alone may be an id.
_POWER: Final = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE][+-]\d+|[+-]?\d+[.,]\d+[eE]\d+", re.ASCII)
# A column of numbers in which one is missing is a column of fractions in pandas.
_FRACTION: Final = re.compile(r"[+-]?\d+[.,]0+", re.ASCII)
# Dates as a spreadsheet writes them; with a year of four digits, or 1.2.10 and 123-45-6789 would be among them.
_DATE: Final = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{4}(?:[ T,].*)?|\d{4}-\d\d-\d\d(?:[ T].*)?", re.ASCII)
# As Excel and LibreOffice shorten them. Left out: what is a word of other languages, too (led, dub, pro, elo, noi).
_MONTH: Final = (
    "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|"  # English
    "mär|mrz|mai|okt|dez|"  # German
    "janv|févr|mars|avr|juin|juil|août|sept|déc|"  # French
    "ene|abr|ago|dic|gen|mag|giu|lug|ott|mrt|mei|fev|agu|"  # Spanish, Italian, Dutch, Portuguese, Indonesian
    "maj|des|tammi|helmi|maalis|huhti|touko|kesä|heinä|syys|loka|marras|joulu|"  # Scandinavian, Finnish
    "sty|lut|kwi|cze|lip|sie|wrz|paź|lis|gru|"  # Polish
    "úno|bře|kvě|čvn|čvc|čer|čec|srp|zář|říj|sij|velj|ožu|ruj|stu|"  # Czech, Croatian
    "febr|márc|ápr|máj|jún|júl|szept|ian|iun|iul|"  # Hungarian, Slovak, Romanian
    "oca|şub|nis|haz|tem|ağu|eyl|eki|kas|ara|"  # Turkish
    "янв|фев|мар|апр|май|мая|июн|июл|авг|сен|сент|окт|ноя|нояб|дек|"  # Russian
    "січ|лют|бер|кві|квіт|тра|трав|чер|черв|лип|сер|серп|вер|жов|жовт|лис|гру|груд|"  # noqa: RUF001 - Ukrainian
    "яну|юни|юли|сеп|ное|"  # Bulgarian
    "ιαν|φεβ|μαρ|απρ|μαϊ|μάι|ιουν|ιουλ|αυγ|σεπ|οκτ|νοε|δεκ"  # noqa: RUF001 - Greek
)
_MARK: Final = r"(?:\. ?|[ /-])"
_YEAR: Final = r"(?:\d\d|\d{4})"
# 1-Feb, 01. Feb, 01/fev, 01.янв, Jan 26, jan/26. (set and out only with Brazil's slash: set-01 may be a set.)
_DAY_OR_YEAR: Final = re.compile(
    rf"\d{{1,2}}{_MARK}(?:{_MONTH})\.?|(?:{_MONTH})\.?{_MARK}{_YEAR}|\d{{1,2}}/(?:set|out)|(?:set|out)/{_YEAR}",
    re.IGNORECASE,
)
# 26-Jan-26, Oracle's 26-JAN-26; and by East Asia's signs.
_DAY_AND_YEAR: Final = re.compile(
    rf"\d{{1,2}}{_MARK}(?:{_MONTH})\.?{_MARK}{_YEAR}(?:[ T,].*)?"
    r"|(?:\d{2,4} ?[年년] ?)?\d{1,2} ?[月월] ?\d{1,2} ?[日일]|\d{2,4} ?[年년] ?\d{1,2} ?[月월]",
    re.IGNORECASE,
)

# Whatever the language: #REF!, #BEZUG!, #\u00a1DIV/0!, #NAME?, #\u00bfNOMBRE?; Bloomberg's `#N/A N/A`; LibreOffice's
# Err:502; a column too narrow. (What is capitals alone is known by `_is_error`.)
_ERROR: Final = re.compile(
    r"#[\u00a1\u00bf]?[^\W\d_][^\Wa-z]*(?:/[^\Wa-z]+)?[!?]|#N/A .*|##+"
    # English and others, Portuguese, French, Polish, Czech, Russian, Ukrainian, Swedish, Turkish.
    r"|(?:Err|Erro|Erreur|B\u0142\u0105d|Chyba|\u041e\u0448\u0438\u0431\u043a\u0430|"
    r"\u041f\u043e\u043c\u0438\u043b\u043a\u0430|Fel|Hata)[ \u00a0]?:[ \u00a0]?\d{3}"
    # What C's library of Windows writes for no number.
    r"|-?1[.,]#(?:QNAN|SNAN|IND|INF)0*"
)
# What SQL, Python, pandas, NumPy and JSON write for nothing, by case: Null and Nan are people's names.
_NOTHING: Final = frozenset(
    [
        *(about.format(word) for word in ("NULL", "null") for about in ("{}", "({})", "[{}]", "<{}>")),
        *("\\N", "None", "nan", "NaN", "-nan", "NaT", "<NA>", "<NaN>", "<NaT>"),
    ]
)
# Where a person's name should stand, nobody's is (R's word among them).
_NOBODY: Final = frozenset([*_NOTHING, "NA", "N/A", "n/a", "none", "nil", "undefined"])

# By which marks people and programs keep a spreadsheet from reading a text as a number: '0012, '+49, ="0012". And the
# quotes of a word processor, or of another CSV, about the whole. (No single ones: 'Ala' is a name, so is 't Hooft.)
_MARKED: Final = re.compile(
    '\'[0-9=+@-].*|=[ ]*".*|".*"|[\u201c\u201d\u201e].*[\u201c\u201d]|\u00ab.*\u00bb|\u00bb.*\u00ab', re.DOTALL
)
# One alphabet read as another: a Latin letter beside a Cyrillic one. And signs that a Mac and DOS have for bytes of
# letters: of mathematics, of frames.
_LATIN: Final = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_MIXED: Final = re.compile(f"[{_LATIN}][\u0400-\u04ff]|[\u0400-\u04ff][{_LATIN}]|[\u2202-\u2265\u2500-\u2593]")
# In a name also Greek (but epsilon, which is typed in Ghana's), Hebrew, Arabic, Thai; and Chinese or Korean between
# Latin letters. (Ids are made of anything.)
_OTHERS: Final = "\u0370-\u0394\u0396-\u03b4\u03b6-\u03ff\u0590-\u06ff\u0e00-\u0e7f"
_EAST: Final = "\u3400-\u9fff\uac00-\ud7a3"
_MIXED_NAME: Final = re.compile(f"[{_LATIN}][{_OTHERS}]|[{_OTHERS}][{_LATIN}]|[{_LATIN}][{_EAST}]+[{_LATIN}]")
# What web pages, addresses and JSON write for a letter. (An id may have been made so.)
_WRITTEN_OUT: Final = re.compile(r"&(?:[A-Za-z]{2,8}|#\d+|#x[0-9A-Fa-f]+);|(?:%[0-9A-Fa-f]{2}){2}|\\u[0-9A-Fa-f]{4}")

# A file's name, or one in a folder that is called by a day, or a pattern: no spreadsheet makes such of a number.
_FILE: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}\Z|[ T].*/|\*")

#: Ends of lines to some programs and white space to others: one name or two.
MAYBE_END: Final = re.compile(r"[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# What stands between two names in one cell: what parts a list here, a column's end, East Asia's and Arabic's marks. A
# slash and the like between blanks: E/1001 is a number, and AT&T a name.
_BETWEEN: Final = re.compile("[;\t\u037e\u061b\u3001\uff1b]|\\s[/&+|\uff0f\uff06\uff0b\uff5c]\\s")

#: By which habit a name was lost.
REPLACED_CHARACTER: Final = "REPLACED_CHARACTER"
NUMBER_REWRITTEN: Final = "NUMBER_REWRITTEN"
NO_NAME: Final = "NO_NAME"
TEXT_MARKS: Final = "TEXT_MARKS"
MISREAD: Final = "MISREAD"
MAYBE_TWO: Final = "MAYBE_TWO"
#: What a person is told of each, behind where the name stands.
SAID_OF_LOST: Final = {
    REPLACED_CHARACTER: "holds a replaced character (U+FFFD, ?, \u00bf, \u25a1 or SUB): the name is lost",
    NUMBER_REWRITTEN: "is a number that a program has rewritten (1.98501E+11, 123.0)",
    NO_NAME: "is no name: a spreadsheet's error, a program's word for nothing, or without letters and digits",
    TEXT_MARKS: 'has marks about it by which a program took it for a text (\'0012, ="0012", or quotes about the whole)',
    MAYBE_TWO: "holds a separator that may part two names (; or a tab, / or & between blanks, U+2028 or the like)",
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
    if any(look.search(name) for look in (_MIXED, _MIXED_NAME, _WRITTEN_OUT)) or is_misread(name):
        return MISREAD
    if MAYBE_END.search(text) or _BETWEEN.search(text):
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
    if _MIXED.search(record_id) or is_misread(record_id) or _MARKED.fullmatch(record_id):
        return True
    if _LOST.search(record_id) or _POWER.fullmatch(record_id) or _FRACTION.fullmatch(record_id):
        return True
    # Excel writes no month in capitals, so DEC-12 is an id.
    by_month = _DAY_OR_YEAR.fullmatch(record_id) and not re.sub(r"[\W\d_]", "", record_id).isupper()
    return bool(by_month or _DAY_AND_YEAR.fullmatch(record_id) or _DATE.fullmatch(record_id))


def image_computed(name: str) -> bool:
    """Whether the name of an image is a formula, or a number or a date of a spreadsheet's; a file's name is no date.

    >>> image_computed("1.23457E+15"), image_computed("Jan 26"), image_computed("=HYPERLINK(x)")
    (True, True, True)
    >>> image_computed("12"), image_computed("2026-01-31 12.00.00.jpg"), image_computed("2026-01-31 Ala/0012")
    (False, False, False)
    """
    return name.startswith("=") or (not _FILE.search(name) and id_rewritten(name))


def image_rewritten(name: str) -> bool:
    """Whether it is that, or has lost a letter, or was read in another encoding.

    >>> image_rewritten("?ukasz.jpg"), image_rewritten("M\u00c3\u00bcller.jpg"), image_rewritten("M\u00fcller.jpg")
    (True, True, False)
    """
    lost = _LOST.search(name) or _MIXED.search(name) or is_misread(name)
    return bool(lost) or image_computed(name)


def whole_number(record_id: str) -> str | None:
    """The number that an id such as 12.0 was, as far as it can be told."""
    return re.split("[.,]", record_id)[0] if _FRACTION.fullmatch(record_id) else None
