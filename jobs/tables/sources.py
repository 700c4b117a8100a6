"""What `ingest` can read: a folder, Parquet, WebDataset shards, a Delta table. Each as a listing and a reader.

A listing is cheap (names, no bytes); bytes are read only for what is new or may have changed.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final

from pyspark.sql import functions as F

from jobs.errors import BadInput, SettingsError
from jobs.formatting import the_first
from jobs.settings import Settings, refuse_credentials
from jobs.tables.files import exists, files_below, hadoop_path, is_mark, is_no_table, overlooked
from jobs.tables.foreign import is_table_name, open_table, table_layout
from jobs.tables.naming import Naming
from jobs.tables.store import looked_up_in_parts, materialise
from udfs.kinds import HEAD_BYTES, image_kind
from udfs.listing import FOLDER_SCHEMA, LISTING_SCHEMA, ListSpec, check_place, has_file, list_folders, occupied
from udfs.names import of_command_line, raw, skipper, text
from udfs.reading import UNREAD_PREFIX, ReadFailure, address_within, usable_address
from udfs.sources import (
    FILE_SCHEMA,
    IMAGE_SUFFIXES,
    SHARD_SCHEMA,
    SHARD_SUFFIXES,
    ReadSpec,
    read_files,
    read_shards,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

IMAGES_A_TASK = 512
_NAMED: Final = 5
#: Why a row of a table cannot be an image of ours: its id is missing, too long, or no text.
BAD_ID: Final = "BAD_ID"
# What stands below a table's folder that is none of its rows: files that were not committed, and logs.
_NOT_OF_THE_TABLE: Final = ("_temporary/", "_delta_log/", "_spark_metadata/")
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

        ``suffix`` of its name; ``place``: where it stands, if that is more than its key. A row without image_id is
        none that could be an image: it stands for ``entries`` that are counted by their reason and suffix (else 1).
        """

    @abstractmethod
    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        """Rows of image_id, content, uri, content_sha256, byte_size for the listed rows in ``wanted``."""

    def still_there(self, images: DataFrame) -> DataFrame:
        """Of ``images`` (image_id, uri) those (image_id) at whose place the source has something, an image or not."""
        root, uri = (self.root or "").rstrip("/"), F.col("uri")
        mine = images.where((uri == root) | uri.startswith(root + "/") | uri.startswith(root + "#"))
        return mine.select("image_id", "uri").mapInArrow(
            occupied(root, self._spec(keep_bytes=False)), "image_id string"
        )

    @property
    def naming(self) -> Naming:
        """How its names become ids of images."""
        return Naming(self.batch_id)

    def image_id(self, source_key: Column) -> Column:
        """The id of an image."""
        return self.naming.image_id(source_key)

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
            skip=self.settings.sources.skip,
        )


