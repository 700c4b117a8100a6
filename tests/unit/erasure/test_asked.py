"""What an erasure is asked for."""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path

import pytest

from jobs.erasure.asked import asked_for
from jobs.erasure.kinds import Target
from jobs.errors import SettingsError
from jobs.settings import Settings, load_settings

pytestmark = pytest.mark.unit


def test_an_image_or_a_batch_is_asked_for_by_any_text_that_can_be_an_id() -> None:
    asked = asked_for(Settings(), subject=None, subject_file=None, image="../ a\nb", batch=" crm")
    assert asked == {Target("image", "../ a\nb"): ["--image"], Target("batch", " crm"): ["--batch"]}
    for image, batch in (("a\udcff", None), (None, "\udcff")):
        with pytest.raises(SettingsError, match="UTF-8"):
            asked_for(Settings(), subject=None, subject_file=None, image=image, batch=batch)


NAMES = "Jürgen Müller\r\nZoë O\u2019Neill\r\n"


def asked(folder: Path, data: bytes) -> dict[Target, list[str]]:
    (folder / "names.txt").write_bytes(data)
    settings = load_settings(environ={"FACE_REINDEX_HMAC_KEY": "k" * 32})
    return asked_for(settings, subject=None, subject_file=str(folder / "names.txt"), image=None, batch=None)


def test_names_are_the_same_however_a_file_is_written(tmp_path: Path) -> None:
    expected = asked(tmp_path, NAMES.encode())
    assert list(expected.values()) == [["line 1"], ["line 2"]]
    written = [
        codecs.BOM_UTF8 + NAMES.encode(),
        NAMES.encode("utf-16"),
        codecs.BOM_UTF16_BE + NAMES.encode("utf-16-be"),
        unicodedata.normalize("NFD", NAMES).encode(),
        NAMES.replace("\r\n", "\n").encode(),
        NAMES.upper().encode(),
        NAMES.strip().encode(),
        NAMES.encode() + b"\r\n\r\n",
        # Of an old Mac, and of a program that writes \r\n to a file of text.
        NAMES.replace("\r\n", "\r").encode(),
    ]
    for data in written:
        assert {target.value for target in asked(tmp_path, data)} == {target.value for target in expected}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NAMES.encode("cp1252"), "line 1 is not UTF-8"),
        (b"Anna\n" + NAMES.encode("cp1252"), "line 2 is not UTF-8"),
        ("Anna\nM\ufffdller\n".encode(), "line 2: holds a replaced character"),
        ("Eva\nAnna\n".encode("utf-16-le"), "line 1 holds a NUL"),
        (b"Anna\rEva\rJ\xfcrgen Miller\r", "line 3 is not UTF-8"),
        (codecs.BOM_UTF16_LE + NAMES.encode("utf-16-le")[:-1], "line 2 is no UTF-16"),
    ],
)
def test_a_name_that_would_be_another_one_is_refused_with_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        asked(tmp_path, data)
    assert "ller" not in str(caught.value)


@pytest.mark.parametrize("between", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_guarantee_9_two_names_that_some_programs_have_on_one_line_are_not_one(tmp_path: Path, between: str) -> None:
    """It would be nobody's name: whoever asked would stay."""
    with pytest.raises(SettingsError, match="line 2: holds a separator that may part two names"):
        asked(tmp_path, f"Eva\nAnna{between}Miller\n".encode())


@pytest.mark.parametrize(
    ("name", "habit"),
    [
        ("?ukasz Miller", "a replaced character"),
        ("??", "a replaced character"),
        ("\u00bfukasz Miller", "a replaced character"),
        ("M\x1aller", "a replaced character"),
        ("1.98501E+11", "a number that a program has rewritten"),
        ("198501011234.0", "a number that a program has rewritten"),
        ("#N/A", "a spreadsheet's error"),
        ("NULL", "a program's word for nothing"),
        ("nan", "a program's word for nothing"),
        ("-", "without letters and digits"),
    ],
)
def test_guarantee_9_a_name_that_was_lost_erases_nobody(tmp_path: Path, name: str, habit: str) -> None:
    with pytest.raises(SettingsError, match=rf"line 2: (?:holds|is) .*{habit}.*several people") as caught:
        asked(tmp_path, f"Eva\n{name}\n".encode())
    assert "iller" not in str(caught.value)


def test_a_name_that_looks_like_none_is_somebodys(tmp_path: Path) -> None:
    assert len(asked(tmp_path, b"Null\nNan\nNa\n198501011234\n\n \n")) == 4
