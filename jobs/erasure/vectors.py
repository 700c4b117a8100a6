"""Vectors out of every collection, and out of the staged files.

What has to leave a collection is told by the collection's own keys: all that the gate does not permit now, whichever
job deleted their rows before; and those that the requests name.
"""

from __future__ import annotations

from datetime import datetime
from functools import reduce
from operator import or_

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.embedding.faces import permitted_faces
from jobs.erasure.collections import Pages, erase_keys
from jobs.erasure.shared import covered_as_before, shared_in
from jobs.governance.gate import Gated, gate_warehouse
from jobs.governance.tombstones import FACE
from jobs.index.collections import belongs_to
from jobs.index.permitted_keys import key_pages, own_keys
from jobs.index.protocol import VectorIndex
from jobs.runs.aliases import has_switched
from jobs.runs.history import buckets_of, holds_stage, promoted_collections, promoted_runs
from jobs.runs.record import Run, utc_now
from jobs.runs.results import (
    ErasedIndex,
    ErasedStaging,
    FileImported,
    Imported,
    Indexed,
    RemovedFromCollection,
    Staged,
    Verified,
)
from jobs.runs.staging_paths import staged_folders, unrecorded_staging
from jobs.runs.step_result import StepResult
from jobs.runs.stores import about_to_drop, given_up, own_collections
from jobs.schemas import EMBEDDINGS, ERASURE_ITEMS, RUN_STEPS
from jobs.settings import Settings
from jobs.tables.files import remove_tree
from jobs.tables.store import materialise

# What a run has to do again when its staged files, or its collection, are gone.
_REDONE: tuple[type[StepResult], ...] = (Staged, Imported, FileImported, Indexed, Verified, RemovedFromCollection)


def erase_vectors(
    run: Run, index: VectorIndex, items: DataFrame, leaving: DataFrame, left: DataFrame | None
) -> tuple[ErasedIndex, datetime]:
    """Out of every collection, and out of the staged files; what was done in the former, and until when.

    ``leaving`` (record_id): records that go; ``left`` (image_id): what somebody leaves by this pass (`left_by_pass`).
    """
    with run.step(ErasedIndex) as erasing:
        erasing.result = ErasedIndex(collections=_erase_index(run, index, _Going(run, index, items, leaving, left)))
    index_at = utc_now()
    with run.step(ErasedStaging) as clearing:
        clearing.result = ErasedStaging(folders=_erase_staged(run, index))
    return erasing.result, index_at


def decisions(run: Run, settings: Settings, left: DataFrame | None = None) -> Gated:
    """The gate at this instant, computed once: what follows reads it several times."""
    return gate_warehouse(run.warehouse, settings, now=run.job.clock(), left=left, to_destroy=True).computed()


def sweep_index(run: Run, index: VectorIndex) -> None:
    """Out of each collection, where no request is open, goes all that is not permitted."""
    nothing = run.job.spark.createDataFrame([], ERASURE_ITEMS.columns)
    nobody = run.job.spark.createDataFrame([], "record_id string")
    with run.step(ErasedIndex) as step:
        going = _Going(run, index, nothing, nobody, None)
        step.result = ErasedIndex(collections=_erase_index(run, index, going, every=False))


def _erase_index(
    run: Run, index: VectorIndex, going: _Going, *, every: bool = True
) -> dict[str, dict[str, int | bool]]:
    """Out of each collection go the faces that are asked for, and all that is not permitted; by collection, in rows.

    ``every``: in a pass, which goes through all stores. Also a collection that is not complete and was never live is
    looked at, and dropped; else it is left to the run that may still complete it, unless that one has to stage anew
    anyhow.
    """
    milvus, warehouse = run.settings.milvus, run.warehouse
    keep = promoted_collections(warehouse)
    names = list(own_collections(warehouse, run.settings, index))
    looked_at = names if every else [n for n in names if index.aliases_of(n) or n in keep or _abandoned(run, index, n)]
    report = erase_keys(
        index,
        looked_at,
        going.out_of,
        keep=keep,
        load_timeout_s=milvus.index_timeout_s,
        compact_timeout_s=run.settings.erasure.compact_timeout_s,
        before_drop=lambda dropped: about_to_drop(run, index, dropped),
        note=run.job.console.note,
    )
    return report | {name: {"lost": True} for name in given_up(run)}


def _abandoned(run: Run, index: VectorIndex, collection: str) -> bool:
    info = index.info(collection)
    return info is not None and info.run_id != run.run_id and not holds_stage(run.warehouse, info.run_id)


