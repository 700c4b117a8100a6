"""What people bring: every oddity once, with what comes of it. `CORPUS` is the table, and test_corpus.py plays it.

To add an entry
- Find its kind (a function of play.py, which says what is brought and what an outcome is), and add a line to the
  table of that kind below; a kind of its own is a function there, a table here, and a line in `CORPUS`.
- Its name says what people do, its outcome what they get: a value, or `Refused` with words of the message by which they
  find what to change. Nothing is left out in silence, and nothing ends in an error that nobody foresaw.
- Where somebody has reported it of another program, the report stands beside it (`REPORTS`).
- One entry a kind of oddity: how it is spelt in detail is for the tests of the module that reads it.
"""

from __future__ import annotations

import gzip
import io
import os
import socket
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pyspark.sql.types import BinaryType, DoubleType, LongType, StringType

from jobs.tables.foreign import Layout
from tests.golden.support import encoded, small_astronaut
from tests.unit.environments import ROWS
from tests.unit.udfs.listed import JPEG


@dataclass(frozen=True)
class Refused:
    """It is not read; ``said``: words of the message, in which there is no word of what was brought."""

    said: str


@dataclass(frozen=True)
class Entry:
    """``kind``: how it is played; ``brought``: what that takes; ``outcome``: what it makes of it."""

    kind: str
    name: str
    brought: Any
    outcome: Any

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


def put(path: bytes, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - of bytes
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(data)


PNG, HEIC = b"\x89PNG\r\n\x1a\n picture", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
TIFF = b"II*\0\x08\0\0\0 a directory"
FILM = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
IMAGE, OTHER, BAD, FOLDER = "", "OTHER_FILE", "BAD_ADDRESS", "SKIPPED_FOLDER"

# --- Trees -----------------------------------------------------------------------------------------------------------
#: A file's name (as the system has it), its bytes, and how it ends.
FILES: dict[str, tuple[bytes, bytes, str]] = {
    # What an image is, is told by its bytes.
    "JFIF": (b"a.jfif", JPEG, IMAGE),
    "an old suffix": (b"a.jpe", JPEG, IMAGE),
    "two pictures in one": (b"a.MPO", JPEG, IMAGE),
    "AVIF": (b"a.avif", b"\0\0\0\x14ftypavif\0\0\0\0avif", IMAGE),
    "a phone's": (b"IMG_0001.HEIC", HEIC, IMAGE),
    "HEIF": (b"a.heif", HEIC, IMAGE),
    "HEIF of another brand": (b"a.heic", HEIC.replace(b"ftypheic", b"ftypMiHE"), IMAGE),
    "a bitmap with its writer's mark": (b"a.bmp", b"BM\x3a\0\0\0mark\x36\0\0\0\x28\0\0\0", IMAGE),
    "JPEG 2000": (b"a.j2k", b"\xff\x4f\xff\x51 tiles", IMAGE),
    "no suffix": (b"IMG_0001", JPEG, IMAGE),
    "a suffix that says nothing": (b"a.bin", PNG, IMAGE),
    "a suffix that says something else": (b"a.txt", JPEG, IMAGE),
    "kept by a tool": (b"a.jpg_original", JPEG, IMAGE),
    "half a download": (b"a.jpg.crdownload", JPEG, IMAGE),
    "a name with dots": (b"IMG.2024.01.jpg", JPEG, IMAGE),
    "upper case": (b"A.JPEG", JPEG, IMAGE),
    "TIFF without a suffix": (b"scan", TIFF, IMAGE),
    "TIFF whose directory is not there": (b"scan", TIFF[:8], OTHER),
    # Named as an image: a row, whatever it is.
    "text as a picture": (b"a.jpg", b"<html>not found</html>", "NOT_AN_IMAGE"),
    "nothing as a picture": (b"a.jpg", b"", "EMPTY"),
    "a film as a picture": (b"a.heic", FILM, "NOT_AN_IMAGE"),
    "too large": (b"a.jpg", JPEG + bytes(2_000), "TOO_LARGE_BYTES"),
    "too large, without a suffix": (b"a", JPEG + bytes(2_000), "TOO_LARGE_BYTES"),
    # All else is counted.
    "a text": (b"notes.txt", b"no image", OTHER),
    "a description beside a picture": (b"a.jpg.json", b"{}", OTHER),
    "a film": (b"a.mp4", FILM, OTHER),
    "a shard in a folder": (b"a.tar", bytes(1_024), OTHER),
    "an archive": (b"photos.zip", b"PK\3\4", OTHER),
    "a drawing": (b"a.svg", b"<svg/>", OTHER),
    "nothing, without a suffix": (b"a", b"", "EMPTY"),
    # Names.
    "a colon": (b"2024-01-01T10:20:30.jpg", JPEG, IMAGE),
    "a scheme": (b"s3:x.jpg", JPEG, IMAGE),
    "an umlaut": ("Müller.jpg".encode(), JPEG, IMAGE),
    "an umlaut in two": ("Mu\u0308ller.jpg".encode(), JPEG, IMAGE),
    "an emoji": ("\U0001f600.jpg".encode(), JPEG, IMAGE),
    "signs of addresses": (b"a b%20c#d?e&f=g+h.jpg", JPEG, IMAGE),
    "signs of patterns": (b"[a]{b}*.jpg", JPEG, IMAGE),
    "a comma and a semicolon": (b"Miller, A;1.jpg", JPEG, IMAGE),
    "a quote": (b"a\"b'c.jpg", JPEG, IMAGE),
    "a backslash": (b"a\\b.jpg", JPEG, IMAGE),
    "a tilde": (b"~a.jpg", JPEG, IMAGE),
    "a space at the end": (b"a.jpg ", JPEG, IMAGE),
    "longest": (b"x" * 251 + b".jpg", JPEG, IMAGE),
    "Latin-1": (b"M\xfcller.jpg", JPEG, BAD),
    "Latin-1 without a suffix": (b"M\xfcller", JPEG, BAD),
    "Shift-JIS": (b"\x8e\xca\x90^.jpg", JPEG, BAD),
    "half a surrogate": (b"\xed\xa0\x80.jpg", JPEG, BAD),
    "a line break": (b"a\nb.jpg", JPEG, BAD),
    "a terminal's command": (b"\x1b[2J.jpg", JPEG, BAD),
    # What systems leave.
    "Windows: small pictures": (b"Thumbs.db", b"\xd0\xcf\x11\xe0", "SKIPPED"),
    "Windows: a folder's looks": (b"desktop.ini", b"[.ShellClassInfo]", "SKIPPED"),
    "a Mac: its second half": (b"._a.jpg", JPEG, "SKIPPED"),
    "a Mac: a folder's looks": (b".DS_Store", b"\0\0\0\1Bud1", "SKIPPED"),
    "a phone: a folder not to show": (b".nomedia", b"", "SKIPPED"),
    "a hidden picture": (b".hidden.jpg", JPEG, "SKIPPED"),
    # As other programs have met them.
    "a character of no European alphabet": ("photo 16\u202f01\u202f04.jpg".encode(), JPEG, IMAGE),
    "Cyrillic": ("\u0424\u043e\u0442\u043e.JPG".encode(), JPEG, IMAGE),
    "half an emoji": (b"DigiByte \xed\xa0\xbd.jpg", JPEG, BAD),
    "a JPEG named HEIC": (b"IMG_2020.HEIC", JPEG, IMAGE),
    "a picture that moves": (b"PXL_2025.MP.jpg", JPEG + FILM, IMAGE),
    "a JPEG without JFIF": (b"a.jpeg", b"\xff\xd8\xff\xdb a table", IMAGE),
    "a JPEG with a newline before it": (b"a.jpg", b"\n" + JPEG, "NOT_AN_IMAGE"),
    "a place holder of iCloud": (b".IMG_0001.jpg.icloud", b"bplist00", "SKIPPED"),
    "a NAS's small picture, out of its folder": (b"SYNOFILE_THUMB_M.jpg", JPEG, "SKIPPED"),
    "JPEG XL": (b"a.jxl", b"\xff\x0a", OTHER),
}  # fmt: skip
#: Folders, and how a picture in them ends.
FOLDERS: dict[bytes, str] = {
    b"M\xc3\xbcller": IMAGE, b"2024:01": IMAGE, b"a b": IMAGE, b"@photos": IMAGE, b"#1": IMAGE, b"~": IMAGE,
    b"_delta_log": IMAGE, b"_temporary": IMAGE, b"part=1": IMAGE, b"a.jpg": IMAGE, b"a.tar": IMAGE, b"trash": IMAGE,
    "\u0424\u043e\u0442\u043e".encode(): IMAGE, b"22.0": IMAGE, b"foto's dr\xe9": BAD, b"M\xfcller": BAD, b"a\nb": BAD,
    b"@eaDir": FOLDER, b"@EADIR": FOLDER, b"#recycle": FOLDER, b"@Recycle": FOLDER, b".hidden": FOLDER,
    b"__MACOSX": FOLDER, b".Trash-1000": FOLDER, b".Trashes": FOLDER, b"$RECYCLE.BIN": FOLDER,
    b"System Volume Information": FOLDER, b"lost+found": FOLDER, b".git": FOLDER, b".@__thumb": FOLDER,
}  # fmt: skip


def a_pipe(root: Path) -> None:
    os.mkfifo(root / "pipe")


def a_socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))


