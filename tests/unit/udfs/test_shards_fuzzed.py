"""Tar shards from hostile hands: members, or the shard by name; it ends, and nothing unforeseen comes of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from udfs import tar as tars
from udfs.reading import unread_reason
from udfs.sources import ReadSpec, read_shards

pytestmark = pytest.mark.unit

NAMES = ("000.jpg", "a/001.png", "x.json", "\u00e9.jpg", "no text \udcff.jpg")


def shard(form: int, names: tuple[str, ...] = NAMES) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 40
            tar.addfile(info, io.BytesIO(b"\xff\xd8\xff\xe0" + b"x" * 36))
    return out.getvalue()


WHOLE = [shard(form) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)]
PACKED = [*WHOLE, gzip.compress(WHOLE[0]), bz2.compress(WHOLE[0]), lzma.compress(WHOLE[0]), b"", b"\0" * 1024]


def members(folder: Path, data: bytes, name: str = "s.tar") -> list[tuple[str | None, str]]:
    """Key of each member, and why it has no bytes; last, where it breaks off, the shard without a key."""
    path, spec = folder / name, ReadSpec(5.0, 0, 0.0, 1_000, keep_bytes=True, roots=(str(folder),))
    path.write_bytes(data)
    shards = pa.RecordBatch.from_pylist([{"uri": str(path), "reason": None}])
    rows = [row for batch in read_shards(spec)(iter([shards])) for row in batch.to_pylist()]
    # What is only counted is here of no interest.
    rows = [row for row in rows if row["uri"] or row["source_key"]]
    for row in rows:
        # Whatever it is, it is one of three: bytes, a reason in place of their digest, or the break.
        assert (row["content"] is not None) + (unread_reason(row["content_sha256"]) is not None) + (
            row["reason"] == "BROKEN_SHARD" and row["source_key"] is None
        ) == 1
    return [(row["source_key"], row["reason"] or unread_reason(row["content_sha256"]) or "") for row in rows]


def resealed(data: bytearray) -> bytes:
    """With the checksums that the headers would have, so that what they say is believed."""
    for start in range(0, len(data) - 511, 512):
        header = data[start : start + 512]
        if header[257:262] == b"ustar":
            data[start + 148 : start + 156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]))
    return bytes(data)


@pytest.mark.parametrize("data", WHOLE)
def test_a_name_that_is_no_text_is_written_out(tmp_path: Path, data: bytes) -> None:
    found = members(tmp_path, data)
    assert found == [
        *((f"s.tar/{key}", "") for key in ("000", "a/001", "x", "\u00e9")),
        ("s.tar/no text \\udcff.jpg", "BAD_ADDRESS"),
    ]  # fmt: skip


def test_a_member_that_claims_to_be_endless_ends(tmp_path: Path) -> None:
    data = bytearray(WHOLE[1])
    data[124:136] = b"\x80" + (2**62).to_bytes(11, "big")
    assert members(tmp_path, resealed(data)) == [("s.tar/000", "TOO_LARGE_BYTES"), (None, "BROKEN_SHARD")]


CHANGES = st.lists(st.tuples(st.integers(0, 6_000), st.sampled_from([0, 48, 55, 76, 103, 120, 128, 255])), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PACKED), CHANGES, st.integers(0, 20_000), st.booleans(), st.sampled_from(["s.tar", "s.tgz"]))
def test_whatever_a_shard_holds_it_is_read_or_named(
    tmp_path: Path, whole: bytes, changes: list[tuple[int, int]], length: int, sealed: bool, name: str
) -> None:
    data = bytearray(whole)
    for place, byte in changes:
        if data:
            data[place % len(data)] = byte
    data = data[:length] if length < len(data) else data
    members(tmp_path, resealed(data) if sealed else bytes(data), name)


END = bytes(1024)


def entry(name: str, data: bytes = b"", *, size: int | None = None, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header and its bytes; a size that is too large for digits is written in binary, as GNU tar does."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size is not None:
        header[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    return resealed(header) + data + bytes(-len(data) % 512)


def pax(kind: bytes = tarfile.XHDTYPE, **values: object) -> bytes:
    body = bytearray()
    for key, value in values.items():
        record = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(record) + 1
        while len(str(length)) + len(record) > length:
            length += 1
        body += b"%d" % length + record
    return entry("x", bytes(body), kind=kind)


JPEG = entry("a.jpg", b"\xff\xd8\xff")
BROKEN = (None, "BROKEN_SHARD")


@pytest.mark.parametrize("claim", [2**62, 2**63 - 1, 2**63, 2**70])
@pytest.mark.parametrize("sparse", [False, True])
def test_guarantee_14_a_size_that_no_table_holds_ends_no_ingest(tmp_path: Path, claim: int, sparse: bool) -> None:
    if claim < 10**20:
        said: dict[str, Any] = {"GNU__sparse__realsize": claim, "size": 3} if sparse else {"size": claim}
        found = members(tmp_path, pax(**said) + JPEG + END)
        assert found == ([("s.tar/a", "NOT_A_FILE")] if sparse else [("s.tar/a", "TOO_LARGE_BYTES"), BROKEN])
    found = members(tmp_path, entry("a.jpg", size=claim) + END)
    assert found == [("s.tar/a", "TOO_LARGE_BYTES"), BROKEN]
    link = entry("l.jpg", size=claim, kind=tarfile.SYMTYPE)
    assert members(tmp_path, link + JPEG + END) == [("s.tar/l", "NOT_A_FILE"), ("s.tar/a", "")]


DESCRIBED = {
    "long name": entry("x", b"b.jpg\0", kind=tarfile.GNUTYPE_LONGNAME),
    "long link": entry("x", b"b.jpg\0", kind=tarfile.GNUTYPE_LONGLINK),
    "pax": pax(comment="x"),
    "global": pax(tarfile.XGLTYPE, comment="x"),
}


@pytest.mark.parametrize("kind", DESCRIBED)
def test_guarantee_14_headers_without_a_member_end_no_ingest(tmp_path: Path, kind: str) -> None:
    name = "s.tar/b" if kind == "long name" else "s.tar/a"
    assert members(tmp_path, DESCRIBED[kind] * 3 + JPEG + END) == [(name, "")]
    for count in (100, 4_000):
        assert members(tmp_path, JPEG + DESCRIBED[kind] * count + JPEG + END) == [("s.tar/a", ""), BROKEN]


def test_the_first_description_of_a_member_counts_and_global_ones_name_nobody(tmp_path: Path) -> None:
    once = pax(path="c.jpg", mtime=1.5) + DESCRIBED["long name"] + JPEG
    assert members(tmp_path, once + JPEG + END) == [("s.tar/c", ""), ("s.tar/a", "")]
    for said in ({"path": "c.jpg"}, {"size": 3}, {"GNU.sparse.name": "c.jpg"}):
        assert members(tmp_path, pax(tarfile.XGLTYPE, **said) + JPEG + END) == [BROKEN]


def test_guarantee_14_names_for_all_members_do_not_multiply(tmp_path: Path) -> None:
    """80,000 global names took 2 MiB a member, and 1 MiB of digits hours."""
    names = pax(tarfile.XGLTYPE, **{f"{number:x}": "" for number in range(80_000)})
    assert members(tmp_path, names + entry("x") * 20 + JPEG + END) == [BROKEN]
    digits = entry("x", b"1" * 1_000_000, kind=tarfile.XHDTYPE)
    assert members(tmp_path, digits + JPEG + END) == [BROKEN]


def test_guarantee_14_what_a_shard_unpacks_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "UNPACKED_BYTES", 2**20)
    bomb = JPEG + entry("a.bin", bytes(8 * 2**20)) + JPEG + END
    assert members(tmp_path, gzip.compress(bomb), "s.tgz") == [("s.tgz/a", ""), BROKEN]
    assert members(tmp_path, bomb) == [("s.tar/a", ""), ("s.tar/a", "")]
    # Pictures do not shrink so: they pass, however many.
    assert members(tmp_path, gzip.compress(JPEG * 200 + END), "s.tar.gz") == [("s.tar.gz/a", "")] * 200


def test_guarantee_14_a_shard_is_unpacked_as_its_name_says_and_by_nothing_else(tmp_path: Path) -> None:
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        assert members(tmp_path, pack(JPEG + END)) == [BROKEN]
    assert members(tmp_path, gzip.compress(JPEG) + gzip.compress(END), "s.tar.gz") == [("s.tar.gz/a", "")]
    assert members(tmp_path, lzma.compress(JPEG + END), "s.tgz") == [BROKEN]


def test_guarantee_14_entries_of_a_shard_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MOST_ENTRIES", 100)
    assert members(tmp_path, entry("x") * 99 + JPEG + END) == [("s.tar/a", "")]
    assert members(tmp_path, entry("x") * 100 + JPEG + END) == [BROKEN]


NUMBERS = st.sampled_from([-(2**70), -1, 0, 1, 3, 512, 2**62, 2**63, 2**70, "9" * 5_000, "1e3", "1_0", "", " 3", "inf"])
KEYS = st.sampled_from(
    ["size", "path", "linkpath", "mtime", "uid", "hdrcharset", "GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.name",
     "GNU.sparse.realsize", "GNU.sparse.size", "GNU.sparse.numblocks", "SCHILY.xattr.x"]
)  # fmt: skip
KINDS = st.sampled_from([bytes([kind]) for kind in b"\x0001234567LKSgxXDNMVZ"])
PIECES = st.one_of(
    st.builds(lambda kind, said: pax(kind, **said), KINDS, st.dictionaries(KEYS, NUMBERS | st.text(max_size=9))),
    st.builds(
        lambda kind, data, size: entry("a.jpg", data, size=size, kind=kind),
        KINDS, st.binary(max_size=600), st.none() | st.sampled_from([-(2**70), -1, 0, 512, 2**62, 2**63, 2**70]),
    ),
    st.sampled_from([JPEG, END[:512], *DESCRIBED.values()]),
)  # fmt: skip


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(PIECES, st.sampled_from([1, 1, 1, 2, 400])), max_size=6))
def test_whatever_headers_say_the_shard_is_read_or_named(tmp_path: Path, pieces: list[tuple[bytes, int]]) -> None:
    members(tmp_path, b"".join(piece * count for piece, count in pieces) + END)
