"""Lines of basis files from hostile hands: a record, whole, or a reason and whom it may have named; nothing else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.errors import BadInput, SettingsError
from jobs.governance.basis import TEMPLATE_ROWS, write_template
from jobs.governance.basis_lines import (
    CSV_COLUMNS,
    FIELDS,
    LINE,
    Layout,
    Line,
    arrow_type,
    csv_header,
    csv_layout,
    csv_reader,
    quoted,
    read_json,
    read_lines,
)
from jobs.governance.batch_file import assessment_of, is_batch_file, read_batch
from jobs.governance.blanks import filled, is_plain
from jobs.governance.rewritten import name_lost
from jobs.steps.ingest import template

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs" / "basis-record.schema.json").read_text(encoding="utf-8"))
EVENT = {"event_time": "2026-01-31T12:00:00Z", "event_type": "explicit_consent", "event_state": "ConsentGiven"}
GOOD: dict[str, Any] = {
    "record_id": "r",
    "schema_version": "1.0",
    "pii_principal_id": "hmac:" + "0" * 64,
    "processing": {
        "purposes": ["p"],
        "lawful_basis": "eu-gdpr:A6-1-a",
        "special_category_condition": "eu-gdpr:A9-2-a",
        "pii_controllers": ["c"],
        "collection_method": "uploaded_by_subject",
        "retention_period": "P2Y",
        "jurisdiction": "EU",
        "withdrawal_method": "w",
        "impact_assessment": "i",
        "privacy_notice": "n",
    },
    "parties": [{"party_id": "c", "role": "controller"}],
    "events": [EVENT],
    "source_batch_id": "b",
    "face": {"box": [1, 2, 3, 4.5]},
    "images": ["a.jpg"],
}


def read(text: str | bytes) -> Line:
    line = read_json(text.encode() if isinstance(text, str) else text)
    assert line is not None
    return line


def changed(*path: str | int, to: Any) -> str:
    record = json.loads(json.dumps(GOOD))
    inside = record
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = to
    return json.dumps(record)


def test_a_record_is_read_as_it_stands() -> None:
    record = read(json.dumps(GOOD)).record
    assert record is not None
    assert record["face_box"] == [1.0, 2.0, 3.0, 4.5]
    assert record["events"][0]["event_time"].isoformat() == "2026-01-31T12:00:00+00:00"
    assert record["events"][0]["validity_duration"] is None
    assert read(b"\xef\xbb\xbf " + json.dumps(GOOD).encode() + b" \r\n").record == record
    assert read(changed("record_id", to="\u00a0r\u200b\t")).record == record
    assert read_json(b" \t\r\n") is None


UNREAD: dict[str, tuple[str | bytes, str, set[str | None]]] = {
    "field twice": ('{"record_id": "r", "events": [1], "events": []}', "FIELD_TWICE", {"r"}),
    "field twice, deep": (json.dumps(GOOD).replace('"role":', '"party_id":'), "FIELD_TWICE", {"r"}),
    "two ids": ('{"record_id": "r", "record_id": "s"}', "FIELD_TWICE", {"r", "s"}),
    "two records": ('{"record_id": "r"} {"record_id": "s"}', "NO_JSON_OBJECT", {"r", "s"}),
    "rubbish behind": (json.dumps(GOOD) + "]", "NO_JSON_OBJECT", {"r"}),
    "cut off": ('{"record_id": "r", "events": [', "NO_JSON_OBJECT", {"r"}),
    "no json": ("record_id: r", "NO_JSON_OBJECT", {None}),
    "no object": ('["r"]', "NO_JSON_OBJECT", {None}),
    "NUL": ("\x00", "NO_JSON_OBJECT", {None}),
    "NaN": ('{"record_id": "r", "face": {"box": [NaN, 1, 2, 3]}}', "NO_JSON_OBJECT", {"r"}),
    "infinity": ('{"record_id": "r", "face": {"box": [1e999, 1, 2, 3]}}', "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "huge number": ('{"record_id": "r", "face": {"box": [' + "9" * 400 + "]}}", "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "more digits": ('{"record_id": "r", "face": {"box": [' + "9" * 5_000 + "]}}", "NO_JSON_OBJECT", {"r"}),
    "deep": ('{"record_id": "r", "x": ' + "[" * 100_000, "NO_JSON_OBJECT", {"r"}),
    "deep objects": ('{"record_id": "r", "x": ' + '{"x":' * 100_000, "NO_JSON_OBJECT", {"r"}),
    "long": ('{"record_id": "r", "images": ["' + "x" * 2**24 + '"]}', "LINE_TOO_LONG", {"r"}),
    "no UTF-8": (b'{"record_id": "r", "images": ["\xff"]}', "NOT_UTF_8", {"r"}),
    "no UTF-8 in its id": (b'{"record_id": "\xff"}', "NOT_UTF_8", {None}),
    "half a character": ('{"record_id": "r", "images": ["\\ud800"]}', "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "half a character in its id": ('{"record_id": "\\ud800"}', "VALUE_OF_ANOTHER_TYPE", {None}),
    "unknown": (changed("legal_hold", to="h"), "UNKNOWN_FIELD", {"r"}),
    "unknown in processing": (changed("processing", "purpose", to="p"), "UNKNOWN_FIELD", {"r"}),
    "unknown in an event": (changed("events", 0, "state", to="ConsentWithdrawn"), "UNKNOWN_FIELD", {"r"}),
    "unknown in a party": (changed("parties", 0, "name", to="x"), "UNKNOWN_FIELD", {"r"}),
    "unknown in face": (changed("face", to={"Box": [1, 2, 3, 4]}), "UNKNOWN_FIELD", {"r"}),
    "boxes": (changed("face", "boxes", to=[]), "UNKNOWN_FIELD", {"r"}),
    "empty face": (changed("face", to={}), "FACE_WITHOUT_BOX", {"r"}),
    "no box": (changed("face", to={"box": None}), "FACE_WITHOUT_BOX", {"r"}),
    "box of text": (changed("face", "box", to=["1", 2, 3, 4]), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "box of truth": (changed("face", "box", to=[True, 2, 3, 4]), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "null in a list": (changed("events", to=[None]), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "null purpose": (changed("processing", "purposes", to=["p", None]), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "text for a list": (changed("images", to="a.jpg"), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "a number for text": (changed("schema_version", to=1.0), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "a number for an id": ('{"record_id": 7}', "VALUE_OF_ANOTHER_TYPE", {"7"}),
    "no id": ('{"images": ["r"]}', "NO_RECORD_ID", {None}),
    "an id that does not show": (changed("record_id", to="\u200b\x00 "), "NO_RECORD_ID", {None}),
    "an id with more than shows": (changed("record_id", to=" r\u200b1"), "ID_NOT_PLAIN", {"r\u200b1", "r1"}),
    "an id not composed": (changed("record_id", to="e\u0301"), "ID_NOT_PLAIN", {"e\u0301", "\u00e9"}),
    "an id with a tab": (changed("record_id", to="r\t1"), "ID_NOT_PLAIN", {"r\t1", "r 1"}),
    "a day": (changed("events", 0, "event_time", to="2026-01-31"), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "no zone": (changed("expires_at", to="2026-01-31T12:00:00"), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "no such day": (changed("expires_at", to="2026-02-30T12:00:00Z"), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "past the calendar": (changed("expires_at", to="9999-12-31T23:59:59-14:00"), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "a Buddhist year": (changed("expires_at", to="2569-01-31T12:00:00Z"), "YEAR_TOO_FAR:expires_at:2569", {"r"}),
    "never": (changed("expires_at", to="9999-12-31T23:59:59Z"), "YEAR_TOO_FAR:expires_at:9999", {"r"}),
    "an event in a Buddhist year": (
        changed("events", 0, "event_time", to="2569-01-31T12:00:00+07:00"),
        "YEAR_TOO_FAR:event_time:2569",
        {"r"},
    ),
    "an interaction in a Buddhist year": (
        changed("last_interaction_at", to="2569-01-31T12:00:00Z"),
        "YEAR_TOO_FAR:last_interaction_at:2569",
        {"r"},
    ),
    "other digits": (changed("expires_at", to="\u0662026-01-31T12:00:00Z"), "VALUE_OF_ANOTHER_TYPE", {"r"}),
    "no state": (changed("events", 0, "event_state", to=None), "EVENT_INCOMPLETE", {"r"}),
    "blank state": (changed("events", 0, "event_state", to="\u3164"), "EVENT_INCOMPLETE", {"r"}),
    "no type": (changed("events", 0, "event_type", to=""), "EVENT_INCOMPLETE", {"r"}),
    "no time": (changed("events", 0, "event_time", to=None), "EVENT_INCOMPLETE", {"r"}),
}


@pytest.mark.parametrize("name", UNREAD)
def test_guarantee_1_a_line_that_is_not_read_whole_is_not_read(name: str) -> None:
    text, reason, named = UNREAD[name]
    line = read(text)
    assert (line.record, line.reason, set(line.named)) == (None, reason, named)


@pytest.mark.parametrize("years", [0, 1, 99])
def test_a_time_within_a_hundred_years_is_read(years: int) -> None:
    time = f"{datetime.now(UTC).year + years}-01-31T12:00:00Z"
    assert read(changed("expires_at", to=time)).reason is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELD_PATHS = [(name,) for name in FIELDS] + [
    ("processing", "purposes"),
    ("processing", "jurisdiction"),
    ("events", 0),
    ("events", 0, "event_time"),
    ("parties", 0, "role"),
    ("face", "box"),
    ("face", "box", 0),
    ("images", 0),
]
# Valid by the published schema: what a person who follows it writes.
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(st.sampled_from(FIELD_PATHS), JSON_VALUES)
def test_whatever_stands_in_a_field_the_line_is_read_whole_or_not(path: tuple[str | int, ...], value: Any) -> None:
    text = changed(*path, to=value)
    line = read(text)
    assert (line.record is None) == (line.reason is not None)
    if jsonschema.Draft202012Validator(SCHEMA).is_valid(json.loads(text)) and is_plain(json.loads(text)["record_id"]):
        # (The schema's `format: date-time` is not checked by this validator, nor that what is filled shows.)
        assert line.reason in (None, "VALUE_OF_ANOTHER_TYPE", "EVENT_INCOMPLETE")
    if line.record is not None:
        _is_whole(line.record, json.loads(text))
    to_arrow([line])


def _is_whole(record: dict[str, Any], given_: dict[str, Any]) -> None:
    for name in set(FIELDS) - {"record_id", "source_batch_id", "face", "events"}:
        if isinstance(record[name], datetime):
            assert record[name] == datetime.fromisoformat(given_[name])
        elif name == "processing" and given_[name] is not None:
            assert {k: v for k, v in record[name].items() if v is not None} == {
                k: v for k, v in given_[name].items() if v is not None
            }
        elif name != "parties":
            assert record[name] == given_.get(name)
    assert len(record["events"] or ()) == len(given_["events"] or ())
    assert record["face_box"] == ((given_["face"] or {}).get("box"))


def to_arrow(lines: list[Line]) -> None:
    """As the executors hand it on: the types hold whatever was read."""
    rows = [{"record": x.record, "reason": x.reason, "line_digest": x.digest, "named": list(x.named)} for x in lines]
    pa.RecordBatch.from_pylist(rows, schema=pa.schema(list(arrow_type(LINE))))


SCRAPS = st.sampled_from(
    ['{', '}', '[', ']', '"', ',', ':', '"record_id"', '"r"', '"events"', "\\ud800", "\\", "null", "NaN", "-", "1e999",
     " ", "\x00", "\ufeff", "\u200b", json.dumps(GOOD)]
)  # fmt: skip


@QUICK
@given(st.lists(SCRAPS, max_size=12).map("".join).map(str.encode) | st.binary(max_size=60))
def test_whatever_a_line_holds_it_is_a_record_or_a_reason(raw: bytes) -> None:
    for read_one in (read_json, csv_reader(CSV_COLUMNS), csv_reader(["record_id", "images"], lambda _: ["hmac:"])):
        line = read_one(raw)
        if line is None:
            continue
        assert (line.record is None) == bool(line.reason) == bool(line.named)
        assert all(name is None or filled(name) for name in line.named)
        to_arrow([line])
    csv_header(raw)


def test_lines_travel_as_arrow_batches() -> None:
    raw = pa.RecordBatch.from_arrays([pa.array([json.dumps(GOOD).encode(), b"", b"{"], pa.binary())], ["line"])
    (out,) = read_lines(read_json)(iter([raw]))
    assert out.column("reason").to_pylist() == [None, "NO_JSON_OBJECT"]
    assert out.column("named").to_pylist() == [[], [None]]


HEX = "0a1b" * 16


@pytest.mark.parametrize(
    "person",
    [
        f"hmac:{HEX.upper()}",
        f"HMAC:{HEX}",
        f"Hmac3:{HEX.upper()}",
        f"hmac2:{HEX} ",
        f"hmac3: {HEX}",
        f"\u200bhmac:{HEX}",
    ],
)
def test_guarantee_9_a_pseudonym_that_is_one_but_for_capitals_or_blanks_is_not_read(person: str) -> None:
    """The gate refuses it, and an erasure by the pseudonym would be complete and leave the record and its picture."""
    line = read(changed("pii_principal_id", to=person))
    assert (line.record, line.reason, line.named) == (None, "PSEUDONYM_REWRITTEN", ("r",))
    if person == person.strip(" \u200b"):
        cells = csv_reader(["record_id", "pii_principal_id"])(f"r,{person}".encode())
        assert cells is not None
        assert (cells.reason, cells.named) == ("PSEUDONYM_REWRITTEN", ("r",))


@pytest.mark.parametrize("person", [f"hmac:{HEX}", f"hmac3:{HEX}", "hmac:AB", "p", None])
def test_a_pseudonym_that_is_one_or_none_is_left_to_the_gate(person: str | None) -> None:
    record = read(changed("pii_principal_id", to=person)).record
    assert record is not None
    assert record["pii_principal_id"] == person


HEADER = ["record_id", "images", "event_time", "event_type", "event_state", "face_box", "subject", "pii_principal_id"]
WHEN = "2026-01-31T12:00:00Z"
CSV_UNREAD = {
    "r,a.jpg": ("RAGGED_ROW", {"r", None}),
    "r,,,,,,,,": ("RAGGED_ROW", {"r", None}),
    "r, rev 2,,,,,,,": ("RAGGED_ROW", {"r", None}),
    'r,"a.jpg,,,,,,': ("NOT_CSV", {"r", None}),
    'r,a "b".jpg,,,,,,': ("NOT_CSV", {"r", None}),
    'r,"a"b,,,,,,': ("NOT_CSV", {"r", None}),
    ",a.jpg,,,,,,": ("NO_RECORD_ID", {None}),
    "\u200b,a.jpg,,,,,,": ("NO_RECORD_ID", {None}),
    "r\x001,,,,,,,": ("ID_NOT_PLAIN", {"r\x001", "r1"}),
    f"r,,{WHEN},withdrawal,,,,": ("EVENT_INCOMPLETE", {"r"}),
    f"r,,{WHEN},withdrawal,\u00a0,,,": ("EVENT_INCOMPLETE", {"r"}),
    f"r,,{WHEN},,ConsentWithdrawn,,,": ("EVENT_INCOMPLETE", {"r"}),
    "r,,,withdrawal,ConsentWithdrawn,,,": ("EVENT_INCOMPLETE", {"r"}),
    "r,,2026-01-31,withdrawal,ConsentWithdrawn,,,": ("DATE_REWRITTEN:event_time", {"r"}),
    "r,,,,,1 2 nan 4,,": ("VALUE_OF_ANOTHER_TYPE", {"r"}),
    "r,,,,,1 2 1_0 4,,": ("VALUE_OF_ANOTHER_TYPE", {"r"}),
    'r,"[""a""]x",,,,,,': ("VALUE_OF_ANOTHER_TYPE", {"r"}),
    "r,[1],,,,,,": ("VALUE_OF_ANOTHER_TYPE", {"r"}),
    "r,,,,,,A Person,hmac:other": ("CONFLICTING_CELLS", {"r"}),
    "images,record_id,subject,event_time,event_type,event_state,face_box,expires_at": ("ANOTHER_HEADER", {"images"}),
}


@pytest.mark.parametrize("text", CSV_UNREAD)
def test_guarantee_1_a_line_of_a_csv_that_is_not_read_whole_is_not_read(text: str) -> None:
    line = csv_reader(HEADER, lambda name: [f"hmac:{name}"])(text.encode())
    assert line is not None
    assert (line.record, line.reason, set(line.named)) == (None, *CSV_UNREAD[text])


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"r,Soci\xe9t\xe9.jpg,,,,,,", {"r", None}),
        (b'\xef\xbb\xbf"r, rev 2",Soci\xe9t\xe9.jpg,,,,,,', {"r, rev 2", None}),
        (b'"Soci\xe9t\xe9, 2",,,,,,,', {None}),
        (b'"r, rev 2",Soci\xe9t\xe9 "x",,,,,,', {"r", None}),
    ],
)
def test_guarantee_1_a_name_beside_cells_that_are_no_utf_8_is_read_by_its_quotes(raw: bytes, named: set[str]) -> None:
    """And it is not relied on: nobody knows what else of the line is another character."""
    line = csv_reader(HEADER)(raw)
    assert line is not None
    assert (line.reason, set(line.named)) == ("NOT_UTF_8", named)


def test_a_csv_has_its_columns_by_their_exact_names_and_once() -> None:
    assert csv_header(b"\xef\xbb\xbfrecord_id,images") == ["record_id", "images"]
    for wrong in (b"record_id,Images", b"record_id,images,images", b"images", b"record_id, images", b"", b"\xff"):
        assert csv_header(wrong) is None
    assert csv_reader(HEADER)(",".join(HEADER).encode()) is None
    assert csv_reader(HEADER)(b"\xef\xbb\xbf" + ",".join(HEADER).encode()) is None
    assert csv_reader(HEADER)(b", ,,,,,,") is None


NAMES = st.text(min_size=1, max_size=12) | st.lists(
    st.sampled_from([*";\"\n\r\t=+-@[],' 01a|/\\", "\u00e9", ".jpg", "\u200b", "\u202e", "\x00"]), min_size=1
).map("".join)  # fmt: skip


@settings(QUICK, max_examples=400)
@given(NAMES)
def test_guarantee_16_a_hostile_file_name_comes_back_as_it_is_and_alone(name: str) -> None:
    """One name is never two pictures' names, nor a formula, nor a number that a spreadsheet writes otherwise."""
    out = io.StringIO()
    csv.writer(out).writerow(["r", quoted(name)])
    (text,) = out.getvalue().removesuffix("\r\n").splitlines() or [""]
    line = csv_reader(["record_id", "images"])(text.encode())
    assert line is not None
    assert line.record is not None, line.reason
    assert line.record["images"] == [name]
    cell = quoted(name)
    assert cell[0] not in "=+-@\t\r'"
    assert not cell.replace(".", "").replace(",", "").replace("-", "").isdecimal()


