"""A basis file in short form: a line says whose picture, or pictures, and since when; `terms` say all the rest.

Each line becomes lines of a whole CSV, which the reader of basis files reads as it reads any. A fault is a sentence,
without the words that stand in the line: a file's name may be a person's. Pure Python, on executors.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final

from jobs.governance.basis_lines import (
    CSV_COLUMNS,
    CSV_ROWS,
    NAME_IS_LOST,
    RECORD,
    SAYS_SEPARATOR,
    Shape,
    Unread,
    arrow_type,
    csv_cells,
    csv_reader,
    is_rewritten,
    is_time,
    said_of_year,
    year_too_far,
)
from jobs.governance.blanks import filled, stripped
from jobs.governance.decide import BASIS_IN_FORCE
from jobs.governance.rewritten import SAID_OF_LOST, image_computed
from jobs.texts import LINE_END, REPLACED, text_of

if TYPE_CHECKING:
    import pyarrow as pa

NEEDED: Final = ("image", "subject", "given_at")
WITHDRAWN: Final = "withdrawn_at"
#: What comes of a line. ``folder`` and ``pattern`` are null where `image` is one name and no pattern.
SHORT_LINE: Final[dict[str, Shape]] = {
    "line": "bigint",
    "fault": "string",
    "record": RECORD,
    "image": "string",
    "folder": "string",
    "pattern": "string",
    "withdrawn_at": "timestamp",
}
_ENDED: Final = {"event_type": "withdrawal", "event_state": "ConsentWithdrawn", "validity_duration": ""}
_BASIS_ENDED: Final = {**_ENDED, "event_state": "BasisEnded"}
_ROWS: Final = 1000
# What the reader of whole lines says of one that was made here: of the cells that came from the file.
_FAULTS: Final = {
    **{f"{NAME_IS_LOST}:{habit}": f"subject {said}" for habit, said in SAID_OF_LOST.items()},
    "VALUE_OF_ANOTHER_TYPE": "given_at is not a time such as 2026-01-31T12:00:00Z",
}


class Fault(Exception):
    """What is wrong with a line, in a sentence without its words."""


@dataclass(frozen=True)
class ShortLine:
    """A line, by its number in the file: its record, but for `images` and its id, and what `image` stands for."""

    line: int
    fault: str | None = None
    record: Mapping[str, Any] | None = None
    image: str | None = None
    folder: str | None = None
    pattern: str | None = None
    withdrawn_at: datetime | None = None


def read_short(
    terms: Mapping[str, str], pseudonyms_of: Callable[[str], list[str]]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: a row that is a whole file becomes rows of ``SHORT_LINE``, one a line."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = pa.schema(list(arrow_type(SHORT_LINE)))
        for batch in batches:
            for data in batch.column(0).to_pylist():
                lines = short_lines(data, terms, pseudonyms_of)
                while some := list(islice(lines, _ROWS)):
                    yield pa.RecordBatch.from_pylist([vars(line) for line in some], schema=schema)

    return run


def short_lines(
    data: bytes, terms: Mapping[str, str], pseudonyms_of: Callable[[str], list[str]]
) -> Iterator[ShortLine]:
    """The lines of a file that say something; ``terms`` are cells of a whole CSV, by column."""
    try:
        # As Spark parts a whole CSV.
        lines = LINE_END.split(text_of(data))
    except ValueError as error:
        yield ShortLine(0, str(error))
        return
    first = next((n for n, text in enumerate(lines) if filled(text) and not SAYS_SEPARATOR.fullmatch(text)), 0)
    try:
        header, separator = _header(lines[first])
    except Fault as fault:
        yield ShortLine(first + 1, str(fault))
        return
    whole = csv_reader(CSV_COLUMNS, pseudonyms_of)
    for number, text in enumerate(lines[first + 1 :], start=first + 2):
        try:
            cells = csv_cells(text, separator)
            if any(map(filled, cells)):
                yield _read(number, header, cells, terms, whole)
        except Unread:
            yield ShortLine(number, "has a quote that stands about no whole cell, or a line break in a cell")
        except Fault as fault:
            yield ShortLine(number, str(fault))


def _header(text: str) -> tuple[list[str], str]:
    for separator in CSV_ROWS:
        try:
            names = csv_cells(text, separator)
        except Unread:
            continue
        if set(NEEDED) <= set(names) <= {*NEEDED, WITHDRAWN} and len(set(names)) == len(names):
            return names, separator
    raise Fault(f"with --terms the columns are {', '.join(NEEDED)} and, if there is one, {WITHDRAWN}; each once")


def _read(number: int, header: Sequence[str], cells: Sequence[str], terms: Mapping[str, str], whole: Any) -> ShortLine:
    if len(cells) != len(header):
        raise Fault("has more or fewer cells than the header")
    given = dict(zip(header, cells, strict=True))
    # A file's name is taken as it stands, as in whole records.
    image, said = given["image"], {name: stripped(cell) for name, cell in given.items()}
    for name in NEEDED:
        if not filled(given[name]):
            raise Fault(f"nothing stands in {name}")
    for name in ("given_at", WITHDRAWN):
        _time(name, said.get(name, ""))
    if REPLACED in image:
        raise Fault("a program could not read a character of `image`: the name is another one")
    folder, pattern = looked_for(image)
    if image_computed(said["image"]):
        raise Fault(
            "image is a number, a date or a formula of a spreadsheet's (1.23457E+15, Jan 26, =HYPERLINK); format the "
            "column as text, and write the name as it stands in the source"
        )
    # The person's name, too: at its ends may be what stands for a lost letter.
    base = {"record_id": f"line-{number}", "subject": given["subject"]}
    record = _whole({**terms, **base, "event_time": said["given_at"]}, whole)
    if not said.get(WITHDRAWN):
        return ShortLine(number, None, record, image, folder, pattern)
    end = _BASIS_ENDED if terms["event_state"] == BASIS_IN_FORCE else _ENDED
    ended = _whole({**terms, **base, **end, "event_time": said[WITHDRAWN]}, whole)
    withdrawn_at = ended["events"][0]["event_time"]
    if withdrawn_at <= record["events"][0]["event_time"]:
        raise Fault(f"{WITHDRAWN} is not later than given_at")
    record["events"] += ended["events"]
    return ShortLine(number, None, record, image, folder, pattern, withdrawn_at)


def _time(name: str, text: str) -> None:
    if is_rewritten(text):
        raise Fault(f"{name} is a time as a spreadsheet writes it; format the column as text, as 2026-01-31T12:00:00Z")
    if text and not is_time(text):
        raise Fault(f"{name} is not a time such as 2026-01-31T12:00:00Z")
    if year := year_too_far(text):
        raise Fault(f"{name} {said_of_year(year)}")


def _whole(cells: Mapping[str, str], whole: Any) -> dict[str, Any]:
    """The record that the reader of whole lines makes of these cells."""
    out = io.StringIO()
    csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="").writerow(cells)
    line = whole(out.getvalue().encode())
    if line is None or line.record is None:
        raise Fault(_FAULTS.get(line.reason, f"cannot be read ({line.reason})") if line else "says nothing")
    record: dict[str, Any] = line.record
    if not record.get("pseudonyms"):
        raise Fault("nothing stands in subject")
    return record


def looked_for(image: str) -> tuple[str | None, str | None]:
    """What a cell `image` stands for: the folder that all of it lies in, and a regular expression for whole names.

    `*` stands for characters of one name, `**` for folders, or for all below. Without them it is one image's name. `?`
    is no mark of a pattern: programs write it for letters that they lack, and it would mean every name of that length.

    >>> looked_for("anna/*.jpg")
    ('anna', 'anna/[^/]*\\\\.jpg')
    """
    if image.endswith("/"):
        raise Fault("a folder is written as folder/* (what lies in it), or folder/** (also in folders below)")
    if "?" in image:
        raise Fault("image holds a ?, as programs write for a letter that they lack; write the name, or * for any text")
    if "*" not in image:
        return None, None
    parts = image.split("/")
    folder = "/".join(takewhile(lambda part: "*" not in part, parts[:-1]))
    return folder, "".join(_expression(part, last=n == len(parts)) for n, part in enumerate(parts, start=1))


def _expression(part: str, *, last: bool) -> str:
    if part == "**":
        return ".+" if last else "(?:[^/]+/)*"
    if "**" in part:
        raise Fault("** stands for folders, and so alone between slashes")
    # Java's expressions and Python's take these escapes alike.
    text = "[^/]*".join(map(re.escape, part.split("*")))
    return text if last else f"{text}/"