def a_link_to(target: str, name: str = "link") -> Callable[[Path], None]:
    return lambda root: (root / name).symlink_to(target)


def annexed(root: Path) -> None:
    put(bytes(root) + b"/.kept/x.jpg", JPEG)
    (root / "2017.Jpeg").symlink_to(".kept/x.jpg")


#: What makes an entry of a folder, and how it ends ("" of nothing).
ENTRIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe": (a_pipe, "NOT_A_FILE"),
    "a socket": (a_socket, "NOT_A_FILE"),
    "a link to itself": (a_link_to("link"), "IO_ERROR"),
    "a link to nothing": (a_link_to("nothing.jpg"), "NOT_FOUND"),
    "a link to a file outside": (a_link_to("/etc/passwd"), "OUTSIDE_ROOTS"),
    "a picture that is a link to a file outside": (a_link_to("/etc/passwd", "a.jpg"), "OUTSIDE_ROOTS"),
    "a link to the parent": (a_link_to(".."), "LINKED_FOLDER"),
    "a link to the folder itself": (a_link_to("."), "LINKED_FOLDER"),
    "a link to a folder outside": (a_link_to("/etc"), "LINKED_FOLDER"),
    "a hidden link to a folder": (a_link_to("/etc", ".cache"), FOLDER),
    "git-annex: a link to a file that is kept below": (annexed, IMAGE),
    "git-annex: a link to a file that is not here": (
        a_link_to(".git/annex/objects/x.jpg", "2017.Jpeg"),
        "NOT_FOUND",
    ),
    "an empty folder": (lambda root: (root / "empty").mkdir(), ""),
}

# --- Shards ----------------------------------------------------------------------------------------------------------
#: A member's name, its bytes, and how it ends.
MEMBERS: dict[str, tuple[str, bytes, str]] = {
    "a sample": ("000.jpg", JPEG, IMAGE),
    "its caption": ("000.txt", b"a caption", OTHER),
    "its description": ("000.json", b"{}", OTHER),
    "in a folder": ("a/001.png", PNG, IMAGE),
    "packed from here": ("./002.jpg", JPEG, IMAGE),
    "a suffix that was not known": ("003.jfif", JPEG, IMAGE),
    "no suffix": ("004", JPEG, IMAGE),
    "longer than a look, without a suffix": ("005", JPEG + bytes(500), IMAGE),
    "shorter than a look": ("006.cls", b"7", OTHER),
    "a tensor": ("007.npy", b"\x93NUMPY", OTHER),
    "nothing": ("008.jpg", b"", "EMPTY"),
    "nothing, without a suffix": ("008", b"", "EMPTY"),
    "text as a picture": ("009.jpg", b"<html>", "NOT_AN_IMAGE"),
    "too large": ("010.jpg", JPEG + bytes(2_000), "TOO_LARGE_BYTES"),
    "too large, without a suffix": ("010", JPEG + bytes(2_000), "TOO_LARGE_BYTES"),
    "a Mac's second half": ("._011.jpg", JPEG, "SKIPPED"),
    "a Mac's second half, from here": ("./._012.jpg", JPEG, "SKIPPED"),
    "a Mac's second halves": ("__MACOSX/a/013.jpg", JPEG, "SKIPPED"),
    "a NAS's small pictures": ("a/@eaDir/014.jpg/SYNOPHOTO_THUMB_M.jpg", JPEG, "SKIPPED"),
    "a name that is no text": ("\udcff.jpg", JPEG, BAD),
    "out of the archive": ("../015.jpg", JPEG, BAD),
    "a name with dots": ("./235342 Track 2.0 (Clean Version).jpg", JPEG, IMAGE),
    "a folder with dots": ("some/path/22.0/1.1.png", PNG, IMAGE),
    "a Windows path": ("photos\\016.jpg", JPEG, IMAGE),
}


