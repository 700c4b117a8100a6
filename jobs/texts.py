"""Text in files from people: read as what it was written in, or refused by the line; never with replaced characters."""

from __future__ import annotations

import codecs
import re

#: Marks that UTF-16 begins with.
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What other programs' files begin with, and what they are: to read one line by line says nothing of it.
_OTHERS = (
    (b"PK\x03\x04", "it is a workbook (.xlsx, .ods) or another archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "it is a workbook (.xls) or another file of Microsoft's"),
    (b"\x1f\x8b", "it is packed (gzip)"),
    (b"PAR1", "it is a Parquet file"),
    (b"%PDF-", "it is a PDF"),
    (b"{\\rtf", "it is a file of a word processor (RTF)"),
)
#: What a program puts where it could not read a character: what stood there is lost.
REPLACED = "\ufffd"
#: Ends of lines, whichever system wrote them; Spark parts a file so, too.
LINE_END = re.compile(r"\r\n|\r|\n")


def no_text(data: bytes) -> str | None:
    """What a file is that is none of text, by how it begins: to end a sentence with."""
    return next((what for start, what in _OTHERS if data.startswith(start)), None)


def text_of(data: bytes) -> str:
    """UTF-8 with or without a byte order mark, or UTF-16 with one, as Windows' editors and Excel write them.

    Raises ValueError, with the line, for any other encoding: a name decoded by a guess would be another name. And for
    what is no text at all, with what it is.
    """
    if other := no_text(data):
        raise ValueError(f"{other}; save it as text (a table: in Excel as CSV UTF-8)")
    if data.startswith(UTF_16):
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
    return len(LINE_END.findall(before)) + 1
