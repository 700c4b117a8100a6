"""What Java's and Spark's listings pass over in silence is told before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import BadInput
from jobs.tables.files import unnamed
from jobs.tables.sources import kind_by_name, refuse_unread
from tests.unit.odd.corpus import put
from tests.unit.udfs.listed import SKIP

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


@pytest.mark.parametrize(
    ("files", "unread"),
    [
        (["part-0.parquet", "_SUCCESS", "_metadata", "._part-0.parquet", "_notes.txt", "old/README.md"], []),
        (["day=1/part-0.parquet", "Day=2/part-0.parquet", "_SUCCESS", "_metadata", "notes.txt"], []),
        (["a.parquet", "b.pq", "part-00000"], []),
        (["a.parquet", "old/b.parquet", "_c.parquet", ".d.parquet"], ["old/b.parquet", "_c.parquet"]),
        (["a.parquet", "old/b.PARQUET", "x/_metadata"], ["old/b.PARQUET"]),
        (["_temporary/0/a.parquet", "_delta_log/01.checkpoint.parquet", "a.parquet"], []),
        ([], []),
        # Whatever they are called: Spark's own files need no suffix.
        (
            ["a.parquet", "more/b.pq", "more/part-00000", "_b.pq", "2024/01/a.pq", "more/c.jpg"],
            ["more/b.pq", "more/part-00000", "_b.pq", "2024/01/a.pq", "more/c.jpg"],
        ),
        # Beside folders of partitions, and in those of others.
        (["part-0.parquet", "day=1/part-0.parquet"], ["part-0.parquet"]),
        (["day=1/a.parquet", "day=1/hour=2/b.parquet"], ["day=1/hour=2/b.parquet"]),
        (["day=1/a.parquet", "month=2/b.parquet", "day=/c.parquet"], ["month=2/b.parquet", "day=/c.parquet"]),
    ],
)
def test_a_table_that_would_be_read_in_part_is_refused(files: list[str], unread: list[str]) -> None:
    """Pictures in such files were left out, with exit code 0."""
    if not unread:
        refuse_unread("photos", files, SKIP)
        return
    with pytest.raises(BadInput) as refused:
        refuse_unread("photos", files, SKIP)
    assert f"parquet:photos: {', '.join(unread)} would not be read; nothing was taken." in str(refused.value)


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "day=1/dataset_infos.json", "Thumbs.db"])
def test_what_is_no_table_and_would_be_read_as_one_is_named(name: str) -> None:
    """A worker ended with "is not a Parquet file"."""
    folder = name.rpartition("/")[0]
    with pytest.raises(BadInput, match="would be read as Parquet, and by the name is none") as refused:
        refuse_unread("photos", [f"{folder}/a.parquet".lstrip("/"), name, "_SUCCESS"], SKIP)
    assert name in str(refused.value)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("S.TAR", "webdataset"), ("/in/s.Tar.GZ", "webdataset"), ("s3a://k/S.TGZ", "webdataset"),
        ("/in/A.PARQUET", "parquet"), ("/in/tar", None), ("/in/a.tar/", None),
    ],
)  # fmt: skip
def test_a_place_tells_what_it_is_by_its_suffix_in_any_case(place: str, kind: str | None) -> None:
    """A shard S.TAR was listed as a folder: its one file was no image, and all pictures in it were left out."""
    assert kind_by_name(place) == kind