class _Going:
    """Which keys leave a collection: asked of the collection itself, against what may be in one of its kind."""

    def __init__(
        self, run: Run, index: VectorIndex, items: DataFrame, leaving: DataFrame, left: DataFrame | None
    ) -> None:
        self._run = run
        self._index = index
        self._leaving = leaving
        self._left = left
        self._shared = materialise(shared_in(items))
        named = items.where(F.col("kind") == FACE).select(F.col("value").cast("bigint").alias("face_id"))
        self._named = materialise(named.distinct())
        self._permitted: dict[tuple[str, tuple[str, ...] | None], DataFrame] = {}

    def out_of(self, collection: str) -> Pages:
        """The keys that leave ``collection``, which is loaded."""
        settings, warehouse = self._run.settings, self._run.warehouse
        keys = own_keys(warehouse.spark, self._index, collection, settings, buckets_of(warehouse, collection))
        named = keys.join(self._named, "face_id", "left_semi")
        gone = keys.join(self._may_stay(collection), "face_id", "left_anti").unionByName(named).distinct()
        gone = materialise(gone)
        return lambda: key_pages(gone)

    def _may_stay(self, collection: str) -> DataFrame:
        """Faces (face_id) that a collection of this one's model and purposes may hold."""
        info = self._index.info(collection)
        assert info is not None  # noqa: S101 - `collections_of` lists those that have it
        ours = belongs_to(self._run.settings.milvus.alias, collection, info)
        purposes = info.purposes or (self._run.settings.governance.purposes if ours else None)
        kind = info.model_fingerprint, purposes
        if kind not in self._permitted:
            self._permitted[kind] = materialise(self._faces(*kind).select("face_id").distinct())
        return self._permitted[kind]

    def _faces(self, fingerprint: str, purposes: tuple[str, ...] | None) -> DataFrame:
        warehouse, settings = self._run.warehouse, self._run.settings
        if purposes is None:
            # Another alias's, of an earlier release: which purposes it serves is not known here, its own jobs know.
            return warehouse.read(EMBEDDINGS).where(F.col("model_fingerprint") == fingerprint)
        allowed = dict.fromkeys((*settings.governance.allowed_purposes, *purposes))
        asked = settings.governance.model_copy(update={"purposes": purposes, "allowed_purposes": tuple(allowed)})
        asked_for = settings.model_copy(update={"governance": asked})
        gated = decisions(self._run, asked_for, self._left)
        staying = covered_as_before(warehouse, gated, self._shared, self._leaving)
        staying = staying.where(F.col("model_fingerprint") == fingerprint).select("face_id")
        return permitted_faces(warehouse, gated, fingerprint).keys.unionByName(staying)


def sweep_staged(run: Run) -> None:
    """Remove staged files that are on no record: what a run wrote that had been replaced by another."""
    for place in unrecorded_staging(run):
        remove_tree(run.job.spark, place)


def _erase_staged(run: Run, index: VectorIndex) -> int:
    """Remove the staged files of every run of this warehouse, wherever it staged: each may hold the vector, and none is
    needed. Returns how many folders that were.

    All other runs have ended. One that is resumed stages anew; so does this one, which may be a reindex that was killed
    and has not loaded anything since. Whose collection readers see has nothing left to load.
    """
    removed = staged_folders(run)
    for base, name in removed:
        remove_tree(run.job.spark, f"{base}/{name}")
    if not has_switched(run, index):
        run.forget(*_REDONE)
    _forget_unpromoted(run, index)
    return len(removed)


def _forget_unpromoted(run: Run, index: VectorIndex) -> None:
    """Runs that did not come to their end stage and load anew when they are resumed."""
    steps = run.warehouse.read(RUN_STEPS)
    here = own_collections(run.warehouse, run.settings, index)
    promoted = promoted_runs(run.warehouse, [name for name in here if index.aliases_of(name)])
    started = steps.where(reduce(or_, (kind.of_step() for kind in _REDONE)))
    latest = started.groupBy("run_id", "step").agg(F.max_by("state", "ended_at").alias("state"))
    open_ones = latest.where((F.col("state") == "done") & (F.col("run_id") != run.run_id))
    open_ones = open_ones.join(promoted, "run_id", "left_anti")
    now = F.lit(utc_now()).cast("timestamp")
    rows = open_ones.select(
        "run_id",
        "step",
        F.lit("forgotten").alias("state"),
        now.alias("started_at"),
        now.alias("ended_at"),
        F.lit(0.0).alias("seconds"),
        F.lit("{}").alias("result"),
        F.lit(run.lease.token).alias("fencing_token"),
    )
    rows = materialise(rows)
    if not rows.isEmpty():
        run.warehouse.append(rows, RUN_STEPS)