class FolderSource(Source):
    """Image files under a folder or an object-store prefix, at any depth."""

    kind = "folder"

    def __init__(self, spark: SparkSession, location: str, batch_id: str, settings: Settings) -> None:
        super().__init__(spark, location, batch_id, settings)
        self.root = file_uri(spark, location)

    def listing(self) -> DataFrame:
        root = (self.root or "").rstrip("/")
        files = list_files(self.spark, root, ListSpec(IMAGE_SUFFIXES, look=True, read=self._spec(keep_bytes=False)))
        return files.select(
            _relative(F.col("uri"), root + "/").alias("source_key"),
            "uri",
            "byte_size",
            "reason",
            "suffix",
            "entries",
            F.lit(None).cast("string").alias("place"),
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

    @cached_property
    def _files(self) -> DataFrame:
        spec = ListSpec(SHARD_SUFFIXES, look=False, read=self._spec(keep_bytes=False))
        return materialise(list_files(self.spark, (self.root or "").rstrip("/"), spec))

    def _members(self, *, keep_bytes: bool) -> DataFrame:
        shards = self._files.where("uri IS NOT NULL").select("uri", "reason")
        # One task a shard: a tar is read from front to back.
        tasks = shards.repartition(max(1, shards.count()))
        return tasks.mapInArrow(read_shards(self._spec(keep_bytes=keep_bytes)), SHARD_SCHEMA)

    def listing(self) -> DataFrame:
        root = (self.root or "").rstrip("/") + "/"
        columns = ("source_key", "uri", "reason", "suffix", "entries")
        members = self._members(keep_bytes=False).select(*columns, _relative(F.col("place"), root).alias("place"))
        # What lies beside the shards is counted, too.
        others = self._files.where("uri IS NULL")
        others = others.withColumns({name: F.lit(None).cast("string") for name in ("source_key", "place")})
        rows = members.unionByName(others.select(*columns, "place"))
        return rows.withColumn("image_id", self.image_id(F.col("source_key")))

    def read(self, wanted: DataFrame, *, keep_bytes: bool) -> Sequence[DataFrame]:
        rows = self._members(keep_bytes=keep_bytes).withColumn("image_id", self.image_id(F.col("source_key")))
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
        address = F.expr(uri) if uri else F.lit(None).cast("string")
        return self.frame.select(
            self.image_id(key).alias("image_id"),
            key.alias("source_key"),
            (F.expr(content) if content else F.lit(None).cast("binary")).alias("content"),
            # Spark takes bytes that are no UTF-8 for text, and Python ends: as a control character it is BAD_ADDRESS.
            F.when(address.isNull() | F.is_valid_utf8(address), address).otherwise(F.lit("\0")).alias("uri"),
        )

    def listing(self) -> DataFrame:
        text = F.is_valid_utf8("source_key")
        usable = F.coalesce(F.col("image_id").rlike(_USABLE_ID) & text, F.lit(False))
        return self._rows().select(
            F.when(usable, F.col("image_id")).alias("image_id"),
            F.when(text, F.col("source_key")).alias("source_key"),
            F.when(~usable, F.lit(BAD_ID)).alias("reason"),
            F.lit(None).cast("string").alias("suffix"),
            F.lit(1).cast("bigint").alias("entries"),
            F.lit(None).cast("string").alias("place"),
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

    def still_there(self, images: DataFrame) -> DataFrame:
        """None: each row of a table is listed."""
        return images.select("image_id").where(F.lit(False))

    @property
    def naming(self) -> Naming:
        """A table brings its own ids, behind a prefix; where it has names only, they are made as a file's."""
        return Naming(self.batch_id, self.id_prefix if self.layout.own_ids else None)


def _around(place: str) -> str:
    """Where the pictures of a table lie, unless the settings say more: its bucket, or the folder that it is in."""
    scheme, separator, rest = place.partition("://")
    if separator:
        return f"{scheme}://{rest.split('/', 1)[0]}"
    above = place.rstrip("/").rpartition("/")[0]
    return above or place  # of a table at the top of the tree, not the whole tree


def _no_prefix(why: str) -> SettingsError:
    return SettingsError(f"--id-prefix: {why}.", hint="leave it out: such ids never meet another source's.")


def open_source(spark: SparkSession, given: str, batch_id: str, settings: Settings, *, id_prefix: str = "") -> Source:
    """Open `--source`: `folder:`, `parquet:`, `webdataset:`, `delta:` and a place, or a place that tells by itself.

    Raises:
        BadInput: the place does not exist or does not look like anything known.
        SettingsError: an ``id_prefix`` for a source that brings no ids of its own.
    """
    given = of_command_line(given)
    prefix, colon, rest = given.partition(":")
    known = ("folder", "parquet", "webdataset", "delta") if colon else ()
    refuse_credentials(given, "--source")
    location = rest if prefix in known else given
    if not usable_address(location):
        raise BadInput(
            "--source: its name is no UTF-8, or holds characters that do not show.",
            hint="rename it, or name the folder above it.",
        )
    kind = prefix if prefix in known else _guess(spark, location, settings.sources.skip)
    if kind in {"parquet", "delta"}:
        if kind == "parquet":
            refuse_unread(location, files_below(spark, location) or [], settings.sources.skip)
        return TableSource(spark, location, batch_id, settings, form=kind, id_prefix=id_prefix)
    if id_prefix:
        raise _no_prefix("ids of files are made of their names, and of the batch's id")
    if not _exists(spark, location):
        raise _nothing_at(given)
    if kind == "webdataset":
        return WebDatasetSource(spark, location, batch_id, settings)
    return FolderSource(spark, location, batch_id, settings)


def refuse_unread(location: str, files: Sequence[str], skip: tuple[str, ...]) -> None:
    """Refuse a folder of Parquet with ``files`` below it that Spark passes over, whatever they are called.

    But for those that are to be skipped anyway, those that a writer has not committed or a log needs, and what plainly
    is no table (`is_no_table`): where Spark would read that as one, it is refused, too.

    Raises:
        BadInput: there are some.
    """
    skips, passed_over = skipper(skip), set(overlooked(files))
    others = [file for file in files if is_no_table(file)]
    unread = [file for file in files if file in passed_over and not skips(file) and file not in others]
    if unread := [file for file in unread if not file.startswith(_NOT_OF_THE_TABLE)]:
        raise BadInput(
            f"parquet:{location}: {the_first(unread, _NAMED)} would not be read; nothing was taken.",
            hint="give each folder by itself (but for those of partitions: name=value, all of the same names); no name "
            "begins with _; move away what is no table.",
        )
    if read := [file for file in others if file not in passed_over and not is_mark(file.rpartition("/")[2])]:
        raise BadInput(
            f"parquet:{location}: {the_first(read, _NAMED)} would be read as Parquet, and by the name is none; nothing "
            "was taken.",
            hint="move it out of the folder.",
        )


def _nothing_at(text: str) -> BadInput:
    return BadInput(f"--source {text}: there is nothing at this place.", hint="check the path or the table's name.")


def _guess(spark: SparkSession, location: str, skip: tuple[str, ...]) -> str:
    if not _exists(spark, location):
        if "/" not in location and is_table_name(spark, location):
            return "delta"
        raise _nothing_at(location)
    if kind := kind_by_name(location):
        return kind
    if _exists(spark, f"{location.rstrip('/')}/_delta_log"):
        return "delta"
    for kind, suffixes in (("webdataset", SHARD_SUFFIXES), ("parquet", (".parquet",))):
        if not _holds(spark, location, suffixes, skip):
            continue
        if _holds(spark, location, IMAGE_SUFFIXES, skip):
            raise BadInput(
                f"--source {location}: images lie there beside {suffixes[0]} files; it could be both.",
                hint=f"say which is meant: `folder:{location}` or `{kind}:{location}`.",
            )
        return kind
    return "folder"


def kind_by_name(location: str) -> str | None:
    """What a place is by the suffix of its name, in any case of letters, as for what lies in a folder.

    >>> kind_by_name("S.TAR"), kind_by_name("photos/s.tar.gz"), kind_by_name("a.Parquet"), kind_by_name("photos/")
    ('webdataset', 'webdataset', 'parquet', None)
    """
    name = location.lower()
    return "webdataset" if name.endswith(SHARD_SUFFIXES) else "parquet" if name.endswith(".parquet") else None


def _holds(spark: SparkSession, location: str, suffixes: tuple[str, ...], skip: tuple[str, ...]) -> bool:
    """Whether a file of such a name lies in a folder itself."""
    uri = file_uri(spark, location)
    if uri.startswith(("/", "s3")):
        # Not by Hadoop, which cannot list a folder with a colon in a name. What is wrong with one, its listing says.
        with suppress(OSError, ReadFailure):
            return has_file(uri, suffixes, skip)
        return False
    system, path = hadoop_path(spark, location)
    return any(str(status.getPath().getName()).lower().endswith(suffixes) for status in system.listStatus(path))


def _exists(spark: SparkSession, location: str) -> bool:
    uri = file_uri(spark, location)
    if uri.startswith("/"):
        # Java finds no file by a name that the locale cannot write, such as `Müller` under LC_ALL=C.
        return os.path.exists(raw(uri))  # noqa: PTH110 - of bytes
    return exists(spark, location)


def file_uri(spark: SparkSession, location: str) -> str:
    """The full address of a place, as `uri` columns hold it: a plain path when local, else scheme://…"""
    if not location.startswith("/") and "://" not in location and not location.startswith("file:"):
        system, _ = hadoop_path(spark, ".")
        if str(system.getScheme()) == "file":
            # What has a colon in it is no path for Hadoop, unless it begins at the top.
            location = text(os.path.join(os.getcwdb(), raw(location)))  # noqa: PTH109, PTH118 - of bytes
    system, path = hadoop_path(spark, location)
    uri = str(path.makeQualified(system.getUri(), system.getWorkingDirectory()).toString())
    return "/" + uri.removeprefix("file:").lstrip("/") if uri.startswith("file:") else uri


def list_files(spark: SparkSession, root: str, spec: ListSpec) -> DataFrame:
    """What is under ``root`` (or ``root`` itself, if it is a file) as `LISTING_SCHEMA`: a task a first-level folder.

    Raises:
        BadInput: it cannot be listed.
    """
    try:
        check_place(root or "/", timeout_s=spec.read.timeout_s)
    except (OSError, ReadFailure) as error:
        raise BadInput(
            f"--source {root}: it cannot be listed ({type(error).__name__}).",
            hint="check that this user may read it; it must be a local path or S3.",
        ) from None
    top = spark.createDataFrame([(root or "/", False)], FOLDER_SCHEMA)
    found = materialise(top.mapInArrow(list_folders(spec), LISTING_SCHEMA))
    folders = found.where("folder IS NOT NULL").select(F.col("folder").alias("uri"), F.lit(True).alias("recursive"))
    tasks = folders.repartition(max(1, min(folders.count(), 1000)))
    return found.where("folder IS NULL").unionByName(tasks.mapInArrow(list_folders(spec), LISTING_SCHEMA))


def _relative(uri: Column, root: str) -> Column:
    return F.when(uri.startswith(root), F.substr(uri, F.lit(len(root) + 1))).otherwise(uri)


__all__ = ["FolderSource", "Source", "TableSource", "WebDatasetSource", "file_uri", "open_source"]
