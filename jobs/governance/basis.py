"""Basis records and source batches: appended to their tables; and templates for a person to complete."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any, Final

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from jobs.errors import BadInput
from jobs.governance.basis_files import CSV_COLUMNS, BasisFile, content_digest
from jobs.governance.basis_lines import quoted
from jobs.governance.batches import current_batches, not_assessed_since, with_void_until
from jobs.governance.decide import BATCH_ASSESSED
from jobs.governance.persons import identified
from jobs.governance.pseudonyms import Pseudonyms
from jobs.governance.tombstones import BATCH, IMAGE, SUBJECT, KeyRing, Stones, digests, given_at, given_since
from jobs.private import new_file
from jobs.schemas import (
    BASIS_LINKS,
    BASIS_QUARANTINE,
    ERASURE_ITEMS,
    IMAGES,
    PROCESSING_BASIS,
    SOURCE_BATCHES,
    TOMBSTONES,
)
from jobs.tables.images import Left
from jobs.tables.links import append_links, awaiting, links_to_content, waiting_links
from jobs.tables.store import Warehouse, looked_up, materialise

TEMPLATE_ROWS: Final = 1_000_000
_PERSON, _BATCH = "pii_principal_id", "source_batch_id"


@dataclass(frozen=True)
class BasisImported:
    """What an import of basis records found and did.

    ``nameless``: unread lines of which it is not sure that they tell a record that is known here. ``barred``: records
    of erased people and batches, not stored; ``barred_links``: links to erased images, not stored.
    ``absent_links``: of the new links, those to images that are not here; ``held_absent``: links of records on hold to
    such images, new or not: `with_absent` counts both, once the images are in. ``left_links``: links to images that
    were left as they were, though their source may have other bytes: `link_images`. ``held_idle``: legal holds that
    keep nothing, for they name no image, or are not taken. ``waiting`` and ``on_hold``: among which links (image_id,
    record_id) the absent ones are; None: there are none.
    """

    records: int
    new_versions: int
    new_links: int
    quarantined: int = 0
    nameless: int = 0
    barred: int = 0
    barred_links: int = 0
    left_links: int = 0
    absent_links: int = 0
    held_absent: int = 0
    held_idle: int = 0
    waiting: DataFrame | None = field(default=None, repr=False, compare=False)
    on_hold: DataFrame | None = field(default=None, repr=False, compare=False)

    @property
    def counts(self) -> dict[str, int]:
        """Its numbers by their names, for the record."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, int)}


def import_basis(
    warehouse: Warehouse,
    file: BasisFile,
    image_id: Callable[[Column], Column],
    *,
    ring: KeyRing,
    names: Pseudonyms | None = None,
    now: datetime,
    before_images: bool = False,
) -> BasisImported:
    """Append the records whose content is not that of their newest version, the links from images, what was unread.

    A link holds for the bytes that its image has now. ``before_images``: bytes are about to come in, and the records
    are about those; `link_images` has to follow.

    A record with an unread version is refused by the gate until a later one is read: what it said may have been a
    withdrawal. A record of an erased person that gives nothing since the erasure is not stored again (Guarantee 13),
    nor is one of an erased batch that was not assessed since.
    ``names``: what the persons in the file were keyed with, if it names any.

    Raises:
        GovernanceError: there are tombstones, or pseudonyms, under a key that is not in its ring.
    """
    stones = Stones.read(warehouse.read(TOMBSTONES), ring)
    every = identified(warehouse, file.records, names, stones, now=now)
    records = _not_erased(warehouse, every, stones)
    versions = materialise(records.withColumn("content_digest", content_digest(records)))
    unread = materialise(_keyed(file.unread.distinct(), ring))
    stored = materialise(_stored(warehouse, versions.select("record_id").unionByName(unread.select("record_id"))))
    fresh = materialise(_fresh(versions, stored, unread, now))
    given = _given(records, image_id)
    waiting = materialise(waiting_links(warehouse, given))
    links = _not_to_erased(waiting, stones)
    expected = links.count()
    barred_links = 0 if links is waiting else waiting.count() - expected
    expecting = links.select("image_id", "record_id") if expected else None
    links = links if before_images else links.unionByName(links_to_content(warehouse, given))
    new_unread = materialise(_new_unread(warehouse, unread, stored, fresh, now))
    read = every.count()
    taken = read if records is every else records.count()
    lines = _counted(unread, stored.where("read_at IS NOT NULL"), versions)
    counts = BasisImported(
        read, fresh.count(), 0, lines["all"], lines["nameless"], barred=read - taken, barred_links=barred_links,
        held_idle=_idle_holds(warehouse, None if records is every else every, versions),
        waiting=expecting, on_hold=_on_hold(versions, given, stones),
    )  # fmt: skip
    if not warehouse.read_only:
        # What bars comes first, and a link to a record that is not there yet is refused: a gate that looks in between,
        # and an import that is cut off in between, permit less and not more.
        if not new_unread.isEmpty():
            warehouse.append(new_unread, BASIS_QUARANTINE)
        if counts.new_versions:
            warehouse.append(fresh, PROCESSING_BASIS)
    return replace(counts, new_links=append_links(warehouse, links, now=now))


