"""Warehouse and staging: written and read by the driver and by executors, as a night does it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from jobs.diagnosis.found import Found, ok, warning
from jobs.diagnosis.subject import is_stale
from jobs.diagnosis.workers import in_time, judged, skew, tasks_for_all
from jobs.errors import SettingsError
from jobs.index.staged_files import check_file, sha256_of
from jobs.index.staging import digests, stage
from jobs.runs.staging_paths import staging_base
from jobs.tables.files import children, remove_tree
from jobs.tables.trial import folder_of_a_trial, write_and_read_file, write_and_read_table
from udfs.arrays import EMBEDDING_DIM

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.diagnosis.subject import Subject

#: Rows that are staged: keys that no face has to have, each a vector with a single 1 in it.
ROWS: Final = 3
# Of a table, on clusters of thousands of cores.
_FILES: Final = 64
# A store tells when a file was written to the second.
_STORE_SEES_TO_S: Final = 1.0


def places_of_the_driver(subject: Subject) -> Iterator[Found]:
    """The driver writes and reads where tables and evidence are; by the way, what the store's clock says."""
    warehouse, evidence = subject.job.warehouse, subject.settings.erasure.evidence_path
    named = {"warehouse": warehouse.location} if warehouse.is_path else {}
    named |= {"erasure.evidence_path": evidence.rstrip("/")} if evidence else {}
    for setting, place in named.items():
        yield from _swept(subject, place)
        folder = f"{place}/{subject.name}"
        with folder_of_a_trial(subject.spark, folder):
            before = time.time()
            written = write_and_read_file(subject.spark, folder)
            after = time.time()
        yield ok(f"the driver writes and reads {setting} ({place})")
        away = skew(written, math.floor(before) - _STORE_SEES_TO_S, after)
        yield judged(f"the clock of {setting}'s store", away, after - before + _STORE_SEES_TO_S, subject.settings)
    if not named:
        yield ok(f"the warehouse is a schema of the catalog ({warehouse.location})")


def tables(subject: Subject) -> Iterator[Found]:
    """Executors write and read a Delta table, as all tables are."""
    with in_time(subject.spark, subject.seconds):
        write_and_read_table(subject.job.warehouse, subject.name, min(_FILES, tasks_for_all(subject.spark)))
    yield ok("executors write and read a Delta table there, and the driver sees its files")


def staging(subject: Subject) -> Iterator[Found]:
    """Executors stage three rows, as they stage faces; driver and executors read the file. It is left for Milvus."""
    warehouse, settings = subject.job.warehouse, subject.settings
    if not warehouse.is_path and not settings.staging.path:
        raise SettingsError(
            f"warehouse {warehouse.location} is a schema, which has no place for staged files.",
            hint="set staging.path to a folder or s3a:// prefix that Milvus can read.",
        )
    base = staging_base(warehouse, settings)
    yield from _swept(subject, base)
    folder = f"{base}/{subject.name}"
    until_the_end = ExitStack()
    subject.undo(f"staged files in {folder}", until_the_end.close)
    until_the_end.enter_context(folder_of_a_trial(subject.spark, folder))
    with in_time(subject.spark, subject.seconds):
        subject.staged = stage(
            rows_of_nobody(subject.spark),
            folder,
            purpose_flags=0,
            files_for=lambda _: 1,
            vector_type=settings.milvus.vector_type,
        )
        (file,) = subject.staged.files
        check_file(file, digests(subject.spark, subject.staged.files)(file.path))
    check_file(file, sha256_of(file.path))
    yield ok(f"executors write staged files, and driver and executors read them ({base})")


def rows_of_nobody(spark: SparkSession) -> DataFrame:
    """Rows as `stage` takes them. Made of numbers: no image and no table is read for them."""
    rows = [(key, unit_vector(key), None) for key in range(1, ROWS + 1)]
    return spark.createDataFrame(rows, "face_id bigint, embedding array<float>, valid_until timestamp")


def unit_vector(place: int) -> list[float]:
    """A vector with a 1 at one place, and so like no other of these."""
    return [float(number == place) for number in range(EMBEDDING_DIM)]


def _swept(subject: Subject, base: str) -> Iterator[Found]:
    """What a doctor that was killed has left."""
    left = [name for name in children(subject.spark, base) if is_stale(name, subject.job.clock())]
    for name in left:
        remove_tree(subject.spark, f"{base}/{name}")
    if left:
        yield warning(f"{len(left)} folders of an earlier doctor that was killed are removed from {base}", "nothing.")
