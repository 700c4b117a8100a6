"""Where evidence is written, beside the tables: receipts, and the audit trail's head after each run (Guarantee 14).

A head is a file of its own, named by its number, and never written again. After each run there is one more, so what is
in their folder must be exactly what the chain says: `prove_audit` compares all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import BadInput, NotProvenError
from jobs.governance import audit
from jobs.governance.audit import Head
from jobs.runs.job_result import Result
from jobs.schemas import AUDIT_EVENTS
from jobs.tables.files import create_text, exists, read_text, remove_file
from jobs.tables.store import materialise

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.settings import Settings
    from jobs.tables.store import Warehouse

#: Events that are exported; the one place where they are written is the end of a run.
_EXPORTED: Final = ("run-done", "run-failed")
#: What `export_head` writes, to the letter.
_HEAD: Final = r'^\{"seq": (\d{1,18}), "digest": "([0-9a-f]{64})"\}\n\z'
_HEAD_BYTES: Final = 200
# Runs whose head may be missing because they were killed just before they wrote it: as many as end in one go.
_LOOKED_BACK: Final = 100


def evidence_path(warehouse: Warehouse, settings: Settings, *parts: str) -> str:
    """A place below `erasure.evidence_path`, or below `_evidence` in the warehouse."""
    base = settings.erasure.evidence_path or warehouse.path("_evidence")
    return "/".join((base.rstrip("/"), *parts))


def export_head(spark: SparkSession, warehouse: Warehouse, settings: Settings, head: Head) -> str | None:
    """Write the audit trail's head to a file of its own; nothing where a catalog's warehouse names no place for it.

    Also those before it that a run which was killed has left unwritten. A file that is there is not written again:
    returns what is wrong with it, if it holds another head.
    """
    folder = _folder(warehouse, settings)
    if folder is None:
        return None
    if not _written(spark, folder, head):
        if _read(spark, f"{folder}/{_name(head.seq)}") == _text(head):
            return None
        return f"{folder}/{_name(head.seq)} holds another head: events were cut off. See `verify --audit`."
    kinds = ", ".join(f"'{kind}'" for kind in _EXPORTED)
    before = f"kind IN ({kinds}) AND seq < {{seq}}"
    for row in warehouse.rows(
        AUDIT_EVENTS, "seq, digest", where=before, order_by="seq DESC", limit=_LOOKED_BACK, seq=head.seq
    ):
        if not _written(spark, folder, Head(row["seq"], row["digest"])):
            break
    return None


def _written(spark: SparkSession, folder: str, head: Head) -> bool:
    """Whether the file of this head was missing, or a beginning of it only, and is written now."""
    place, text = f"{folder}/{_name(head.seq)}", _text(head)
    if create_text(spark, place, text):
        return True
    there = _read(spark, place)
    if there is None or there == text or not text.startswith(there):
        return False
    # It was cut off while it was written, by a release that wrote it in its place.
    remove_file(spark, place)
    return create_text(spark, place, text)


def heads_place(warehouse: Warehouse, settings: Settings) -> str:
    """Which place heads are exported to, for the event of a run's end: so it is known which ones have to be there."""
    if _folder(warehouse, settings) is None:
        return "none"
    place = settings.erasure.evidence_path
    return "warehouse" if place is None else hashlib.sha256(place.rstrip("/").encode()).hexdigest()[:16]


def whole_text(spark: SparkSession, path: str) -> str | None:
    """The lines of a file of evidence; None where it is not there, or was cut off while it was written."""
    text = _read(spark, path)
    return text if text and text.endswith("\n") else None


def read_head(spark: SparkSession, path: str) -> Head:
    """An exported head.

    Raises:
        BadInput: the file is not one that `export_head` wrote.
    """
    text = _read(spark, path)
    try:
        return Head(**json.loads(text or ""))
    except (ValueError, TypeError, RecursionError):
        raise BadInput(f"{path} is no exported head of the audit trail.") from None


def _read(spark: SparkSession, path: str) -> str | None:
    """A file's text; None where it is not there, or was changed behind Hadoop's checksum."""
    try:
        return read_text(spark, path)
    except Py4JJavaError as error:
        if str(error.java_exception.getClass().getName()).endswith(".ChecksumException"):
            return None
        raise


def prove_audit(warehouse: Warehouse, settings: Settings, outside: str | None = None) -> Result:
    """Check the chain, and every exported head against it; also one that was kept ``outside``.

    Raises:
        NotProvenError: an event was changed, removed or added; a head is not in the chain, is called otherwise, or is
            missing; or something else lies among the heads.
        BadInput: ``outside`` is no head.
    """
    folder = _folder(warehouse, settings)
    version = warehouse.version(AUDIT_EVENTS)
    # One version for all that is asked: a run may end meanwhile. Its head is then among those that are listed later.
    events = warehouse.read(AUDIT_EVENTS, version if version >= 0 else None)
    last = audit.verify(events)
    message = f"{last.seq} audit events follow from each other"
    if outside:
        _in_chain(warehouse, read_head(warehouse.spark, outside), outside, last)
        message += f"; the head of {outside} is among them"
    heads = _prove_heads(warehouse, settings, events, last, folder) if folder else 0
    message += f"; {heads} exported heads agree" if folder else "; no heads are exported (erasure.evidence_path)"
    return Result(message, data={"events": last.seq, "heads": heads})