def with_absent(warehouse: Warehouse, done: BasisImported, coming: DataFrame | None = None) -> BasisImported:
    """``done`` with what of its links is to images that are neither here nor ``coming`` (image_id)."""

    def absent(links: DataFrame | None) -> int:
        if links is None:
            return 0
        links = links.join(warehouse.read(IMAGES).select("image_id"), "image_id", "left_anti")
        return (links if coming is None else links.join(coming, "image_id", "left_anti")).count()

    return replace(done, absent_links=absent(done.waiting), held_absent=absent(done.on_hold))


def link_images(
    warehouse: Warehouse,
    file: BasisFile,
    image_id: Callable[[Column], Column],
    *,
    ring: KeyRing,
    names: Pseudonyms | None = None,
    left: Left | None = None,
    now: datetime,
) -> tuple[int, int]:
    """Link the records of an import to the bytes that came in after it; returns the new links, and those that wait.

    Of images that were ``left`` as they were the records are about what their source has, and not about what is there:
    such a link permits nothing. (But a legal hold keeps what is there by it.)
    """
    stones = Stones.read(warehouse.read(TOMBSTONES), ring)
    every = identified(warehouse, file.records, names, stones, now=now)
    given = _given(_not_erased(warehouse, every, stones), image_id)
    links = materialise(links_to_content(warehouse, given))
    if left is None or (waiting := left.of(links)).isEmpty():
        return append_links(warehouse, links, now=now), 0
    links = links.join(waiting, waiting.columns, "left_anti").unionByName(awaiting(warehouse, waiting))
    return append_links(warehouse, links, now=now), waiting.count()


def named_images(file: BasisFile, image_id: Callable[[Column], Column]) -> DataFrame:
    """What the records of a file are for: image_id, record_id."""
    return _given(file.records, image_id)


def _given(records: DataFrame, image_id: Callable[[Column], Column]) -> DataFrame:
    named = records.select("record_id", F.explode("images").alias("key"))
    return named.select(image_id(F.col("key")).alias("image_id"), "record_id").dropna().distinct()


def _stored(warehouse: Warehouse, ids: DataFrame) -> DataFrame:
    """What is stored of these records: digest (of the newest version), read_at, unread_at (null: nothing of the kind).

    ``digest`` is null as well where two contents were recorded at the latest instant: none of them is the newest.
    """
    wanted = looked_up(materialise(ids.dropna().distinct()))
    basis = warehouse.read(PROCESSING_BASIS).select("record_id", "content_digest", "recorded_at")
    at = F.unix_micros("recorded_at")
    newest = (
        basis.join(wanted, "record_id", "left_semi")
        .groupBy("record_id")
        .agg(
            F.max(F.struct(at.alias("at"), "content_digest"))["content_digest"].alias("digest"),
            F.min(F.struct((-at).alias("at"), "content_digest"))["content_digest"].alias("other"),
            F.max("recorded_at").alias("read_at"),
        )
        .select("record_id", F.when(F.col("digest") == F.col("other"), F.col("digest")).alias("digest"), "read_at")
    )
    quarantine = warehouse.read(BASIS_QUARANTINE).join(wanted, "record_id", "left_semi")
    unread = quarantine.groupBy("record_id").agg(F.max("recorded_at").alias("unread_at"))
    return newest.join(unread, "record_id", "full")


def _keyed(unread: DataFrame, ring: KeyRing) -> DataFrame:
    """``unread`` with a keyed digest of each line: its text may hold a name, which a bare hash lets anybody try.

    Without a key no file names a person.
    """
    if not ring.keys:
        return unread
    keyed = digests(
        unread.select("line_digest").distinct(), {"line": "line_digest"}, "line_digest", ring, [ring.current]
    )
    keyed = keyed.select(F.col("row_key").alias("line_digest"), "digest")
    others = [name for name in unread.columns if name != "line_digest"]
    return unread.join(keyed, "line_digest").select(*others, F.col("digest").alias("line_digest"))


