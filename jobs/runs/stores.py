"""The collections that this warehouse has filled, on record. (Places of staged files: `staging_paths`.)

An erasure is complete when none of them holds what is erased. Which there are is not asked of the settings alone: with
another `milvus.uri`, another database or a lost index, what is to be looked at would simply not be among what is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from pyspark.sql import functions as F

from jobs.errors import SettingsError, StoreMissing
from jobs.formatting import the_first
from jobs.governance import audit
from jobs.index.collections import collections_of
from jobs.index.protocol import CollectionInfo, VectorIndex
from jobs.runs.record import Run, utc_now
from jobs.runs.results import Dropped, Dropping, ErasedIndex, FileImported, Filling, Imported, Lost, Promoted
from jobs.schemas import RUN_STEPS
from jobs.settings import Settings
from jobs.tables.store import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

_NAMED = 5


def own_live(warehouse: Warehouse, settings: Settings, index: VectorIndex) -> tuple[str, CollectionInfo] | None:
    """The collection that readers see through the alias; None where there is none.

    Raises:
        SettingsError: it is not of this warehouse. What it holds is not known here, so nothing can be said of it.
    """
    alias = settings.milvus.alias
    live = index.alias_target(alias)
    if live is None:
        return None
    info = index.info(live)
    if info is None or info.warehouse not in (None, warehouse.identity):
        whose = "Face Reindex did not build" if info is None else "another warehouse built"
        raise SettingsError(
            f"Alias {alias} points at {live}, which {whose}; nothing was changed.",
            hint="set milvus.uri, milvus.database and milvus.alias to those of this warehouse; if its table `runs` was "
            "removed under an earlier release, `reindex` builds a collection anew.",
        )
    return live, info


def own_collections(warehouse: Warehouse, settings: Settings, index: VectorIndex) -> dict[str, str]:
    """Every collection in this index with faces of this warehouse, each with an id of the index that it is in.

    Not the index's address, behind which another may stand tomorrow, and which another may lead to as well: an id that
    its collections hand on to those that are made beside them. One of an earlier release has its own name for it.
    """
    named = collections_of(index, settings.milvus.alias, warehouse.identity)
    return {name: info.index or name for name, info in named.items()}


def index_id(warehouse: Warehouse, settings: Settings, index: VectorIndex) -> str:
    """The id of this index, for a collection that is made in it; a new one where it has none of this warehouse's."""
    return min(own_collections(warehouse, settings, index).values(), default=None) or uuid4().hex


@dataclass(frozen=True)
class Missing:
    """Collections on record that are not in this index; ``reached``: others on record are."""

    names: list[str]
    reached: bool

    @property
    def hint(self) -> str:
        """The next step for whoever wants them accounted for."""
        lost = f"`erase {' '.join(f'--lost {name}' for name in self.names)}`"
        if not self.reached:
            return (
                "run it with the milvus.uri and milvus.database where it is; if it is gone for good, "
                f"{lost} puts that on record."
            )
        return (
            "a warehouse has one index. If these settings lead to a former one, run it with those of the one that "
            "readers use. Else, if it is in one that was used before (another milvus.uri or milvus.database), drop it "
            f"there, once readers have moved; that it is gone, for whatever reason, {lost} puts on record "
            '(docs/operations.md, "To another Milvus").'
        )


def not_here(warehouse: Warehouse, here: Mapping[str, str]) -> Missing:
    """Collections that were filled, are not ``here`` (`own_collections`), and that no record says were dropped.

    Some were dropped without a word, by a release before this one: these count as dropped where another collection that
    is on record is ``here``. Of some it is only known that they were about to be: these do where the index is the very
    one that they were in. Of any other nothing can be said by a look at this one. (An earlier release has not recorded
    which it was: there one tells that is here and was filled before that.)
    """
    there = _filled(warehouse).collect()
    missing = [row for row in there if row["name"] not in here]
    since = [tuple(row["first_at"]) for row in there if row["name"] in here]

    def dropped(row: Row) -> bool:
        if row["perhaps_in"] is not None:
            return not set(row["perhaps_in"]).isdisjoint(here.values())
        if row["perhaps_at"] is not None:
            return any(first_at < tuple(row["perhaps_at"]) for first_at in since)
        return not row["on_record"] and bool(since)

    return Missing(sorted(row["name"] for row in missing if not dropped(row)), bool(since))


def unaccounted(warehouse: Warehouse, here: Mapping[str, str]) -> list[str]:
    """The names of what is `not_here`."""
    return not_here(warehouse, here).names


def need_all(warehouse: Warehouse, settings: Settings, index: VectorIndex) -> None:
    """Make sure that every collection with faces of this warehouse is in this index.

    Raises:
        StoreMissing: one of them is not in this index.
    """
    missing = not_here(warehouse, own_collections(warehouse, settings, index))
    if missing.names:
        raise StoreMissing(
            f"{_said(missing.names)} not in the index of the settings, and on no record as dropped: what was withdrawn "
            "or erased may be there still, so every request stays open.",
            hint=missing.hint,
        )


