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
        (codecs.BOM_UTF16_LE + NAMES.encode("utf-16-le")[:-1], "line 2 is no UTF-16"),
    ],
)
def test_a_name_that_would_be_another_one_is_refused_with_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        asked(tmp_path, data)
    assert "ller" not in str(caught.value)