def _counted(unread: DataFrame, *known: DataFrame) -> Row:
    """Lines that could not be read: `all`, and the `nameless` among them, which may speak of none that is ``known``."""
    ids = reduce(DataFrame.unionByName, [records.select("record_id") for records in known]).distinct()
    marked = unread.join(ids.withColumn("known", F.lit(True)), "record_id", "left")
    unsure, knows = F.max(F.col("record_id").isNull()), F.max(F.col("known").isNotNull())
    lines = marked.groupBy("line_digest").agg((unsure | ~knows).alias("nameless"))
    row = lines.agg(F.count("*").alias("all"), F.count_if("nameless").alias("nameless")).first()
    assert row is not None  # noqa: S101 - an aggregate without groups always has its one row
    return row


def _fresh(versions: DataFrame, stored: DataFrame, unread: DataFrame, now: datetime) -> DataFrame:
    """Versions to be stored, each recorded after all that is stored of its record, whatever the clock says.

    Compared with the newest version alone: a content that was there before and is back is new. So is one that ends a
    quarantine, unless the same file has an unread version of the record, too.
    """
    tick = F.expr("INTERVAL 1 MICROSECOND")
    unread_now = unread.select("record_id").dropna().distinct().withColumn("unread_now", F.lit(True))
    same = F.col("digest") == F.col("content_digest")
    barred = F.coalesce(F.col("unread_at") >= F.col("read_at"), F.lit(False))
    known = F.coalesce(same, F.lit(False)) & (~barred | F.coalesce("unread_now", F.lit(False)))
    at = F.greatest(F.lit(now).cast("timestamp"), F.col("read_at") + tick, F.col("unread_at") + tick)
    marked = versions.join(stored, "record_id", "left").join(unread_now, "record_id", "left")
    return marked.where(~known).select(*versions.columns, at.alias("recorded_at"))


def _new_unread(
    warehouse: Warehouse, unread: DataFrame, stored: DataFrame, fresh: DataFrame, now: datetime
) -> DataFrame:
    """What bars its record from now on, and does not by an earlier import already."""
    seen = (
        warehouse.read(BASIS_QUARANTINE).groupBy("record_id", "line_digest").agg(F.max("recorded_at").alias("seen_at"))
    )
    seen = seen.withColumnRenamed("record_id", "seen_id")
    versions = fresh.groupBy("record_id").agg(F.max("recorded_at").alias("version_at"))
    marked = (
        unread.join(stored, "record_id", "left")
        .join(versions, "record_id", "left")
        .join(
            seen,
            F.col("record_id").eqNullSafe(F.col("seen_id")) & (unread["line_digest"] == seen["line_digest"]),
            "left",
        )
        .drop(seen["line_digest"])
    )
    in_effect = F.col("version_at").isNull() & F.coalesce(F.col("seen_at") >= F.col("read_at"), F.lit(True))
    known = F.col("seen_at").isNotNull() & in_effect
    # No earlier than the record's last version: the gate compares the two times.
    at = F.greatest(F.lit(now).cast("timestamp"), F.col("read_at"), F.col("version_at"))
    return marked.where(~known).select(*unread.columns, at.alias("recorded_at"))


def _not_erased(warehouse: Warehouse, records: DataFrame, stones: Stones) -> DataFrame:
    """``records`` without those of erased people that give nothing since, and of erased batches not assessed since.

    A record that is stored stays open to new versions: a legal hold that suspends its erasure ends by one. So does one
    that only links are left of: without it nobody could tell whose pictures these are, and erase them. And a legal hold
    that comes by another record suspends an erasure that is not complete.
    """
    people = stones.barring(records.select(_PERSON).distinct(), {SUBJECT: _PERSON}, _PERSON)
    batches = stones.barring(records.select(_BATCH).distinct(), {BATCH: _BATCH}, _BATCH)
    if people is None and batches is None:
        return records
    marked, gone = records, F.lit(False)
    if people is not None:
        marked = marked.join(F.broadcast(people.withColumnRenamed("row_key", _PERSON)), _PERSON, "left")
        gone |= F.col("erased_at").isNotNull() & ~given_since(given_at())
    if batches is not None:
        batches = not_assessed_since(warehouse, batches).withColumn("_batch_gone", F.lit(True))
        marked = marked.join(F.broadcast(batches.withColumnRenamed("row_key", _BATCH)), _BATCH, "left")
        gone |= F.coalesce("_batch_gone", F.lit(False))
    ids = materialise(marked.where(gone).select("record_id").distinct())
    count = ids.count()
    if not count:
        return records
    # Of these alone, so that neither all records nor all links are shuffled.
    wanted = looked_up(ids, count)
    known = [warehouse.read(spec).select("record_id") for spec in (PROCESSING_BASIS, BASIS_LINKS)]
    stored = known[0].unionByName(known[1]).join(wanted, "record_id", "left_semi")
    stored = stored.unionByName(_suspending(warehouse, marked.where(gone))).distinct()
    stored = looked_up(stored.withColumn("_stored", F.lit(True)), count)
    kept = marked.join(stored, "record_id", "left").where(~gone | F.col("_stored"))
    return kept.select(*records.columns)


