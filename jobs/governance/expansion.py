"""Basis files in short form become whole records: lines, `terms`, and the images of a source that patterns meet.

All or nothing: a line that cannot be read, or that means no image, is told by its number, and nothing is imported. What
comes out is what a whole CSV would have said, read by the reader of those.

A record is one person's permission of one time, whatever lines it came from. Its id is made of the pseudonym that the
person stands under for good (`identified`) and of that time: the same file again is the same record, so that what was
withdrawn since stays so, also once keys have changed or lines were moved about.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Final

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import BadInput, SettingsError
from jobs.governance.basis_files import BasisFile, escaped, merged_lines, nothing_unread, refuse_unseen
from jobs.governance.basis_lines import CSV_COLUMNS, EVENT, PROCESSING, ddl
from jobs.governance.persons import identified
from jobs.governance.pseudonyms import Pseudonyms
from jobs.governance.short_lines import SHORT_LINE, read_short
from jobs.governance.terms import Terms
from jobs.governance.tombstones import KeyRing, Stones
from jobs.schemas import TOMBSTONES
from jobs.tables.files import size_of
from jobs.tables.store import Warehouse, looked_up, materialise

#: A file that a person writes has less; one task reads it, for only whoever has all of it knows its lines' numbers.
_MOST_BYTES: Final = 64 * 2**20
#: Images that one line may mean: they stand in one row of a record.
_MOST_IMAGES: Final = 100_000
_SHOWN: Final = 5
_LISTS: Final = ("purposes", "pii_controllers")
_TIMES: Final = ("last_interaction_at", "expires_at", "authority_disclosed_at")
_TEXTS: Final = ("written_release_ref", "authority_disclosure_ref", "legal_hold_ref", "schema_version")


@dataclass(frozen=True)
class Expanded:
    """The records of a short file, and what it comes to.

    ``shared``: images that lines of more than one person mean; ``others``: images of the source that no line means.
    """

    file: BasisFile
    lines: int
    records: int
    people: int
    images: int
    shared: int
    others: int


def expand(
    warehouse: Warehouse,
    path: str,
    terms: Terms,
    listing: DataFrame,
    names: Pseudonyms | None,
    *,
    ring: KeyRing,
    now: datetime,
) -> Expanded:
    """Read the short file at ``path`` for the images of ``listing`` (image_id, source_key).

    Raises:
        BadInput: a line cannot be read, means no image or too many, or contradicts another one. With their numbers.
        SettingsError: there is no key to pseudonymise `subject` with.
        GovernanceError: a key of pseudonyms or of tombstones is missing in its ring.
    """
    if names is None:
        raise SettingsError(
            f"{path}: the column `subject` names persons, and there is no key to pseudonymise them with.",
            hint="set FACE_REINDEX_HMAC_KEY in the environment (keep it safe: it links records to persons).",
        )
    lines = _lines(warehouse, path, terms, names)
    count = lines.count()
    keys = materialise(listing.where("image_id IS NOT NULL").select("source_key").distinct())
    met = materialise(_met(lines, keys, count))
    _see_that_each_means_some(path, lines, met)
    of_line = met.groupBy("line").agg(F.collect_list("source_key").alias("images"))
    rows = lines.select("line", "withdrawn_at", F.col("record").dropFields("images").alias("record"))
    rows = rows.select("line", "withdrawn_at", "record.*").join(of_line, "line")
    stones = Stones.read(warehouse.read(TOMBSTONES), ring)
    people = identified(warehouse, rows, names, stones, now=now)
    records = materialise(people.withColumn("record_id", _record_id(terms.source_batch_id)))
    _see_that_each_agrees(path, records)
    # Who it is has been settled: none of the names is left.
    settled = records.drop("line", "withdrawn_at").withColumn("pseudonyms", F.lit(None).cast("array<string>"))
    file = merged_lines(settled, nothing_unread(warehouse.spark), path)
    whole = materialise(file.records.drop("pseudonyms"))
    whose = whole.select("pii_principal_id", F.explode("images").alias("key")).distinct()
    return Expanded(
        BasisFile(whole, file.unread),
        lines=count,
        records=whole.count(),
        people=whole.select("pii_principal_id").distinct().count(),
        images=whose.select("key").distinct().count(),
        shared=whose.groupBy("key").count().where("count > 1").count(),
        others=keys.join(met, "source_key", "left_anti").count(),
    )


def _lines(warehouse: Warehouse, path: str, terms: Terms, names: Pseudonyms) -> DataFrame:
    spark = warehouse.spark
    size = size_of(spark, path) if path.lower().endswith(".csv") else None
    if size is None or size > _MOST_BYTES:
        raise BadInput(
            f"{path}: " + ("there is no CSV of this name." if size is None else f"it has over {_MOST_BYTES} bytes."),
            hint="with --terms, --basis is one CSV with the columns image, subject and given_at.",
        )
    refuse_unseen(path, [PurePosixPath(path).name])
    whole = spark.read.format("binaryFile").load(escaped(path)).select("content")
    lines = materialise(whole.mapInArrow(read_short(terms.cells(), names.of), ddl(SHORT_LINE)))
    faulty = lines.where("fault IS NOT NULL")
    faults = faulty.orderBy("line").limit(_SHOWN).select("line", "fault").collect()
    if faults:
        told = [f"line {row['line']}: {row['fault']}" if row["line"] else str(row["fault"]) for row in faults]
        raise _refused(path, told, faulty.count())
    if lines.isEmpty():
        raise BadInput(f"{path}: no line says anything.", hint="write a line for each image, or folder of images.")
    return lines


def _met(lines: DataFrame, keys: DataFrame, count: int) -> DataFrame:
    """Which images each line means: line, source_key. Names are looked up; patterns among what lies in their folder."""
    named = looked_up(lines.where("pattern IS NULL").select("line", F.col("image").alias("source_key")), count)
    exact = keys.join(named, "source_key").select("line", "source_key")
    patterns = lines.where("pattern IS NOT NULL").select("line", "folder", "pattern")
    if patterns.isEmpty():
        return exact
    parts = F.split("source_key", "/")
    above = F.transform(F.sequence(F.lit(0), F.size(parts) - 1), lambda n: F.array_join(F.slice(parts, 1, n), "/"))
    placed = keys.select("source_key", F.explode(F.array_distinct(above)).alias("folder"))
    near = placed.join(looked_up(patterns, count), "folder")
    # The whole of a name, line breaks in it as well.
    whole = F.concat(F.lit(r"(?s)\A(?:"), F.col("pattern"), F.lit(r")\z"))
    return exact.unionByName(near.where(F.rlike("source_key", whole)).select("line", "source_key"))


def _see_that_each_means_some(path: str, lines: DataFrame, met: DataFrame) -> None:
    none = lines.join(met.select("line").distinct(), "line", "left_anti").select("line")
    many = met.groupBy("line").count().where(F.col("count") > _MOST_IMAGES).select("line")
    for faulty, what in ((none, "no image of the source"), (many, f"more than {_MOST_IMAGES} images")):
        if some := faulty.orderBy("line").limit(_SHOWN).collect():
            raise _refused(path, [f"line {row['line']} means {what}" for row in some], faulty.count())


def _record_id(batch_id: str) -> Column:
    given_at = F.array_min(F.transform("events", lambda event: F.unix_micros(event["event_time"])))
    digest = F.sha2(F.concat_ws("\x00", "pii_principal_id", given_at.cast("string")), 256)
    return F.concat(F.lit(f"{batch_id}-"), F.substring(digest, 1, 20))


def _see_that_each_agrees(path: str, records: DataFrame) -> None:
    """A permission is withdrawn as a whole: lines of one person and one time say the same of it."""
    ended = F.coalesce(F.unix_micros("withdrawn_at"), F.lit(0))
    halves = records.groupBy("record_id").agg(
        F.count_distinct(ended).alias("n"), F.min("line").alias("first"), F.max("line").alias("last")
    )
    halves = materialise(halves.where("n > 1"))
    if not halves.isEmpty():
        rows = halves.orderBy("first").limit(_SHOWN).collect()
        what = "are of one permission (one person, one given_at) and differ in withdrawn_at"
        raise _refused(path, [f"lines {r['first']} and {r['last']} {what}" for r in rows], halves.count())


def _refused(path: str, told: list[str], count: int) -> BadInput:
    more = f"; and {count - len(told)} more" if count > len(told) else ""
    return BadInput(
        f"{path}: {'; '.join(told)}{more}. Nothing was imported.",
        hint="mend these lines; docs/basis-record.md (`Terms`) says what they hold.",
    )


def write_whole(records: DataFrame, folder: str) -> None:
    """Write records as a CSV folder that `ingest --basis` reads, a line an event. Persons stand in it as pseudonyms.

    Raises:
        SettingsError: the folder is there already, or is not named as a CSV.
    """
    if not folder.lower().endswith(".csv"):
        raise SettingsError(f"--expanded: {folder} does not end in .csv.", hint="`--basis` knows a CSV by that.")
    event = records.withColumn("event", F.explode("events"))
    cells: dict[str, Any] = {
        **{name: F.col(f"processing.{name}") for name in PROCESSING if name not in _LISTS},
        **{name: F.to_json(f"processing.{name}") for name in _LISTS},
        **{name: F.col(f"event.{name}") for name in EVENT if name != "event_time"},
        **{name: _time_cell(F.col(name)) for name in _TIMES},
        **{name: F.col(name) for name in (*_TEXTS, "record_id", "source_batch_id", "pii_principal_id")},
        "event_time": _time_cell(F.col("event.event_time")),
        "images": F.to_json("images"),
        "subject": F.lit(None),
        "face_box": F.lit(None),
    }
    lines = event.select(*(cells[name].cast("string").alias(name) for name in CSV_COLUMNS))
    try:
        # As `--basis` reads it: a quote is doubled, white space stays.
        lines.write.csv(folder, header=True, escape='"', ignoreLeadingWhiteSpace=False, ignoreTrailingWhiteSpace=False)
    except AnalysisException as error:
        if error.getCondition() != "PATH_ALREADY_EXISTS":
            raise
        raise SettingsError(f"--expanded: {folder} exists already.", hint="name a new folder.") from None


def _time_cell(at: Column) -> Column:
    # The session's zone is UTC (jobs/session.py).
    return F.date_format(at, "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'")