def give_up(run: Run, index: VectorIndex, names: Sequence[str]) -> None:
    """Put on record that collections are gone for good, as the operator says; there may be none.

    Raises:
        SettingsError: one of them is not missing; or the alias points at a collection that is not of this warehouse.
    """
    own_live(run.warehouse, run.settings, index)
    if not names:
        return
    missing = unaccounted(run.warehouse, own_collections(run.warehouse, run.settings, index))
    if wrong := sorted(set(names) - set(missing)):
        raise SettingsError(
            f"--lost {wrong[0]}: no collection that is missing.",
            hint=f"missing: {', '.join(missing) or 'none'}.",
        )
    with run.step(Lost) as step:
        step.result = Lost(dropped=tuple(sorted(names)))
    audit.append(run.warehouse, "collections-lost", run.run_id, {"collections": sorted(names)}, now=utc_now())


def given_up(run: Run) -> list[str]:
    """Collections of which this run was told that they are gone."""
    lost = run.result(Lost)
    return [] if lost is None else list(lost.dropped)


def about_to_fill(run: Run, collection: str) -> None:
    """Put on record that rows come into a collection next, whatever was said of it before: that it was given up, say.

    An import tells it itself (`RunImportRecorder`).
    """
    run.record(Filling(collection=collection))


def about_to_drop(run: Run, index: VectorIndex, names: Sequence[str]) -> None:
    """Put on record what is dropped next, and from which index: killed in between, nobody could tell that it is gone.

    By every id that its collections have for it: some may go, and those that are made later have one of them.
    """
    if names:
        ids = set(own_collections(run.warehouse, run.settings, index).values())
        run.record(Dropping(dropped=tuple(sorted(names)), index=tuple(sorted(ids))))


def drop(run: Run, index: VectorIndex, collection: str) -> None:
    """Drop a collection, with what is about to be done, and that it is done, on record."""
    about_to_drop(run, index, [collection])
    index.drop(collection)
    run.record(Dropped(dropped=(collection,)))


def _filled(warehouse: Warehouse) -> DataFrame:
    """Collections (name) that rows came into last, and first at ``first_at``; times by the lease's token, in µs.

    ``on_record``: no drop of them can be that nothing is known of; ``perhaps_at``: they were about to be dropped since,
    from the index with these ids (``perhaps_in``; null: not recorded by an earlier release).
    """
    steps = warehouse.read(RUN_STEPS).where("state = 'done'")
    token = F.coalesce("fencing_token", F.lit(0)).alias("token")
    order = F.struct(token, F.unix_micros("ended_at").alias("ended_at")).alias("at")
    on_record, switched = FileImported.of_step() | Filling.of_step(), Promoted.of_step()
    brought = Imported.of_step() | on_record
    # All that bring rows in name it so.
    name = F.when(switched, Promoted.column("current")).otherwise(Imported.column("collection"))
    filled = steps.where(brought | switched).select(
        name.alias("name"), F.lit(True).alias("there"), on_record.alias("on_record"), order
    )
    listed = F.explode(Dropped.column("dropped")).alias("name")
    gone = steps.where(Lost.of_step() | Dropped.of_step() | Promoted.of_step()).select(listed, order)
    perhaps = steps.where(Dropping.of_step()).select(listed, Dropping.column("index").alias("ids"), order)
    perhaps = perhaps.groupBy("name").agg(F.max("at").alias("perhaps_at"), F.max_by("ids", "at").alias("perhaps_in"))
    facts = ErasedIndex.column("collections")
    erased = steps.where(ErasedIndex.of_step()).select(F.explode(facts).alias("name", "facts"), order)
    gone = gone.unionByName(erased.where("facts['dropped'] = 'true'").select("name", "at"))
    gone = gone.select("name", F.lit(False).alias("there"), F.lit(False).alias("on_record"), "at")
    each = filled.unionByName(gone).where("name IS NOT NULL").groupBy("name")
    last = each.agg(
        F.max_by("there", "at").alias("there"),
        F.max("on_record").alias("on_record"),
        F.max("at").alias("at"),
        F.min(F.when(F.col("there"), F.col("at"))).alias("first_at"),
    )
    last = last.where("there").join(perhaps, "name", "left")
    later = F.col("perhaps_at") > F.col("at")
    since = [F.when(later, F.col(name)).alias(name) for name in ("perhaps_at", "perhaps_in")]
    return last.select("name", "on_record", "first_at", *since)


def _said(names: Sequence[str]) -> str:
    shown = the_first(names, _NAMED)
    return f"Collection {shown} is" if len(names) == 1 else f"Collections {shown} are"
