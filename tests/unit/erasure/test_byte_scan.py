"""What a search of one file finds: in Milvus's binlogs, in what cannot be read, and at places that are not there."""

from __future__ import annotations

import hmac
import io
import os
import resource
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.erasure import byte_scan
from jobs.erasure.byte_scan import (
    NOT_SEARCHED,
    UNREADABLE,
    _list_all,
    _refuse_unseen,
    _search,
    _searching,
    refuse_empty,
)
from jobs.erasure.parquet_chunks import chunks_of
from jobs.erasure.parquet_columns import Look
from jobs.erasure.parquet_pieces import MARKS_TRIED
from jobs.erasure.sieve import Sieve
from jobs.erasure.verify import _not_proven
from jobs.errors import NotProvenError, SettingsError
from jobs.governance.tombstones import FACE, SUBJECT, KeyRing, keyed_text
from jobs.index.protocol import BUCKET, EXPIRES, KEY, PURPOSES
from tests.unit.odd.corpus import put
from udfs.reading import _s3

pytestmark = pytest.mark.unit

RING = dict(KeyRing.of(["abcdefghijklmnopqrstuvwxyz0123456789"]).keys)
FACE_ID, PERSON = -123456789012345678, "hmac3:" + "ab12" * 16
FACE_FOUND, PERSON_FOUND = "tombstone of face", "tombstone of subject"
NEEDLE = b"\x01\x02PAR1\x03\x04 a canary"
ROWS = 5_000


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_scan, "AGAIN_S", 0.0)


def stones(kind: str, *values: object) -> frozenset[str]:
    texts = [keyed_text(kind, value) or b"" for value in values]
    return frozenset(hmac.digest(key, text, "sha256").hex() for text in texts for key in RING.values())


TOMBSTONES = stones(FACE, FACE_ID) | stones(SUBJECT, PERSON)
SIEVE = Sieve.of_few([bytes.fromhex(digest) for digest in TOMBSTONES])


def parquet(table: pa.Table, **options: Any) -> bytes:
    written = io.BytesIO()
    pq.write_table(table, written, **{"compression": "zstd"} | options)
    return written.getvalue()


