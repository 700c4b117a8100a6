"""What people and systems leave in folders and shards, at every depth and in every form of tar. Nothing is left out.

The entries and how each ends stand in tests/unit/odd/corpus.py.
`tests/spark/test_ingest.py` takes some of them through a whole `ingest`.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from tests.unit.odd.corpus import (
    ENTRIES,
    FILES,
    FILM,
    FOLDER,
    FOLDERS,
    MEMBERS,
    OTHER,
    PNG,
    TIFF,
    put,
    tar_of,
)
from tests.unit.odd.play import entry
from tests.unit.udfs.listed import JPEG, SKIP, close_folders, ends, listed, of_shard, outcomes
from udfs.listing import _objects
from udfs.names import NO_SUFFIX, OTHER_SUFFIX, skipper, suffix_of, text
from udfs.sources import SHARD_SUFFIXES

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


# --- Trees -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", [b"", b"first", b"first/second"])
def test_every_file_of_the_table_ends_as_it_says(tmp_path: Path, depth: bytes) -> None:
    """At every depth alike, all in folders of their own beside each other; and none ends another."""
    expected: Counter[str] = Counter()
    for number, (name, data, end) in enumerate(FILES.values()):
        put(os.path.join(bytes(tmp_path), depth, b"%d" % number, name), data)  # noqa: PTH118
        expected[end] += 1
    assert outcomes(tmp_path) == expected


@pytest.mark.parametrize("depth", [b"", b"first", b"first/second"])
def test_every_folder_of_the_table_ends_as_it_says(tmp_path: Path, depth: bytes) -> None:
    for folder in FOLDERS:
        put(os.path.join(bytes(tmp_path), depth, folder, b"a.jpg"), JPEG)  # noqa: PTH118
        put(os.path.join(bytes(tmp_path), depth, folder, b"deep/er/a.jpg"), JPEG)  # noqa: PTH118
    expected = Counter(FOLDERS.values())
    # What is skipped is not entered.
    assert outcomes(tmp_path) == {end: count * (1 if end == FOLDER else 2) for end, count in expected.items()}


@pytest.mark.parametrize("case", ENTRIES)
@pytest.mark.parametrize("folder", ["first", "first/second"])
def test_an_entry_that_is_no_file_ends_nothing_but_itself(tmp_path: Path, case: str, folder: str) -> None:
    make, end = ENTRIES[case]
    assert entry(tmp_path, make, folder) == end


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
FORMS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_member_of_the_table_ends_as_it_says(tmp_path: Path, form: str, packed: bool) -> None:
    data = tar_of([(name, data) for name, data, _ in MEMBERS.values()], FORMS[form])
    path = tmp_path / ("s.tgz" if packed else "s.tar")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert ends(of_shard(path)) == Counter(end for _, _, end in MEMBERS.values())


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