def _in_chain(warehouse: Warehouse, head: Head, path: str, last: Head) -> None:
    same = (F.col("seq") == head.seq) & (F.col("digest") == head.digest)
    if warehouse.read(AUDIT_EVENTS).where(same).isEmpty():
        raise _cut_off(f"The head in {path} (event {head.seq})", last.seq)


def _cut_off(what: str, last: int) -> NotProvenError:
    return NotProvenError(
        f"{what} is not in the audit trail, whose last event is {last}: it was cut off or written anew.",
        hint="restore audit_events from its newest backup; do not write to it.",
    )


def _prove_heads(warehouse: Warehouse, settings: Settings, events: DataFrame, last: Head, folder: str) -> int:
    """Every file in ``folder`` is a head of the chain, and none is missing; returns how many there are.

    ``events``: the chain as it was proven, up to the ``last`` one.
    """
    heads = _heads(warehouse.spark, folder)
    if not heads.where("head IS NULL").isEmpty():
        heads = materialise(heads.join(_unfinished(heads, warehouse.read(AUDIT_EVENTS)), "name", "left_anti"))
    wrong = heads.where("head IS NULL OR name != format_string('%012d.json', head.seq)")
    if odd := wrong.select("name").orderBy("name").first():
        raise NotProvenError(
            f"{folder}: {wrong.count()} files are no exported head, or not that of their name; the first: {odd[0]!a}.",
            hint="nothing but this program writes there: find out who did.",
        )
    # Read now, for a run that has ended since is among the heads.
    chain = warehouse.read(AUDIT_EVENTS).select("seq", "digest")
    found = heads.select("head.seq", "head.digest")
    foreign = found.join(chain, ["seq", "digest"], "left_anti").agg(F.min("seq")).first()
    assert foreign is not None  # noqa: S101 - an aggregate without groups always has its one row
    if foreign[0] is not None:
        raise _cut_off(f"The exported head {_name(foreign[0])}", last.seq)
    place = F.get_json_object("facts", "$.heads")
    ends = events.where(F.col("kind").isin(*_EXPORTED)).select("seq", place.alias("place"))
    # Events of an earlier release do not say where their heads are: from the first one on that is there.
    begun = found.agg(F.coalesce(F.min("seq"), F.lit(0)).alias("begun"))
    here = F.coalesce(F.col("place") == heads_place(warehouse, settings), F.col("seq") > F.col("begun"))
    missing = ends.join(found, "seq", "left_anti").crossJoin(F.broadcast(begun)).where(here)
    if gap := missing.orderBy("seq").select("seq").first():
        raise NotProvenError(
            f"{folder}: {missing.count()} heads are missing; the first is that of event {gap[0]}.",
            hint="that of a run which was killed just before is written by the next; else they were removed.",
        )
    return heads.count()


def _heads(spark: SparkSession, folder: str) -> DataFrame:
    """What lies in ``folder``: name, text, head (seq, digest; null: none). By executors, thousands of files a task."""
    if not exists(spark, folder):
        return spark.createDataFrame([], "name string, text string, head struct<seq: bigint, digest: string>")
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    name = F.element_at(F.split("path", "/"), -1).alias("name")
    text = F.decode("content", "ISO-8859-1")
    head = F.struct(
        F.regexp_extract(text, _HEAD, 1).try_cast("bigint").alias("seq"),
        F.regexp_extract(text, _HEAD, 2).alias("digest"),
    )
    # The length is the file system's word: of what is too long to be a head nothing is read. What cannot be read (on a
    # local disk, by Hadoop's checksum beside it) is left out, and is no head either.
    small = reader.option("ignoreCorruptFiles", "true").load(folder).where(F.col("length") <= _HEAD_BYTES)
    read = small.select("path", text.alias("text"), F.when(text.rlike(_HEAD), head).alias("head"))
    with _small_files(spark):
        return materialise(reader.load(folder).select("path", name).join(read, "path", "left").drop("path"))


def _unfinished(heads: DataFrame, events: DataFrame) -> DataFrame:
    """Files (name) that hold a beginning of the head they are named for: as good as missing, and no forged ones."""
    whole = F.format_string('{"seq": %d, "digest": "%s"}\n', "seq", "digest")
    chain = events.select(F.format_string("%012d.json", "seq").alias("name"), whole.alias("whole"))
    shorter = F.length("text") < F.length("whole")
    return heads.join(chain, "name").where(shorter & F.startswith(F.col("whole"), F.col("text"))).select("name")


@contextmanager
def _small_files(spark: SparkSession) -> Iterator[None]:
    """Thousands of tiny files to a task, and not 32."""
    key = "spark.sql.files.openCostInBytes"
    before = spark.conf.get(key, "4194304") or "4194304"
    spark.conf.set(key, 64 * 1024)
    try:
        yield
    finally:
        spark.conf.set(key, before)


def _folder(warehouse: Warehouse, settings: Settings) -> str | None:
    if not warehouse.is_path and not settings.erasure.evidence_path:
        return None
    return evidence_path(warehouse, settings, "audit-heads")


def _name(seq: int) -> str:
    return f"{seq:012d}.json"


def _text(head: Head) -> str:
    return json.dumps(asdict(head)) + "\n"