@pytest.mark.parametrize("name", ["a.jpg", "deep/er/b c%20d.PNG", "\u00e9.jpeg", "1,2.jpg", "1-2.jpg"])
def test_a_plain_file_name_stands_in_a_template_as_it_is(name: str) -> None:
    assert quoted(name) == name


class Listing:
    """What a source lists, as far as a template asks: names with a `;`."""

    def __init__(self, number: int = 1) -> None:
        self.number = number

    def select(self, *_: str) -> Listing:
        return self

    orderBy = select  # noqa: N815 - Spark's name

    def limit(self, number: int) -> Listing:
        return Listing(min(number, self.number))

    def toLocalIterator(self) -> Iterator[dict[str, str]]:  # noqa: N802
        yield from ({"source_key": "mine;boss.jpg"} for _ in range(self.number))


@pytest.mark.parametrize("batch", ["staff-2026", "Kund\u00ea: 2026/a.b", "a b_c"])
def test_a_template_comes_back_as_it_was_written(tmp_path: Path, batch: str) -> None:
    assert write_template(Listing, batch, str(tmp_path / "t.csv")) == 1  # type: ignore[arg-type]
    header, line = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    found = csv_reader(csv_header(header.encode()) or [])(line.encode())
    assert found is not None
    assert found.record is not None
    assert (found.record["source_batch_id"], found.record["images"]) == (batch, ["mine;boss.jpg"])
    assert read_batch(str(tmp_path / "t.batch.yaml"))["source_batch_id"] == batch


