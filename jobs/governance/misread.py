"""Text that was read in another encoding than it was written in: known by reading it back. Pure.

UTF-8 that a program takes for a code page has a character for each byte, or for two of them: `Müller` becomes
`MÃ¼ller`, `MĂĽller`, `M├╝ller` or `M眉ller`, by the page. So a word is misread if in one of these pages its bytes are
UTF-8, and of letters as people's names have them, of one alphabet. Of words that are letters alone some real ones are
that by chance, and `_is_misread` asks for more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

#: Pages by which systems and programs read text that says nothing of its encoding: Windows', DOS's, the web's, a Mac's,
#: and those of East Asia. (What of a byte they have no character for is a control character, or lost.)
_PAGES: Final = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("cp437", "cp850", "cp852", "cp857", "cp866"),
    *("iso8859_2", "iso8859_7", "iso8859_9", "iso8859_15", "koi8_r", "koi8_u"),
    *("mac_roman", "mac_latin2", "mac_cyrillic"),
    *("gbk", "big5", "cp932", "euc_jp", "cp949"),
)
#: What stands in names beside letters: apostrophes, hyphens, quotes, a dot in the middle, blanks, what does not show.
_MARKS: Final = "\u00a0\u00b7\u02bb\u02bc\u200b-\u200f\u2010-\u2015\u2018-\u201e\u2060\ufeff"
_QUOTES: Final = "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"
#: Letters that names have, alphabet by alphabet. (Not all of Unicode's: those that hardly anybody has come by chance.)
_ALPHABETS: Final = (
    # Europe's and Turkey's, Romanian's with a comma below, Azerbaijani's, Vietnamese's.
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f\u018f\u0259\u01a0\u01a1\u01af\u01b0\u0218-\u021b\u1e9e\u1ea0-\u1ef9",
    "\u0386-\u03ce\u1f00-\u1fff",  # Greek
    "\u0400-\u045f\u0490-\u0493\u049a\u049b\u04a2\u04a3\u04ae-\u04b1\u04d8\u04d9\u04e8\u04e9",  # Cyrillic
    "\u0531-\u0587",  # Armenian
    "\u05d0-\u05ea\u05b0-\u05c2",  # Hebrew
    "\u0621-\u0652\u067e\u0686\u0698\u06a9\u06af\u06ba\u06be\u06c1\u06cc\u06d2",  # Arabic, Persian, Urdu
    "\u0900-\u0dff",  # India's
    "\u0e00-\u0eff",  # Thai, Lao
    "\u10a0-\u10ff",  # Georgian
    "\u1200-\u137f",  # Ethiopic
    "\u1780-\u17ff",  # Khmer
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff",  # Chinese, Japanese
    "\uac00-\ud7a3",  # Korean
)
_NAMES: Final = tuple(re.compile(f"[{letters}{_MARKS}]+") for letters in _ALPHABETS)
_LATIN: Final = _NAMES[0]
#: Of letters alone, and none of them ASCII's, fewer are UTF-8 by chance: a Chinese name has three.
_LEAST_LETTERS: Final = 4
_LEAST_BYTES: Final = 6
# ASCII's are in all of these pages the same; of a word the others may be by several hands.
_WORDS: Final = re.compile("[^\0-@\\[-`{-\x7f]*[^\0-\x7f][^\0-@\\[-`{-\x7f]*")
_NO_CHARACTERS: Final = re.compile("[\x80-\x84\x86-\x9f]")


def is_misread(text: str) -> bool:
    """Whether a word of ``text`` is UTF-8 that was read as another encoding, or has bytes that are no character.

    >>> is_misread("M\u0102\u013dller"), is_misread("M\u7709ller"), is_misread("O\x92Neill")
    (True, True, True)
    >>> is_misread("M\u00fcller"), is_misread("\u5f20\u4f1f"), is_misread("Jan \u201cLuk\u00e1\u0161\u201d Nov\u00e1k")
    (False, False, False)
    """
    if text.isascii():
        return False
    return _NO_CHARACTERS.search(text) is not None or any(
        _is_misread(word, raw) for word in _WORDS.findall(text) for raw in _bytes_of(word)
    )


def _bytes_of(word: str) -> Iterator[bytes]:
    for page in _PAGES:
        try:
            yield word.encode(page)
        except UnicodeEncodeError:
            continue


def _is_misread(word: str, raw: bytes) -> bool:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return False
    if not any(letters.fullmatch(name) for letters in _NAMES):
        return False
    if not all(character.isalpha() or character.isspace() or character in _QUOTES for character in word):
        # A sign stands in it that is in no name.
        return True
    if not re.search("[A-Za-z]", name):
        by_chance = len(word) < _LEAST_LETTERS or len(raw) < _LEAST_BYTES or _LATIN.fullmatch(name)
        return not by_chance and not _has_form(word) and (_has_form(name) or name.lower() == name.upper())
    # ISP\u0102\u015eESCU is a name: ISP\u00eaESCU would be none.
    around = re.sub("[^A-Za-z]", "", name)
    inside = re.sub("[A-Za-z]", "", name)
    return not (len(around) > 1 and around.isupper() and inside.islower())


def _has_form(word: str) -> bool:
    """Whether its capitals stand as a name's do; False where it has none and no small letters."""
    return word.islower() or word.isupper() or word.istitle()
