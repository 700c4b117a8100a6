"""One line of a basis file, read strictly, whole and once: it becomes a record, or a reason. Pure Python.

Never a part of a record. A line that cannot be read says of which records it may have spoken (``Line.named``), in every
spelling that it may have meant, so that those can be barred: what it said may have been a withdrawal.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jobs.governance.blanks import filled, is_plain, plain, stripped
from jobs.governance.decide import PRINCIPAL_PATTERN
from jobs.governance.rewritten import holds_nothing, id_rewritten, image_rewritten, name_lost, whole_number
from jobs.texts import REPLACED, UTF_16, no_text

if TYPE_CHECKING:
    import pyarrow as pa

Shape = str | list[Any] | dict[str, Any]

_TEXT, _TIME, _NUMBER, _COUNT = "string", "timestamp", "float", "bigint"
PROCESSING: Final = {
    "purposes": [_TEXT],
    "lawful_basis": _TEXT,
    "special_category_condition": _TEXT,
    "pii_controllers": [_TEXT],
    "collection_method": _TEXT,
    "retention_period": _TEXT,
    "jurisdiction": _TEXT,
    "withdrawal_method": _TEXT,
    "impact_assessment": _TEXT,
    "privacy_notice": _TEXT,
}
EVENT: Final = {"event_time": _TIME, "validity_duration": _TEXT, "event_type": _TEXT, "event_state": _TEXT}
#: The fields of a record as a file has them. (Structs in the table's order: Spark casts them by position.)
FIELDS: Final[dict[str, Shape]] = {
    "record_id": _TEXT,
    "schema_version": _TEXT,
    "pii_principal_id": _TEXT,
    "processing": PROCESSING,
    "parties": [{"party_id": _TEXT, "role": _TEXT}],
    "events": [EVENT],
    "source_batch_id": _TEXT,
    "face": {"box": [_NUMBER]},
    "images": [_TEXT],
    "last_interaction_at": _TIME,
    "expires_at": _TIME,
    "written_release_ref": _TEXT,
    "authority_disclosure_ref": _TEXT,
    "authority_disclosed_at": _TIME,
    "legal_hold_ref": _TEXT,
}
#: The same as they are handed on: the box by itself, as in the table; of a person who was named, all pseudonyms.
RECORD: Final[dict[str, Shape]] = {
    **{name: shape for name, shape in FIELDS.items() if name != "face"},
    "face_box": [_NUMBER],
    "pseudonyms": [_TEXT],
}
LINE: Final[dict[str, Shape]] = {"record": RECORD, "reason": _TEXT, "line_digest": _TEXT, "named": [_TEXT]}

_LISTS: Final = ("purposes", "pii_controllers")
_EVENT_CELLS: Final = tuple(EVENT)
_TIME_CELLS: Final = ("event_time", "last_interaction_at", "expires_at", "authority_disclosed_at")
_SINGLE_CELLS: Final = (
    "schema_version",
    "pii_principal_id",
    "source_batch_id",
    "last_interaction_at",
    "expires_at",
    "written_release_ref",
    "authority_disclosure_ref",
    "legal_hold_ref",
    "authority_disclosed_at",
)
CSV_COLUMNS: Final = (
    "record_id",
    "images",
    "source_batch_id",
    "subject",
    "pii_principal_id",
    *_LISTS,
    *(name for name in PROCESSING if name not in _LISTS),
    *_EVENT_CELLS,
    "face_box",
    "last_interaction_at",
    "expires_at",
    "written_release_ref",
    "authority_disclosure_ref",
    "legal_hold_ref",
    "authority_disclosed_at",
    "schema_version",
)
#: Reasons that concern the whole file: the reader stops there. (The second, where it begins a file, before its place.)
NO_KEY: Final = "NO_KEY"
ANOTHER_HEADER: Final = "ANOTHER_HEADER"
#: Before the cell whose time a spreadsheet has written in its own form.
DATE_REWRITTEN: Final = "DATE_REWRITTEN"
#: Before the field, and the year in it, that is further ahead than anybody means: of another calendar, or for "never".
YEAR_TOO_FAR: Final = "YEAR_TOO_FAR"
MOST_YEARS_AHEAD: Final = 100
#: Before the cell in which a spreadsheet's error stands, or a program's word for nothing.
NO_VALUE: Final = "NO_VALUE"
#: Before the habit by which the name of a person was lost.
NAME_IS_LOST: Final = "NAME_IS_LOST"
# Where a CSV's cells do not stand as they should, which of them is the record's name can only be guessed: the text may
# have swallowed other lines, be the rest of one, or have a comma in a name without the quotes about it.
_UNSURE: Final = ("NOT_CSV", "NOT_UTF_8", "RAGGED_ROW", "LINE_TOO_LONG")

_MOST_BYTES: Final = 16 * 2**20
# RFC 3339 with its zone: a time without one would be guessed, and so would a day without a time.
_RFC_3339: Final = re.compile(r"(?:19|[2-9]\d)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_ID_IN_TEXT: Final = re.compile(r'"record_id"\s*+:\s*+("(?:[^"\\]|\\.)*+"|-?\d[\d.]*+)')
# RFC 4180 in one line: a quote stands about a cell or is doubled in it, and nowhere else. Excel puts a semicolon
# between cells where a comma is in numbers, and a tab into what it calls Unicode text.
_CELL: Final = r'(?:"(?:[^"]|"")*+"|[^"{0}]*+)'
CSV_ROWS: Final = {mark: re.compile((_CELL + r"(?:{0}" + _CELL + r")*+").replace("{0}", mark)) for mark in ",;\t"}
#: Excel's first line, which says what is between the cells.
SAYS_SEPARATOR: Final = re.compile(r'"?sep=[,;\t]"?')
# What a spreadsheet makes of a time: a date in its country's form, with or without a time of day; or days since 1900.
_REWRITTEN: Final = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}(?:[ T,].*)?|\d{5}(?:[.,]\d+)?", re.ASCII)
_VERSION_AS_NUMBER: Final = {"1": "1.0", "1,0": "1.0"}


class Unread(Exception):
    """A line cannot be read; ``reason`` is a stable code, and the text of the line is no part of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Line:
    """A record, or the reason why there is none and the records that the line may name (None: one not to be told)."""

    record: dict[str, Any] | None
    reason: str | None
    named: tuple[str | None, ...]
    digest: str