def _suspending(warehouse: Warehouse, records: DataFrame) -> DataFrame:
    """Those of ``records`` (record_id) with a legal hold whose person, or batch, an open request names."""
    asked = warehouse.read(ERASURE_ITEMS).where(F.col("kind").isin(SUBJECT, BATCH)).select("value").distinct()
    held = records.where("legal_hold_ref IS NOT NULL")
    held = held.select("record_id", F.explode(F.array(_PERSON, _BATCH)).alias("value"))
    return held.join(asked, "value", "left_semi").select("record_id")


def _not_to_erased(links: DataFrame, stones: Stones) -> DataFrame:
    """``links`` to images that are not there, but for erased ones: those never come (Guarantee 13)."""
    erased = stones.barring(links.select("image_id").distinct(), {IMAGE: "image_id"}, "image_id")
    if erased is None:
        return links
    return materialise(links.join(erased, F.col("row_key") == F.col("image_id"), "left_anti"))


def _on_hold(versions: DataFrame, given: DataFrame, stones: Stones) -> DataFrame | None:
    """Links (image_id, record_id) of the records on hold, but for erased images; None: there is no such record."""
    held = versions.where("legal_hold_ref IS NOT NULL").select("record_id")
    if held.isEmpty():
        return None
    return _not_to_erased(materialise(given.join(held, "record_id", "left_semi")), stones)


def _idle_holds(warehouse: Warehouse, every: DataFrame | None, versions: DataFrame) -> int:
    """How many records on hold keep nothing: of those that are taken, if no image was ever named by them.

    ``every``: what the file has, if not all of it is taken.
    """
    is_held, is_bare = F.col("legal_hold_ref").isNotNull(), F.coalesce(F.size("images"), F.lit(0)) < 1
    idle = materialise(versions.where(is_held & is_bare).select("record_id"))
    count = 0
    if not idle.isEmpty():
        count = idle.join(warehouse.read(BASIS_LINKS), "record_id", "left_anti").count()
    if every is not None:
        count += every.where(is_held).join(versions, "record_id", "left_anti").count()
    return count


def record_batch(warehouse: Warehouse, batch: Mapping[str, Any], *, ring: KeyRing, now: datetime) -> bool:
    """Append a batch's state if it differs from the last one; says whether it did.

    An assessment that counts no more is none: the batch stays as it is, revoked or in force by a later one.

    Raises:
        GovernanceError: a batch was erased under a key that is not in the ``ring``.
    """
    names = ("source_batch_id", "supplier", "collection_method", "assessment_ref", "state")
    compared = (*names, "unix_micros(assessed_at)")
    frame = warehouse.spark.createDataFrame(
        [tuple(batch.get(name) for name in names)], ", ".join(f"{name} string" for name in names)
    ).select("*", F.lit(batch.get("assessed_at")).cast("timestamp").alias("assessed_at"))
    recorded = _recorded(warehouse, batch)
    if _is_over(recorded, _erased(warehouse, batch, ring), batch):
        return False
    at_last = F.rank().over(Window.orderBy(F.col("recorded_at").desc()))
    last = recorded.withColumn("_rank", at_last).where("_rank = 1")
    newest = last.selectExpr("unix_micros(recorded_at)", *compared).distinct().collect()
    same = [tuple(row)[1:] for row in newest] == [tuple(row) for row in frame.selectExpr(*compared).collect()]
    if not same and not warehouse.read_only:
        # After what is recorded of it, whatever the clock says.
        at = max([_micros(now), *(row[0] + 1 for row in newest)])
        warehouse.append(frame.withColumn("recorded_at", F.timestamp_micros(F.lit(at))), SOURCE_BATCHES)
    return not same


