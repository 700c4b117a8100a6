"""What people and systems leave in folders and shards: a table of entries, and how each ends. Nothing is left out.

`tests/spark/test_ingest.py` takes some of them through a whole `ingest`.
"""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from tests.unit.udfs.listed import JPEG, SKIP, close_folders, ends, listed, of_shard, outcomes
from udfs.listing import _objects
from udfs.names import NO_SUFFIX, OTHER_SUFFIX, skipper, suffix_of, text
from udfs.sources import SHARD_SUFFIXES

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
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
}  # fmt: skip
#: Folders, and how a picture in them ends.
FOLDERS: dict[bytes, str] = {
    b"M\xc3\xbcller": IMAGE, b"2024:01": IMAGE, b"a b": IMAGE, b"@photos": IMAGE, b"#1": IMAGE, b"~": IMAGE,
    b"_delta_log": IMAGE, b"_temporary": IMAGE, b"part=1": IMAGE, b"a.jpg": IMAGE, b"a.tar": IMAGE, b"trash": IMAGE,
    b"M\xfcller": BAD, b"a\nb": BAD,
    b"@eaDir": FOLDER, b"@EADIR": FOLDER, b"#recycle": FOLDER, b"@Recycle": FOLDER, b".hidden": FOLDER,
    b"__MACOSX": FOLDER, b".Trash-1000": FOLDER, b".Trashes": FOLDER, b"$RECYCLE.BIN": FOLDER,
    b"System Volume Information": FOLDER, b"lost+found": FOLDER, b".git": FOLDER, b".@__thumb": FOLDER,
}  # fmt: skip


def put(path: bytes, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - of bytes
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(data)


@pytest.mark.parametrize("depth", [b"", b"first", b"first/second"])
def test_every_file_of_the_table_ends_as_it_says(tmp_path: Path, depth: bytes) -> None:
    """At every depth alike, all in folders of their own beside each other; and none ends another."""
    expected: Counter[str] = Counter()
    for number, (name, data, end) in enumerate(FILES.values()):
        put(os.path.join(bytes(tmp_path), depth, b"%d" % number, name), data)  # noqa: PTH118
        expected[end] += 1
    assert outcomes(tmp_path) == expected


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_the_table_alone(tmp_path: Path, case: str) -> None:
    name, data, end = FILES[case]
    put(bytes(tmp_path) + b"/" + name, data)
    assert outcomes(tmp_path) == {end: 1}


@pytest.mark.parametrize("depth", [b"", b"first", b"first/second"])
def test_every_folder_of_the_table_ends_as_it_says(tmp_path: Path, depth: bytes) -> None:
    for folder in FOLDERS:
        put(os.path.join(bytes(tmp_path), depth, folder, b"a.jpg"), JPEG)  # noqa: PTH118
        put(os.path.join(bytes(tmp_path), depth, folder, b"deep/er/a.jpg"), JPEG)  # noqa: PTH118
    expected = Counter(FOLDERS.values())
    # What is skipped is not entered.
    assert outcomes(tmp_path) == {end: count * (1 if end == FOLDER else 2) for end, count in expected.items()}


def a_pipe(root: Path) -> None:
    os.mkfifo(root / "pipe")


def a_socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))


def a_link_to(target: str, name: str = "link") -> Callable[[Path], None]:
    return lambda root: (root / name).symlink_to(target)


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
    "an empty folder": (lambda root: (root / "empty").mkdir(), ""),
}


@pytest.mark.parametrize("case", ENTRIES)
@pytest.mark.parametrize("folder", ["", "first", "first/second"])
def test_an_entry_that_is_no_file_ends_nothing_but_itself(tmp_path: Path, case: str, folder: str) -> None:
    make, end = ENTRIES[case]
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "good.jpg").write_bytes(JPEG)
    make(tmp_path / folder)
    assert outcomes(tmp_path) == ({"": 1, end: 1} if end else {"": 1})


@pytest.mark.parametrize("folder", ["closed", ".closed"])
def test_a_folder_that_may_not_be_read_is_counted_and_matters_only_where_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """`lost+found` is closed to all, and no reason to end with exit code 1."""
    (tmp_path / "a" / folder).mkdir(parents=True)
    (tmp_path / folder).mkdir()
    (tmp_path / "a.jpg").write_bytes(JPEG)
    close_folders(monkeypatch, b"closed")
    assert outcomes(tmp_path) == {"": 1, FOLDER if folder[0] == "." else "UNREADABLE_FOLDER": 2}


