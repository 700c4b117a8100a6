"""Names that Java's listings pass over in silence are told before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.tables.files import unnamed
from tests.unit.odd.corpus import put

pytestmark = pytest.mark.unit

UMLAUT, LATIN_1, DEEP = "J\u00fcrgen.jsonl", b"J\xfcrgen.jsonl", "day=1/M\u00fcller"


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("UTF-8", ["J\\udcfcrgen.jsonl"]),
        # What Java calls the encoding under LC_ALL=C; and one that Python has no name for.
        ("ANSI_X3.4-1968", ["J\\udcfcrgen.jsonl", UMLAUT, DEEP]),
        ("x-Johab-of-Java", ["J\\udcfcrgen.jsonl", UMLAUT, DEEP]),
        # It has a letter for each byte, so that no name is lost.
        ("ISO-8859-1", []),
    ],
)
def test_guarantee_4_a_name_that_java_has_no_letters_for_is_told(
    tmp_path: Path, encoding: str, found: list[str]
) -> None:
    """A withdrawal in such a file of a folder was passed over."""
    for name in (b"a.jsonl", UMLAUT.encode(), LATIN_1, f"{DEEP}/a.jsonl".encode()):
        put(bytes(tmp_path) + b"/" + name, b"{}")
    assert unnamed(str(tmp_path), encoding) == sorted(found)


def test_of_a_file_or_of_nothing_there_is_no_listing(tmp_path: Path) -> None:
    put(bytes(tmp_path) + b"/" + LATIN_1, b"{}")
    assert unnamed(f"{tmp_path}/{LATIN_1.decode('utf-8', 'surrogateescape')}", "UTF-8") == []
    assert unnamed(f"{tmp_path}/none", "UTF-8") == []