def people() -> bytes:
    """Rows of records, one of them of somebody who was erased."""
    names = ["hmac3:" + f"{i:064x}" for i in range(ROWS)]
    names[ROWS // 2] = PERSON
    table = pa.table({"record_id": [f"r{i}" for i in range(ROWS)], "pii_principal_id": names})
    return parquet(table)


def binlog(column: str, values: pa.Array) -> bytes:
    """As Milvus writes one: its magic number, a descriptor event, an insert event, and in this Parquet."""
    payload = parquet(pa.table({column: values}))
    extras = b'{"original_size":"32","nullable":"false"}'
    descriptor = (
        struct.pack("<qqqqQQi", 470, 471, 472, 100, 1, 2, 5) + bytes(8) + struct.pack("<i", len(extras)) + extras
    )
    head = struct.pack("<i", 0xFFFABC) + struct.pack("<Qbii", 1, 0, 17 + len(descriptor), 0) + descriptor
    return head + struct.pack("<Qbii", 1, 1, 33 + len(payload), 0) + struct.pack("<QQ", 1, 2) + payload


def search(folder: Path, name: str, data: bytes, **needles: bytes) -> set[tuple[str, str]]:
    path = folder / name
    path.write_bytes(data)
    hits = _search(str(path), Look(needles, RING, SIEVE))
    return {(needle, place) for needle, place, digest in hits if digest is None or digest in TOMBSTONES}


def keys(*values: int) -> pa.Array:
    return pa.array(values, pa.int64())


# -- Milvus's own bucket -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [KEY, "val", "100", "pk", "anything"])
def test_guarantee_10_a_key_is_found_in_a_binlog_whatever_its_column_is_called(column: str, tmp_path: Path) -> None:
    assert search(tmp_path, "449", binlog(column, keys(1, 2, FACE_ID, 4))) == {(FACE_FOUND, column)}
    assert search(tmp_path, "450", binlog(column, keys(1, 2, 3, 4))) == set()


def test_guarantee_10_a_key_is_found_among_the_columns_of_a_segment_of_storage_version_2(tmp_path: Path) -> None:
    rows = pa.table({"0": keys(7, 8), "1": keys(9, 9), "100": keys(5, FACE_ID), "102": keys(0, 1)})
    assert search(tmp_path, "1", parquet(rows)) == {(FACE_FOUND, "100")}


@pytest.mark.parametrize("text", ['{{"pk":{},"ts":449,"pkType":5}}', "{},449"])
def test_guarantee_10_a_key_is_found_in_a_log_of_deletes(text: str, tmp_path: Path) -> None:
    logged = binlog("delta", pa.array([text.format(5), text.format(FACE_ID)]))
    assert search(tmp_path, "449", logged) == {(FACE_FOUND, "delta")}
    assert search(tmp_path, "450", binlog("delta", pa.array([text.format(5)]))) == set()


def test_guarantee_10_numbers_of_this_programs_own_columns_are_no_keys(tmp_path: Path) -> None:
    """They are many, and what they are is known."""
    own = {name: keys(FACE_ID) for name in (BUCKET, PURPOSES, EXPIRES, "byte_size", "seq", "token", "fencing_token")}
    assert search(tmp_path, "part.parquet", parquet(pa.table(own))) == set()
    assert search(tmp_path, "part.parquet", parquet(pa.table(own | {KEY: keys(FACE_ID)}))) == {(FACE_FOUND, KEY)}


def test_guarantee_10_a_column_is_read_by_itself_and_nested_ones_too(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a.b": pa.array([NEEDLE, b""]),
            "nested": pa.array([{"a": [NEEDLE]}, {"a": []}]),
            "embedding": pa.array([[0.5, 0.25], [1.0, 2.0]], pa.list_(pa.float32())),
            "101": keys(FACE_ID, 1),
        }
    )
    vector = np.array([1.0, 2.0], np.float32).tobytes()
    hits = search(tmp_path, "x.parquet", parquet(table, row_group_size=1), canary=NEEDLE, vector=vector)
    found = {("canary", "a.b"), ("canary", "nested"), ("vector", "embedding"), (FACE_FOUND, "101")}
    # The canary holds a magic word. Small values stand in the file as they are, too.
    assert hits - {("canary", "bytes"), ("vector", "bytes")} == found


# -- what cannot be read -----------------------------------------------------------------------------------------------


def no_footer(data: bytes) -> bytes:
    return data[:-2000]


def no_more_than_its_begin(data: bytes) -> bytes:
    return data[:2]


def no_begin(data: bytes) -> bytes:
    return data[100:]


def damaged_page(data: bytes) -> bytes:
    """Of the column beside that of the person."""
    at = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).data_page_offset + 60
    return data[:at] + bytes(20) + data[at + 20 :]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (no_footer, {(UNREADABLE, "footer")}),
        (no_more_than_its_begin, {(UNREADABLE, "footer")}),
        (no_begin, {(UNREADABLE, "footer")}),
        (damaged_page, {(UNREADABLE, "record_id"), (PERSON_FOUND, "pii_principal_id")}),
    ],
)
def test_guarantee_10_parquet_that_cannot_be_read_is_a_finding(
    damage: Callable[[bytes], bytes], found: set[tuple[str, str]], tmp_path: Path
) -> None:
    assert search(tmp_path, "part-0.snappy.parquet", people()) == {(PERSON_FOUND, "pii_principal_id")}
    assert search(tmp_path, "part-0.snappy.parquet", damage(people())) == found


def test_guarantee_10_a_value_that_is_another_than_was_written_is_a_finding(tmp_path: Path) -> None:
    """Where pages have checksums, as Spark's have, also such damage is seen as can be decompressed."""
    table = pa.table({"record_id": pa.array(["r" * 50, "s" * 50])})
    written = io.BytesIO()
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, written, write_page_checksum=True, **plain)
    data = written.getvalue()
    assert search(tmp_path, "x.parquet", data) == set()
    at = data.index(b"r" * 50)
    assert search(tmp_path, "x.parquet", data[:at] + b"t" + data[at + 1 :]) == {(UNREADABLE, "record_id")}


