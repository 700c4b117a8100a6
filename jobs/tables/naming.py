"""How names in a basis file become ids of images: as those of files, or as the ids that a table brings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from jobs.errors import SettingsError
from jobs.schemas import IMAGES, RUNS
from jobs.tables.source_keys import hashed_id, is_hash, key_of_name
from jobs.tables.store import Warehouse, looked_up, materialise

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


@dataclass(frozen=True)
class Naming:
    """How what a batch calls an image becomes its id.

    ``prefix``: names are ids of a table, and this stands before them here; None: they are hashed, as those of files,
    shards and tables without ids are.
    """

    batch_id: str
    prefix: str | None = None

    def image_id(self, name: Column) -> Column:
        """The id of an image of this name."""
        return hashed_id(F.lit(self.batch_id), name) if self.prefix is None else F.concat(F.lit(self.prefix), name)

    @property
    def record(self) -> dict[str, str | None]:
        """What goes on record of it with a run that brings such images."""
        return {"batch": self.batch_id, "prefix": self.prefix}

    @property
    def words(self) -> str:
        """What names are taken for.

        >>> Naming("b1").words, Naming("b1", "").words, Naming("b1", "crm/").words
        ("names of files, or keys of shards", "a table's ids", "a table's ids, with 'crm/' before them here")
        """
        if self.prefix is None:
            return "names of files, or keys of shards"
        return "a table's ids" + (f", with {self.prefix!r} before them here" if self.prefix else "")


@dataclass(frozen=True)
class Seen:
    """What the images of a batch show of how they came in, beside what is on record of it.

    ``own``: there are ids of a table's own that no way on record makes; ``hashed``: ids that are hashes of names.
    """

    own: bool = False
    hashed: bool = False


def said_naming(batch_id: str, ids_of: str | None, id_prefix: str, *, source: bool, basis: bool) -> Naming | None:
    """How names in ``basis`` become ids, as options without a source say; None: they do not.

    Raises:
        SettingsError: there is nothing that they could be about, or they contradict each other.
    """
    if source:
        if ids_of:
            raise SettingsError("--ids-of: the --source tells that by itself.", hint="leave it out.")
        return None
    if not (ids_of or id_prefix):
        return None
    if not basis:
        raise SettingsError(
            "--ids-of and --id-prefix are about a table that comes in, or about names in a basis file.",
            hint="give --source or --basis as well.",
        )
    if ids_of == "files":
        if id_prefix:
            raise SettingsError("--id-prefix: ids of files have none.", hint="leave it out, or say --ids-of table.")
        return Naming(batch_id)
    return Naming(batch_id, id_prefix)


def namings_on_record(warehouse: Warehouse) -> dict[str, frozenset[str | None]]:
    """By batch, how images came into it as far as it is on record: `Naming.prefix` of each way."""
    wanted = "job = 'ingest' AND (counts LIKE {wanted} OR state = 'failed')"
    return _ways_by_batch(
        warehouse.rows(RUNS, "run_id, state, counts", where=wanted, order_by="recorded_at", wanted="%names%")
    )


def _ways_by_batch(rows: Iterable[Mapping[str, Any]]) -> dict[str, frozenset[str | None]]:
    """The same of ``rows`` of `runs` (run_id, state, counts), the oldest first.

    A run says it as it begins, so that one that was killed has said it. Where it fails before an image came in, it does
    not say it again: then it was nothing.
    """
    certain: list[tuple[str, str | None]] = []
    begun: dict[str, list[tuple[str, str | None]]] = {}
    for row in rows:
        said = json.loads(row["counts"] or "{}").get("names")
        mine = begun.setdefault(row["run_id"], [])
        way = [(said["batch"], said["prefix"])] if said else []
        if row["state"] == "running":
            mine += way
        elif way:
            certain += way
        elif mine:
            mine.pop()
    found: dict[str, set[str | None]] = {}
    for batch_id, prefix in (*certain, *(way for ways in begun.values() for way in ways)):
        found.setdefault(batch_id, set()).add(prefix)
    return {batch_id: frozenset(ways) for batch_id, ways in found.items()}


def naming_of(warehouse: Warehouse, batch_id: str, names: DataFrame) -> Naming:
    """How ``names`` (key) that come without a source become ids: as the images of their batch came in.

    Hashed, if none did.

    Raises:
        SettingsError: they came in several ways, or it is not known any more with which prefix.
    """
    on_record = namings_on_record(warehouse).get(batch_id, frozenset())
    return agreed(batch_id, on_record, _seen(warehouse, batch_id, on_record, names))


def agreed(batch_id: str, on_record: frozenset[str | None], seen: Seen) -> Naming:
    """What record and images agree on; nothing is guessed: see `naming_of`."""
    ways = {*on_record, *({None} if seen.hashed else ())}
    if seen.own:
        raise _ask(
            f"images of batch {batch_id} have ids of a table, and it is not on record with which --id-prefix they came "
            "in, or whether with none"
        )
    if len(ways) > 1:
        told = "; ".join(sorted(Naming(batch_id, way).words for way in ways))
        raise _ask(f"images came into batch {batch_id} in several ways ({told}), and one name could be several images")
    return Naming(batch_id, next(iter(ways), None))


def _ask(why: str) -> SettingsError:
    return SettingsError(
        f"--basis without --source: {why}: nothing was imported.",
        hint="say what its names are: --ids-of table, with --id-prefix where the table came in with one, or --ids-of "
        "files. A file with names of both is given once with each: a name that is none names nothing.",
    )


def _seen(warehouse: Warehouse, batch_id: str, on_record: frozenset[str | None], names: DataFrame) -> Seen:
    """A pass over the images of the batch, without their bytes; and over ``names`` where ids alone do not tell."""
    mine = warehouse.read(IMAGES).where(F.col("source_batch_id") == F.lit(batch_id))
    of_name, by_form = key_of_name().isNotNull(), is_hash(F.col("image_id"))
    known = reduce(or_, (F.col("image_id").startswith(way) for way in on_record if way is not None), F.lit(False))
    marked = mine.select("image_id", of_name.alias("of_name"), by_form.alias("by_form"), known.alias("known"))
    row = marked.agg(
        F.count_if(~F.col("by_form") & ~F.col("known")).alias("own"),
        F.count_if("of_name").alias("hashed"),
        F.count_if(F.col("by_form") & ~F.col("of_name")).alias("unsure"),
    ).first()
    assert row is not None  # noqa: S101 - an aggregate without groups always has its one row
    own, hashed = bool(row["own"]), bool(row["hashed"])
    if row["unsure"]:
        # 32 hex digits, and no address that they are a hash of: what the file names tells, where it names any of them.
        unsure = marked.where(F.col("by_form") & ~F.col("of_name")).select("image_id")
        keys = materialise(names.dropna().distinct())
        count = keys.count()

        def named(as_id: Column) -> bool:
            ids = looked_up(keys.select(as_id.alias("image_id")), count)
            return not unsure.join(ids, "image_id", "left_semi").isEmpty()

        own = own or ("" not in on_record and named(F.col("key")))
        hashed = hashed or named(hashed_id(F.lit(batch_id), F.col("key")))
    return Seen(own, hashed)


__all__ = ["Naming", "Seen", "agreed", "naming_of", "namings_on_record"]