def tar_of(members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


SHARD = tar_of([("000.jpg", JPEG), ("001.jpg", JPEG)])
SHARDS: dict[str, tuple[str, bytes, dict[str, int]]] = {
    "another archive behind it": ("s.tar", SHARD + SHARD, {"": 2, "BROKEN_SHARD": 1}),
    "another archive behind it, packed": ("s.tgz", gzip.compress(SHARD + SHARD), {"": 2, "BROKEN_SHARD": 1}),
    "something behind it": ("s.tar", SHARD + b"x", {"": 2, "BROKEN_SHARD": 1}),
    "zeros behind it": ("s.tar", SHARD + bytes(2**21 + 7), {"": 2}),
    "one block of its end": ("s.tar", SHARD[:2_560], {"": 2}),
    "without an end": ("s.tar", SHARD[:2_048], {"": 2, "BROKEN_SHARD": 1}),
    "cut at a member": ("s.tar", SHARD[:1_024], {"": 1, "BROKEN_SHARD": 1}),
    "cut in a member": ("s.tar", SHARD[:1_540], {"": 1, "BROKEN_SHARD": 1}),
    "a checksum that is not its own": ("s.tar", SHARD[:1_024] + b"1" + SHARD[1_025:], {"": 1, "BROKEN_SHARD": 1}),
    "empty": ("s.tar", b"", {"BROKEN_SHARD": 1}),
    "nothing but an end": ("s.tar", bytes(1_024), {}),
    "no tar": ("s.tar", b"PK\3\4", {"BROKEN_SHARD": 1}),
    "packed under a plain name": ("s.tar", gzip.compress(SHARD), {"BROKEN_SHARD": 1}),
    "plain under a packed name": ("s.tgz", SHARD, {"BROKEN_SHARD": 1}),
    "packed, its checksum cut off": ("s.tgz", gzip.compress(SHARD)[:-8], {"": 2, "BROKEN_SHARD": 1}),
    "packed, with a checksum of another": (
        "s.tgz", gzip.compress(SHARD)[:-8] + bytes(8), {"": 2, "BROKEN_SHARD": 1},
    ),
    "a picture": ("s.tar", JPEG, {"BROKEN_SHARD": 1}),
}  # fmt: skip


# --- Pictures --------------------------------------------------------------------------------------------------------
def photograph() -> bytes:
    return encoded(small_astronaut(96), "JPEG", quality=90)


def with_segment(marker: int, body: bytes) -> bytes:
    data = photograph()
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]


def exif(*entry: int) -> bytes:
    """The Exif of one entry: tag, type, count, value."""
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHxx", *entry) + bytes(4)


def two_in_one() -> bytes:
    half = Image.fromarray(small_astronaut(48))
    return encoded(Image.fromarray(small_astronaut(96)), "MPO", save_all=True, append_images=[half])


def grey_of_16_bits() -> bytes:
    return encoded(Image.fromarray(np.asarray(small_astronaut(96)[:, :, 1], np.uint16) * 257))


def marked_bitmap() -> bytes:
    data = encoded(small_astronaut(96), "BMP")
    return data[:6] + b"mark" + data[10:]


def png_of(part: float) -> bytes:
    """A PNG with so much of its rows, and sums that are right."""
    rows = b"".join(b"\0" + row.tobytes() for row in small_astronaut(96))
    body = {
        b"IHDR": struct.pack(">IIBBBBB", 96, 96, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows[: int(part * len(rows))]),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in body.items()
    )


def tiff_of(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    return encoded(Image.fromarray(pixels), "TIFF", **options)


def small_before_whole() -> bytes:
    pages = [Image.fromarray(small_astronaut(side)) for side in (24, 96)]
    return encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])


