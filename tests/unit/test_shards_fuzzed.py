"""Tar shards from hostile hands: members, or the shard by name; it ends, and nothing unforeseen comes of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
            tar.addfile(info, io.BytesIO(b"\xff\xd8\xff" + b"x" * 37))
    return out.getvalue()


WHOLE = [shard(form) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)]
PACKED = [*WHOLE, gzip.compress(WHOLE[0]), bz2.compress(WHOLE[0]), lzma.compress(WHOLE[0]), b"", b"\0" * 1024]


def members(folder: Path, data: bytes) -> list[tuple[str | None, str]]:
    """Key of each member, and why it has no bytes; last, where it breaks off, the shard without a key."""
    path, spec = folder / "s.tar", ReadSpec(5.0, 0, 1_000, keep_bytes=True, roots=(str(folder),))
    path.write_bytes(data)
    shards = pa.RecordBatch.from_pylist([{"uri": str(path), "reason": None}])
    rows = [row for batch in read_shards(spec)(iter([shards])) for row in batch.to_pylist()]
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
        *((f"s.tar/{key}", "") for key in ("000", "a/001", "\u00e9")), ("s.tar/no text \\udcff.jpg", "BAD_ADDRESS"),
    ]  # fmt: skip


def test_a_member_that_claims_to_be_endless_ends(tmp_path: Path) -> None:
    data = bytearray(WHOLE[1])
    data[124:136] = b"\x80" + (2**62).to_bytes(11, "big")
    assert members(tmp_path, resealed(data)) == [("s.tar/000", "TOO_LARGE_BYTES"), (None, "BROKEN_SHARD")]


CHANGES = st.lists(st.tuples(st.integers(0, 6_000), st.sampled_from([0, 48, 55, 76, 103, 120, 128, 255])), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PACKED), CHANGES, st.integers(0, 20_000), st.booleans())
def test_whatever_a_shard_holds_it_is_read_or_named(
    tmp_path: Path, whole: bytes, changes: list[tuple[int, int]], length: int, sealed: bool
) -> None:
    data = bytearray(whole)
    for place, byte in changes:
        if data:
            data[place % len(data)] = byte
    data = data[:length] if length < len(data) else data
    members(tmp_path, resealed(data) if sealed else bytes(data))