def test_guarantee_10_a_damaged_column_of_a_binlog_is_a_finding_too(tmp_path: Path) -> None:
    data = binlog("100", pa.array(range(ROWS), pa.int64()))
    at = len(data) // 2
    assert search(tmp_path, "449", data) == set()
    assert search(tmp_path, "449", data[:at] + bytes(40) + data[at + 40 :]) == {(UNREADABLE, "100")}


def test_files_that_are_no_parquet_as_a_whole_are_no_findings(tmp_path: Path) -> None:
    """Milvus's own, those of milvus-lite, and checksums; and Parquet that nothing was written into yet."""
    whole = parquet(pa.table({"record_id": ["r1"]}))
    assert search(tmp_path, "000001.vlog", b"Here PAR1 stands by chance, and PAR1 once more") == set()
    assert search(tmp_path, ".part-0.snappy.parquet.crc", b"crc\0\0\0\x02\0") == set()
    assert search(tmp_path, "446", b"PAR1 in a header" + binlog("100", keys(1))) == set()
    assert search(tmp_path, "447", whole + whole) == search(tmp_path, "448", whole + bytes(100)) == set()
    assert search(tmp_path, "part-1.snappy.parquet", b"") == set()


def test_a_file_that_is_removed_while_it_is_searched_is_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(_search(str(tmp_path / "gone.parquet"), Look({}, RING, SIEVE))) == []
    path = tmp_path / "part.parquet"
    monkeypatch.setattr("jobs.erasure.byte_scan.time.sleep", lambda _: path.unlink())
    assert search(tmp_path, path.name, no_footer(people())) == set()


def test_a_file_that_is_being_written_is_searched_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = tmp_path / "part.parquet", people()
    more = iter([data[:-1000], data])
    monkeypatch.setattr("jobs.erasure.byte_scan.time.sleep", lambda _: path.write_bytes(next(more)))
    assert search(tmp_path, path.name, no_footer(data)) == {(PERSON_FOUND, "pii_principal_id")}


@pytest.mark.parametrize("name", ["448", "part-0.parquet.tmp"])
@pytest.mark.parametrize("begin", [b"PAR1", b"PARE"])
def test_guarantee_10_what_begins_as_parquet_and_is_none_is_a_finding_under_any_name(
    tmp_path: Path, name: str, begin: bytes
) -> None:
    assert search(tmp_path, name, begin + people()[4:-1]) == {(UNREADABLE, "footer")}


@pytest.mark.parametrize("between", [b"", bytes(64)])
def test_guarantee_10_of_files_of_one_layout_behind_one_another_each_is_searched(
    tmp_path: Path, between: bytes
) -> None:
    plain = {"compression": "none", "use_dictionary": False}
    files = [parquet(pa.table({"face_id": keys(n), "pii_principal_id": [f"hmac3:{n:064x}"]}), **plain) for n in (1, 2)]
    wanted = parquet(pa.table({"face_id": keys(FACE_ID), "pii_principal_id": [f"{PERSON:70}"[:70]]}), **plain)
    for at in range(3):
        data = between.join((*files[:at], wanted, *files[at:]))
        assert (FACE_FOUND, "face_id") in search(tmp_path, "joined", data)


def test_guarantee_10_a_key_is_found_in_a_log_of_arrow_batches(tmp_path: Path) -> None:
    written = io.BytesIO()
    with pa.ipc.new_stream(written, pa.schema([("face_id", pa.int64())])) as stream:
        stream.write_table(pa.table({"face_id": keys(1, FACE_ID)}))
        whole = written.getvalue()
        stream.write_table(pa.table({"face_id": keys(*range(100))}))
        cut_off = written.getvalue()[:-200]
    found = {(FACE_FOUND, "face_id")}
    # Nobody has ended it, for it is still written to.
    assert search(tmp_path, "wal_data_000001.arrow", whole) == found
    assert search(tmp_path, "wal_data_000001.arrow", cut_off) == found | {(UNREADABLE, "batch")}
    assert search(tmp_path, "wal_data_000001.arrow", b"") == set()