def filled_up(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


MOVES = FILM + b"\0\0\0\x08mdat" + bytes(range(256)) * 20
DECODED = "96 x 96, as it was"
#: What makes a file, and what becomes of it.
PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a picture that moves: a film behind it": (lambda: photograph() + MOVES, DECODED),
    "and the camera's marks behind that": (lambda: photograph() + MOVES + b"SEFH\1\0\0\0SEFT", DECODED),
    "no JFIF": (lambda: photograph()[:2] + photograph()[20:], DECODED),
    "XMP where Exif should be": (lambda: with_segment(0xE1, b"Exif\0\0http://ns.adobe.com/xap/1.0/\0<x/>"), DECODED),
    "an index of more pictures than there are": (
        lambda: with_segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff" + bytes(30)), DECODED,
    ),
    "two pictures in one": (two_in_one, DECODED),
    "two pictures in one, the second cut": (lambda: two_in_one()[:-500], DECODED),
    "turned by Exif": (lambda: with_segment(0xE1, exif(0x112, 3, 1, 3)), "96 x 96, turned by 180 degrees"),
    "turned by a number that is none": (lambda: with_segment(0xE1, exif(0x112, 3, 1, 9)), DECODED),
    "16 bits of grey": (grey_of_16_bits, "96 x 96, as bright as it was"),
    "a bitmap with its writer's mark": (marked_bitmap, DECODED),
    "the end is missing": (lambda: photograph()[:-2], "broken: TRUNCATED"),
    "half of it": (lambda: photograph()[: len(photograph()) // 2], "broken: TRUNCATED"),
    "half of it, mended with an end": (
        lambda: photograph()[: len(photograph()) // 2] + b"\xff\xd9", "broken: CORRUPT",
    ),
    "zeros in place of its end, as after a crash": (lambda: photograph()[:-900] + bytes(900), "broken: TRUNCATED"),
    "a PNG with all its rows": (lambda: png_of(1), DECODED),
    "a PNG with half its rows, and an end": (lambda: png_of(0.5), "broken: CORRUPT"),
    "an AVIF with zeros in its second half": (
        lambda: filled_up(encoded(small_astronaut(96), "AVIF", quality=90, speed=10)), "broken: CORRUPT",
    ),
    "a TIFF": (lambda: tiff_of(small_astronaut(96)), DECODED),
    "a fax": (
        lambda: tiff_of(small_astronaut(96)[:, :, 1] > 99, compression="group4"), "broken: UNSUPPORTED_FORMAT",
    ),
    "a TIFF of 32 bits": (
        lambda: tiff_of(small_astronaut(96)[:, :, 1].astype(np.int32)), "broken: UNSUPPORTED_MODE",
    ),
    "a small copy before its picture": (small_before_whole, "broken: UNSUPPORTED_FORMAT"),
    "a byte order mark before it": (lambda: b"\xef\xbb\xbf" + photograph(), "broken: NOT_AN_IMAGE"),
    "a web page": (lambda: b"<!DOCTYPE html><html>", "broken: NOT_AN_IMAGE"),
    "JPEG XL": (lambda: b"\xff\x0a" + bytes(50), "broken: NOT_AN_IMAGE"),
}  # fmt: skip

# --- Tables of images ------------------------------------------------------------------------------------------------
TEXT, BYTES, LONG = StringType(), BinaryType(), LongType()
TABLES: dict[str, tuple[dict[str, Any], Layout | Refused]] = {
    "its own ids": (
        {"image_id": TEXT, "content": BYTES}, Layout("CAST(`image_id` AS STRING)", "`content`", None, True),
    ),
    "names in capitals": (
        {"IMAGE_ID": TEXT, "Content": BYTES}, Layout("CAST(`IMAGE_ID` AS STRING)", "`Content`", None, True),
    ),
    "of `datasets`": (
        {"image": {"bytes": BYTES, "path": TEXT}, "label": LONG},
        Layout("`image`.`path`", "`image`.`bytes`", "`image`.`path`", False),
    ),
    "a WebDataset as a table": (
        {"__key__": TEXT, "jpg": BYTES}, Refused("SELECT `__key__` AS image_id, `jpg` AS content"),
    ),
    "of img2dataset": ({"url": TEXT, "key": TEXT, "sha256": TEXT}, Refused("SELECT `key` AS image_id, `url` AS uri")),
    "pictures as text (Base64)": ({"image_id": TEXT, "content": TEXT}, Refused("content must be binary")),
    "an index of pandas": (
        {"__index_level_0__": LONG, "image": BYTES},
        Refused("SELECT <a column of ids> AS image_id, `image` AS content"),
    ),
    "two columns that differ in case": (
        {"id": TEXT, "ID": TEXT, "content": BYTES}, Refused("differ in case alone: id"),
    ),
    "ids as bytes (a UUID)": (
        {"image_id": BYTES, "content": BYTES}, Refused("SELECT hex(`image_id`) AS image_id, `content` AS content"),
    ),
    "ids that a join made fractions of": (
        {"image_id": DoubleType(), "content": BYTES}, Refused("SELECT CAST(`image_id` AS DECIMAL(38, 0)) AS image_id"),
    ),
    "nothing of the kind": ({"label": LONG}, Refused("found: label bigint")),
}  # fmt: skip

# --- Records ---------------------------------------------------------------------------------------------------------
GIVEN = "2026-01-31T12:00:00Z,explicit_consent,ConsentGiven"
HEADER = "record_id,images,subject,event_time,event_type,event_state"
ONE = f"r1,a.jpg,Anna,{GIVEN}"
TAKEN = ["r1: a.jpg"]


def saved(*lines: str, header: str = HEADER, end: str = "\n") -> bytes:
    return end.join([header, *lines, ""]).encode()


#: A CSV, and its lines: records and images, or why not and, behind that, of whom nobody knows whether it spoke.
CSVS: dict[str, tuple[bytes, list[str] | Refused]] = {
    "as it should be": (saved(ONE), TAKEN),
    "by Excel in Germany": (b"\xef\xbb\xbf" + saved(ONE).replace(b",", b";").replace(b"\n", b"\r\n"), TAKEN),
    "with `sep=`": (b"sep=,\n" + saved(ONE), TAKEN),
    "empty rows behind the last": (saved(ONE, ",,,,,", "", "\x1a"), TAKEN),
    "of an old Mac": (saved(ONE, end="\r"), TAKEN),
    "a mark that keeps zeros": (saved(f"\x1fr1,a.jpg,\x1f0012,{GIVEN}"), TAKEN),
    "a character of no width that keeps zeros": (saved(f"r1\u200b,a.jpg,0012\u200b,{GIVEN}"), TAKEN),
    "blanks behind commas": (saved(ONE.replace(",", ", ")), ["r1: a.jpg"]),
    "Unicode Text": (saved(ONE).decode().encode("utf-16"), Refused("Unicode Text")),
    "in Windows' encoding": (
        saved(ONE.replace("Anna", "Zo\u00eb")).decode().encode("cp1252"), ["NOT_UTF_8: r1, anybody"],
    ),
    "in Windows' encoding, its header": (b"record_id,gr\xf6\xdfe\n", Refused("CSV UTF-8")),
    "a workbook that was renamed": (b"PK\3\4\x14\0\6\0 xl/workbook.xml", Refused("it is a workbook (.xlsx, .ods)")),
    "an old workbook that was renamed": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 Root Entry", Refused("workbook (.xls)")),
    "JSON that was renamed": (b'{"record_id": "r1"}\n', Refused("it is JSON")),
    "a web page": (b"<html><table>\n", Refused("its first line has none of their names")),
    "names in capitals": (
        saved(ONE, header=HEADER.replace("record_id", "Record_ID")), Refused("column 1 is record_id but"),
    ),
    "a blank behind a name": (
        saved(ONE, header=HEADER.replace("subject", "subject ")), Refused("column 3 is subject but"),
    ),
    "a comma behind the header": (saved(f"{ONE},", header=f"{HEADER},"), Refused("column 7 has no name")),
    "an index of pandas": (saved(f"0,{ONE}", header=f",{HEADER}"), Refused("column 1 has no name")),
    "a column of one's own": (saved(f"{ONE},x", header=f"{HEADER},Anna's notes"), Refused("column 7 is unknown")),
    "a column twice": (saved(f"{ONE},b.jpg", header=f"{HEADER},images"), Refused("column 7 is images once more")),
    "no record_id": (saved("a.jpg", header="images"), Refused("there is no record_id")),
    "bars between cells": (saved(ONE).replace(b",", b"|"), Refused("nothing that is read stands between its names")),
    "a title above the header": (b"Permissions of Anna\n" + saved(ONE), Refused("has none of their names")),
    "an empty line above the header": (b"\n" + saved(ONE), Refused("its first line is empty")),
    "a line break in a cell": (
        saved(f'r1,a.jpg,"An\nna",{GIVEN}', ONE.replace("r1", "r2")),
        ["NOT_CSV: r1, anybody", "NOT_CSV: na, anybody", "r2: a.jpg"],
    ),
    "a quote in a cell": (saved(f'r1,a"b.jpg,Anna,{GIVEN}'), ["NOT_CSV: r1, anybody"]),
    "a comma in a cell": (saved(f"r1,Miller, Anna.jpg,Anna,{GIVEN}"), ["RAGGED_ROW: r1, anybody"]),
    "dates as in the USA": (
        saved("r1,a.jpg,Anna,8/25/2014,explicit_consent,ConsentGiven"), ["DATE_REWRITTEN:event_time: r1"],
    ),
    "dates as in Thailand": (
        saved("r1,a.jpg,Anna,2569-01-31T12:00:00Z,explicit_consent,ConsentGiven"), ["YEAR_TOO_FAR:event_time:2569: r1"],
    ),
    "never as a date": (
        saved(f"{ONE},9999-12-31T00:00:00Z", header=f"{HEADER},expires_at"), ["YEAR_TOO_FAR:expires_at:9999: r1"],
    ),
    "dates in words": (saved("r1,a.jpg,Anna,31 JAN 2026,explicit_consent,ConsentGiven"), ["VALUE_OF_ANOTHER_TYPE: r1"]),
    "an id as a number": (saved(f"1.23457E+15,a.jpg,Anna,{GIVEN}"), ["ID_REWRITTEN: 1.23457E+15, anybody"]),
    "an apostrophe that keeps zeros, in an id": (saved(f"'0012,a.jpg,Anna,{GIVEN}"), ["ID_REWRITTEN: '0012, anybody"]),
    "a formula that keeps zeros": (saved(f'r1,a.jpg,"=""0012""",{GIVEN}'), ["NAME_IS_LOST:TEXT_MARKS: r1"]),
    "an apostrophe that keeps zeros": (saved(f"r1,a.jpg,'0012,{GIVEN}"), ["NAME_IS_LOST:TEXT_MARKS: r1"]),
    "a word processor's quotes": (saved(f"r1,a.jpg,\u201cAnna\u201d,{GIVEN}"), ["NAME_IS_LOST:TEXT_MARKS: r1"]),
    "UTF-8 read as Windows'": (saved(f"r1,a.jpg,K\u00c3\u00b6ln,{GIVEN}"), ["NAME_IS_LOST:MISREAD: r1"]),
    "UTF-8 read by a Mac": (saved(f"r1,a.jpg,K\u221a\u2202ln,{GIVEN}"), ["NAME_IS_LOST:MISREAD: r1"]),
    "Windows' letters read as Cyrillic": (saved(f"r1,a.jpg,M\u044cnchen,{GIVEN}"), ["NAME_IS_LOST:MISREAD: r1"]),
    "UTF-8 read in Prague": (saved(f"r1,a.jpg,M\u0102\u013dller,{GIVEN}"), ["NAME_IS_LOST:MISREAD: r1"]),
    "UTF-8 read by DOS": (saved(f"r1,a.jpg,M\u251c\u255dller,{GIVEN}"), ["NAME_IS_LOST:MISREAD: r1"]),
    "UTF-8 read in China": (saved(f"r1,a.jpg,M\u7709ller,{GIVEN}"), ["NAME_IS_LOST:MISREAD: r1"]),
    "an apostrophe of Windows read as Latin-1": (saved(f"r1,a.jpg,O\x92Neill,{GIVEN}"), ["NAME_IS_LOST:MISREAD: r1"]),
    "letters of web pages": (saved(f"r1,a.jpg,M&uuml;ller,{GIVEN}"), ["NAME_IS_LOST:MISREAD: r1"]),
    "letters that were lost": (saved(f"r1,a.jpg,?ukasz,{GIVEN}"), ["NAME_IS_LOST:REPLACED_CHARACTER: r1"]),
    "a spreadsheet's error": (saved(f"r1,#REF!,Anna,{GIVEN}"), ["NO_VALUE:images: r1"]),
    "a spreadsheet's error in Czech": (saved(f"r1,#NEN\u00cd_K_DISPOZICI,Anna,{GIVEN}"), ["NO_VALUE:images: r1"]),
    "two names in a cell": (saved(f"r1,a.jpg,Anna\u2028Bea,{GIVEN}"), ["NAME_IS_LOST:MAYBE_TWO: r1"]),
    "two names in a cell, as in a list": (saved(f"r1,a.jpg,Anna;Bea,{GIVEN}"), ["NAME_IS_LOST:MAYBE_TWO: r1"]),
    "two names in a cell, as people write": (saved(f"r1,a.jpg,Anna & Bea,{GIVEN}"), ["NAME_IS_LOST:MAYBE_TWO: r1"]),
    "an id that Brazil made a date of": (saved(f"01/fev,a.jpg,Anna,{GIVEN}"), ["ID_REWRITTEN: 01/fev, anybody"]),
    "what SQL writes for nothing": (saved(f"r1,(NULL),Anna,{GIVEN}"), ["NO_VALUE:images: r1"]),
    "another file behind it": (
        saved(ONE, "record_id,subject,images,notes"), [*TAKEN, "ANOTHER_HEADER: record_id"],
    ),
    "a picture's number as a spreadsheet writes it": (saved(f"r1,1.23457E+15,Anna,{GIVEN}"), ["IMAGE_REWRITTEN: r1"]),
    "a picture's name as a spreadsheet's date": (saved(f"r1,a.jpg;Jan 26,Anna,{GIVEN}"), ["IMAGE_REWRITTEN: r1"]),
    "a picture's name as a formula": (
        saved(f'r1,"=HYPERLINK(""a.jpg"")",Anna,{GIVEN}'), ["IMAGE_REWRITTEN: r1"],
    ),
    "a letter of a picture's name that was lost": (saved(f"r1,M\ufffdller.jpg,Anna,{GIVEN}"), ["IMAGE_REWRITTEN: r1"]),
    "a letter in a list of names that was lost": (
        saved(f'r1,"[""M\ufffdller.jpg""]",Anna,{GIVEN}'), ["IMAGE_REWRITTEN: r1"],
    ),
    "a picture's name read in another encoding": (
        saved(f"r1,M\u00c3\u00bcller.jpg,Anna,{GIVEN}"), ["IMAGE_REWRITTEN: r1"],
    ),
    "a picture's number": (saved(f"r1,12,Anna,{GIVEN}"), ["r1: 12"]),
    "a picture named by its day": (saved(f"r1,2026-01-31 12.00.00.jpg,Anna,{GIVEN}"), ["r1: 2026-01-31 12.00.00.jpg"]),
    "odd names in a list, as templates write them": (
        saved(f'r1,"[""Jan 26"", ""?.jpg"", ""12.0""]",Anna,{GIVEN}'), ["r1: Jan 26, ?.jpg, 12.0"],
    ),
    "a list as Python writes it": (saved(f"r1,\"['a.jpg']\",Anna,{GIVEN}"), ["VALUE_OF_ANOTHER_TYPE: r1"]),
}  # fmt: skip
#: The first line of a file that is given as JSON lines, and why it has none (None: it may have).
JSON_LINES: dict[str, tuple[bytes, Refused | None]] = {
    "a record": (b'{"record_id": "r1"}', None),
    "a record with a mark before it": (b"\xef\xbb\xbf" + b'{"record_id": "r1"}', None),
    "no record": (b"soon", None),
    "a list": (b'[{"record_id": "r1"},', Refused("one JSON over many lines")),
    "one record over many lines": (b"{", Refused("one JSON over many lines")),
    "a CSV under another name": (saved(ONE).split(b"\n")[0], Refused("call it \u2026.csv")),
    "Unicode Text": ("record_id\timages".encode("utf-16"), Refused("UTF-16")),
    "a workbook": (b"PK\3\4\x14\0\6\0", Refused("it is a workbook (.xlsx, .ods)")),
    "YAML": (b"record_id: r1", Refused("it is YAML")),
    "a Parquet file": (b"PAR1\x15\4", Refused("it is a Parquet file")),
}  # fmt: skip
SHORT = "image,subject,given_at"
DAY = "2026-01-31T12:00:00Z"
#: A CSV in short form, and its lines: the image or the pattern, or the number of the line and what is wrong.
SHORT_CSVS: dict[str, tuple[bytes, list[str | Refused]]] = {
    "as it should be": (saved(f"a.jpg,Anna,{DAY}", header=SHORT), ["a.jpg"]),
    "a pattern": (saved(f"anna/*,Anna,{DAY}", header=SHORT), ["anna/*, below anna"]),
    "letters of a picture's name that were lost": (
        saved(f"\u674e\u5a1c.jpg,Anna,{DAY}", header=SHORT).decode().encode("cp1252", "replace"),
        [Refused("2: image holds a ?, as programs write for a letter")],
    ),
    "a picture's name as a spreadsheet's date": (
        saved(f"Jan 26,Anna,{DAY}", header=SHORT), [Refused("2: image is a number, a date or a formula")],
    ),
    "of an old Mac": (saved(f"a.jpg,Anna,{DAY}", header=SHORT, end="\r"), ["a.jpg"]),
    "empty lines above": (b"\n\n" + saved(f"a.jpg,Anna,{DAY}", header=SHORT), ["a.jpg"]),
    "a comment in it": (
        saved("# Anna's", f"a.jpg,Anna,{DAY}", header=SHORT), [Refused("2: has more or fewer cells"), "a.jpg"],
    ),
    "a workbook": (b"PK\3\4\x14\0\6\0", [Refused("0: it is a workbook (.xlsx, .ods)")]),
    "in Windows' encoding": (
        saved(f"Zo\u00eb.jpg,Anna,{DAY}", header=SHORT).decode().encode("cp1252"),
        [Refused("0: line 2 is not UTF-8")],
    ),
    "names in capitals": (
        saved(f"a.jpg,Anna,{DAY}", header=SHORT.title()), [Refused("1: with --terms the columns are")],
    ),
    "a folder": (saved(f"anna/,Anna,{DAY}", header=SHORT), [Refused("2: a folder is written as folder/*")]),
    "a date of a spreadsheet": (
        saved("a.jpg,Anna,31.01.2026", header=SHORT), [Refused("2: given_at is a time as a spreadsheet")],
    ),
    "a date as in Thailand": (
        saved("a.jpg,Anna,2569-01-31T12:00:00Z", header=SHORT), [Refused("2: given_at is in the year 2569, more than")],
    ),
    "UTF-8 read as Windows'": (
        saved(f"a.jpg,M\u00c3\u00bcller,{DAY}", header=SHORT), [Refused("2: subject was read in another encoding")],
    ),
    "a person of no name": (saved(f"a.jpg,N/A,{DAY}", header=SHORT), [Refused("2: subject is no name")]),
    "two names in a cell": (
        saved(f"a.jpg,Anna\x0bBea,{DAY}", header=SHORT), [Refused("2: subject holds a separator that may")],
    ),
}  # fmt: skip
#: A file of who is to be erased, and how many people it names.
SUBJECTS: dict[str, tuple[bytes, int | Refused]] = {
    "as it should be": (b"Anna\nBea\n", 2),
    "one twice, in two Unicode forms": ("Zo\u00eb\nZoe\u0308\n".encode(), 1),
    "by Windows' editor": ("\ufeffAnna\r\nBea\r\n".encode("utf-16-le"), 2),
    "of an old Mac": (b"Anna\rBea\r", 2),
    "names that look like none": (b"Null\n'Ala'\n'Abd al-Rahman\n", 3),
    "in Windows' encoding": (b"Anna\nZo\xeb\n", Refused("line 2 is not UTF-8")),
    "a column of a CSV, with its quotes": (b'"Miller, Anna"\n', Refused("line 1: has marks about it")),
    "an apostrophe that keeps zeros": (b"'0012\n", Refused("line 1: has marks about it")),
    "UTF-8 read as Windows'": ("Anna\nM\u00c3\u00bcller\n".encode(), Refused("line 2: was read in another encoding")),
    "UTF-8 read in Prague": (
        "M\u0102\u013dller\n".encode(), Refused("line 1: was read in another encoding"),
    ),
    "a nickname in quotes": ("Jan \u201cLuk\u00e1\u0161\u201d Nov\u00e1k\n".encode(), 1),
    "a number with a slash": (b"E/1001\n", 1),
    "two names in a line": (b"Anna; Bea\n", Refused("line 1: holds a separator that may part two names")),
    "two columns": (b"Anna\tMiller\n", Refused("write one name a line")),
    "a spreadsheet's number": (b"1.98501E+11\n", Refused("line 1: is a number that a program has rewritten")),
    "a workbook": (b"PK\3\4\x14\0\6\0", Refused("it is a workbook (.xlsx, .ods)")),
    "half a pseudonym": (b"hmac3:12ab\n", Refused("begins like a pseudonym and is none")),
    "nobody": (b"\n \n", Refused("names nobody")),
}  # fmt: skip

# --- YAML ------------------------------------------------------------------------------------------------------------
BATCH = (
    "source_batch_id: b1\nsupplier: s\ncollection_method: uploaded_by_subject\nassessment_ref: a\n"
    "assessed_at: 2026-01-31T12:00:00Z\nstate: assessed\n"
)
#: The assessment of a batch, and its id.
BATCHES: dict[str, tuple[bytes, str | Refused]] = {
    "as it should be": (BATCH.encode(), "b1"),
    "by Windows' editor": (BATCH.replace("\n", "\r\n").encode("utf-16"), "b1"),
    "an id of digits": (BATCH.replace("b1", "007").encode(), "007"),
    "Norway": (BATCH.replace("b1", "NO").encode(), "NO"),
    "a date without its quotes": (BATCH.replace("b1", "2026-01-31").encode(), "2026-01-31"),
    "a number behind a #": (BATCH.replace("b1", "crm #2025").encode(), Refused("line 1: ` #` behind a value")),
    "a tab": (
        BATCH.replace("supplier: ", "\tsupplier: ").encode(), Refused("line 2: is not valid YAML: there is a tab"),
    ),
    "an ampersand before a name": (
        BATCH.replace("supplier: s", "supplier: &Sons Ltd").encode(), Refused("line 2: anchors are not read"),
    ),
    "a key twice": ((BATCH + "state: revoked\n").encode(), Refused("line 7: a name stands twice (first in line 6)")),
    "a key of one's own": ((BATCH + "note: x\n").encode(), Refused("Extra inputs are not permitted")),
    "a state of one's own": (BATCH.replace("state: assessed", "state: ok").encode(), Refused("state: ")),
    "a date as in Thailand": (
        BATCH.replace("2026-", "2569-").encode(), Refused("assessed_at: is in the year 2569, more than 100 years"),
    ),
    "a colon in a value": (
        BATCH.replace("supplier: s", "supplier: a: b").encode(), Refused("line 2: is not valid YAML: a colon"),
    ),
    "a workbook": (b"PK\3\4\x14\0\6\0", Refused("it is a workbook (.xlsx, .ods)")),
}  # fmt: skip
#: Settings, and what is other than by default.
SETTINGS: dict[str, tuple[bytes, dict[str, Any] | Refused]] = {
    "as they should be": (b"warehouse: /data/faces\n", {"warehouse": "/data/faces"}),
    "by Windows' editor": ("\ufeffwarehouse: /data/faces\r\n".encode("utf-16-le"), {"warehouse": "/data/faces"}),
    "as JSON": (b'{"warehouse": "/data/faces"}', {"warehouse": "/data/faces"}),
    "nothing": (b"# all as it is\n", {}),
    "a tab": (b"milvus:\n\turi: faces.db\n", Refused("line 2: is not valid YAML: there is a tab")),
    "a tab before a comment": (
        b"warehouse: /data/faces\t# here\n", Refused("line 1: is not valid YAML: there is a tab"),
    ),
    "a path of Windows": (rb"warehouse: C:\Users\x", Refused("line 1: warehouse: is a path of Windows")),
    "a path of Windows in double quotes": (rb'warehouse: "C:\Users\x"', Refused("a backslash in double quotes")),
    "a home": (b"warehouse: ~/faces\n", Refused("line 1: warehouse: ~ is not looked up here")),
    "a shell's variable": (
        b"warehouse: ${HOME}/faces\n", Refused("line 1: warehouse: begins with a variable of a shell"),
    ),
    "a word processor's quotes": ("warehouse: \u201c/data\u201d\n".encode(), Refused("line 1: warehouse: has quotes")),
    "a number behind a #": (b"warehouse: /data/faces #1\n", Refused("line 1: ` #` behind a value begins a comment")),
    "a number behind a #, in a list": (
        b"sources:\n  roots:\n  - /data/a\n  - /data/b #1\n", Refused("line 4: ` #` behind a value begins"),
    ),
    "a # in quotes, and a comment behind a number": (
        b"warehouse: '/data/faces #1'\nmilvus: {shards: 4}  # four\n",
        {"warehouse": "/data/faces #1", "milvus.shards": 4},
    ),
    "a comment in words behind a place": (b"warehouse: /data/faces  # of the\n", {"warehouse": "/data/faces"}),
    "a character of no width": (
        "warehouse: /data/fa\u200bces\n".encode(), Refused("warehouse: holds a line break or another character"),
    ),
    "a line break in quotes": (
        b'staging: {path: "/data\\nfaces"}\n', Refused("staging.path: holds a line break or another character"),
    ),
    "a time beyond all clocks": (
        b"executor: {read_timeout_s: 1.0e+10}\n", Refused("executor.read_timeout_s: Input should be less than"),
    ),
    "a time without an end": (b"lease: {ttl_s: .inf}\n", Refused("lease.ttl_s: Input should be a finite number")),
    "days beyond the calendar": (
        b"erasure: {backup_days: 9999999}\n", Refused("erasure.backup_days: Input should be less than"),
    ),
    "a number of 23 digits": (
        b"model: {seed: 12345678901234567890123}\n", Refused("model.seed: must be a number of 64 bits"),
    ),
    "= in place of :": (b"warehouse=/data/faces\n", Refused("expected 'key: value' lines")),
    "one purpose without its brackets": (b"governance: {purposes: p}\n", Refused("purposes: must be a list")),
    "two files in one": (b"warehouse: /a\n---\nwarehouse: /b\n", Refused("more than one document")),
    "a key that is misspelt": (b"warehause: /a\n", Refused("Hint: 'warehouse'?")),
    "an octal number": (b"milvus: {shards: 010}\n", Refused("line 1: a number that is octal")),
    "yes for a number": (b"erasure: {backup_days: no}\n", Refused("are neither number nor text")),
    "a secret": (b"milvus_token: hunter2\n", Refused("'milvus_token' is a secret")),
    "Milvus with a slash behind it": (b"milvus: {uri: 'http://h:19530/'}\n", {"milvus.uri": "http://h:19530/"}),
    "Milvus without http": (b"milvus: {uri: localhost:19530}\n", Refused("milvus.uri: must be http://host:port")),
    "Milvus with its database": (
        b"milvus: {uri: 'http://h:19530/mine'}\n", Refused("the database of a server is milvus.database"),
    ),
    "Milvus by TCP": (b"milvus: {uri: 'tcp://h:19530'}\n", Refused("milvus.uri: must be http://host:port")),
    "Milvus with a password": (
        b"milvus: {uri: 'http://root:Milvus@h:19530'}\n", Refused("they belong into the environment"),
    ),
    "a workbook": (b"PK\3\4\x14\0\6\0", Refused("it is a workbook (.xlsx, .ods)")),
}  # fmt: skip


def _entries(kind: str, table: Mapping[Any, Any]) -> list[Entry]:
    return [Entry(kind, str(name), *row) for name, row in table.items()]


CORPUS: tuple[Entry, ...] = (
    *(Entry("file", name, (file, data), end) for name, (file, data, end) in FILES.items()),
    *(Entry("folder", repr(name), name, end) for name, end in FOLDERS.items()),
    *_entries("entry of a folder", ENTRIES),
    *(Entry("member of a shard", name, (member, data), end) for name, (member, data, end) in MEMBERS.items()),
    *(Entry("shard", name, (file, data), ends) for name, (file, data, ends) in SHARDS.items()),
    *_entries("picture", PICTURES),
    *_entries("table of images", TABLES),
    *_entries("CSV of records", CSVS),
    *_entries("records as JSON lines", JSON_LINES),
    *_entries("CSV in short form", SHORT_CSVS),
    *_entries("subject file", SUBJECTS),
    *_entries("batch file", BATCHES),
    *_entries("settings", SETTINGS),
    # (Their outcomes are many: what is said, what Java inherits, what its arguments are.)
    *(Entry("environment", row.name, row, row.error) for row in ROWS),
)
#: What people have reported of other programs, by the entry that is the same here.
REPORTS: dict[str, str] = {
    "file: upper case": "jellyfin/jellyfin#1365",
    "file: a NAS's small picture, out of its folder": "simulot/immich-go#319",
    "folder: b'@eaDir'": "immich-app/immich#15096",
    "file: a character of no European alphabet": "immich-app/immich#14642",
    "file: Cyrillic": "immich-app/immich#14063",
    "file: half an emoji": "immich-app/CLI#81",
    "file: a JPEG named HEIC": "photoprism/photoprism#4421",
    "file: a picture that moves": "photoprism/photoprism#5289",
    "file: a JPEG without JFIF": "photoprism/photoprism#5149",
    'folder: b"foto\'s dr\\xe9"': "simulot/immich-go#1049",
    "entry of a folder: a link to nothing": "photoprism/photoprism#414",
    "entry of a folder: git-annex: a link to a file that is kept below": "photoprism/photoprism#1723",
    "member of a shard: a name with dots": "webdataset/webdataset#237",
    "member of a shard: a folder with dots": "huggingface/datasets#7150",
    "shard: empty": "webdataset/webdataset#2",
    "shard: packed under a plain name": "webdataset/webdataset#331",
    "picture: a picture that moves: a film behind it": "immich-app/immich#30654",
    "picture: XMP where Exif should be": "python-pillow/Pillow#7879",
    "picture: an index of more pictures than there are": "python-pillow/Pillow#1138",
    "picture: 16 bits of grey": "python-pillow/Pillow#5991",
    "picture: half of it": "immich-app/immich#11030",
    "CSV of records: a mark that keeps zeros": "hhurz/tableExport.jquery.plugin#103",
    "CSV of records: a character of no width that keeps zeros": "react-csv/react-csv#181",
    "CSV of records: an apostrophe that keeps zeros": "jpillora/node-edit-google-spreadsheet#66",
    "CSV of records: a workbook that was renamed": "datopian/datahub.io#57",
    "CSV of records: dates as in the USA": "KingdomFirst/Excavator#70",
    "CSV of records: a line break in a cell": "pola-rs/polars#19078",
    "CSV of records: a quote in a cell": "NVIDIA/cudf#2398",
    "CSV of records: UTF-8 read as Windows'": "sequelpro/sequelpro#1018",
    "CSV of records: UTF-8 read by a Mac": "soonick/poMMo#70",
    "CSV of records: Windows' letters read as Cyrillic": "grokability/snipe-it#16518",
    "records as JSON lines: a list": "hi-primus/optimus#475",
    "settings: a tab": "moraes/config#1",
    "settings: a tab before a comment": "blakeblackshear/frigate#8492",
    "settings: Milvus with a slash behind it": "milvus-io/pymilvus#2670",
    "settings: Milvus without http": "milvus-io/milvus-docs#2420",
    "environment: no Java": "jupyter/jupyter#248",
    "environment: a notebook's options": "jupyter/notebook#743",
}
