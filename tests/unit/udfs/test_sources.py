"""What ingestion reads: nothing outside the roots, and no hostile entry that ends more than itself."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.udfs import listed as seen
from tests.unit.udfs.listed import JPEG, close_folders, listed, outcomes, spec
from udfs.reading import ReadFailure, address_within, read_bytes
from udfs.sources import read_files

pytestmark = pytest.mark.unit


def reason(uri: str, *roots: str) -> str:
    with pytest.raises(ReadFailure) as caught:
        read_bytes(None, uri, roots=roots, retries=0)
    return caught.value.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a picture, beside a folder of secrets."""
    (tmp_path / "root" / "in").mkdir(parents=True)
    (tmp_path / "root" / "in" / "a.jpg").write_bytes(JPEG)
    (tmp_path / "rootless").mkdir()
    (tmp_path / "rootless" / "key").write_bytes(b"secret")
    return tmp_path / "root"


def test_guarantee_14_only_what_lies_below_a_root_is_read(root: Path) -> None:
    good = str(root / "in" / "a.jpg")
    for uri in (good, f"file://{good}", f"file:{good}", f"file://localhost{good}", good.replace("/in/", "/./in//")):
        assert read_bytes(None, uri, roots=(str(root),)) == JPEG
    assert read_bytes(None, good, roots=("s3://bucket", good)) == JPEG
    key = str(root.parent / "rootless" / "key")
    outside = [
        "/etc/passwd", "file:///etc/passwd", "/proc/self/environ", "file:///proc/self/environ", "/dev/zero", key,
        f"file:{key}", "s3://bucket/a.jpg", "s3a://buckets/a.jpg",
    ]  # fmt: skip
    assert {uri: reason(uri, str(root), "s3://bucket/prefix", "s3a://bucket/pre") for uri in outside} == dict.fromkeys(
        outside, "OUTSIDE_ROOTS"
    )
    # The system's own files are none, whatever the root: no kind of file tells them from a picture.
    assert reason("/proc/self/environ", "/proc/self", "/proc") == "OUTSIDE_ROOTS"
    assert reason(good) == "OUTSIDE_ROOTS"


HOSTILE = {
    "{root}/../rootless/key": "BAD_ADDRESS",
    "file://{root}/%2e%2e/rootless/key": "BAD_ADDRESS",
    "file://{root}/in/a.jpg%00.png": "BAD_ADDRESS",
    "{root}/in/a\x00.jpg": "BAD_ADDRESS",
    "{root}/in/a\n.jpg": "BAD_ADDRESS",
    "{root}/\udcff.jpg": "BAD_ADDRESS",
    "{root}/" + "x" * 10_000: "BAD_ADDRESS",
    "{root}/" + "x" * 3_000: "IO_ERROR",
    "in/a.jpg": "BAD_ADDRESS",
    "file://host{root}/in/a.jpg": "BAD_ADDRESS",
    "FILE://{root}/in/a.jpg": "UNSUPPORTED_SCHEME",
    "S3://bucket/a.jpg": "UNSUPPORTED_SCHEME",
    "https://user:secret@example.org/a.jpg": "UNSUPPORTED_SCHEME",
    "s3://KEY:SECRET@bucket/a.jpg": "BAD_ADDRESS",
    "s3://KEY:SEC/RET@bucket/a.jpg": "BAD_ADDRESS",
    "s3://bucket/../other/a.jpg": "BAD_ADDRESS",
    "s3:///a.jpg": "BAD_ADDRESS",
    "{root}": "NOT_A_FILE",
    "{root}/in": "NOT_A_FILE",
    "{root}/none.jpg": "NOT_FOUND",
    "{root}/in/a.jpg/b.jpg": "IO_ERROR",
}


@pytest.mark.parametrize("uri", HOSTILE)
def test_guarantee_14_an_address_made_to_break_something_has_a_reason(root: Path, uri: str) -> None:
    uri, expected = uri.replace("{root}", str(root)), HOSTILE[uri]
    assert reason(uri, str(root), "s3://bucket") == expected
    if expected in ("BAD_ADDRESS", "UNSUPPORTED_SCHEME"):
        assert not address_within(uri, (str(root), "s3://bucket"))


