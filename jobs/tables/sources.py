"""What `ingest` can read: a folder, Parquet, WebDataset shards, a Delta table. Each as a listing and a reader.

A listing is cheap (names, no bytes); bytes are read only for what is new or may have changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pyspark.sql import functions as F

from jobs.errors import BadInput
from jobs.settings import Settings
from jobs.tables.store import looked_up_in_parts
from udfs.sources import (
    FILE_SCHEMA,
    IMAGE_SUFFIXES,
    LISTING_SCHEMA,
    SHARD_SUFFIXES,
    UNREAD_PREFIX,
    ReadSpec,
    list_folders,
    read_files,
    read_shards,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

IMAGES_A_TASK = 512


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
        """Columns image_id, source_key (the name a basis file uses), and what `read` needs. No bytes."""

    @abstractmethod
    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        """Rows of image_id, content, uri, content_sha256, byte_size for the listed rows in ``wanted``."""

    def image_id(self, source_key: Column) -> Column:
        """The id of an image: a hash, so that a file name that names a person stays out of every other table."""
        return F.substring(F.sha2(F.concat_ws("\x00", F.lit(self.batch_id), source_key), 256), 1, 32)

    def _spec(self, *, keep_bytes: bool) -> ReadSpec:
        return ReadSpec(
            timeout_s=self.settings.executor.read_timeout_s,
            retries=self.settings.executor.read_retries,
            max_bytes=self.settings.detection.max_bytes,
            keep_bytes=keep_bytes,
        )


class FolderSource(Source):
    """Image files under a folder or an object-store prefix, at any depth."""

    kind = "folder"

    def listing(self) -> DataFrame:
        root = file_uri(self.spark, self.location).rstrip("/")
        files = list_files(self.spark, root, IMAGE_SUFFIXES)
        return files.select(
            _relative(F.col("uri"), root + "/"),
            "uri",
            "byte_size",
        ).withColumn("image_id", self.image_id(F.col("source_key")))

    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        rows = wanted.select("source_key", "uri", "byte_size")
        tasks = max(1, -(-wanted.count() // IMAGES_A_TASK), min(self.spark.sparkContext.defaultParallelism, 8))
        read = rows.repartition(tasks).mapInArrow(read_files(self._spec(keep_bytes=keep_bytes)), FILE_SCHEMA)
        return [read.withColumn("image_id", self.image_id(F.col("source_key")))]


class WebDatasetSource(Source):
    """Tar shards; the members' bytes are stored inline, for a member has no address of its own."""

    kind = "webdataset"

    def _shards(self) -> DataFrame:
        shards = list_files(self.spark, file_uri(self.spark, self.location), SHARD_SUFFIXES).select("uri")
        # One task a shard: a tar is read from front to back.
        return shards.repartition(max(1, shards.count()))

    def listing(self) -> DataFrame:
        rows = self._shards().mapInArrow(read_shards(self._spec(keep_bytes=False)), FILE_SCHEMA)
        return rows.select("source_key").withColumn("image_id", self.image_id(F.col("source_key")))

    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        rows = self._shards().mapInArrow(read_shards(self._spec(keep_bytes=keep_bytes)), FILE_SCHEMA)
        rows = rows.withColumn("image_id", self.image_id(F.col("source_key")))
        return [rows.join(ids, "image_id", "left_semi") for ids in looked_up_in_parts(wanted, "image_id")]


class TableSource(Source):
    """A Parquet folder or a Delta table with `image_id` and `content` or `uri` (and, if there, `content_sha256`)."""

    kind = "table"

    def __init__(self, spark: SparkSession, location: str, batch_id: str, settings: Settings, *, form: str) -> None:
        super().__init__(spark, location, batch_id, settings)
        reader = spark.read.format(form)
        by_name = form == "delta" and "/" not in location
        self.frame: DataFrame = reader.table(location) if by_name else reader.load(location)
        columns = set(self.frame.columns)
        if "image_id" not in columns or not columns & {"content", "uri"}:
            raise BadInput(
                f"{location}: a table source needs the columns image_id and content or uri; found {sorted(columns)}.",
                hint="rename them in a view, and ingest the view.",
            )

    def listing(self) -> DataFrame:
        key = F.col("image_id").cast("string")
        return self.frame.select(key.alias("image_id"), key.alias("source_key"))

    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        has_bytes = "content" in self.frame.columns
        rows = self.frame.select(
            F.col("image_id").cast("string").alias("image_id"),
            F.col("content") if has_bytes else F.lit(None).cast("binary").alias("content"),
            F.col("uri") if "uri" in self.frame.columns else F.lit(None).cast("string").alias("uri"),
        )
        chosen = [rows.join(ids, "image_id", "left_semi") for ids in looked_up_in_parts(wanted, "image_id")]
        return [self._hash(part, has_bytes=has_bytes, keep_bytes=keep_bytes) for part in chosen]

    def _hash(self, rows: DataFrame, *, has_bytes: bool, keep_bytes: bool) -> DataFrame:
        if has_bytes:
            content = F.col("content") if keep_bytes else F.lit(None).cast("binary")
            unread = F.concat_ws("\x00", F.coalesce("uri", F.lit("")), "image_id")
            return rows.select(
                "image_id",
                "uri",
                content.alias("content"),
                F.coalesce(F.sha2("content", 256), F.concat(F.lit(UNREAD_PREFIX), F.sha2(unread, 256))).alias(
                    "content_sha256"
                ),
                F.coalesce(F.length("content"), F.lit(0)).alias("byte_size"),
            )
        named = rows.select(F.col("image_id").alias("source_key"), "uri", F.lit(0).cast("bigint").alias("byte_size"))
        read = named.mapInArrow(read_files(self._spec(keep_bytes=keep_bytes)), FILE_SCHEMA)
        return read.withColumnRenamed("source_key", "image_id")

    def image_id(self, source_key: Column) -> Column:
        """A table brings its own ids."""
        return source_key


