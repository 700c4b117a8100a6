"""What `ingest` can read: a folder, Parquet, WebDataset shards, a Delta table. Each as a listing and a reader.

A listing is cheap (names, no bytes); bytes are read only for what is new or may have changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from pyspark.sql import functions as F

from jobs.errors import BadInput, SettingsError
from jobs.settings import Settings, refuse_credentials
from jobs.tables.files import hadoop_path
from jobs.tables.foreign import is_table_name, open_table, table_layout
from jobs.tables.source_keys import hashed_id
from jobs.tables.store import looked_up_in_parts
from udfs.kinds import HEAD_BYTES, image_kind
from udfs.reading import UNREAD_PREFIX, ReadFailure, address_within
from udfs.sources import (
    FILE_SCHEMA,
    IMAGE_SUFFIXES,
    LISTING_SCHEMA,
    SHARD_SUFFIXES,
    ReadSpec,
    folders_in,
    has_file,
    list_folders,
    read_files,
    read_shards,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

IMAGES_A_TASK = 512
#: Why a row of a table cannot be an image of ours: its id is missing, too long, or no text.
BAD_ID: Final = "BAD_ID"
_USABLE_ID: Final = r"\A[^\p{Cntrl}]{1,512}\z"


class Source(ABC):
    """One place that images come from."""

    kind: ClassVar[str]
    #: The place of the source itself, as `uri` columns hold it: what lies outside of it is not read.
    root: str | None = None

    def __init__(self, spark: SparkSession, location: str, batch_id: str, settings: Settings) -> None:
        self.spark = spark
        self.location = location
        self.batch_id = batch_id
        self.settings = settings

    @abstractmethod
    def listing(self) -> DataFrame:
        """Columns image_id, source_key (the name a basis file uses), reason, and what `read` needs. No bytes.

        An entry without image_id is none that could be an image: it is counted by its reason.
        """

    @abstractmethod
    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        """Rows of image_id, content, uri, content_sha256, byte_size for the listed rows in ``wanted``."""

    def image_id(self, source_key: Column) -> Column:
        """The id of an image."""
        return hashed_id(F.lit(self.batch_id), source_key)

    @property
    def roots(self) -> tuple[str, ...]:
        """Where images may be read from: the source's own place, and what the settings add."""
        return (*((self.root,) if self.root else ()), *self.settings.sources.roots)

    def _spec(self, *, keep_bytes: bool) -> ReadSpec:
        return ReadSpec(
            roots=self.roots,
            timeout_s=self.settings.executor.read_timeout_s,
            retries=self.settings.executor.read_retries,
            patience_s=self.settings.executor.store_patience_s,
            max_bytes=self.settings.detection.max_bytes,
            keep_bytes=keep_bytes,
        )