def test_a_template_has_a_row_for_as_many_images_as_a_spreadsheet_holds(tmp_path: Path) -> None:
    """It stopped at 10,000."""
    assert write_template(lambda: Listing(10_001), "b", str(tmp_path / "t.csv")) == 10_001  # type: ignore[arg-type, return-value]
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 10_002
    assert 10**6 <= TEMPLATE_ROWS < 2**20


@pytest.mark.parametrize("batch", ["=b", "@b", "2026-01", "-b", "b ", "b\u200b", "b;c", "b\n", "", 'b"'])
def test_no_template_is_written_for_an_id_that_a_spreadsheet_would_change(tmp_path: Path, batch: str) -> None:
    with pytest.raises(BadInput, match="begins with a letter"):
        write_template(Listing, batch, str(tmp_path / "t.csv"))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["t.csv", "t.batch.yaml"])
def test_a_template_is_not_written_over_a_file_that_a_person_completed(tmp_path: Path, there: str) -> None:
    def unlisted() -> DataFrame:
        pytest.fail("the source was listed")

    place = tmp_path / "t.csv"
    (tmp_path / there).write_text("completed")
    for path, message in ((place, "is there already"), (tmp_path / "no" / "t.csv", "cannot be written")):
        with pytest.raises(SettingsError, match=message):
            write_template(unlisted, "b", str(path))
    # Nor where a link leads.
    (tmp_path / "l.csv").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="is there already"):
        write_template(unlisted, "b", str(tmp_path / "l.csv"))
    assert {file.name for file in tmp_path.iterdir()} == {there, "l.csv"}
    assert (tmp_path / there).read_text() == "completed"


