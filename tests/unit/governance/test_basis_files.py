"""Which files are read as basis records: the one that was named, and no other; and none is passed over in silence."""

from __future__ import annotations

from urllib.parse import quote

import pyarrow as pa
import pytest
from pyspark.sql.types import ArrayType, BinaryType, MapType, StringType, StructType

from jobs.errors import BadInput, SettingsError
from jobs.governance.basis_files import binary_columns, escaped, refuse_unseen, refuse_whole, without_lines
from jobs.governance.basis_lines import Layout, read_csv_lines
from jobs.tables.files import overlooked

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "unseen",
    ["_w.jsonl", ".w.jsonl", "sub/z.jsonl", "day=1/_w.jsonl", "_day=1/sub/w.jsonl", ".day=1/w.jsonl",
     "w.jsonl._COPYING_", "_committed_", ".w.crc/w.jsonl", "_delta_log/00.json"]
)  # fmt: skip
def test_guarantee_4_a_file_that_spark_passes_over_is_told(unseen: str) -> None:
    """There may be a withdrawal in it."""
    assert overlooked(["a.jsonl", unseen, "b.csv"]) == [unseen]


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a_b.jsonl", "part-00000.json", "_x=1", "day=1/w.jsonl", "day=1/hour=2/w.jsonl", "_day=1/w.jsonl",
     "_SUCCESS", "._SUCCESS.crc", ".part-00000.json.crc", "day=1/._SUCCESS.crc", "_started_123", "_committed_123",
     ".DS_Store"]
)  # fmt: skip
def test_what_is_read_and_the_marks_of_programs_are_not_told_of(name: str) -> None:
    assert overlooked([name]) == []


@pytest.mark.parametrize(
    ("files", "unseen"),
    [
        (["withdrawn.jsonl", "day=2026-01-31/given.jsonl"], ["withdrawn.jsonl"]),
        (["day=1/a.jsonl", "b.jsonl", "_SUCCESS", "day=2/c.jsonl"], ["b.jsonl"]),
        (["day=1/hour=2/a.jsonl", "day=1/b.jsonl"], ["day=1/b.jsonl"]),
        (["day=1/a.jsonl", "month=2/b.jsonl"], ["month=2/b.jsonl"]),
        (["day=1/hour=2/a.jsonl", "hour=2/day=1/b.jsonl"], ["hour=2/day=1/b.jsonl"]),
        (["day=/a.jsonl"], ["day=/a.jsonl"]),
        (["=1/a.jsonl", "day=1/b.jsonl"], ["=1/a.jsonl"]),
        (["day=1/day=2/a.jsonl"], ["day=1/day=2/a.jsonl"]),
        (["day=1/a.jsonl", "DAY=2/b.jsonl", "_SUCCESS", "._SUCCESS.crc"], []),
        (["day=1/hour=2/a.jsonl", "day=2/hour=__HIVE_DEFAULT_PARTITION__/b.jsonl"], []),
    ],
)
def test_guarantee_4_a_file_beside_folders_of_partitions_is_told(files: list[str], unseen: list[str]) -> None:
    """Spark reads the partitions alone: the withdrawal beside them was lost, with exit code 0."""
    assert overlooked(files) == unseen
    if not unseen:
        refuse_unseen("basis", files)
        return
    with pytest.raises(BadInput) as refused:
        refuse_unseen("basis", files)
    assert f"--basis basis: {', '.join(unseen)} would not be read; nothing was imported." in str(refused.value)


@pytest.mark.parametrize(
    ("place", "pattern"),
    [
        ("s3a://bucket/basis 2026,1.jsonl", "s3a://bucket/basis 2026,1.jsonl"),
        ("basis[1].jsonl", r"basis\[1\].jsonl"),
        ("a{1,2}.jsonl", r"a\{1,2\}.jsonl"),
        ("*?\\.jsonl", r"\*\?\\.jsonl"),
    ],
)
def test_the_name_of_a_file_is_no_pattern(place: str, pattern: str) -> None:
    assert escaped(place) == pattern


@pytest.mark.parametrize("root", ["file:///in/basis", "s3a://bucket/in/b%5B1%5D.csv", "file:/in/day=1"])
def test_guarantee_4_a_file_of_a_folder_that_was_cut_off_to_nothing_is_told(root: str) -> None:
    """The others were imported, and the withdrawal in it was passed over."""
    files = ["100% sure.jsonl", "M\u00fcller.jsonl", "b.jsonl", "day=2/a.jsonl", "day=2/b.jsonl", "day=3/b.jsonl"]
    whole = [f"{root}/{quote(file, safe='/=')}" for file in files]
    assert without_lines(files, whole) == []
    for number, file in enumerate(files):
        assert without_lines(files, whole[:number] + whole[number + 1 :]) == [file]
    assert without_lines(files, []) == files


