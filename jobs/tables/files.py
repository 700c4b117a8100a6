"""Plain files beside the tables."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from jobs.errors import BadInput
from jobs.formatting import the_first
from udfs.names import raw, shown, text

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Object stores that show a file once it is written to its end, and cannot rename one.
_WHOLE_AT_ONCE: Final = ("s3", "s3a", "s3n", "gs")
# What Spark, Databricks and a Mac leave in folders beside what is to be read.
_MARKS: Final = re.compile(r"_SUCCESS|_(?:committed|started)_\d+|\..*\.crc|\.DS_Store")
# What people and programs put beside tables, and is none by its name. (No .csv, no picture: somebody may mean it.)
_NO_TABLE: Final = re.compile(
    r"(?:.+\.)?(?:txt|md|rst|html?|pdf|json|ya?ml|log|crc|md5|sha\d+|ini|db|lock)|readme|licen[cs]e|"
    r"_(?:common_)?metadata",
    re.IGNORECASE,
)
_NAMED: Final = 5


def hadoop_path(spark: SparkSession, location: str) -> tuple[Any, Any]:
    """Hadoop's FileSystem and Path of a place: the one view of local, s3a and HDFS paths."""
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # noqa: S101
    path = jvm.org.apache.hadoop.fs.Path(location)
    return path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()), path


def remove_tree(spark: SparkSession, location: str) -> None:
    """Remove a folder or prefix and what is in it; a place that is not there is fine."""
    system, path = hadoop_path(spark, location)
    system.delete(path, True)


def make_folder(spark: SparkSession, location: str) -> None:
    """Make a folder with the mode that Spark's files have; an object store has none to make."""
    system, path = hadoop_path(spark, location)
    if system.getScheme() in ("file", "hdfs"):
        system.mkdirs(path)


def children(spark: SparkSession, location: str) -> list[str]:
    """Names of what lies directly under a folder or prefix; none where it is not there."""
    system, path = hadoop_path(spark, location)
    return sorted(str(s.getPath().getName()) for s in system.listStatus(path)) if system.exists(path) else []


def files_below(spark: SparkSession, location: str) -> list[str] | None:
    """The paths of all files below a folder, or the name of a file itself; None where nothing is there."""
    system, path = hadoop_path(spark, location)
    if not system.exists(path):
        return None
    root = system.getFileStatus(path)
    if root.isFile():
        return [str(path.getName())]
    prefix = f"{str(root.getPath().toString()).rstrip('/')}/"
    found, files = [], system.listFiles(path, True)
    while files.hasNext():
        found.append(str(files.next().getPath().toString()).removeprefix(prefix))
    return sorted(found)


def overlooked(files: Iterable[str]) -> list[str]:
    """Of ``files`` (their paths below the place that is read, or its own name) those that Spark passes over in silence.

    Where a folder is called `name=value`, they all have to lie in such, of the same names: Spark passes over what lies
    beside them, and does not know what to do with others.

    >>> overlooked(["a.jsonl", "_b.jsonl", "old/c.jsonl", "_SUCCESS"])
    ['_b.jsonl', 'old/c.jsonl']
    >>> overlooked(["a.jsonl", "day=1/b.jsonl", "day=2/c.jsonl"])
    ['a.jsonl']
    """
    every = list(files)
    listed = {file: _partitions(file) for file in every if _is_listed(*file.split("/"))}
    first = next((names for names in listed.values() if names), ())
    return [file for file in every if listed.get(file) != first and not is_mark(file.rpartition("/")[2])]


def _partitions(file: str) -> tuple[str, ...] | None:
    """The names of the partitions that a file lies in, as Spark compares them; None where they are none to it."""
    parts = [folder.partition("=") for folder in file.split("/")[:-1]]
    names = tuple(name.lower() for name, _, _ in parts)
    return names if len(set(names)) == len(names) and all(name and value for name, _, value in parts) else None


def is_mark(name: str) -> bool:
    """Whether a file of this name is what a program has left, and nothing to be read."""
    return _MARKS.fullmatch(name) is not None


def is_no_table(file: str) -> bool:
    """Whether a file among those of a table plainly is none itself, by its name.

    >>> is_no_table("README.md"), is_no_table("_metadata"), is_no_table("more/part-00000"), is_no_table("b.pq")
    (True, True, False, False)
    """
    return _NO_TABLE.fullmatch(file.rpartition("/")[2]) is not None


def _is_listed(*path: str) -> bool:
    *folders, name = path
    hidden = any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in path)
    return not (hidden or name.endswith("._COPYING_") or any("=" not in folder for folder in folders))