def test_parquet_is_found_wherever_it_begins(tmp_path: Path) -> None:
    parts = b"head PAR1" + compressed("a", "first") + b"-" + compressed("b", "second") + b"tail"
    assert search(tmp_path, "1.vlog", parts, **CANARIES) == {("first", "a"), ("second", "b")}


def test_guarantee_10_the_message_tells_what_is_there_from_what_is_not_known() -> None:
    unread = {"needle": UNREADABLE, "file": "/w/images/part-0.parquet"}
    stone = {"needle": PERSON_FOUND, "file": "/w/basis/part-1.parquet"}
    told = str(_not_proven([unread], 1, []))
    assert told.startswith("Not all could be searched: 1 findings in files (unreadable Parquet in /w/images/part-0")
    assert "goes with the next VACUUM" in told
    assert "`expire`" in told
    assert isinstance(_not_proven([unread], 1, []), NotProvenError)
    both = str(_not_proven([stone, unread], 2, []))
    assert both.startswith("What was erased is still there: 2 findings in files (tombstone of subject in /w/basis")
    assert "unreadable Parquet in /w/images" in both
    closed = {"needle": NOT_SEARCHED, "file": "/w/a", "place": "ACCESS_DENIED"}
    unsure = str(_not_proven([closed], 1, []))
    assert unsure.startswith(
        "Not all could be searched: 1 findings in files (file that cannot be read, ACCESS_DENIED: "
    )
    assert "let this job's user read it" in unsure
    assert "VACUUM" not in unsure
    there = str(_not_proven([], 0, ["2 keys in faces_r1"]))
    assert there.startswith("What was erased is still there: 0 findings in files; 2 keys in faces_r1.")
    assert "VACUUM" not in there


# -- marks and whole files in values -----------------------------------------------------------------------------------

CANARIES = {name: f"somebody who is the {name} of those who were erased".encode() for name in ("first", "second")}


def compressed(column: str, which: str, **more: Any) -> bytes:
    """Parquet in which a canary stands compressed: no search of bytes finds it. Other columns stand as they are."""
    canary = CANARIES[which].decode()
    table = pa.table({column: [canary[:-1] + "x", canary, canary]} | more)
    packed = dict.fromkeys(more, "none") | {column: "zstd"}
    data = parquet(table, compression=packed, use_dictionary=False, write_statistics=False)
    assert CANARIES[which] not in data
    return data


def tiny(**columns: pa.Array) -> bytes:
    """As small as Parquet can be, so that much of it goes into a picture."""
    written = io.BytesIO()
    table = pa.table(columns or {"q": pa.array([], pa.int8())})
    pq.write_table(table, written, store_schema=False, write_statistics=False, use_dictionary=False)
    return written.getvalue()


def picture(middle: bytes, size: int = 3_000) -> bytes:
    noise = np.random.default_rng(5).bytes(size)
    return b"\xff\xd8\xff\xe0" + noise + middle + noise