class FolderSource(Source):
    """Image files under a folder or an object-store prefix, at any depth."""

    kind = "folder"

    def __init__(self, spark: SparkSession, location: str, batch_id: str, settings: Settings) -> None:
        super().__init__(spark, location, batch_id, settings)
        self.root = file_uri(spark, location)

    def listing(self) -> DataFrame:
        root = (self.root or "").rstrip("/")
        files = list_files(self.spark, root, IMAGE_SUFFIXES)
        return files.select(
            _relative(F.col("uri"), root + "/"),
            "uri",
            "byte_size",
            "reason",
        ).withColumn("image_id", self.image_id(F.col("source_key")))

    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        rows = wanted.select("source_key", "uri", "byte_size", "reason")
        tasks = max(1, -(-wanted.count() // IMAGES_A_TASK), min(self.spark.sparkContext.defaultParallelism, 8))
        read = rows.repartition(tasks).mapInArrow(read_files(self._spec(keep_bytes=keep_bytes)), FILE_SCHEMA)
        return [read.withColumn("image_id", self.image_id(F.col("source_key")))]


class WebDatasetSource(Source):
    """Tar shards; the members' bytes are stored inline, for a member has no address of its own."""

    kind = "webdataset"

    def __init__(self, spark: SparkSession, location: str, batch_id: str, settings: Settings) -> None:
        super().__init__(spark, location, batch_id, settings)
        self.root = file_uri(spark, location)

    def _shards(self) -> DataFrame:
        shards = list_files(self.spark, self.root or "", SHARD_SUFFIXES).select("uri", "reason")
        # One task a shard: a tar is read from front to back.
        return shards.repartition(max(1, shards.count()))

    def listing(self) -> DataFrame:
        rows = self._shards().mapInArrow(read_shards(self._spec(keep_bytes=False)), FILE_SCHEMA)
        entries = rows.select("source_key", "uri", "reason")
        return entries.withColumn("image_id", self.image_id(F.col("source_key")))

    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        rows = self._shards().mapInArrow(read_shards(self._spec(keep_bytes=keep_bytes)), FILE_SCHEMA)
        rows = rows.withColumn("image_id", self.image_id(F.col("source_key")))
        return [rows.join(ids, "image_id", "left_semi") for ids in looked_up_in_parts(wanted, "image_id")]


class TableSource(Source):
    """A Parquet folder or a Delta table: `image_id` with `content` or `uri`, or as others write them (`table_layout`).

    ``id_prefix``: what stands before each id of the table in ours, so that two tables may count alike.
    """

    kind = "table"

    def __init__(
        self, spark: SparkSession, location: str, batch_id: str, settings: Settings, *, form: str, id_prefix: str = ""
    ) -> None:
        super().__init__(spark, location, batch_id, settings)
        self.frame, by_name = open_table(spark, form, location)
        self.place = location if by_name else file_uri(spark, location)
        self.root = None if by_name else _around(self.place)
        self.layout = table_layout(self.frame.schema, location)
        self.id_prefix = id_prefix
        if id_prefix and not self.layout.own_ids:
            raise _no_prefix(f"{location} has no image_id, so that ids are made of names, and of the batch's id")

    def _rows(self) -> DataFrame:
        content, uri = self.layout.content, self.layout.uri
        key = F.expr(self.layout.key)
        return self.frame.select(
            self.image_id(key).alias("image_id"),
            key.alias("source_key"),
            (F.expr(content) if content else F.lit(None).cast("binary")).alias("content"),
            (F.expr(uri) if uri else F.lit(None).cast("string")).alias("uri"),
        )

    def listing(self) -> DataFrame:
        usable = F.coalesce(F.col("image_id").rlike(_USABLE_ID), F.lit(False))
        return self._rows().select(
            F.when(usable, F.col("image_id")).alias("image_id"),
            "source_key",
            F.when(~usable, F.lit(BAD_ID)).alias("reason"),
        )

    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        rows = self._rows().drop("source_key")
        by_address = F.col("content").isNull() & F.col("uri").isNotNull()
        frames = []
        for ids in looked_up_in_parts(wanted, "image_id"):
            chosen = rows.join(ids, "image_id", "left_semi")
            if self.layout.content:
                frames.append(self._hash(chosen.where(~by_address), keep_bytes=keep_bytes))
            if self.layout.uri:
                addresses = chosen.where(by_address) if self.layout.content else chosen
                frames.append(self._follow(addresses, keep_bytes=keep_bytes))
        return frames

    def _hash(self, rows: DataFrame, *, keep_bytes: bool) -> DataFrame:
        """Bytes that the table holds. Python sees the first of them only, and addresses."""
        roots = self.roots
        kind = F.udf(lambda head, size: None if head is None else image_kind(head, size))
        kept = F.udf(lambda uri: uri if address_within(uri, roots) else None)
        reason = F.when(F.col("content").isNull(), F.lit("NO_SOURCE"))
        reason = reason.when(F.length("content") == 0, F.lit("EMPTY"))
        reason = reason.when(
            kind(F.substring("content", 1, HEAD_BYTES), F.length("content")).isNull(), F.lit("NOT_AN_IMAGE")
        )
        digest = F.sha2(F.coalesce("content", F.encode("image_id", "UTF-8")), 256)
        known = rows.withColumn("reason", reason)
        return known.select(
            "image_id",
            F.when(F.col("uri").isNotNull(), kept(F.coalesce("uri", F.lit("")))).alias("uri"),
            F.when(F.col("reason").isNull() & F.lit(keep_bytes), F.col("content")).alias("content"),
            F.when(F.col("reason").isNull(), digest)
            .otherwise(F.concat(F.lit(UNREAD_PREFIX), "reason", F.lit(":"), digest))
            .alias("content_sha256"),
            F.coalesce(F.length("content"), F.lit(0)).alias("byte_size"),
        )

    def _follow(self, rows: DataFrame, *, keep_bytes: bool) -> DataFrame:
        named = rows.select(
            F.col("image_id").alias("source_key"),
            "uri",
            F.lit(0).cast("bigint").alias("byte_size"),
            F.lit(None).cast("string").alias("reason"),
        )
        read = named.mapInArrow(read_files(self._spec(keep_bytes=keep_bytes)), FILE_SCHEMA)
        return read.withColumnRenamed("source_key", "image_id")

    def image_id(self, source_key: Column) -> Column:
        """A table brings its own ids, behind a prefix; where it has names only, they are made as a file's."""
        return F.concat(F.lit(self.id_prefix), source_key) if self.layout.own_ids else super().image_id(source_key)


def _around(place: str) -> str:
    """Where the pictures of a table lie, unless the settings say more: its bucket, or the folder that it is in."""
    scheme, separator, rest = place.partition("://")
    if separator:
        return f"{scheme}://{rest.split('/', 1)[0]}"
    above = place.rstrip("/").rpartition("/")[0]
    return above or place  # of a table at the top of the tree, not the whole tree


def _no_prefix(why: str) -> SettingsError:
    return SettingsError(f"--id-prefix: {why}.", hint="leave it out: such ids never meet another source's.")


def open_source(spark: SparkSession, text: str, batch_id: str, settings: Settings, *, id_prefix: str = "") -> Source:
    """Open `--source`: `folder:`, `parquet:`, `webdataset:`, `delta:` and a place, or a place that tells by itself.

    Raises:
        BadInput: the place does not exist or does not look like anything known.
        SettingsError: an ``id_prefix`` for a source that brings no ids of its own.
    """
    prefix, _, rest = text.partition(":")
    known = ("folder", "parquet", "webdataset", "delta")
    refuse_credentials(text, "--source")
    kind, location = (prefix, rest) if prefix in known else (_guess(spark, text), text)
    if kind in {"parquet", "delta"}:
        return TableSource(spark, location, batch_id, settings, form=kind, id_prefix=id_prefix)
    if id_prefix:
        raise _no_prefix("ids of files are made of their names, and of the batch's id")
    system, path = hadoop_path(spark, location)
    if not system.exists(path):
        raise _nothing_at(text)
    if kind == "webdataset":
        return WebDatasetSource(spark, location, batch_id, settings)
    return FolderSource(spark, location, batch_id, settings)


def _nothing_at(text: str) -> BadInput:
    return BadInput(f"--source {text}: there is nothing at this place.", hint="check the path or the table's name.")


def _guess(spark: SparkSession, text: str) -> str:
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # noqa: S101
    system, path = hadoop_path(spark, text)
    if not system.exists(path):
        if "/" not in text and is_table_name(spark, text):
            return "delta"
        raise _nothing_at(text)
    if text.endswith(SHARD_SUFFIXES):
        return "webdataset"
    if text.endswith(".parquet"):
        return "parquet"
    if system.exists(jvm.org.apache.hadoop.fs.Path(path, "_delta_log")):
        return "delta"
    for kind, suffixes in (("webdataset", (".tar", ".tgz")), ("parquet", (".parquet",))):
        if _holds(spark, text, suffixes):
            return kind
    return "folder"


def _holds(spark: SparkSession, location: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file of such a name lies in a folder itself."""
    uri = file_uri(spark, location)
    if uri.startswith(("/", "s3")):
        # Not by Hadoop, which cannot list a folder with a colon in a name. What is wrong with one, its listing says.
        with suppress(OSError, ReadFailure):
            return has_file(uri, suffixes)
        return False
    system, path = hadoop_path(spark, location)
    return any(str(status.getPath().getName()).endswith(suffixes) for status in system.listStatus(path))


def file_uri(spark: SparkSession, location: str) -> str:
    """The full address of a place, as `uri` columns hold it: a plain path when local, else scheme://…"""
    system, path = hadoop_path(spark, location)
    uri = str(path.makeQualified(system.getUri(), system.getWorkingDirectory()).toString())
    return "/" + uri.removeprefix("file:").lstrip("/") if uri.startswith("file:") else uri


def list_files(spark: SparkSession, root: str, suffixes: tuple[str, ...]) -> DataFrame:
    """Files under ``root`` (or ``root`` itself, if it is one) as `LISTING_SCHEMA`: a task a first-level folder."""
    system, path = hadoop_path(spark, root or "/")
    status = system.getFileStatus(path)
    if status.isFile():
        return spark.createDataFrame([(root, int(status.getLen()), None)], LISTING_SCHEMA)
    try:
        folders = [(root or "/", False), *((folder, True) for folder in folders_in(root or "/"))]
    except (OSError, ReadFailure) as error:
        raise BadInput(
            f"--source {root}: it cannot be listed ({type(error).__name__}).",
            hint="check that this user may read it; it must be a local path or S3.",
        ) from None
    rows = spark.createDataFrame(folders, "uri string, recursive boolean").repartition(min(len(folders), 1000))
    return rows.mapInArrow(list_folders(suffixes), LISTING_SCHEMA)


def _relative(uri: Column, root: str) -> Column:
    return F.when(uri.startswith(root), F.substr(uri, F.lit(len(root) + 1))).otherwise(uri).alias("source_key")


__all__ = ["FolderSource", "Source", "TableSource", "WebDatasetSource", "file_uri", "open_source"]