def test_guarantee_14_links_are_followed_within_the_root_only(root: Path) -> None:
    (root / "good.jpg").symlink_to("in/a.jpg")
    (root / "pw.png").symlink_to("/etc/passwd")
    (root / "up.jpg").symlink_to("../rootless/key")
    (root / "ring.jpg").symlink_to("ring.jpg")
    (root / "nowhere.jpg").symlink_to("none.jpg")
    (root / "dir").symlink_to(root.parent / "rootless")
    os.mkfifo(root / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s.jpg"))
    assert read_bytes(None, str(root / "good.jpg"), roots=(str(root),)) == JPEG
    found = {
        name: reason(str(root / name), str(root))
        for name in ("pw.png", "up.jpg", "dir/key", "ring.jpg", "nowhere.jpg", "pipe.jpg", "s.jpg")
    }
    assert found == {
        "pw.png": "OUTSIDE_ROOTS", "up.jpg": "OUTSIDE_ROOTS", "dir/key": "OUTSIDE_ROOTS", "ring.jpg": "IO_ERROR",
        "nowhere.jpg": "NOT_FOUND", "pipe.jpg": "NOT_A_FILE", "s.jpg": "NOT_A_FILE",
    }  # fmt: skip
    # A root may itself be behind a link.
    (root.parent / "current").symlink_to(root)
    assert read_bytes(None, str(root.parent / "current" / "in" / "a.jpg"), roots=(str(root.parent / "current"),))


@pytest.mark.parametrize("swapped", ["file", "folder", "pipe"])
def test_guarantee_14_what_is_swapped_between_look_and_opening_is_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """The attack wins the race: between the look at the path and its opening something else stands there."""
    opened = os.open

    def swap(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if path == bytes(root / "in" / "a.jpg"):
            (root / "in" / "a.jpg").unlink()
            if swapped == "file":
                (root / "in" / "a.jpg").symlink_to("/etc/passwd")
            elif swapped == "pipe":
                os.mkfifo(root / "in" / "a.jpg")
            else:
                (root / "in").rmdir()
                (root.parent / "rootless" / "a.jpg").write_bytes(b"secret")
                (root / "in").symlink_to(root.parent / "rootless")
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr("udfs.reading.os.open", swap)
    expected = {"file": "IO_ERROR", "folder": "OUTSIDE_ROOTS", "pipe": "NOT_A_FILE"}[swapped]
    assert reason(str(root / "in" / "a.jpg"), str(root)) == expected


def test_no_hostile_name_ends_a_listing(root: Path) -> None:
    names = ["a:b.jpg", "a b%20c.jpg", "#?.jpg", "new\nline.jpg", "x" * 251 + ".jpg", "s3:__x.jpg"]
    for name in names:
        (root / name).write_bytes(JPEG)
    raw = os.fsencode(root)
    (root / "deep").mkdir()
    for no_text in (b"\xff\xfe.jpg", b"deep/\xff.jpg"):
        Path(os.fsdecode(raw + b"/" + no_text)).write_bytes(JPEG)
    bad_folder = Path(os.fsdecode(raw + b"/\xffolder"))
    bad_folder.mkdir()
    (bad_folder / "c.jpg").write_bytes(JPEG)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "h.jpg").write_bytes(JPEG)
    (root / "loop").symlink_to(root)
    (root / "no.txt").write_bytes(b"")
    rows = listed(root)
    # Each has a name of its own, which is text.
    assert len({row["uri"] for row in rows if row["uri"]}) == 10
    assert outcomes(root) == {"": 6, "BAD_ADDRESS": 4, "LINKED_FOLDER": 1, "SKIPPED_FOLDER": 1, "EMPTY": 1}
    batch = pa.RecordBatch.from_pylist([{"source_key": row["uri"], **row} for row in rows if row["uri"]])
    read = [row for found in read_files(spec(root))(iter([batch])) for row in found.to_pylist()]
    assert all((row["uri"] is None) == (row["content"] is None) for row in read)


def test_a_folder_that_may_not_be_read_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "z").mkdir()
    close_folders(monkeypatch, b"/in")
    assert outcomes(root) == {"UNREADABLE_FOLDER": 1}