def unfit() -> bytes:
    """Parquet whose footer is understood, and whose column is not: its pages are gone."""
    data = tiny(x=keys(*range(50)))
    n = int.from_bytes(data[-8:-4], "little") + 8
    return data[:4] + bytes(len(data) - n - 4) + data[-n:]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts what is opened as Parquet, footers and pieces."""
    count, real = [0], pq.ParquetFile.__init__

    def counted(self: pq.ParquetFile, *given: Any, **named: Any) -> None:
        count[0] += 1
        real(self, *given, **named)

    monkeypatch.setattr(pq.ParquetFile, "__init__", counted)
    return count


@pytest.mark.parametrize("inner", [tiny(), tiny(y=keys(1, 2)), unfit(), b"PAR1" * 40])
@pytest.mark.parametrize(
    ("name", "head"), [("part-0.zstd.parquet", b""), ("part-0.parquet.tmp", b""), ("5.vlog", b"head PAR1")]
)
def test_guarantee_10_a_picture_that_is_parquet_too_hides_nothing_and_is_no_finding(
    name: str, head: bytes, inner: bytes, tmp_path: Path
) -> None:
    """Somebody put a whole Parquet file into a picture: the table around it is searched as ever."""
    data = compressed("name", "first", content=[picture(inner), b"\xff\xd8", b""])
    assert inner in data
    assert search(tmp_path, name, head + data, **CANARIES) == {("first", "name")}


def test_guarantee_10_a_picture_that_is_parquet_too_is_told_apart_from_damage(tmp_path: Path) -> None:
    """The table around it is damaged: that is told, and what can be read of the rest is searched."""
    data = compressed("name", "first", content=[picture(unfit() + tiny(z=keys(FACE_ID))), b"", b""])
    at = data.index(unfit()) - 500
    damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert search(tmp_path, "a.parquet", damaged, **CANARIES) == {("first", "name")}
    at = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(1).data_page_offset
    damaged = data[:at] + bytes(8) + data[at + 8 :]
    found = {("first", "name"), (UNREADABLE, "content"), (FACE_FOUND, "z")}
    assert search(tmp_path, "a.parquet", damaged, **CANARIES) == found


def test_guarantee_10_marks_in_a_picture_cost_no_look_each(tmp_path: Path, opened: list[int]) -> None:
    """What is opened is counted: a footer and a piece for each Parquet file, however many marks stand in it."""
    small = tiny(y=keys(1))
    for marks in (b"PAR1" * 200_000, small * 3_000, small[-40:] * 20_000):
        data = compressed("name", "first", content=[picture(marks), b"", b""])
        opened[0] = 0
        assert search(tmp_path, "a.parquet", data, **CANARIES) == {("first", "name")}
        assert opened[0] == 2
        opened[0] = 0
        assert search(tmp_path, "5.vlog", b"-" + data + b"-" + data, **CANARIES) == {("first", "name")}
        assert opened[0] == 4


def test_guarantee_10_marks_in_a_picture_that_lies_by_itself_are_opened_at_most_some_times_each(
    tmp_path: Path, opened: list[int]
) -> None:
    """Nothing around it is read, so that each may be something. It grows with the bytes, and not with their square."""
    counts = []
    for times in (50, 100, 200):
        opened[0] = 0
        assert search(tmp_path, "a.jpg", picture(unfit() * times)) == {(UNREADABLE, "x")}
        counts.append(opened[0] / times)
    assert max(counts) <= 1 + MARKS_TRIED + 1
    # It is looked at twice, for it may have been written at that moment.
    assert counts[2] <= 1.1 * counts[1] <= 1.3 * counts[0]


def test_guarantee_10_footers_that_all_lead_to_the_same_bytes_are_given_up_and_told(
    tmp_path: Path, opened: list[int]
) -> None:
    """Each would cost a look at all that stands before it: four openings a footer, for it is looked at twice."""
    held = tiny(x=keys(*np.random.default_rng(5).integers(0, 2**60, 2_000).tolist()))
    footer = held[-8 - int.from_bytes(held[-8:-4], "little") :]
    assert search(tmp_path, "a.jpg", held + footer * 400) == {(UNREADABLE, "footer")}
    assert opened[0] < 400


def test_a_picture_with_marks_by_chance_is_no_finding(tmp_path: Path) -> None:
    for marks in (b"PAR1", b"PAR1\x15\x04PAR1", b"PAR1" * 1_000, b"PAR1\x15\x02\x19" + b"\x07\0\0\0PAR1"):
        assert search(tmp_path, "a.jpg", picture(marks)) == set()
        assert search(tmp_path, "b.png", b"\x89PNG" + marks + marks) == set()
    assert search(tmp_path, "c.jpg", picture(tiny())) == set()


def test_guarantee_10_the_end_of_parquet_without_its_begin_is_a_finding(tmp_path: Path) -> None:
    assert search(tmp_path, "5.vlog", compressed("a", "first")[4:]) == {(UNREADABLE, "footer")}
    assert search(tmp_path, "6.vlog", tiny()[4:]) == set()


# -- binlogs without their footer --------------------------------------------------------------------------------------


def index_file(part: bytes) -> bytes:
    """As Milvus writes a part of an index: its bytes as they are."""
    head = binlog("100", keys(1)).partition(b"PAR1")[0]
    return head[:-33] + struct.pack("<Qbii", 1, 7, 33 + len(part), 0) + struct.pack("<QQ", 1, 2) + part


def length_flipped(data: bytes) -> bytes:
    return data[:-8] + b"\xff\xff\xff\xff" + data[-4:]


def last_byte_gone(data: bytes) -> bytes:
    return data[:-1]


def begun_anew(data: bytes) -> bytes:
    return no_footer(data) + data


@pytest.mark.parametrize("damage", [no_footer, length_flipped, last_byte_gone, begun_anew])
def test_guarantee_10_a_binlog_whose_footer_cannot_be_read_is_a_finding(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    whole = binlog("100", pa.array(range(ROWS), pa.int64()))
    assert search(tmp_path, "449", whole) == set()
    assert search(tmp_path, "449", damage(whole)) == {(UNREADABLE, "footer")}
    # The same bytes without its magic number are nobody's binlog.
    assert search(tmp_path, "450", b"\xff\xd8\xff\xe0" + damage(whole)[4:].replace(whole, b"")) == set()


def test_guarantee_10_each_payload_of_a_binlog_is_read(tmp_path: Path) -> None:
    two = binlog("100", keys(1, FACE_ID)) + binlog("101", keys(2))[4:]
    assert search(tmp_path, "449", two) == {(FACE_FOUND, "100")}
    assert search(tmp_path, "449", two[:-1]) == {(FACE_FOUND, "100"), (UNREADABLE, "footer")}


def test_a_part_of_an_index_that_holds_a_mark_by_chance_is_no_finding(tmp_path: Path) -> None:
    assert search(tmp_path, "HNSW_0", index_file(b"vectors PAR1 vectors")) == set()


def test_guarantee_10_a_damaged_footer_ends_no_process(tmp_path: Path) -> None:
    """Its chunks' places are read from it without pyarrow, which would: each byte of it is another one once."""
    data = compressed("name", "first")
    for at in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data)):
        found = search(tmp_path, "a.parquet", data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :], **CANARIES)
        assert {name for name, _ in found} <= {"first", UNREADABLE}


