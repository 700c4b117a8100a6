"""The rows of what goes: deleted from every table, and looked for again (Guarantee 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.kinds import LINK, ORPHAN, RECORD, count_by_kind
from jobs.errors import NotProvenError
from jobs.governance.tombstones import FACE, IMAGE
from jobs.schemas import (
    BASIS_LINKS,
    BASIS_QUARANTINE,
    EMBEDDINGS,
    IMAGE_STATUS,
    IMAGES,
    PROCESSING_BASIS,
    REMOVED_FACES,
    TableSpec,
)
from jobs.tables.links import without_link
from jobs.tables.store import Warehouse, looked_up, materialise


@dataclass(frozen=True)
class Store:
    """One table through an erasure: ``before`` = ``after`` + ``erased``, and ``left`` of what was to go: 0."""

    before: int
    erased: int
    after: int
    left: int


# Where the items of a kind stand: table, item kind, column, the column's type. Those of LINK: `loose_links`.
_STORES: Final[Sequence[tuple[TableSpec, str, str, str]]] = (
    (EMBEDDINGS, FACE, "face_id", "bigint"),
    (REMOVED_FACES, FACE, "face_id", "bigint"),
    (IMAGE_STATUS, IMAGE, "image_id", "string"),
    (IMAGE_STATUS, ORPHAN, "image_id", "string"),
    (IMAGES, IMAGE, "image_id", "string"),
    (BASIS_LINKS, IMAGE, "image_id", "string"),
    (BASIS_LINKS, RECORD, "record_id", "string"),
    (PROCESSING_BASIS, RECORD, "record_id", "string"),
    (BASIS_QUARANTINE, RECORD, "record_id", "string"),
)
# What leads to pictures goes behind them, for whoever is cut off in between has to find them, and what a hold keeps.
_PICTURES: Final = (EMBEDDINGS, REMOVED_FACES, IMAGE_STATUS, IMAGES)
_LEADING: Final = (BASIS_LINKS, PROCESSING_BASIS, BASIS_QUARANTINE)
TABLES: Final = (*_PICTURES, *_LEADING)


def destroy_rows(warehouse: Warehouse, items: DataFrame) -> dict[str, dict[str, int]]:
    """Delete the rows of ``items`` from every table, and look for them again; by table, in rows.

    Raises:
        NotProvenError: something is left, or more or less went than was to go.
    """
    kinds = count_by_kind(items)

    def destroy(spec: TableSpec) -> Store:
        before, erased = warehouse.read(spec).count(), 0
        ways = _ways(warehouse, spec, items, kinds)
        if not ways:
            return Store(before, 0, before, 0)
        for keys in ways:
            erased += warehouse.delete_matching(spec, keys, keys.columns)
        return Store(before, erased, warehouse.read(spec).count(), _matching(warehouse.read(spec), ways))

    done = [store for specs in (_PICTURES, _LEADING) for store in warehouse.side_by_side(destroy, specs)]
    stores = dict(zip([spec.name for spec in TABLES], done, strict=True))
    for name, store in stores.items():
        if store.left or store.before != store.after + store.erased:
            raise NotProvenError(
                f"Erasure: {name} had {store.before} rows, {store.erased} were erased, {store.after} are there and "
                f"{store.left} of those that were to go.",
                hint="run the same command again; if it stays so, another program writes this table.",
            )
    return {name: asdict(store) for name, store in stores.items()}


def stand_anywhere(warehouse: Warehouse, items: DataFrame) -> bool:
    """Whether a row of ``items`` is in any table: `destroy_rows` would delete it."""
    items = materialise(items)
    kinds = count_by_kind(items)

    def stands(spec: TableSpec) -> bool:
        ways = _ways(warehouse, spec, items, kinds)
        return bool(ways) and _matching(warehouse.read(spec), ways) > 0

    return any(warehouse.side_by_side(stands, TABLES))


def _ways(warehouse: Warehouse, spec: TableSpec, items: DataFrame, kinds: Mapping[str, int]) -> list[DataFrame]:
    """Keys of the rows of one table that go with ``items``, by each set of columns; ``kinds``: how many of each."""
    ways = [keys_of(items, kind, *column) for table, kind, *column in _STORES if table is spec and kind in kinds]
    if spec is BASIS_LINKS and LINK in kinds:
        # Asked when they go: an image may have got its former bytes again since they were found.
        hashes = keys_of(items, LINK, "content_sha256", "string")
        loose = loose_links(warehouse, hashes, kinds[LINK])
        ways.append(materialise(loose.select("image_id", "content_sha256").distinct()))
    return ways


def keys_of(items: DataFrame, kind: str, column: str, type_: str) -> DataFrame:
    """The distinct values of the ``items`` of one ``kind``, as a ``column`` of this type."""
    return items.where(F.col("kind") == kind).select(F.col("value").cast(type_).alias(column)).distinct()


def loose_links(warehouse: Warehouse, erased: DataFrame, count: int) -> DataFrame:
    """Links (image_id, record_id, content_sha256, …) to ``erased`` bytes, but of images that hold these now.

    ``erased``: content_sha256, perhaps with more; about ``count``. Neither all links nor all images are shuffled.
    """
    pair = ["image_id", "content_sha256"]
    if not count:
        return erased.withColumns(dict.fromkeys(("image_id", "record_id"), F.lit(None).cast("string"))).limit(0)
    links, images = warehouse.read(BASIS_LINKS).select(*pair, "record_id"), warehouse.read(IMAGES).select(*pair)
    holding = images.join(looked_up(erased.select("content_sha256"), count), "content_sha256", "left_semi")
    return links.join(looked_up(erased, count), "content_sha256").join(holding, pair, "left_anti")


def _matching(rows: DataFrame, ways: Sequence[DataFrame]) -> int:
    """How many ``rows`` are there that have the keys of one of these ``ways``."""
    flags = []
    rows = rows.select(*{column for keys in ways for column in keys.columns})
    for number, keys in enumerate(ways):
        rows = rows.join(keys.withColumn(f"_hit{number}", F.lit(True)), keys.columns, "left")
        flags.append(f"_hit{number}")
    return rows.where(F.coalesce(*flags, F.lit(False))).count()


def forget_removed(warehouse: Warehouse, until: datetime) -> None:
    """Delete what was written down of faces removed by ``until``.

    For a pass that has begun, and so goes on to purge the files of them: no collection holds their keys any more, and
    until it began their rows told it, and `retention.due`, of what there is to purge. Not of a face under a record that
    no link of its picture names.
    """
    rows = warehouse.read(REMOVED_FACES).where(F.col("recorded_at") <= F.lit(until).cast("timestamp"))
    if rows.isEmpty():
        return
    under = rows.select("face_id", "image_id", F.explode_outer("basis_record_ids").alias("record_id"))
    under = materialise(under.distinct())
    ids = looked_up(under.select("image_id").distinct())
    there = warehouse.read(IMAGES).select("image_id").join(ids, "image_id", "left_semi")
    # Where a link is lost nothing else tells whose the picture may be.
    lonely = without_link(warehouse, under.dropna(), ids).join(there, "image_id", "left_semi")
    gone = under.select("face_id").join(lonely, "face_id", "left_anti")
    warehouse.delete_matching(REMOVED_FACES, materialise(gone), ["face_id"])


def is_blind(tables: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether there were images, and no records or no links, when a pass destroyed its rows: `destroy_rows` told.

    As where a folder was removed: nothing led to anybody's pictures. Asked of before, for those of the last person go.
    """
    images, records, links = (tables[spec.name]["before"] for spec in (IMAGES, PROCESSING_BASIS, BASIS_LINKS))
    return bool(images) and not (records and links)
