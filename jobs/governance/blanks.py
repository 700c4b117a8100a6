"""What fills no field: white space, control and invisible characters of every kind, the same in Python and in Spark.

Unicode's categories Cc, Cf, Zs, Zl and Zp, what it calls default-ignorable, and the letters that show nothing. A field
of nothing else is as empty as one that is not there, and no name begins or ends with them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_RANGES: Final = (
    (0x0000, 0x0020), (0x007F, 0x00A0), (0x00AD, 0x00AD), (0x034F, 0x034F), (0x0600, 0x0605), (0x061C, 0x061C),
    (0x06DD, 0x06DD), (0x070F, 0x070F), (0x0890, 0x0891), (0x08E2, 0x08E2), (0x115F, 0x1160), (0x1680, 0x1680),
    (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x2800, 0x2800),
    (0x3000, 0x3000), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB),
    (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
_BLANK: Final = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in _RANGES)
_JAVA_BLANK: Final = "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in _RANGES)
#: For Spark's `rlike`: a value that fills its field.
FILLED: Final = f"[^{_JAVA_BLANK}]"

_FILLED: Final = re.compile(f"[^{_BLANK}]")
_ABOUT: Final = re.compile(f"^[{_BLANK}]+|[{_BLANK}]+\\Z")
_UNSEEN: Final = re.compile(f"[{_BLANK}]")


def filled(text: str | None) -> bool:
    """Whether there is anything in it that shows."""
    return text is not None and _FILLED.search(text) is not None


def stripped(text: str) -> str:
    """``text`` without what fills nothing at its two ends."""
    return _ABOUT.sub("", text)


def is_plain(name: str) -> bool:
    """Whether a name is only what it looks like: composed (NFC), and no blanks but single spaces between words."""
    return name == plain(name)


def plain(name: str) -> str:
    """The name that a person takes ``name`` for: composed, without what does not show, one space between words."""
    shown = _UNSEEN.sub(lambda match: " " if match[0].isspace() else "", unicodedata.normalize("NFC", name))
    return " ".join(shown.split())
