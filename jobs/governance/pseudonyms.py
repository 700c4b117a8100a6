"""Names of persons become keyed pseudonyms: by which rule, and under which keys. Pure: no Spark.

A pseudonym is HMAC-SHA-256 (RFC 2104) over a name, which a rule first brings into one form. The rule's number stands
in the pseudonym, so that those of an earlier rule stay valid: `hmac:` is rule 1 (white space at the ends removed),
`hmac2:` rule 2 (Unicode form, case, apostrophes, dashes and white space levelled), `hmac3:` rule 3 (`normalised`: also
an i with its dot and without, and more marks). Keys come from the environment as a ring, the current one first. New
persons get the current key and rule; a person who is known keeps the pseudonym that the warehouse has (`persons.py`),
so a name is looked up under every key and rule.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from jobs.governance.tombstones import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.settings import Settings

#: What people type for one and the same mark. (Before NFKC, which takes some of these apart.)
_APOSTROPHES: Final = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02b9\u02bb\u02bc\u02bd\u02c8\u2032\u00b4`"), "'")
# Further ones of rule 3: Armenian, Hebrew, of several American languages, reversed prime; and what is typed as a minus.
_MARKS: Final = dict.fromkeys(map(ord, "\u055a\u05f3\ua78b\ua78c\u2035"), "'") | dict.fromkeys(
    map(ord, "\u2212\u02d7\u2043\u2796"), "-"
)
# What I (in Turkish) and its capital with a dot (everywhere) are in small letters.
_DOTLESS: Final = "\u0131"
_DOTTED: Final = "i\u0307"
# Lengthens a line of Arabic or N'Ko writing, and says nothing.
_FILLING: Final = dict.fromkeys((0x0640, 0x07FA))
#: Not seen, and no format characters by their category: joiners, fillers, selectors of a glyph's variant. (Not the list
#: of blanks.py, which may grow: what rule 2 gives is stored, and must stay.)
_INVISIBLE: Final = frozenset(
    [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10),
     *range(0xE0000, 0xE1000)]
)  # fmt: skip
_BLANK: Final = frozenset("\u2800")


def normalised(name: str) -> str:
    """``name`` in the form of rule 3: spellings that look alike become one, and what it gives stays as it is.

    Compatible characters (NFKC), case, kinds of apostrophes, dashes and white space are levelled; what is not seen is
    removed. An i is an i with its dot or without: which of them a capital stands for depends on the language.

    >>> normalised("  Ａnna\u00a0Maria\u200b O’NEILL "), normalised("I\u015eIK") == normalised("\u0131\u015f\u0131k")
    ("anna maria o'neill", True)
    """
    text, before = name, None
    while text != before:
        before = text
        # Caseless as Unicode has it (D145): taken apart before it is folded.
        folded = unicodedata.normalize("NFD", text).casefold()
        text = _rule_2(folded.translate(_MARKS)).translate(_FILLING).replace(_DOTLESS, "i").replace(_DOTTED, "i")
    return text


def _rule_2(name: str) -> str:
    """What is stored under rule 2 was made by this, so it stays as it is."""
    text, before = name, None
    # Folding can undo a composition, and a removal make one possible: again, until nothing changes.
    while text != before:
        before = text
        folded = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).casefold()
        text = " ".join("".join(_seen(unicodedata.normalize("NFKC", folded))).split())
    return text


def _seen(text: str) -> Iterator[str]:
    for character in text:
        category = unicodedata.category(character)
        if character.isspace() or character in _BLANK:
            yield " "
        elif category == "Pd":
            yield "-"
        elif category not in ("Cf", "Cc") and ord(character) not in _INVISIBLE:
            yield character


@dataclass(frozen=True, repr=False)
class Pseudonyms:
    """Makes pseudonyms. ``ring`` is the environment's; ``former``: keys that only releases of rule 1 can have used."""

    ring: KeyRing
    former: tuple[bytes, ...] = ()

    def of(self, name: str) -> list[str]:
        """All pseudonyms that the person of this name can stand under, the current one first; none for a blank name."""
        text = normalised(name)
        if not text:
            return []
        keys = list(self.ring.keys.values())
        found = [_keyed("hmac3", key, text) for key in keys]
        found += [_keyed("hmac2", key, spelt) for key in keys for spelt in _spellings_of_rule_2(name, text)]
        found += [_keyed("hmac", key, spelt) for key in (*keys, *self.former) for spelt in _spellings(name)]
        return list(dict.fromkeys(found))


def pseudonyms_of(settings: Settings) -> Pseudonyms | None:
    """With the keys of FACE_REINDEX_HMAC_KEY (comma-separated, the current one first); None where there is none.

    Earlier releases took that variable whole, commas and all, and had an operator who changed it keep the former key
    among those of the tombstones: what they made is found under these.
    """
    ring = KeyRing.parse(settings.hmac_key)
    if settings.hmac_key is None or not ring.keys:
        return None
    whole = settings.hmac_key.get_secret_value().encode()
    former = dict.fromkeys([whole, *KeyRing.parse(settings.tombstone_keys).keys.values()])
    return Pseudonyms(ring, tuple(key for key in former if key not in ring.keys.values()))


def _keyed(prefix: str, key: bytes, text: str) -> str:
    return f"{prefix}:{hmac.digest(key, text.encode('utf-8', 'surrogatepass'), 'sha256').hex()}"


def _spellings_of_rule_2(name: str, text: str) -> Iterator[str]:
    """How a name may stand under rule 2, to which an i with a dot, without one, and from a dotted capital differed.

    Of one that is typed with them here: in capitals, small letters, and with initials, as Turkish has it. Else all
    of its i (or those that begin a word, or the others) may have been any of the three. ``text``: its form of rule 3.
    """
    yield _rule_2(name)
    if "i" not in text:
        return
    composed = unicodedata.normalize("NFC", name).replace(_DOTTED, "\u0130")
    if {_DOTLESS, "\u0130"} & set(composed):
        small = composed.replace("I", _DOTLESS).replace("\u0130", "i")
        yield _rule_2(small)
        yield _rule_2(_capitals(small))
        yield _rule_2(re.sub(r"\b\w", lambda first: _capitals(first[0]), small))
    for first, others in ((_DOTLESS, _DOTLESS), ("i", _DOTLESS), (_DOTTED, _DOTTED), (_DOTTED, "i"), ("i", "i")):
        yield re.sub(r"\bi", "\0", text).replace("i", others).replace("\0", first)


def _capitals(text: str) -> str:
    return text.replace("i", "\u0130").upper()


def _spellings(name: str) -> Iterator[str]:
    """How a name that rule 1 took as it came may have been written."""
    text = name.strip()
    yield text
    forms: tuple[Literal["NFC", "NFD", "NFKC"], ...] = ("NFC", "NFD", "NFKC")
    for form in forms:
        yield unicodedata.normalize(form, text)
    yield " ".join(unicodedata.normalize("NFKC", text).split())