@pytest.mark.parametrize("size", [1, 3])
def test_the_places_of_chunks_are_those_that_pyarrow_reads(size: int) -> None:
    table = pa.table({f"c{i}": pa.array([{"a": [1, 2]}, {"a": []}, None]) for i in range(20)} | {"t": ["x", "y", "z"]})
    data = parquet(table, row_group_size=size, write_page_index=True)
    metadata = pq.read_metadata(io.BytesIO(data))
    columns = [metadata.row_group(g).column(c) for g in range(3 // size) for c in range(metadata.num_columns)]
    begins = [min(filter(None, (c.dictionary_page_offset, c.data_page_offset))) for c in columns]
    wanted = [(at, at + c.total_compressed_size) for at, c in zip(begins, columns, strict=True)]
    assert chunks_of(data[-8 - int.from_bytes(data[-8:-4], "little") : -8]) == wanted


def test_what_is_no_footer_has_no_chunks() -> None:
    # Numbers, structs and lists where others belong.
    for other in (
        b"\x46\x02\0",
        b"\x4c\0\0",
        b"\x49\x16\x02\0",
        b"\x49\x1c\x16\x02\0\0",
        b"\x49\x1c\x19\x1c\x36\x02\0\0\0",
    ):
        assert chunks_of(other) == []
    assert chunks_of(b"\x49\x1c\x19\x1c\x3c\x76\x0a\x26\x08\0\0\0\0") == [(4, 9)]
    for wrong in (
        b"",
        b"\x15",
        b"\x1c" * 1_000,
        b"\x19" * 1_000,
        b"\x15" + b"\xff" * 1_000,
        b"\x19\xf5\xff\xff\xff\x7f",
    ):
        with pytest.raises(ValueError, match=r"footer|bytes|bits|type"):
            chunks_of(wrong)


# -- dictionaries ------------------------------------------------------------------------------------------------------


def many() -> pa.Array:
    """Values of which one is a canary, as a dictionary that Parquet compresses."""
    canary = CANARIES["first"].decode()
    return pa.array([canary[:-1] + "x", canary] * 2).dictionary_encode()


@pytest.mark.parametrize(
    "values",
    [
        many(),
        many().cast(pa.dictionary(pa.int32(), pa.binary())),
        pa.StructArray.from_arrays([many(), pa.array(range(4))], ["x", "y"]),
        pa.ListArray.from_arrays(pa.array([0, 0, 1, 2, 4], pa.int32()), many()),
        pa.FixedSizeListArray.from_arrays(many(), 1),
        pa.MapArray.from_arrays(pa.array([0, 0, 1, 2, 4], pa.int32()), pa.array(list("abcd")), many()),
        pa.MapArray.from_arrays(pa.array([0, 0, 1, 2, 4], pa.int32()), many(), pa.array(list("abcd"))),
        pa.StructArray.from_arrays([pa.ListArray.from_arrays(pa.array([0, 0, 1, 2, 4], pa.int32()), many())], ["x"]),
    ],
    ids=["text", "bytes", "struct", "list", "fixed", "map's values", "map's keys", "deep"],
)
def test_guarantee_10_what_stands_in_a_dictionary_is_found(values: pa.Array, tmp_path: Path) -> None:
    """A pandas Categorical is one: Arrow brings it back with its values beside the column."""
    data = parquet(pa.table({"name": values}), write_statistics=False)
    read = pq.read_table(io.BytesIO(data)).column("name")
    assert "dictionary" in str(read.type)
    assert CANARIES["first"] not in data
    assert search(tmp_path, "a.parquet", data, **CANARIES) == {("first", "name")}


# -- places ------------------------------------------------------------------------------------------------------------


def listed(*places: Path | str) -> list[dict[str, Any]]:
    asked = pa.RecordBatch.from_pydict({"uri": pa.array([str(p) for p in places]), "recursive": [True] * len(places)})
    given: Iterator[pa.RecordBatch] = _list_all(iter([asked]))
    return [row for batch in given for row in batch.to_pylist()]


def searched(place: Path, **needles: bytes) -> dict[str, str]:
    """By executors' own functions: what was found in the files of a place, by their names, and where in them."""
    rows = listed(place)
    batch = pa.RecordBatch.from_pydict(
        {name: pa.array([r[name] for r in rows], pa.string()) for name in ("uri", "reason")}
    )
    found = [hit for out in _searching(Look(needles, RING, SIEVE))(iter([batch])) for hit in out.to_pylist()]
    return {hit["file"].removeprefix(str(place)): f"{hit['needle']}, {hit['place']}" for hit in found}


NAMES = {
    "Latin-1": (b"M\xfcller.parquet", "/M\\udcfcller.parquet"),
    "a folder in Latin-1": (b"M\xfcller/a.bin", "/M\\udcfcller/a.bin"),
    "half a surrogate": (b"\xed\xa0\x80.bin", "/\\udced\\udca0\\udc80.bin"),
    "a line break": (b"a\nb", "/a\\nb"),
    "a terminal's command": (b"\x1b[2J", "/\\x1b[2J"),
}


@pytest.mark.parametrize(("name", "shown"), NAMES.values(), ids=NAMES.keys())
def test_guarantee_10_a_file_whose_name_no_address_can_hold_is_a_finding(
    tmp_path: Path, name: bytes, shown: str
) -> None:
    """As in the listing of sources; it ended the job, and the other files were not searched."""
    put(bytes(tmp_path) + b"/" + name, b"canary")
    (tmp_path / "good").write_bytes(b"canary")
    assert searched(tmp_path, needle=b"canary") == {shown: f"{NOT_SEARCHED}, BAD_ADDRESS", "/good": "needle, bytes"}


def test_guarantee_10_names_that_are_odd_are_searched_as_any(tmp_path: Path) -> None:
    names = ["a#b?c", "a%20b", " a ", "s3:/x", "M\u00fcller", "\U0001f600", "[a]{b}*", "x" * 250]
    for name in names:
        put(bytes(tmp_path / name), b"canary")
    assert searched(tmp_path, needle=b"canary") == {f"/{name}": "needle, bytes" for name in names}


def test_guarantee_10_what_this_job_may_not_read_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("closed/a", "b.closed", "good"):
        put(bytes(tmp_path / name), b"canary")
    for module, opener in (("jobs.erasure.place_files.os.scandir", os.scandir), ("builtins.open", open)):
        monkeypatch.setattr(module, refusing(opener))
    denied = f"{NOT_SEARCHED}, ACCESS_DENIED"
    assert searched(tmp_path, needle=b"canary") == {"/closed": denied, "/b.closed": denied, "/good": "needle, bytes"}


def refusing(opener: Callable[..., Any]) -> Callable[..., Any]:
    """As the system answers a user without rights, for paths that end in `closed`; root it would let in."""

    def refuse(path: Any, *more: Any, **named: Any) -> Any:
        if isinstance(path, bytes) and path.endswith(b"closed"):
            raise PermissionError
        return opener(path, *more, **named)

    return refuse


def test_guarantee_10_a_file_for_which_there_is_no_memory_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a limited process, as a container's: elsewhere it would be killed."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "good").write_bytes(b"canary")
    rows = listed(tmp_path)
    assert {row["byte_size"] for row in rows} == {2**40, 6}
    resource.setrlimit(resource.RLIMIT_AS, (2**38, limits[1]))
    try:
        found = searched(tmp_path, needle=b"canary")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert found == {"/huge": f"{NOT_SEARCHED}, NO_MEMORY", "/good": "needle, bytes"}


def test_guarantee_10_links_are_followed_once(tmp_path: Path) -> None:
    """A table's folder may be a link to another disk. One that leads in a ring, or to nothing, holds nothing more."""
    place, other = tmp_path / "place", tmp_path / "other"
    put(bytes(place / "a"), b"canary")
    put(bytes(other / "deep" / "b"), b"canary")
    for name, target in {
        "file": other / "deep" / "b", "folder": other, "again": other / "deep", "ring": place, "up": place / "..",
        "nothing": place / "none", "itself": place / "itself",
    }.items():  # fmt: skip
        (place / name).symlink_to(target)
    os.mkfifo(place / "pipe")
    found = searched(place, needle=b"canary")
    assert {"/a", "/file"} <= set(found)
    real = Counter(os.path.realpath(row["uri"]) for row in listed(place))
    assert set(real) == {str(place / "a"), str(other / "deep" / "b")}
    assert max(real.values()) <= 4


def test_guarantee_10_a_place_that_is_named_and_has_no_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "there" / "deep" / ".hidden").write_bytes(b"x")
    there, empty, typo = (str(tmp_path / name) for name in ("there", "empty", "thre"))
    file = str(tmp_path / "there" / "deep" / ".hidden")
    # The program's own may be gone: they are listed, and no error.
    rows = listed(there, empty, typo, file)
    assert [row["uri"] for row in rows] == [file, file]
    seen = {row["named"] for row in rows}
    _refuse_unseen([there, file], seen)
    with pytest.raises(SettingsError) as stopped:
        _refuse_unseen([there, typo, empty], seen)
    assert f"--place {typo}, {empty}: nothing would be searched" in str(stopped.value)
    assert f"{there}," not in str(stopped.value)
    assert stopped.value.exit_code == 2


@pytest.mark.parametrize("place", ["hdfs://nn:8020/milvus", "gs://bucket/files"])
def test_guarantee_10_a_place_that_cannot_be_searched_is_refused(place: str) -> None:
    nothing_is_asked: Any = None
    with pytest.raises(SettingsError, match=place):
        refuse_empty(nothing_is_asked, [place])


def test_guarantee_10_a_place_that_no_address_can_hold_is_refused() -> None:
    nothing_is_asked: Any = None
    with pytest.raises(SettingsError, match=r"--place '/M\\udcfcller': is no UTF-8"):
        refuse_empty(nothing_is_asked, ["/M\udcfcller"])


def test_guarantee_10_a_store_that_does_not_answer_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """At this port nobody listens."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    _s3.cache_clear()
    (row,) = listed("s3://bucket/files")
    _s3.cache_clear()
    assert (row["uri"], row["reason"]) == ("s3://bucket/files", "UNREADABLE_FOLDER")