def ddl(shape: Shape) -> str:
    """The shape as Spark's DDL; without the outer brackets, where it is a row's."""
    if isinstance(shape, str):
        return shape
    if isinstance(shape, list):
        return f"array<{_type(shape[0])}>"
    return ", ".join(f"{name} {_type(inner)}" for name, inner in shape.items())


def _type(shape: Shape) -> str:
    if isinstance(shape, dict):
        return "struct<" + ", ".join(f"{name}: {_type(inner)}" for name, inner in shape.items()) + ">"
    return ddl(shape)


def arrow_type(shape: Shape) -> pa.DataType:
    """The shape as Arrow's type."""
    import pyarrow as pa

    if isinstance(shape, dict):
        return pa.struct([(name, arrow_type(inner)) for name, inner in shape.items()])
    if isinstance(shape, list):
        return pa.list_(arrow_type(shape[0]))
    leaves = {_TEXT: pa.string(), _TIME: pa.timestamp("us", "UTC"), _NUMBER: pa.float32(), _COUNT: pa.int64()}
    return leaves[shape]


def read_lines(
    read: Callable[[bytes], Line | None],
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: rows of one binary column become rows of ``LINE``."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield _arrow(map(read, batch.column(0).to_pylist()))

    return run


def read_csv_lines(
    layout: Layout, pseudonyms_of: Callable[[str], list[str]] | None = None
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The same of CSVs that all have this layout. Rows: a line; and, of those in its first block, which file it is of.

    A file that begins with another header, or with none, is `ANOTHER_HEADER` with its place: by the columns of this
    one an image's name would be read as a person.
    """
    read = csv_reader(layout.names, pseudonyms_of, layout.separator)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        heads = _Heads(layout)
        for batch in batches:
            rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            yield _arrow(heads.fault(raw, file) or read(raw) for raw, file in rows)

    return run


class _Heads:
    """Looks at the header of each file as its lines come by, in their order."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.file: str | None = None
        self.awaited = False

    def fault(self, raw: bytes, file: str | None) -> Line | None:
        """What there is to say of a line that is its file's header, and another one; ``file`` is null past a block."""
        if file != self.file:
            self.file, self.awaited = file, file is not None
        if not self.awaited or _says_separator(raw):
            return None
        self.awaited = False
        if csv_header(raw, self.layout.separator) == self.layout.names:
            return None
        return Line(None, f"{ANOTHER_HEADER}:{file}", (None,), _digest(raw))


def _says_separator(raw: bytes) -> bool:
    try:
        return SAYS_SEPARATOR.fullmatch(_text(raw).rstrip("\r\n")) is not None
    except Unread:
        return False


def _arrow(lines: Iterable[Line | None]) -> pa.RecordBatch:
    import pyarrow as pa

    rows = [
        {"record": line.record, "reason": line.reason, "line_digest": line.digest, "named": list(line.named)}
        for line in lines
        if line is not None
    ]
    return pa.RecordBatch.from_pylist(rows, schema=pa.schema(list(arrow_type(LINE))))


def read_json(raw: bytes) -> Line | None:
    """One record as JSON (RFC 8259); None for an empty line."""
    if not raw.strip(b" \t\r\n"):
        return None
    parser = _Parser()
    try:
        return Line(_checked(_fit(_object(parser, _text(raw)), FIELDS)), None, (), _digest(raw))
    except Unread as unread:
        found = [*parser.ids, *_ids_in(raw.decode("utf-8", "replace"))]
        return Line(None, unread.reason, tuple(_spellings(found)) or (None,), _digest(raw))


def other_form(first: bytes) -> str | None:
    """What a file is that is given as JSON lines and has none, by its first line; None: it may well have them.

    Read by the line, each of its lines would be one that cannot be read, and may have been a withdrawal of anybody's.
    """
    if other := no_text(first):
        return f"{other}; save a table as `CSV UTF-8`, and call it ….csv"
    if first.startswith(UTF_16):
        return "it is UTF-16; save it as UTF-8"
    text = first.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    if text.startswith("[") or text == "{":
        return (
            "it is one JSON over many lines; write each record in a line of its own (`jq -c '.[]'` does so to a list)"
        )
    if text.startswith(("---", "record_id:")):
        return "it is YAML; write each record as JSON, in a line of its own"
    try:
        csv_layout([first])
    except ValueError:
        return None
    return "it is a CSV by its first line; call it ….csv"


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _text(raw: bytes) -> str:
    if len(raw) > _MOST_BYTES:
        raise Unread("LINE_TOO_LONG")
    try:
        # Files from some systems begin with a byte order mark.
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise Unread("NOT_UTF_8") from None


class _Parser:
    """Python's JSON reader, made strict: it notes names that stand twice in an object, and every `record_id`."""

    def __init__(self) -> None:
        self.ids: list[Any] = []
        self.twice = False

    def read(self, text: str) -> Any:
        return json.loads(text, object_pairs_hook=self._object, parse_constant=self._refuse)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        self.twice = self.twice or len(found) < len(pairs)
        if "record_id" in found:
            self.ids += [value for name, value in pairs if name == "record_id"]
        return found

    @staticmethod
    def _refuse(_constant: str) -> None:
        raise ValueError("NaN and Infinity are no JSON")


def _object(parser: _Parser, text: str) -> Any:
    try:
        found = parser.read(text)
    except (ValueError, RecursionError):
        raise Unread("NO_JSON_OBJECT") from None
    if not isinstance(found, dict):
        raise Unread("NO_JSON_OBJECT")
    if parser.twice:
        raise Unread("FIELD_TWICE")
    return found


def _ids_in(text: str) -> Iterator[Any]:
    """What looks like a record's id in a text that is no JSON."""
    for found in _ID_IN_TEXT.findall(text):
        try:
            yield json.loads(found)
        except ValueError:
            continue


def _spellings(ids: Iterable[Any]) -> dict[str, None]:
    """Every record that these values may mean: as they stand, and as a person reads them."""
    texts = [str(value) for value in ids if isinstance(value, str | int | float) and not isinstance(value, bool)]
    names = [name for text in texts for name in (stripped(text), plain(text))]
    return dict.fromkeys(name for name in names if name and _is_unicode(name) and "\ufffd" not in name)


def _is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can say and no file can hold."""
    return text.isascii() or not re.search("[\ud800-\udfff]", text)


def _fit(value: Any, shape: Shape) -> Any:
    """``value`` in this shape, complete and without anything beside. A name that is absent or null is None."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise Unread("VALUE_OF_ANOTHER_TYPE")
        if value.keys() - shape.keys():
            raise Unread("UNKNOWN_FIELD")
        return {
            name: None if (inside := value.get(name)) is None else _fit(inside, inner) for name, inner in shape.items()
        }
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise Unread("VALUE_OF_ANOTHER_TYPE")
        return [_fit(item, shape[0]) for item in value]
    return _LEAVES[shape](value)


def _as_text(value: Any) -> str:
    if not isinstance(value, str) or not _is_unicode(value):
        raise Unread("VALUE_OF_ANOTHER_TYPE")
    return value


def _as_time(value: Any) -> datetime:
    try:
        if isinstance(value, str) and _RFC_3339.fullmatch(value):
            return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Unread("VALUE_OF_ANOTHER_TYPE")


def is_time(text: str) -> bool:
    """Whether it is a time as records have it."""
    try:
        _as_time(text)
    except Unread:
        return False
    return True


def year_too_far(text: str) -> int | None:
    """The year of a time that is too far ahead to be meant; None: it is not, or the text is no time."""
    try:
        return _year_too_far(_as_time(text))
    except Unread:
        return None


def said_of_year(year: int) -> str:
    """What is wrong with it, to end a sentence with that begins with the field."""
    return (
        f"is in the year {year}, more than {MOST_YEARS_AHEAD} years ahead: write years as in 2026-01-31T12:00:00Z, "
        "where the Buddhist calendar has 2569, and leave out an end that is never meant to come"
    )


def checked_time(text: str) -> str:
    """``text``, if it is a time that somebody may mean. Raises ValueError, which says of a field what is wrong."""
    if not is_time(text):
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z")
    if year := year_too_far(text):
        raise ValueError(said_of_year(year))
    return text


def _year_too_far(time: datetime | None) -> int | None:
    return time.year if time and time.year > datetime.now(UTC).year + MOST_YEARS_AHEAD else None


def is_rewritten(text: str) -> bool:
    """Whether it is a time as a spreadsheet writes it in place of the one that stood there."""
    return _REWRITTEN.fullmatch(text) is not None and not is_time(text)


def _as_number(value: Any) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
    except OverflowError:
        pass
    raise Unread("VALUE_OF_ANOTHER_TYPE")


_LEAVES: Final[dict[str, Callable[[Any], Any]]] = {_TEXT: _as_text, _TIME: _as_time, _NUMBER: _as_number}


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """The record as it is handed on, if it has a name and says nothing by halves."""
    if not filled(record["record_id"]):
        raise Unread("NO_RECORD_ID")
    record["record_id"] = stripped(record["record_id"])
    if not is_plain(record["record_id"]) or "\ufffd" in record["record_id"]:
        raise Unread("ID_NOT_PLAIN")
    if record["source_batch_id"] is not None:
        record["source_batch_id"] = stripped(record["source_batch_id"])
    if _principal_rewritten(record["pii_principal_id"]):
        raise Unread("PSEUDONYM_REWRITTEN")
    # Events of every version are kept: one without its time or state could never be mended.
    for event in record["events"] or ():
        if event["event_time"] is None or not (filled(event["event_type"]) and filled(event["event_state"])):
            raise Unread("EVENT_INCOMPLETE")
    _not_too_far(record)
    face = record.pop("face")
    # Without its box it would speak for the whole picture.
    if face is not None and face["box"] is None:
        raise Unread("FACE_WITHOUT_BOX")
    record["face_box"] = None if face is None else face["box"]
    return record


def _not_too_far(record: Mapping[str, Any]) -> None:
    """Refuse a record that would never end, or a withdrawal that would never count: 2569 is a Buddhist year."""
    events = record["events"] or ()
    times = [("event_time", event["event_time"]) for event in events]
    for name, time in (*times, *((name, record[name]) for name in _TIME_CELLS if name != "event_time")):
        if year := _year_too_far(time):
            raise Unread(f"{YEAR_TOO_FAR}:{name}:{year}")


def _principal_rewritten(person: str | None) -> bool:
    """Whether a pseudonym is one but for capitals and blanks: whoever asks to be erased is not found under it."""
    if person is None or re.fullmatch(PRINCIPAL_PATTERN, person):
        return False
    return re.fullmatch(PRINCIPAL_PATTERN, "".join(plain(person).split()).lower()) is not None


@dataclass(frozen=True)
class Layout:
    """How a CSV stands: the names in its header, and what is between its cells."""

    names: list[str]
    separator: str = ","


def csv_layout(lines: Sequence[bytes]) -> Layout:
    """The layout that a CSV's first two lines tell: a header, or Excel's `sep=` and then the header.

    The names are among `CSV_COLUMNS`, each at most once. Raises ValueError, with what is wrong.
    """
    first, *others = [*lines, b""]
    if other := no_text(first):
        raise ValueError(f"{other}; save it as `CSV UTF-8`")
    if first.startswith(UTF_16) or b"\0" in first:
        raise ValueError("it is UTF-16, as Excel's `Unicode Text` is; save it as `CSV UTF-8`")
    try:
        text = _text(first).rstrip("\r\n")
    except Unread:
        raise ValueError("its header is not UTF-8; save it as UTF-8 (in Excel: `CSV UTF-8`)") from None
    if SAYS_SEPARATOR.fullmatch(text):
        return csv_layout(others)
    found = [Layout(names, mark) for mark in CSV_ROWS if (names := csv_header(first, mark))]
    if not found:
        raise ValueError(f"the header has unknown columns, one twice, or lacks record_id{_header_fault(text)}")
    return found[0]


def _header_fault(text: str) -> str:
    """What is wrong with it, to go on with; without the words that stand there, which may be somebody's name."""
    if not filled(text):
        return ": its first line is empty"
    if text.startswith("{"):
        return ": it is JSON; call it ….jsonl"
    mark = max(CSV_ROWS, key=text.count)
    names = [name.strip().strip('"') for name in text.split(mark)]
    meant = [stripped(name).lower() for name in names]
    if len(names) == 1 and "record_id" in text.lower():
        return ": nothing that is read stands between its names (a comma, a semicolon or a tab)"
    if not set(meant) & set(CSV_COLUMNS):
        return ": its first line has none of their names"
    for number, (name, known) in enumerate(zip(text.split(mark), meant, strict=True), start=1):
        if not filled(name):
            return f": column {number} has no name"
        if known not in CSV_COLUMNS:
            return f": column {number} is unknown"
        if name.removeprefix('"').removesuffix('"') != known:
            return f": column {number} is {known} but for blanks, quotes or capitals; write it as it stands here"
        if known in meant[: number - 1]:
            return f": column {number} is {known} once more"
    return ": there is no record_id"


def csv_header(raw: bytes, separator: str = ",") -> list[str] | None:
    """The names in a CSV's header; None where they are not what `CSV_COLUMNS` offers, each at most once."""
    try:
        names = csv_cells(_text(raw), separator)
    except Unread:
        return None
    known = set(names) <= set(CSV_COLUMNS) and len(set(names)) == len(names)
    return names if known and "record_id" in names else None


def csv_reader(
    header: Sequence[str], pseudonyms_of: Callable[[str], list[str]] | None = None, separator: str = ","
) -> Callable[[bytes], Line | None]:
    """A function that reads one line of a CSV with this header: a record with at most one event.

    ``pseudonyms_of`` is what can stand for the person whom `subject` names: the name itself goes no further.
    """

    def read(raw: bytes) -> Line | None:
        cells: list[str] = []
        try:
            text = _text(raw)
            cells = csv_cells(text, separator)
            if cells == list(header) or not any(map(filled, cells)) or SAYS_SEPARATOR.fullmatch(text.rstrip("\r\n")):
                return None
            return Line(_csv_record(header, cells, pseudonyms_of), None, (), _digest(raw))
        except Unread as unread:
            named = _csv_named(header, cells or _likely_cells(raw, separator), unread.reason)
            return Line(None, unread.reason, named, _digest(raw))

    return read


def csv_cells(text: str, separator: str) -> list[str]:
    """The cells of one line of a CSV. Raises Unread."""
    if not CSV_ROWS[separator].fullmatch(text):
        raise Unread("NOT_CSV")
    try:
        return next(csv.reader([text], strict=True, delimiter=separator), [])
    except csv.Error:
        raise Unread("NOT_CSV") from None


def _csv_named(header: Sequence[str], cells: Sequence[str], reason: str) -> tuple[str | None, ...]:
    at = list(header).index("record_id")
    # Of cells that are too many or too few only the first stands where it should.
    name = stripped(cells[at].strip('"')) if len(cells) == len(header) or at == 0 else ""
    # One that a program rewrote may have meant any other.
    unsure = reason in _UNSURE or id_rewritten(name) or holds_nothing(name)
    found = _spellings([name, *filter(None, [whole_number(name)])])
    return (*found, *((None,) if not found or unsure else ()))


def _likely_cells(raw: bytes, separator: str) -> list[str]:
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return csv_cells(text, separator)
    except Unread:
        return text.split(separator, 1)


def _csv_record(
    header: Sequence[str], cells: Sequence[str], pseudonyms_of: Callable[[str], list[str]] | None
) -> dict[str, Any]:
    # No record, person or picture is called so: rows behind it would stand under the wrong names.
    if "record_id" in (stripped(cell).lower() for cell in cells):
        raise Unread(ANOTHER_HEADER)
    if len(cells) != len(header):
        raise Unread("RAGGED_ROW")
    values = {name: text for name, cell in zip(header, cells, strict=True) if (text := stripped(cell))}
    _not_rewritten(dict(zip(header, cells, strict=True)), values)
    if "schema_version" in values:
        values["schema_version"] = _VERSION_AS_NUMBER.get(values["schema_version"], values["schema_version"])
    event = {name: values[name] for name in _EVENT_CELLS if name in values}
    record: dict[str, Any] = {
        **{name: values.get(name) for name in ("record_id", *_SINGLE_CELLS)},
        "processing": {name: _listed(values.get(name)) if name in _LISTS else values.get(name) for name in PROCESSING},
        "events": [event] if event else [],
        "images": _listed(values.get("images")),
        "face": {"box": _box(values["face_box"])} if "face_box" in values else None,
    }
    whole = _checked(_fit(record, FIELDS))
    if "subject" in values:
        whole["pseudonyms"] = _pseudonyms(values["subject"], whole["pii_principal_id"], pseudonyms_of)
    return whole


def _not_rewritten(cells: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Refuse what programs have made of ``cells``; ``values``: the filled ones, without blanks about them."""
    if id_rewritten(values.get("record_id", "")):
        raise Unread("ID_REWRITTEN")
    # As it stands: at its end may be what stands for a lost letter.
    if habit := name_lost(cells.get("subject", "")):
        raise Unread(f"{NAME_IS_LOST}:{habit}")
    for name, value in values.items():
        if holds_nothing(value):
            raise Unread(f"{NO_VALUE}:{name}")
    if _images_rewritten(values.get("images", "")):
        raise Unread("IMAGE_REWRITTEN")
    for name in _TIME_CELLS:
        if is_rewritten(values.get(name, "")):
            raise Unread(f"{DATE_REWRITTEN}:{name}")


def _images_rewritten(cell: str) -> bool:
    """Of names that stand in JSON, as templates write odd ones, a program may have lost a letter, and no more."""
    if cell.startswith("["):
        return REPLACED in cell
    return any(map(image_rewritten, _listed(cell)))


def _pseudonyms(subject: str, given: str | None, pseudonyms_of: Callable[[str], list[str]] | None) -> list[str]:
    if pseudonyms_of is None:
        raise Unread(NO_KEY)
    found = pseudonyms_of(subject)
    if given is not None and given not in found:
        raise Unread("CONFLICTING_CELLS")
    return found


def _box(cell: str) -> list[float]:
    numbers = [part for part in re.split(r"[ ;]+", cell) if part]
    if not all(map(_DECIMAL.fullmatch, numbers)):
        raise Unread("VALUE_OF_ANOTHER_TYPE")
    return [float(number) for number in numbers]


def _listed(cell: str | None) -> Any:
    """The values of a cell: a JSON array of texts, or texts with `;` between them."""
    if cell is None:
        return None
    if cell.startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            raise Unread("VALUE_OF_ANOTHER_TYPE") from None
    return [text for part in cell.split(";") if (text := stripped(part))]


def quoted(name: str) -> str:
    """``name`` as a cell that `csv_reader` reads back exactly, and in which no spreadsheet sees anything but text.

    As it is, where it is a plain file name; else as a JSON array. A formula begins with `=`, `+`, `-` or `@`; and a
    name such as 0012 would come back from a spreadsheet as the number 12, another picture's name. One that looks as if
    a program had rewritten it is that picture's, too.
    """
    as_it_is = _PLAIN_FILE.fullmatch(name) and is_plain(name) and not image_rewritten(name)
    return name if as_it_is else json.dumps([name], ensure_ascii=not name.isprintable() or REPLACED in name)


_PLAIN_FILE: Final = re.compile(r"\w[^;\"]*\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf])", re.IGNORECASE)