def is_void(warehouse: Warehouse, batch: Mapping[str, Any], *, ring: KeyRing) -> bool:
    """Whether the batch of an assessment stays revoked, for it was revoked or erased since (or at that very time)."""
    recorded, erased = _recorded(warehouse, batch), _erased(warehouse, batch, ring)
    if not _is_over(recorded, erased, batch):
        return False
    current = current_batches(recorded, erased).first()
    return current is None or current["batch_state"] != BATCH_ASSESSED


def _recorded(warehouse: Warehouse, batch: Mapping[str, Any]) -> DataFrame:
    return warehouse.read(SOURCE_BATCHES).where(F.col("source_batch_id") == F.lit(batch["source_batch_id"]))


def _erased(warehouse: Warehouse, batch: Mapping[str, Any], ring: KeyRing) -> DataFrame | None:
    """An assessed batch and when it was erased (row_key, erased_at); None: no batch ever was, or it is not assessed."""
    if batch["state"] != BATCH_ASSESSED:
        return None
    stones = Stones.read(warehouse.read(TOMBSTONES).where(F.col("kind") == BATCH), ring)
    itself = warehouse.spark.createDataFrame([(batch[_BATCH],)], f"{_BATCH} string")
    return stones.barring(itself, {BATCH: _BATCH}, _BATCH)


def _is_over(recorded: DataFrame, erased: DataFrame | None, batch: Mapping[str, Any]) -> bool:
    """Whether it is an assessment that a revocation on record, or an erasure, has ended."""
    if batch["state"] != BATCH_ASSESSED:
        return False
    until = with_void_until(recorded).select("void_until")
    if erased is not None:
        # Also where nothing is on record of the batch any more.
        until = until.unionByName(erased.select(F.col("erased_at").alias("void_until")))
    later = F.lit(batch["assessed_at"]).cast("timestamp") > F.col("void_until")
    return not until.where(~later).isEmpty()


def _micros(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def write_template(listing: Callable[[], DataFrame], batch_id: str, path: str) -> int:
    """Write a CSV of basis records and a YAML of the batch, for a person to complete; returns the rows written.

    To new files only: one that is there may have been completed. ``listing`` is called once they are made.

    What only the person knows is left empty, so an uncompleted template permits nothing. At most
    ``TEMPLATE_ROWS`` images are written out, which is what a spreadsheet holds: who calls it says so.
    Names come back from `read_basis` as they are, and no spreadsheet takes one for a formula (`quoted`).

    Raises:
        BadInput: the batch's id would not come back as it is.
        SettingsError: one of the files is there already, or cannot be written.
    """
    if not _BATCH_ID.fullmatch(batch_id):
        raise BadInput(
            f"--batch {batch_id!r}: a template can be written for an id that begins with a letter, and has letters, "
            "digits, spaces and . _ - / : only.",
            hint="choose such an id; a spreadsheet could take another for a formula, a number or a date.",
        )
    batch_path = str(Path(path).with_suffix(".batch.yaml"))
    # Before the source is listed, which may take long.
    with new_file(path, "--basis-template") as file, new_file(batch_path, "--basis-template") as batch_file:
        keys = listing().select("source_key").orderBy("source_key").limit(TEMPLATE_ROWS)
        out = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        rows = _template((row["source_key"] for row in keys.toLocalIterator()), batch_id, out)
        out.detach()
        batch_file.write(_BATCH_TEMPLATE.format(batch_id=json.dumps(batch_id, ensure_ascii=False)).encode())
    return rows


def _template(keys: Iterable[str], batch_id: str, out: io.TextIOBase) -> int:
    writer = csv.DictWriter(out, CSV_COLUMNS)
    writer.writeheader()
    number = 0
    for number, key in enumerate(keys, start=1):
        row = {"record_id": f"{batch_id}-{number:06d}", "images": quoted(key), "source_batch_id": batch_id}
        writer.writerow({**row, "schema_version": "1.0"})
    return number


_BATCH_ID: Final = re.compile(r"[^\W\d_](?:[\w ./:-]*[\w./-])?")
_BATCH_TEMPLATE: Final = """\
# The assessment of one source. A batch is unusable until a person has assessed it and set `state: assessed`.
# A comment stands on a line of its own. A value with # or : in it stands in quotes.
source_batch_id: {batch_id}
# who supplied the pictures
supplier:
# uploaded_by_subject, provided_by_controller, partner_transfer or public_web
collection_method:
# where the assessment is kept (a document's number)
assessment_ref:
# 2026-01-31T12:00:00Z
assessed_at:
# unassessed, assessed or revoked
state: unassessed
"""