def test_guarantee_14_bytes_that_are_no_image_are_not_kept(root: Path) -> None:
    (root / "key.jpg").write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    (root / "empty.jpg").write_bytes(b"")
    (root / "big.jpg").write_bytes(JPEG + bytes(2000))
    names = [str(root / name) for name in ("key.jpg", "empty.jpg", "big.jpg", "in/a.jpg")]
    names.append("s3://KEY:SECRET@b/a.jpg")
    rows = [{"source_key": "k", "uri": name, "byte_size": 1, "reason": None} for name in names]
    read = [
        row for found in read_files(spec(root))(iter([pa.RecordBatch.from_pylist(rows)])) for row in found.to_pylist()
    ]
    assert [row["content"] for row in read] == [None, None, None, JPEG, None]
    assert [row["content_sha256"].split(":")[1] for row in read if row["content"] is None] == [
        "NOT_AN_IMAGE", "EMPTY", "TOO_LARGE_BYTES", "BAD_ADDRESS",
    ]  # fmt: skip
    assert "SECRET" not in str(read)


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def shard(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def of_shard(path: Path, **changes: Any) -> list[tuple[Any, ...]]:
    rows = seen.of_shard(path, **changes)
    return [
        (row["source_key"], row["reason"] or (row["content_sha256"].split(":")[1] if row["content"] is None else ""))
        for row in rows
    ]


def test_hostile_members_of_a_shard_have_a_reason(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "s.tar",
        member("a.jpg", JPEG),
        member("/etc/a.jpg", JPEG),
        member("../b.jpg", JPEG),
        member("c.jpg", linkname="/etc/passwd", type=tarfile.SYMTYPE),
        member("d.jpg", linkname="a.jpg", type=tarfile.LNKTYPE),
        member("e.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        member("f.jpg", type=tarfile.FIFOTYPE),
        member("g.jpg", type=tarfile.DIRTYPE),
        member("h.jpg", b"no picture"),
        member("i.jpg"),
        member("j.jpg", JPEG + bytes(2000)),
        member("new\nline.jpg", JPEG),
        member("k/" + "n" * 300 + ".jpg", JPEG),
        member("l" * 10_000 + ".jpg", JPEG),
        member("a.json", b"{}"),
        member("z.jpg", JPEG),
        member("z.jpg", JPEG),
    )
    assert [(key if key is None else key[:12].split("\n")[0], why) for key, why in of_shard(path)] == [
        ("s.tar/a", ""), ("s.tar//etc/a", "BAD_ADDRESS"), ("s.tar/../b.j", "BAD_ADDRESS"), ("s.tar/c", "NOT_A_FILE"),
        ("s.tar/d", "NOT_A_FILE"), ("s.tar/e", "NOT_A_FILE"), ("s.tar/f", "NOT_A_FILE"), ("s.tar/h", "NOT_AN_IMAGE"),
        ("s.tar/i", "EMPTY"), ("s.tar/j", "TOO_LARGE_BYTES"), ("s.tar/new", "BAD_ADDRESS"), ("s.tar/k/nnnn", ""),
        ("s.tar/llllll", "BAD_ADDRESS"), ("s.tar/z", ""), ("s.tar/z", ""), (None, "OTHER_FILE"),
    ]  # fmt: skip


BROKEN = (None, "BROKEN_SHARD")


def test_a_shard_that_breaks_off_yields_what_came_before_and_says_so(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", member("a.jpg", JPEG), member("b.jpg", JPEG * 50), member("c.jpg", JPEG))
    whole, rows = path.read_bytes(), [("s.tar/a", ""), ("s.tar/b", ""), ("s.tar/c", "")]
    assert of_shard(path) == rows
    # Inside a member, inside a header, between two members, before the end's second half; not one byte of it at all.
    for size, complete in ((1024 + 600, 1), (1024 + 100, 1), (1024, 1), (1024 + 512 + 1024, 2), (100, 0), (0, 0)):
        path.write_bytes(whole[:size])
        assert of_shard(path) == [*rows[:complete], BROKEN], size
    # A header that was overwritten: all that follows is unknown.
    path.write_bytes(whole[:1024] + b"\x01" * 512 + whole[1536:])
    assert of_shard(path) == [rows[0], BROKEN]
    path.write_bytes(b"no tar at all")
    assert of_shard(path) == [BROKEN]
    (tmp_path / "t.tar").symlink_to("/etc/passwd")
    assert of_shard(tmp_path / "t.tar") == [BROKEN]


def test_sizes_that_a_shard_claims_are_not_believed(tmp_path: Path) -> None:
    huge = tarfile.TarInfo("a.jpg")
    huge.size = 8 * 2**30
    pax = tarfile.TarInfo("x")
    pax.type, pax.size = tarfile.XHDTYPE, 4 * 2**30
    sparse = tarfile.TarInfo("s.jpg")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, 0
    end = bytes(1024)
    for header, expected in ((huge, [("s.tar/a", "TOO_LARGE_BYTES"), BROKEN]), (pax, [BROKEN])):
        (tmp_path / "s.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + end)
        assert of_shard(tmp_path / "s.tar") == expected
    (tmp_path / "s.tar").write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + end)
    assert of_shard(tmp_path / "s.tar") == [("s.tar/s", "NOT_A_FILE")]
    negative = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    negative[124:136] = b"\xff" * 12
    (tmp_path / "s.tar").write_bytes(bytes(negative) + end)
    assert of_shard(tmp_path / "s.tar") == [BROKEN]
