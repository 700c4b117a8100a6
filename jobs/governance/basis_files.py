"""Files of basis records, read strictly; what cannot be read is set aside with a reason, never guessed.

Formats: JSON lines (one record a line, names of ISO/IEC TS 27560; docs/basis-record.schema.json), CSV (one event a
line, flat names; lines of one record_id are one record), and a Delta table with the columns of the JSON records. A
field that is absent stays absent: the gate refuses what lacks it. Executors read each line once (`basis_lines.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Final, cast
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, MapType, StructType

from jobs.errors import BadInput, SettingsError
from jobs.formatting import the_first
from jobs.governance.basis_lines import (
    ANOTHER_HEADER,
    CSV_COLUMNS,
    FIELDS,
    LINE,
    NO_KEY,
    PROCESSING,
    RECORD,
    Line,
    csv_layout,
    ddl,
    other_form,
    read_csv_lines,
    read_json,
    read_lines,
)
from jobs.governance.pseudonyms import Pseudonyms
from jobs.tables.files import files_below, is_mark, overlooked, refuse_unnamed
from jobs.tables.foreign import open_table
from jobs.tables.store import looked_up, materialise

_JSON_SCHEMA: Final = ddl(FIELDS)
# What Hadoop takes for a pattern of names.
_PATTERN: Final = re.compile(r"[\\{}\[\]*?]")
_NAMED: Final = 5


@dataclass(frozen=True)
class BasisFile:
    """What a file holds: ``records`` (one row a record, `images` as the file names them), and what was ``unread``.

    Where a file names persons, ``records`` has `pseudonyms`: all that a person can stand under (`persons.identified`).

    Columns of ``unread``: record_id (null where the line does not tell), file, reason, line_digest. Not the text of
    the line, which may hold a name. A line stands there once for each record that it may have named.
    """

    records: DataFrame
    unread: DataFrame


def read_basis(spark: SparkSession, path: str, names: Pseudonyms | None) -> BasisFile:
    """Read basis records from JSON lines, CSV (`….csv`) or a Delta table (`delta:` and its path or name).

    Raises:
        BadInput: a CSV's header or a table's columns are not of the form; there is no file, or no line in it; or one of
            a folder would not be read.
        SettingsError: the file has a `subject` column and no key to pseudonymise it with.
    """
    if path.startswith("delta:"):
        return _records(_judged(_table_lines(spark, path.removeprefix("delta:")), read_json), path)
    files = files_below(spark, path)
    refuse_unseen(path, files)
    refuse_unnamed(spark, f"--basis {path}", path)
    _refuse_cut_off(spark, path, files or [])
    if path.lower().endswith(".csv"):
        return _read_csv(spark, path, names)
    lines = _lines(spark, path)
    if not (first := lines.where(F.col("line").cast("string").rlike(r"\S")).head(1)):
        raise _without_lines(path)
    if other := other_form(bytes(first[0]["line"])):
        raise BadInput(
            f"{path}: {other}; nothing was imported.",
            hint="records are JSON lines or a CSV; docs/basis-record.md has both.",
        )
    return _records(_judged(lines, read_json), path)


def _without_lines(path: str) -> BadInput:
    return BadInput(
        f"{path}: there is no line in it; nothing was imported.",
        hint="look at what wrote it: where there is nothing to import, leave --basis out.",
    )


def _refuse_cut_off(spark: SparkSession, path: str, files: list[str]) -> None:
    """Refuse a folder of which one of the ``files`` has no line: of a single file its reader tells that.

    Raises:
        BadInput: what was in it may be a withdrawal.
    """
    read = [file for file in files if not is_mark(PurePosixPath(file).name)]
    if len(read) < 2:
        return
    lines = spark.read.text(escaped(path)).select("value", F.col("_metadata.file_path").alias("file"))
    seen = lines.where(F.col("value").rlike(r"\S")).select("file").distinct().collect()
    if empty := without_lines(read, [row["file"] for row in seen]):
        raise BadInput(
            f"--basis {path}: there is no line in {the_first(empty, _NAMED)}; nothing was imported.",
            hint="look at what wrote it: a file that was cut off is brought anew, one that had nothing is moved away.",
        )


def without_lines(files: Sequence[str], seen: Iterable[str]) -> list[str]:
    """Of ``files`` (their paths below the folder that is read) those that none of ``seen`` is (URIs, as Spark's).

    >>> without_lines(["a b.jsonl", "day=1/w.jsonl", "w.jsonl"], ["file:///in/a%20b.jsonl", "file:///in/day=1/w.jsonl"])
    ['w.jsonl']
    """
    known, found = set(files), set[str]()
    for uri in seen:
        parts = unquote(uri).split("/")
        # The longest: above the folder that is read none is called as those below it.
        found.update(islice((end for at in range(len(parts)) if (end := "/".join(parts[at:])) in known), 1))
    return [file for file in files if file not in found]


def refuse_unseen(place: str, files: list[str] | None) -> None:
    """Refuse a place where Spark would read none, or not all, of the ``files`` below it: see `files_below`.

    Raises:
        BadInput: what it skips may be a withdrawal.
    """
    if files is None:
        raise BadInput(
            f"--basis {place}: there is nothing at this place.",
            hint="give one file or folder by its name: * and [ ] stand for themselves.",
        )
    if unseen := overlooked(files):
        raise BadInput(
            f"--basis {place}: {the_first(unseen, _NAMED)} would not be read; nothing was imported.",
            hint="no name begins with _ or a dot, and each folder is given by itself (but for those of partitions: "
            "name=value, all of the same names, and nothing beside them); move away what is no basis file.",
        )


def escaped(place: str) -> str:
    """``place`` as Hadoop takes it for that one place, and for no pattern.

    >>> print(escaped("basis[1].jsonl"))
    basis\\[1\\].jsonl
    """
    return _PATTERN.sub(r"\\\g<0>", place)


def content_digest(records: DataFrame) -> Column:
    """What tells one version of a record from another: all that it says. (Its images are links of their own.)"""
    return F.sha2(F.to_json(F.struct(*sorted(c for c in records.columns if c != "images"))), 256)


def _lines(spark: SparkSession, path: str) -> DataFrame:
    # As bytes: Spark takes what is not UTF-8 for text, too.
    return spark.read.text(escaped(path)).select(F.col("value").cast("binary").alias("line"))


def _judged(lines: DataFrame, read: Callable[[bytes], Line | None]) -> DataFrame:
    return materialise(lines.mapInArrow(read_lines(read), ddl(LINE)))


def _records(judged: DataFrame, file: str) -> BasisFile:
    """Each line a whole record. One that stands there again in other words says what nobody can know: it is unread."""
    records, unread = judged.where("reason IS NULL").select("record.*"), _unread(judged, file)
    marked = records.select("record_id", content_digest(records).alias("digest"))
    several = materialise(
        marked.groupBy("record_id")
        .agg(F.count("*").alias("n"), F.min("digest").alias("one"), F.max("digest").alias("other"))
        .where("n > 1")
    )
    if several.isEmpty():
        return BasisFile(records, unread)
    contested = several.where("one != other").withColumn("line_digest", F.sha2(F.concat("one", "other"), 256))
    unread = unread.unionByName(_set_aside(contested, file, "CONFLICTING_VERSIONS"))
    repeated = looked_up(several.select("record_id"))
    once = records.join(repeated, "record_id", "left_anti")
    others = [name for name in records.columns if name not in ("record_id", "images")]
    merged = (
        records.join(looked_up(several.where("one = other").select("record_id")), "record_id", "left_semi")
        .groupBy("record_id")
        .agg(F.first(F.struct(*others)).alias("record"), _all_of("images"))
        .select("record_id", "record.*", "images")
    )
    return BasisFile(once.unionByName(merged), unread)


def nothing_unread(spark: SparkSession) -> DataFrame:
    """No line that could not be read, as `BasisFile.unread` has them."""
    return spark.createDataFrame([], "record_id string, file string, reason string, line_digest string")


def _all_of(name: str) -> Column:
    return F.array_distinct(F.flatten(F.collect_list(name))).alias(name)


def _unread(judged: DataFrame, file: str) -> DataFrame:
    named = judged.where("reason IS NOT NULL").select(F.explode("named").alias("record_id"), "reason", "line_digest")
    return named.select("record_id", F.lit(file).alias("file"), "reason", "line_digest")


def _set_aside(records: DataFrame, file: str, reason: str) -> DataFrame:
    return records.select("record_id", F.lit(file).alias("file"), F.lit(reason).alias("reason"), "line_digest")


def _table_lines(spark: SparkSession, place: str) -> DataFrame:
    """A table's rows as lines of JSON, so that one reader judges both."""
    frame, _ = open_table(spark, "delta", place)
    unknown = sorted(_unknown(frame.schema, cast(StructType, StructType.fromDDL(_JSON_SCHEMA))))
    if unknown or "record_id" not in frame.columns:
        raise BadInput(
            f"delta:{place}: the table has unknown columns {unknown} or lacks record_id; nothing was imported.",
            hint="rename them in a view; docs/basis-record.md has the columns.",
        )
    if binary := binary_columns(frame.schema):
        raise BadInput(
            f"delta:{place}: the columns {binary} are binary, and no text; nothing was imported.",
            hint="make them texts in a view: CAST(record_id AS STRING), or how they were encoded.",
        )
    options = {"timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX", "timeZone": "UTC"}
    return frame.select(F.to_json(F.struct("*"), options).cast("binary").alias("line"))


def binary_columns(found: DataType, place: str = "") -> list[str]:
    """Names of columns, and of fields in them at any depth, that JSON would hold as base64: as other texts."""
    if isinstance(found, BinaryType):
        return [place]
    if isinstance(found, ArrayType):
        return binary_columns(found.elementType, place)
    if isinstance(found, MapType):
        return [*binary_columns(found.keyType, place), *binary_columns(found.valueType, place)]
    if not isinstance(found, StructType):
        return []
    inside = [binary_columns(field.dataType, f"{place}.{field.name}" if place else field.name) for field in found]
    return [name for names in inside for name in names]


def _unknown(found: DataType, known: DataType, place: str = "") -> list[str]:
    """Names of columns and of fields in them, at any depth, that no record has."""
    if isinstance(found, ArrayType) and isinstance(known, ArrayType):
        return _unknown(found.elementType, known.elementType, place)
    if not isinstance(found, StructType) or not isinstance(known, StructType):
        return []
    names = {field.name: field.dataType for field in known}
    wrong = [place + name for name in found.fieldNames() if name not in names]
    inside = [(f.name, f.dataType) for f in found if f.name in names]
    return wrong + [w for name, inner in inside for w in _unknown(inner, names[name], f"{place}{name}.")]


def _read_csv(spark: SparkSession, path: str, names: Pseudonyms | None) -> BasisFile:
    # Which file a line is of is asked where that one begins: each has its header there, read in the same pass.
    begun = F.when(F.col("_metadata.file_block_start") == 0, F.col("_metadata.file_path")).alias("file")
    # As bytes: Spark takes what is not UTF-8 for text, too.
    lines = spark.read.text(escaped(path)).select(F.col("value").cast("binary").alias("line"), begun)
    first = lines.where("file IS NOT NULL").head(2)
    if not first:
        raise _without_lines(path)
    try:
        layout = csv_layout([bytes(row["line"]) for row in first if row["file"] == first[0]["file"]])
    except ValueError as error:
        raise BadInput(
            f"{_file_in(path, first[0]['file'])}: {error}; nothing was imported.",
            hint="start from `ingest --basis-template FILE.csv`.",
        ) from None
    judged = materialise(lines.mapInArrow(read_csv_lines(layout, names.of if names else None), ddl(LINE)))
    refuse_whole(path, {row["reason"] for row in judged.select("reason").distinct().collect()})
    unread = _unread(judged, path)
    # A record is one or several lines: where one of them cannot be read, none of them is.
    broken = looked_up(unread.select("record_id").dropna().distinct())
    whole = judged.where("reason IS NULL").select("record.*").join(broken, "record_id", "left_anti")
    return merged_lines(whole, unread, path)


def merged_lines(rows: DataFrame, unread: DataFrame, path: str) -> BasisFile:
    """The lines of a CSV as records: those that contradict each other are unread, as is what is ``unread`` already."""
    merged = materialise(_merged(rows))
    contested = merged.where("contested").withColumn("line_digest", content_digest(merged))
    return BasisFile(
        merged.where("NOT contested").drop("contested"),
        unread.unionByName(_set_aside(contested, path, "CONFLICTING_CELLS")),
    )


def refuse_whole(path: str, reasons: Iterable[str | None]) -> None:
    """Refuse files of which one line's reason says that none of the others can be relied on.

    Raises:
        BadInput: one of them begins with another header, or has a second one.
        SettingsError: they name persons, and there is no key.
    """
    found = {reason for reason in reasons if reason}
    begin = f"{ANOTHER_HEADER}:"
    if others := sorted(_file_in(path, reason.removeprefix(begin)) for reason in found if reason.startswith(begin)):
        raise BadInput(
            f"{path}: {the_first(others, _NAMED)} begin(s) with another header than the first file, or with "
            "none; nothing was imported.",
            hint="each file of a folder begins with the same columns in the same order; give others by themselves.",
        )
    if ANOTHER_HEADER in found:
        raise BadInput(
            f"{path}: a second header with other columns; nothing was imported.", hint="give each file by itself."
        )
    if NO_KEY in found:
        raise SettingsError(
            f"{path}: the column `subject` names persons, and there is no key to pseudonymise them with.",
            hint="set FACE_REINDEX_HMAC_KEY in the environment (keep it safe: it links records to persons).",
        )


def _file_in(place: str, file: str) -> str:
    """The place of a ``file`` as Spark tells it (a URI), below the ``place`` that is read; that itself, if it is one.

    >>> _file_in("/in/b 1.csv", "file:///in/b%201.csv/day=1/p.csv"), _file_in("/in/b 1.csv", "file:///in/b%201.csv")
    ('/in/b 1.csv/day=1/p.csv', '/in/b 1.csv')
    """
    root = PurePosixPath(place).name
    below = unquote(file).rpartition(f"/{root}/")[2] if f"/{root}/" in unquote(file) else ""
    return f"{place.rstrip('/')}/{below}" if below else place


def _merged(rows: DataFrame) -> DataFrame:
    """One row a record; `contested` where two lines of it contradict each other in what a record has only once."""
    lists = ("processing", "events", "images", "pseudonyms")
    single = [name for name in RECORD if name not in ("record_id", *lists)]
    inner = [f"processing.{name}" for name in PROCESSING]
    # The first is the person; the others depend on how the name was spelt.
    person = F.get("pseudonyms", F.lit(0))
    known = F.array_contains(F.flatten(F.collect_list("pseudonyms")), F.max("pii_principal_id"))
    once: list[Any] = [*single, *inner, person]
    differ = [F.min(value) != F.max(value) for value in once] + [F.max(person).isNotNull() & ~known]
    # In an order of its own, so that the same lines are the same content whichever came first.
    events: Any = F.array_sort(F.array_distinct(F.flatten(F.collect_list("events")))).alias("events")
    return rows.groupBy("record_id").agg(
        *(F.max(name).alias(name) for name in single),
        F.struct(*(F.max(f"processing.{name}").alias(name) for name in PROCESSING)).alias("processing"),
        events,
        _all_of("images"),
        _all_of("pseudonyms"),
        reduce(Column.__or__, [F.coalesce(some, F.lit(False)) for some in differ]).alias("contested"),
    )


__all__ = [
    "CSV_COLUMNS",
    "BasisFile",
    "binary_columns",
    "content_digest",
    "escaped",
    "merged_lines",
    "nothing_unread",
    "read_basis",
    "refuse_unseen",
    "refuse_whole",
    "without_lines",
]