def test_what_is_not_taken_is_told_by_suffix_and_no_name_is_in_it(tmp_path: Path) -> None:
    for name in ("a.TXT", "b.txt", "deep/c.mp4", "anna.miller", "Anna Miller", "Thumbs.db", "._a.jpg", "d.jpg"):
        put(bytes(tmp_path / name), b"no picture")
    found = {(row["reason"], row["suffix"]): row["entries"] for row in listed(tmp_path) if not row["uri"]}
    assert found == {
        (OTHER, ".txt"): 2, (OTHER, ".mp4"): 1, (OTHER, OTHER_SUFFIX): 1, (OTHER, NO_SUFFIX): 1, ("SKIPPED", ".db"): 1,
        ("SKIPPED", ".jpg"): 1,
    }  # fmt: skip


def test_beside_shards_whatever_is_none_is_counted(tmp_path: Path) -> None:
    for name in ("s.tar", "T.TGZ", "s.json", "a.jpg", "._s.tar", "deep/u.tar.gz"):
        put(bytes(tmp_path / name), JPEG)
    rows = listed(tmp_path, suffixes=SHARD_SUFFIXES, look=False)
    assert sorted(Path(row["uri"]).name for row in rows if row["uri"]) == ["T.TGZ", "s.tar", "u.tar.gz"]
    assert {(row["reason"], row["suffix"]) for row in rows if not row["uri"]} == {
        (OTHER, ".json"), (OTHER, ".jpg"), ("SKIPPED", ".tar"),
    }  # fmt: skip


@pytest.mark.parametrize("recursive", [True, False])
def test_an_object_store_is_listed_like_a_folder(tmp_path: Path, recursive: bool) -> None:
    """By Arrow's listing, which yields all that is below at once; here of a local folder."""
    for name in (
        "a.jpg", "b/c.jpg", "b/._c.jpg", "b/d/e", ".hidden/f.jpg", ".hidden/g/h.jpg", "b/@eaDir/i.jpg",
        "b/@eaDir/.j/k.jpg", "b/d/@eaDir/l.jpg", "Thumbs.db",
    ):  # fmt: skip
        put(bytes(tmp_path / name), JPEG)
    met = list(_objects(fs.LocalFileSystem(), str(tmp_path), "", recursive, SKIP))
    paths = {(one.path.removeprefix(f"{tmp_path}/"), one.folder, one.reason) for one in met if one.path}
    below = {("b/c.jpg", False, None), ("b/d/e", False, None), ("b/._c.jpg", False, "SKIPPED")}
    assert paths == {("a.jpg", False, None), ("Thumbs.db", False, "SKIPPED")} | (
        below if recursive else {("b", True, None)}
    )
    assert [one.reason for one in met if not one.path] == [FOLDER] * (3 if recursive else 1)
    missing = list(_objects(fs.LocalFileSystem(), f"{tmp_path}/none", "", recursive, SKIP))
    assert [one.reason for one in missing] == ["UNREADABLE_FOLDER"]
    assert [one.path for one in _objects(fs.LocalFileSystem(), f"{tmp_path}/a.jpg", "", recursive, SKIP)] == [
        f"{tmp_path}/a.jpg"
    ]


LOCALE = """
from pathlib import Path
from tests.unit.udfs.listed import outcomes
import sys
from udfs.names import of_command_line
print(dict(outcomes(Path(sys.argv[1]))), ascii(of_command_line(sys.argv[2])))
"""