FIRST, OTHER = "file:///in/b.csv/day=1/first.csv", "file:///in/b.csv/day=1/an%20other.csv"
LAYOUT = Layout(["record_id", "images"])


def judged(*rows: tuple[bytes, str | None], layout: Layout = LAYOUT, batch: int = 2) -> list[tuple[str, str | None]]:
    """Lines and whose block they begin, in batches of as many; each one's record or reason, and whom it may name."""
    columns = [pa.array([raw for raw, _ in rows], pa.binary()), pa.array([file for _, file in rows], pa.string())]
    every = pa.RecordBatch.from_arrays(columns, ["line", "file"])
    batches = [every.slice(start, batch) for start in range(0, len(rows), batch)]
    lines = [line for out in read_csv_lines(layout)(iter(batches)) for line in out.to_pylist()]
    return [
        (line["reason"], line["named"][0]) if line["reason"] else (line["record"]["record_id"], "") for line in lines
    ]


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_guarantee_1_each_file_of_a_folder_begins_with_the_header_of_the_first(batch: int) -> None:
    """Its rows were read in the first one's columns: the name of a picture as a person, a person's as a picture."""
    header, first = (b"record_id,images", FIRST), (b"r1,a.jpg", FIRST)
    good = [header, first, (b"r2,b.jpg", None), (b"\xef\xbb\xbf" + header[0], OTHER), (b"r3,c.jpg", OTHER)]
    assert judged(*good, batch=batch) == [("r1", ""), ("r2", ""), ("r3", "")]
    said = [
        (b"sep=,", OTHER),
        (header[0], OTHER),
        (b"r3,c.jpg", OTHER),
        (b"r4,", None),
        (b"sep=,", FIRST),
        (b"r5,", None),
    ]
    assert judged(*said, batch=batch) == [("r3", ""), ("r4", ""), ("r5", "")]
    for head in (
        b"images,record_id",
        b"record_id,images,hold",
        b"record_id;images",
        b"r3,c.jpg",
        b"",
        b"\xff",
        b"notes",
    ):
        rows = [header, first, (head, OTHER), (b"r3,c.jpg", OTHER)]
        assert judged(*rows, batch=batch) == [("r1", ""), (f"ANOTHER_HEADER:{OTHER}", None), ("r3", "")]


@pytest.mark.parametrize("line", [b"images,record_id", b"record_id,hold", b" Record_ID ,x", b"x,record_id,y,z"])
def test_guarantee_1_a_header_among_the_lines_of_a_file_is_no_record(line: bytes) -> None:
    """As where one file was written behind another."""
    assert judged((b"record_id,images", FIRST), (line, FIRST), (b"r1,a.jpg", FIRST))[0][0] == "ANOTHER_HEADER"


@pytest.mark.parametrize(
    ("place", "reasons", "error", "said"),
    [
        ("/in/b.csv", [f"ANOTHER_HEADER:{OTHER}", None], BadInput, r"/in/b\.csv: /in/b\.csv/day=1/an other\.csv begin"),
        ("s3a://k/b.csv/", [f"ANOTHER_HEADER:s3a://k/b.csv/{n}.csv" for n in range(9)], BadInput,
         r"s3a://k/b\.csv/4\.csv and 4 more begin"),
        ("/in/b.csv", [f"ANOTHER_HEADER:{OTHER}", "NO_KEY"], BadInput, "with none; nothing was imported"),
        ("/in/b.csv", ["ANOTHER_HEADER", "NO_KEY"], BadInput, "a second header"),
        ("/in/b.csv", ["NO_KEY"], SettingsError, "no key to pseudonymise"),
    ],
)  # fmt: skip
def test_a_file_with_another_header_is_refused_by_its_name(
    place: str, reasons: list[str | None], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        refuse_whole(place, reasons)
    refuse_whole(place, [None, "NOT_CSV"])


def test_guarantee_4_binary_columns_of_a_table_are_told_at_any_depth() -> None:
    """JSON has them as base64: a withdrawal of `ra2` was one of `cmEy`, another record."""
    binary, text = BinaryType(), StringType()
    processing = StructType().add("purposes", ArrayType(text)).add("privacy_notice", binary)
    table = (
        StructType()
        .add("record_id", binary)
        .add("images", ArrayType(binary))
        .add("processing", processing)
        .add("parties", ArrayType(StructType().add("party_id", binary)))
        .add("events", MapType(text, binary))
        .add("legal_hold_ref", text)
    )
    assert binary_columns(table) == [
        "record_id", "images", "processing.privacy_notice", "parties.party_id", "events"
    ]  # fmt: skip
