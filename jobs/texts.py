"""Text in files from people: read as what it was written in, or refused by the line; never with replaced characters."""

from __future__ import annotations

import codecs
import re

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: What a program puts where it could not read a character: what stood there is lost.
REPLACED = "\ufffd"


def text_of(data: bytes) -> str:
    """UTF-8 with or without a byte order mark, or UTF-16 with one, as Windows' editors and Excel write them.

    Raises ValueError, with the line, for any other encoding: a name decoded by a guess would be another name.
    """
    if data.startswith(_UTF_16):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            # (At its end perhaps the half of a line break.)
            before = data[: error.start].decode("utf-16", "ignore").removesuffix("\r")
            raise ValueError(f"line {_line(before)} is no UTF-16") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = _line(data[: error.start].decode("utf-8"))
        raise ValueError(f"line {number} is not UTF-8; save it as UTF-8 (in Excel: CSV UTF-8)") from None
    if "\0" in text:
        number = _line(text[: text.index("\0")])
        raise ValueError(f"line {number} holds a NUL, as UTF-16 without its mark does; save it as UTF-8")
    return text


def _line(before: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", before)) + 1