@pytest.mark.parametrize("given", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_names_are_the_same_whatever_the_locale(tmp_path: Path, given: dict[str, str]) -> None:
    """`Müller/` was left out, or ended all: the driver read the name in one locale, an executor in another."""
    for folder in ("Müller", "deep/Müller"):
        put(f"{tmp_path}/{folder}/Jürgen.jpg".encode(), JPEG)
        put(f"{tmp_path}/{folder}/Jürgen".encode(), JPEG)
    command = [sys.executable, "-c", LOCALE, str(tmp_path), "Müller/"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **given}
    done = subprocess.run([part.encode() for part in command], env=env, capture_output=True, check=False, cwd=ROOT)
    assert done.stdout.decode() == "{'': 4} 'M\\xfcller/'\n", done.stderr.decode()


# Any name that a file can have, and those that mean something.
NAMES = st.binary(min_size=1, max_size=12).map(
    lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")
) | st.sampled_from([name for name, _, _ in FILES.values()] + list(FOLDERS))  # fmt: skip
DATA = st.sampled_from([JPEG, PNG, TIFF, FILM, b"", b"text", JPEG + bytes(2_000)])
TREES = st.recursive(DATA, lambda below: st.dictionaries(NAMES, below, max_size=5), max_leaves=12)
HURRIED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def build(place: bytes, tree: object) -> int:
    """Make a tree; how many files it has, and folders that are skipped."""
    if isinstance(tree, bytes):
        put(place, tree)
        return 1
    assert isinstance(tree, dict)
    os.mkdir(place)  # noqa: PTH102
    files = sum(build(place + b"/" + name, below) for name, below in tree.items() if name not in (b".", b".."))
    return 1 if skipper(SKIP)(text(place.rpartition(b"/")[2])) else files


@settings(max_examples=60, deadline=None, suppress_health_check=HURRIED)
@given(st.dictionaries(NAMES, TREES, max_size=6))
def test_of_any_tree_what_is_listed_and_what_is_counted_are_all_files(
    tmp_path: Path, tree: dict[bytes, object]
) -> None:
    place = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    files = build(bytes(place), tree)
    rows = listed(place)
    assert sum(row["entries"] for row in rows) == files
    assert all(row["reason"] for row in rows if not row["uri"])
    assert sum(outcomes(place).values()) == files


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
}
FORMS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def tar_of(members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_member_of_the_table_ends_as_it_says(tmp_path: Path, form: str, packed: bool) -> None:
    data = tar_of([(name, data) for name, data, _ in MEMBERS.values()], FORMS[form])
    path = tmp_path / ("s.tgz" if packed else "s.tar")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert ends(of_shard(path)) == Counter(end for _, _, end in MEMBERS.values())


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


@pytest.mark.parametrize("case", SHARDS)
def test_every_shard_of_the_table_ends_as_it_says(tmp_path: Path, case: str) -> None:
    name, data, expected = SHARDS[case]
    (tmp_path / name).write_bytes(data)
    assert ends(of_shard(tmp_path / name)) == expected


def test_of_two_members_with_one_key_it_is_told_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(tar_of([("a.txt", b""), ("IMG.2024.01.jpg", JPEG), ("IMG.2024.02.jpg", JPEG)]))
    rows = [row for row in of_shard(tmp_path / "s.tar") if row["source_key"]]
    assert [(row["source_key"], row["place"]) for row in rows] == [
        ("s.tar/IMG", f"{tmp_path}/s.tar: entry 2"), ("s.tar/IMG", f"{tmp_path}/s.tar: entry 3"),
    ]  # fmt: skip


WHOLE = {form: tar_of([(name, data) for name, data, _ in MEMBERS.values()], FORMS[form]) for form in FORMS}


@settings(max_examples=120, deadline=None, suppress_health_check=HURRIED)
@given(st.sampled_from(list(WHOLE)), st.booleans(), st.integers(0, 2**20), st.integers(0, 255))
def test_of_a_shard_that_is_cut_or_flipped_nothing_is_lost_in_silence(
    tmp_path: Path, form: str, packed: bool, at: int, flip: int
) -> None:
    """``flip``: what a byte is changed by; 0: all from there on is cut off."""
    data = gzip.compress(WHOLE[form], mtime=0) if packed else WHOLE[form]
    at %= len(data)
    changed = data[:at] + (bytes([data[at] ^ flip]) + data[at + 1 :] if flip else b"")
    assume(len(changed) > 0)
    path = tmp_path / ("s.tgz" if packed else "s.tar")
    path.write_bytes(changed)
    found = ends(of_shard(path))
    members = sum(count for end, count in found.items() if end != "BROKEN_SHARD")
    assert found["BROKEN_SHARD"] or members == len(MEMBERS)
    # What a gzip's checksum is for.
    assert not packed or found["BROKEN_SHARD"] or found == Counter(end for _, _, end in MEMBERS.values())


@pytest.mark.parametrize("name", ["a.jpg", "deep.er/a.JPG", "IMG.2024.01.jpg", ".hidden.jpg"])
def test_a_suffix_is_what_stands_behind_the_last_dot(name: str) -> None:
    assert suffix_of(name) == ".jpg"