def refuse_unnamed(spark: SparkSession, given: str, location: str) -> None:
    """Refuse a local folder, ``given`` by an option, with names that Java leaves out of its listings (`unnamed`).

    Raises:
        BadInput: there are some.
    """
    system, _ = hadoop_path(spark, location)
    if str(system.getScheme()) != "file":
        return
    jvm: Any = spark.sparkContext._jvm
    encoding = str(jvm.java.lang.System.getProperty("sun.jnu.encoding"))
    if found := unnamed(re.sub(r"^file:(//)?", "", location), encoding):
        raise BadInput(
            f"{given}: {the_first(found, _NAMED)} would not be read, for Spark's Java reads names as {encoding}; "
            "nothing was imported.",
            hint="start the job with LC_ALL=C.UTF-8; a name that is no UTF-8 has to be changed.",
        )


def unnamed(folder: str, encoding: str) -> list[str]:
    """What has a name below a local folder that is no text in ``encoding``, by which Java knows the names of files.

    Its listings pass over such in silence: `Müller` under LC_ALL=C, and a name in Latin-1 anywhere else.
    """
    try:
        codecs.lookup(encoding)
    except LookupError:  # Java's own; all have these letters
        encoding = "ascii"
    top, found = raw(folder), []
    for place, folders, files in os.walk(top):
        for name in (*folders, *files):
            try:
                name.decode(encoding)
            except UnicodeDecodeError:
                found.append(shown(text(os.path.relpath(os.path.join(place, name), top))))  # noqa: PTH118 - of bytes
    return sorted(found)


def listed(spark: SparkSession, location: str) -> str:
    """The paths of what lies directly under a folder or prefix as one text, however many they are: see `children`."""
    system, path = hadoop_path(spark, location)
    jvm: Any = spark.sparkContext._jvm
    paths = jvm.org.apache.hadoop.fs.FileUtil.stat2Paths(system.listStatus(path))
    return str(jvm.org.apache.commons.lang3.ArrayUtils.toString(paths))


def modified_at(spark: SparkSession, location: str) -> int:
    """When a file was written last, in ms since 1970.

    Raises:
        Py4JJavaError: it is not there.
    """
    system, path = hadoop_path(spark, location)
    return int(system.getFileStatus(path).getModificationTime())


def exists(spark: SparkSession, location: str) -> bool:
    """Whether there is a file or folder of that name."""
    system, path = hadoop_path(spark, location)
    return bool(system.exists(path))


def size_of(spark: SparkSession, location: str) -> int | None:
    """The bytes of a file; None where there is no file of that name."""
    system, path = hadoop_path(spark, location)
    if not system.exists(path):
        return None
    status = system.getFileStatus(path)
    return int(status.getLen()) if status.isFile() else None


def write_text(spark: SparkSession, location: str, text: str) -> None:
    """Write a small file, replacing one of that name."""
    system, path = hadoop_path(spark, location)
    _write(system, path, text)


def create_text(spark: SparkSession, location: str, text: str) -> bool:
    """Write a small file where there is none of that name, whole or not at all; says whether there was none.

    Raises:
        OSError: it was written beside its place and could not be put there.
    """
    system, path = hadoop_path(spark, location)
    if system.exists(path):
        return False
    if system.getScheme() in _WHOLE_AT_ONCE:
        _write(system, path, text, over=False)
        return True
    # Beside it, under a name that no listing of Spark's shows. The next try writes over what a killed one left.
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # noqa: S101 - a session has one
    unfinished = jvm.org.apache.hadoop.fs.Path(path.getParent(), f".{path.getName()}.unfinished")
    _write(system, unfinished, text)
    if system.rename(unfinished, path):
        return True
    system.delete(unfinished, False)
    if system.exists(path):
        return False
    raise OSError(f"{location} could not be put into its place.")


def remove_file(spark: SparkSession, location: str) -> None:
    """Remove one file; one that is not there is fine."""
    system, path = hadoop_path(spark, location)
    system.delete(path, False)


def _write(system: Any, path: Any, text: str, *, over: bool = True) -> None:
    stream = system.create(path, over)
    try:
        stream.write(text.encode())
    finally:
        stream.close()


def read_text(spark: SparkSession, location: str) -> str | None:
    """A small file's text; None where it is not there."""
    system, path = hadoop_path(spark, location)
    if not system.exists(path):
        return None
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # noqa: S101 - a session has one
    stream = system.open(path)
    try:
        return str(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
    finally:
        stream.close()
