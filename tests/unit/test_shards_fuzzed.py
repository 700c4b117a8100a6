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

from udfs.sources import ReadSpec, read_shards

pytestmark = pytest.mark.unit

SPEC = ReadSpec(timeout_s=5.0, retries=0, max_bytes=1_000, keep_bytes=True)
NAMES = ("000.jpg", "a/001.png", "x.json", "\u00e9.jpg", "no text \udcff.jpg")


def shard(form: int, names: tuple[str, ...] = NAMES) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 40
            tar.addfile(info, io.BytesIO(b"x" * 40))
    return out.getvalue()


WHOLE = [shard(form) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)]
PACKED = [*WHOLE, gzip.compress(WHOLE[0]), bz2.compress(WHOLE[0]), lzma.compress(WHOLE[0]), b"", b"\0" * 1024]


def members(folder: Path, data: bytes) -> list[tuple[str, int | None]]:
    path = folder / "s.tar"
    path.write_bytes(data)
    rows = [row for batch in read_shards(SPEC)(iter([pa.RecordBatch.from_pydict({"uri": [str(path)]})]))
            for row in batch.to_pylist()]  # fmt: skip
    return [(row["source_key"], row["content"] and len(row["content"])) for row in rows]


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
    assert found == [(f"s.tar/{key}", 40) for key in ("000", "a/001", "\u00e9", "no text \\udcff")]


def test_a_member_that_claims_to_be_endless_ends(tmp_path: Path) -> None:
    data = bytearray(WHOLE[1])
    data[124:136] = b"\x80" + (2**62).to_bytes(11, "big")
    with pytest.raises(ValueError, match=r"shard s\.tar is no readable tar"):
        members(tmp_path, resealed(data))


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
    try:
        members(tmp_path, resealed(data) if sealed else bytes(data))
    except ValueError as error:
        assert "shard s.tar is no readable tar" in str(error)  # noqa: PT017 - either outcome is right