def open_source(spark: SparkSession, text: str, batch_id: str, settings: Settings) -> Source:
    """Open `--source`: `folder:`, `parquet:`, `webdataset:`, `delta:` and a place, or a place that tells by itself.

    Raises:
        BadInput: the place does not exist or does not look like anything known.
    """
    prefix, _, rest = text.partition(":")
    known = ("folder", "parquet", "webdataset", "delta")
    kind, location = (prefix, rest) if prefix in known else (_guess(spark, text), text)
    if kind in {"parquet", "delta"}:
        return TableSource(spark, location, batch_id, settings, form=kind)
    if kind == "webdataset":
        return WebDatasetSource(spark, location, batch_id, settings)
    return FolderSource(spark, location, batch_id, settings)


def _guess(spark: SparkSession, text: str) -> str:
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # noqa: S101
    system, path = hadoop_path(spark, text)
    if not system.exists(path):
        if "/" not in text and spark.catalog.tableExists(text):
            return "delta"
        raise BadInput(f"--source {text}: there is nothing at this place.", hint="check the path or the table's name.")
    if text.endswith(SHARD_SUFFIXES):
        return "webdataset"
    if text.endswith(".parquet"):
        return "parquet"
    if system.exists(jvm.org.apache.hadoop.fs.Path(path, "_delta_log")):
        return "delta"
    for pattern, kind in (("*.tar", "webdataset"), ("*.tgz", "webdataset"), ("*.parquet", "parquet")):
        if system.globStatus(jvm.org.apache.hadoop.fs.Path(path, pattern)):
            return kind
    return "folder"


def file_uri(spark: SparkSession, location: str) -> str:
    """The full address of a place, as `uri` columns hold it: a plain path when local, else scheme://…"""
    system, path = hadoop_path(spark, location)
    uri = str(path.makeQualified(system.getUri(), system.getWorkingDirectory()).toString())
    return "/" + uri.removeprefix("file:").lstrip("/") if uri.startswith("file:") else uri


def list_files(spark: SparkSession, root: str, suffixes: tuple[str, ...]) -> DataFrame:
    """Files under ``root`` (or ``root`` itself, if it is one) as (uri, byte_size): a task a first-level folder."""
    system, path = hadoop_path(spark, root)
    status = system.getFileStatus(path)
    if status.isFile():
        return spark.createDataFrame([(root, int(status.getLen()))], LISTING_SCHEMA)
    folders = [(root, False)]
    for entry in system.listStatus(path):
        if entry.isDirectory() and not entry.getPath().getName().startswith("."):
            folders.append((f"{root}/{entry.getPath().getName()}", True))
    rows = spark.createDataFrame(folders, "uri string, recursive boolean").repartition(min(len(folders), 1000))
    return rows.mapInArrow(list_folders(suffixes), LISTING_SCHEMA)


def hadoop_path(spark: SparkSession, location: str) -> tuple[Any, Any]:
    """Hadoop's FileSystem and Path of a place: the one view of local, s3a and HDFS paths."""
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # noqa: S101
    path = jvm.org.apache.hadoop.fs.Path(location)
    return path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()), path


def _relative(uri: Column, root: str) -> Column:
    return F.when(uri.startswith(root), F.substr(uri, F.lit(len(root) + 1))).otherwise(uri).alias("source_key")


__all__ = ["FolderSource", "Source", "TableSource", "WebDatasetSource", "file_uri", "open_source"]