BATCH = {
    "source_batch_id": "b", "supplier": "s", "collection_method": "uploaded_by_subject", "assessment_ref": "a",
    "assessed_at": WHEN, "state": "assessed",
}  # fmt: skip


def batch_file(folder: Path, text: str | bytes) -> str:
    path = folder / "b.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def lines_of(**changes: str) -> str:
    return "".join(f"{name}: {value}\n" for name, value in {**BATCH, **changes}.items())


@pytest.mark.parametrize(
    "text",
    [
        lines_of() + "state: unassessed\n",
        lines_of(extra="x"),
        lines_of(supplier="[a, b]"),
        lines_of(supplier="{a: b}"),
        lines_of(supplier="&x a") + "# *x\n" + "other: *x\n",
        lines_of(supplier="&Sons [a]"),
        lines_of(supplier="*x"),
        lines_of(supplier='"\\u200b"'),
        lines_of(supplier="null"),
        lines_of(assessed_at="2026-13-45T00:00:00Z"),
        lines_of(assessed_at="2026-01-31"),
        lines_of(assessed_at="!!timestamp x"),
        lines_of(source_batch_id='" b"'),
        lines_of(source_batch_id='"b\\u200b"'),
        lines_of(source_batch_id="!!python/object/apply:os.system [x]"),
        lines_of(state="yes"),
        "[" * 2_000,
        "a: &a [x]\n" + "".join(f"a{n}: &a{n} [*a, *a]\n" for n in range(30)),
        lines_of(supplier="x" * 70_000),
        b"\xff\xfe",
        b"\x00",
        "- a\n",
        "",
        "? [a]\n: b\n",
        "? {a: b}\n: c\n",
        "a: b: c",
        "--- a\n--- b\n",
    ],
)
def test_a_batch_that_is_not_of_the_form_is_refused_with_its_place(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(BadInput, match=r"--batch .*b\.yaml"):
        read_batch(batch_file(tmp_path, text))


def test_a_batch_is_read_as_the_texts_that_stand_there(tmp_path: Path) -> None:
    found = read_batch(batch_file(tmp_path, "\ufeff" + lines_of(source_batch_id="007", supplier="1e3")))
    assert (found["source_batch_id"], found["supplier"], found["assessed_at"]) == ("007", "1e3", WHEN)
    empty = read_batch(batch_file(tmp_path, lines_of(supplier="", assessed_at="~", state="unassessed")))
    assert (empty["supplier"], empty["assessed_at"]) == (None, None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_batch_is_the_same_in_every_encoding_that_tells_itself(tmp_path: Path, encoding: str) -> None:
    text = lines_of(source_batch_id="Jürgens Bilder").replace("\n", "\r\n")
    assert read_batch(batch_file(tmp_path, text.encode(encoding)))["source_batch_id"] == "Jürgens Bilder"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines_of(source_batch_id="Jürgen").encode("cp1252"), "line 1 is not UTF-8"),
        (lines_of(assessed_at="31.10.2026"), "assessed_at: must be a time such as"),
        (lines_of(state="done"), "state: Input should be 'unassessed', 'assessed' or 'revoked'"),
        (lines_of(supplier="", assessment_ref=""), "nothing stands in supplier, assessment_ref"),
        (lines_of(statt="x"), "statt: Extra inputs"),
        (lines_of().replace("supplier", "#"), "supplier: Field required"),
        (lines_of(supplier="[a, b]"), "supplier: must be one text"),
        (lines_of(supplier="a: b"), "line 2: is not valid YAML"),
        (lines_of() + "state: revoked\n", r"line 7: a name stands twice \(first in line 6\)"),
        (lines_of(supplier="!!binary YQ=="), "line 2: tags"),
        (lines_of(supplier="&Sons Ltd"), "line 2: anchors .* begins with & needs quotes"),
        (lines_of(source_batch_id="&staff 2026", state="revoked"), "line 1: anchors"),
        ("&a supplier: s\n", "line 1: anchors"),
        ("&a\n" + lines_of(), "line 1: anchors"),
        (lines_of(supplier="*Sons"), r"line 2: aliases .* begins with \* needs quotes"),
    ],
)
def test_a_batch_that_is_refused_tells_the_key_or_the_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_batch(batch_file(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [("source_batch_id", "crm #2025", 1), ("assessment_ref", "DPIA #12", 4), ("supplier", "A & B  # 2", 2),
     ("supplier", "A\n  B #3", 3), ("assessment_ref", "DPIA # unassessed", 4), ("state", "assessed #revoked", 6)]
)  # fmt: skip
def test_guarantee_6_the_rest_of_a_value_is_no_comment(tmp_path: Path, name: str, value: str, line: int) -> None:
    """`crm #2025` was the batch `crm`, another one."""
    with pytest.raises(BadInput, match=rf"line {line}: ` #` behind a value"):
        read_batch(batch_file(tmp_path, lines_of(**{name: value})))
    if "\n" not in value:
        text = lines_of(**{name: json.dumps(value) + " # mine"}) + "# a comment\n"
        if name != "state":
            assert read_batch(batch_file(tmp_path, text))[name] == value


@pytest.mark.parametrize("name", ["b.yaml", "b.yml", "b.YAML", "b.YML", "b.batch.Yaml"])
def test_guarantee_6_a_batch_file_is_none_by_the_case_of_its_ending(tmp_path: Path, name: str) -> None:
    """It was taken for an id, and the revocation in it was lost beside a source."""
    (tmp_path / name).write_text(lines_of(state="revoked"))
    assert is_batch_file(name)
    assert (assessment_of(str(tmp_path / name)) or {})["state"] == "revoked"
    with pytest.raises(BadInput, match="cannot be read"):
        assessment_of(str(tmp_path / "none" / name))


def test_guarantee_6_a_file_of_another_ending_is_no_id(tmp_path: Path) -> None:
    for name in ("b.yaml.txt", "b.json", "revocation"):
        (tmp_path / name).write_text(lines_of(state="revoked"))
        with pytest.raises(SettingsError, match=r"is a file, and by its name no YAML.*call it ….yaml"):
            assessment_of(str(tmp_path / name))
    # A folder of a batch's name says nothing of it.
    assert assessment_of(str(tmp_path)) is None
    ids = ("crm", "2026", "crm.2026", "a" * 5_000, "b.yaml.old", "x\0.y")
    assert [assessment_of(name) for name in ids] == [None] * 6


def test_guarantee_6_an_assessment_that_would_not_be_recorded_is_refused_beside_a_template(tmp_path: Path) -> None:
    revoked = read_batch(batch_file(tmp_path, lines_of(state="revoked")))
    with pytest.raises(SettingsError, match="what --batch says would not be recorded"):
        template(None, "b", revoked, str(tmp_path / "t.csv"))


def test_a_batch_file_of_an_earlier_template_is_read(tmp_path: Path) -> None:
    text = (
        "source_batch_id: b\n"
        "supplier: s             # who supplied the pictures\n"
        "collection_method: public_web  # uploaded_by_subject, provided_by_controller, partner_transfer or public_web\n"
        "assessment_ref: a#1       # where the assessment is kept (a document's number)\n"
        "assessed_at: 2026-01-31T12:00:00Z # 2026-01-31T12:00:00Z\r\n"
        "state: assessed      # unassessed, assessed or revoked  \n"
    )
    found = read_batch(batch_file(tmp_path, text))
    assert (found["supplier"], found["assessment_ref"], found["state"]) == ("s", "a#1", "assessed")


def test_a_value_in_quotes_may_begin_as_yaml_does_not(tmp_path: Path) -> None:
    for value in ("&Sons Ltd", "*Sons", "!Sons", "Son & Sons"):
        assert read_batch(batch_file(tmp_path, lines_of(supplier=f"'{value}'")))["supplier"] == value
    assert read_batch(batch_file(tmp_path, lines_of(supplier="Son &Sons")))["supplier"] == "Son &Sons"


def test_a_number_or_a_date_is_the_text_that_stands_there(tmp_path: Path) -> None:
    assert read_batch(batch_file(tmp_path, lines_of(source_batch_id="2026")))["source_batch_id"] == "2026"
    assert read_batch(batch_file(tmp_path, lines_of(supplier="2026-01-31")))["supplier"] == "2026-01-31"


EXCEL = b"record_id;images;purposes;event_time;event_type;event_state;schema_version"


@pytest.mark.parametrize(
    ("lines", "layout"),
    [
        ([b"record_id,images"], Layout(["record_id", "images"], ",")),
        ([b"\xef\xbb\xbfrecord_id;images"], Layout(["record_id", "images"], ";")),
        ([b"sep=;", b"record_id;images"], Layout(["record_id", "images"], ";")),
        ([b"sep=,", b"record_id,images"], Layout(["record_id", "images"], ",")),
        ([b"sep=\t", b"record_id\timages"], Layout(["record_id", "images"], "\t")),
        ([b"record_id"], Layout(["record_id"], ",")),
        ([b"Record_ID;images"], None),
        ([b"sep=;"], None),
        ([b"sep=;", b"sep=;"], None),
        ([b""], None),
        ([], None),
    ],
)
def test_a_spreadsheets_separator_is_read_from_the_header(lines: list[bytes], layout: Layout | None) -> None:
    if layout is None:
        with pytest.raises(ValueError, match="unknown columns, one twice, or lacks record_id"):
            csv_layout(lines)
    else:
        assert csv_layout(lines) == layout


@pytest.mark.parametrize(
    ("first", "habit"),
    [
        ("record_id,images".encode("utf-16"), "Unicode Text"),
        ("record_id,images".encode("utf-16-be"), "Unicode Text"),
        ("record_id,images,größe".encode("cp1252"), "CSV UTF-8"),
    ],
)
def test_an_encoding_of_excel_is_refused_by_name(first: bytes, habit: str) -> None:
    with pytest.raises(ValueError, match=habit):
        csv_layout([first])


def test_what_excel_makes_of_a_file_is_read() -> None:
    layout = csv_layout([b"\xef\xbb\xbf" + EXCEL])
    read_one = csv_reader(layout.names, None, layout.separator)
    line = read_one(b'r1;a.jpg;"p;q";2026-01-31T12:00:00Z;explicit_consent;ConsentGiven;1')
    assert line is not None
    assert line.record is not None
    assert line.record["processing"]["purposes"] == ["p", "q"]
    assert line.record["schema_version"] == "1.0"
    assert line.record["images"] == ["a.jpg"]
    # The header itself, `sep=`, and the empty rows behind the last one are no records.
    assert [read_one(raw) for raw in (EXCEL, b"\xef\xbb\xbf" + EXCEL, b"sep=;", b";;;;;;", b"", b" ; ;;;;;")] == [
        None
    ] * 6
    ragged = read_one(b"r1,a.jpg,p,2026-01-31T12:00:00Z,explicit_consent,ConsentGiven,1")
    assert ragged is not None
    assert (ragged.record, ragged.reason) == (None, "RAGGED_ROW")


@pytest.mark.parametrize(
    "cell",
    ["31.01.2026", "31.01.2026 12:00", "1/31/2026", "1/31/26 12:00", "2026-01-31", "2026-01-31 12:00:00", "46053",
     "46053.5", "46053,5", "31-1-2026"],
)  # fmt: skip
@pytest.mark.parametrize("column", ["event_time", "expires_at"])
def test_a_date_that_a_spreadsheet_rewrote_is_refused_with_its_cell(cell: str, column: str) -> None:
    line = csv_reader(["record_id", column])(f'r1,"{cell}"'.encode())
    assert line is not None
    assert (line.record, line.reason, line.named) == (None, f"DATE_REWRITTEN:{column}", ("r1",))


def read_as(name: str, encoding: str) -> str:
    """UTF-8 as a program reads it that takes it for this encoding."""
    return name.encode().decode(encoding)


def through_excel(name: str) -> str:
    """As Excel's plain CSV writes it, where its code page lacks letters."""
    return name.encode("cp1252", "replace").decode("cp1252")


LOST = {
    "M\ufffdller": "REPLACED_CHARACTER",
    **dict.fromkeys(map(through_excel, ("\u5f20\u4f1f", "\u0141ukasz Nowak", "Ji\u0159\u00ed")), "REPLACED_CHARACTER"),
    **dict.fromkeys(("\u00bfukasz", "\uff1f\uff1f", "M\x1aller", "M\x1a", "\x1a", "M\u25a1ller"), "REPLACED_CHARACTER"),
    **dict.fromkeys(("1.98501E+11", "1,98501E+11", "1.98501011234E11", "198501011234.0", "2E+05"), "NUMBER_REWRITTEN"),
    **dict.fromkeys(
        (
            read_as(name, encoding)
            for name in ("M\u00fcller", "Wei\u00df", "Jos\u00e9", "Jan \u017di\u017eka", "\u00d6zil")
            for encoding in ("cp1252", "latin-1", "mac_roman")
        ),
        "MISREAD",
    ),
    **dict.fromkeys(
        (
            read_as("\u5f20\u4f1f", "cp1252"),
            read_as("\u0418\u0432\u0430\u043d", "latin-1"),
            "M\u00fcnchen".encode("cp1252").decode("cp1251"),
            "M&uuml;ller",
            "M&#252;ller",
            "M%C3%BCller",
            "M\\u00fcller",
        ),
        "MISREAD",
    ),
    **dict.fromkeys(
        ("'0012", "'+4912", '=""0012""', '""Anna Miller""', "\u201cAnna\u201d", "\u201eAnna\u201c", "\u00abAnna\u00bb"),
        "TEXT_MARKS",
    ),
    **dict.fromkeys((f"Anna{mark}Bea" for mark in "\x0b\x0c\x1c\x85\u2028\u2029"), "MAYBE_TWO"),
    **dict.fromkeys(("#NEN\u00cd_K_DISPOZICI", "#NEDOSTUPN\u00dd", "#\u0394/\u03a5", "#N/DISP"), "NO_NAME"),
    **dict.fromkeys(("#N/A", "#REF!", "#NV", "NULL", "nan", "NaN", "None", "<NA>", "NA", "n/a", "-", "..."), "NO_NAME"),
}


@pytest.mark.parametrize("name", LOST)
def test_guarantee_9_a_name_that_was_lost_on_its_way_is_nobodys(name: str) -> None:
    """Several people would be one person, and all be erased with the first who asks."""
    assert name_lost(name.replace('""', '"')) == LOST[name]
    line = csv_reader(["record_id", "subject"], lambda _: ["hmac:"])(f'r1,"{name}"'.encode())
    assert line is not None
    assert (line.record, line.reason, line.named) == (None, f"NAME_IS_LOST:{LOST[name]}", ("r1",))


@pytest.mark.parametrize(
    "name",
    ["Null", "Jennifer NULL", "Nan", "Na", "None Rossi", "\u5f20\u4f1f", "O", "198501011234", "850101-1234", "12E5",
     "123-45-6789", "x@example.org", "Jan 26", "\u0623\u062d\u0645\u062f", "Err", "1.98501", "", "'t Hooft",
     "'Abd al-Rahman", "'Ala'", "JO\u00c3O", "IRM\u00c3", "MAGALH\u00c3ES", "O\u2019Reilly", "NICCOL\u00d2\u2019",
     "\u00dc\u017e\u00fcm", "Nguy\u1ec5n V\u0103n \u00c2n", "\u00c5ngstr\u00f6m", "\u00d8. \u00c4. \u00d1", "AT&T",
     "100% sure", "Ivan \u0418\u0432\u0430\u043d", "#1234", "Anna #2025"]
)  # fmt: skip
def test_a_real_name_is_not_lost(name: str) -> None:
    line = csv_reader(["record_id", "subject"], lambda found: [f"hmac:{found}"])(f'r1,"{name}"'.encode())
    assert line is not None
    assert line.record is not None, line.reason
    assert line.record.get("pseudonyms") == ([f"hmac:{name}"] if name else None)


@pytest.mark.parametrize(
    ("record_id", "also"),
    [("12.0", "12"), ("12,0", "12"), ("0012.00", "0012"), ("1.23457E+15", None), ("1.2345678901E15", None),
     ("Jan 26", None), ("Jan-26", None), ("1-Feb", None), ("01. Feb", None), ("M\u00e4r 26", None), ("janv-26", None),
     ("01.02.2026", None), ("1/2/2026", None), ("2026-02-01", None), ("01.02.2026 00:00", None),
     ("??-000001", None), ("'0012", None), ("M\u00c3\u00bc-1", None),
     ("\u201cr1\u201d", None), ("nan", None), ("#REF!", None), ("NULL", None)]
)  # fmt: skip
def test_guarantee_4_a_withdrawal_under_an_id_that_a_program_rewrote_is_not_read(
    record_id: str, also: str | None
) -> None:
    """It would end a new record, and the old one would permit. It bars whom it may mean, and may mean any other."""
    row = f'"{record_id}",{WHEN},withdrawal,ConsentWithdrawn'
    line = csv_reader(["record_id", "event_time", "event_type", "event_state"])(row.encode())
    assert line is not None
    reason = "NO_VALUE:record_id" if record_id in ("nan", "#REF!", "NULL") else "ID_REWRITTEN"
    assert (line.record, line.reason) == (None, reason)
    assert set(line.named) == {record_id, None, *filter(None, [also])}
    # As JSON an id is the text that a program means.
    assert read(changed("record_id", to=record_id)).reason is None


@pytest.mark.parametrize(
    "record_id",
    ["12", "0012", "r-12.0", "12.5", "1.2.10", "123-45-6789", "DEC-12", "set-01", "Jan-000001", "Jan", "12E5",
     "2026-01", "2026/1/5", "staff-2026-000001", "\u5f20\u4f1f-000001", "r1.0b"]
)  # fmt: skip
def test_an_id_that_may_be_meant_is_read_as_it_stands(record_id: str) -> None:
    line = csv_reader(["record_id", "images"])(f'"{record_id}",a.jpg'.encode())
    assert line is not None
    assert line.record is not None, line.reason
    assert line.record["record_id"] == record_id


ERRORS = ["#REF!", "#N/A", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!", "#GETTING_DATA",
          "#NV", "#BEZUG!", "#WERT!", "#ZAHL!", "#\u00dcBERLAUF!", "#\u00a1REF!", "#\u00bfNOMBRE?", "#NOM?",
          "#\u0421\u0421\u042b\u041b\u041a\u0410!", "Err:502", "########", "NULL", "nan", "None", "<NA>",
          "#NEN\u00cd_K_DISPOZICI", "#NENI\u0301_K_DISPOZICI", "#NEDOSTUPN\u00dd", "#\u0394/\u03a5", "#N/DISP",
          "#PUUTTUU", "#\u041d/\u0414", "#N/A N/A", "B\u0142\u0105d:502", "Err\u00a0:502"]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_guarantee_1_what_a_spreadsheet_or_a_program_writes_for_nothing_fills_no_field(error: str) -> None:
    for column in set(CSV_COLUMNS) - {"record_id", "subject"}:
        line = csv_reader(["record_id", column])(f"r1,{error}".encode())
        assert line is not None
        assert (line.record, line.reason, line.named) == (None, f"NO_VALUE:{column}", ("r1",))
    among = csv_reader(["record_id", "purposes"])(f"r1,p:a; {error}".encode())
    assert among is not None
    assert among.reason == "NO_VALUE:purposes"


@pytest.mark.parametrize(
    "text",
    [
        "#12",
        "#1234",
        "#A12",
        "crm #2025",
        "N/A",
        "DPIA",
        "a_B",
        "DPIA #12",
        "#dpia",
        "Null",
        "none of these",
        "see #REF! there",
        "#NVidia",
        "#",
    ],
)
def test_a_text_that_only_resembles_an_error_fills_its_field(text: str) -> None:
    line = csv_reader(["record_id", "impact_assessment"])(f"r1,{text}".encode())
    assert line is not None
    assert line.record is not None, line.reason
    assert line.record["processing"]["impact_assessment"] == text


YAML_SCRAPS = st.sampled_from(
    [*(f"{name}: " for name in BATCH), *BATCH.values(), "\n", "- ", "? ", ": ", "&a ", "*a", "!!int ", "!!binary ",
     "<<: ", "'", '"', "{", "}", "[", "]", "|", ">", "\t", "%YAML 9.9\n", "---", "\x00", "\u2028", "~", "0x",
     "2026-99-99"]
)  # fmt: skip


@QUICK
@given(text=st.lists(YAML_SCRAPS, max_size=16).map("".join).map(str.encode) | st.binary(max_size=40))
def test_whatever_a_batch_file_holds_it_is_a_batch_or_refused(tmp_path: Path, text: bytes) -> None:
    try:
        found = read_batch(batch_file(tmp_path, text))
    except BadInput:
        return
    assert set(found) == set(BATCH)
    assert all(value is None or isinstance(value, str) for value in found.values())


@settings(QUICK, max_examples=50)
@given(data=st.fixed_dictionaries({name: st.text(max_size=8) for name in BATCH}))
def test_a_batch_file_that_a_program_wrote_is_read_as_written(tmp_path: Path, data: dict[str, str]) -> None:
    written = {**data, "state": "unassessed", "collection_method": "", "assessed_at": "", "source_batch_id": "b"}
    found = read_batch(batch_file(tmp_path, yaml.safe_dump(written)))
    for name in ("supplier", "assessment_ref"):
        # Quoted or not, `~` and `null` say that nothing stands there.
        something = filled(written[name]) and written[name] not in ("~", "null", "Null", "NULL")
        assert found[name] == (written[name] if something else None)
