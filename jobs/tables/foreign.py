"""Tables that others wrote: by path or by name, and which of their columns hold a picture and its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyspark.errors import AnalysisException
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    ByteType,
    CharType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    ShortType,
    StringType,
    StructType,
    TimestampType,
    VarcharType,
    VariantType,
)

from jobs.errors import BadInput
from jobs.tables.files import exists, refuse_unnamed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Columns of what Spark's source `binaryFile` reads.
_BINARY_FILE: Final = {"path", "modificationtime", "length", "content"}
#: Fields of a picture in tables of Hugging Face's `datasets`.
_BYTES_AND_PATH: Final = {"bytes", "path"}
#: Some fields of a picture of Spark's source `image`: its points, and no file.
_POINTS: Final = {"origin", "height", "width", "nchannels", "data"}
#: Types that are the same text wherever they are read: no number that is rounded, no time of a session's zone.
_OF_IDS: Final = (StringType, CharType, VarcharType, ByteType, ShortType, IntegerType, LongType, DateType)
#: What makes an id of a column of another type; where nothing does, a column of ids has to be looked for.
_MADE_IDS: Final = {
    (BinaryType,): "hex({0})",
    (FloatType, DoubleType, DecimalType): "CAST({0} AS DECIMAL(38, 0))",
    (TimestampType,): "unix_micros({0})",
    (ArrayType, MapType, StructType, VariantType): "to_json({0})",
}
_NAMES: Final = ("image_id", "id", "key", "__key__", "name", "filename", "file_name", "path", "uri", "url")
_ADDRESSES: Final = ("uri", "url", "path", "address")


@dataclass(frozen=True)
class Layout:
    """What the columns of a table are, each as an expression of Spark's SQL; None: there is none.

    ``own_ids``: ``key`` is the id of an image; else it is a name, of which the id is made as of a file's.
    """

    key: str
    content: str | None
    uri: str | None
    own_ids: bool


def open_table(spark: SparkSession, form: str, location: str) -> tuple[DataFrame, bool]:
    """A Parquet folder or a Delta table, and whether ``location`` is its name in the catalog.

    Raises:
        BadInput: there is none, it cannot be read, in part or whole, or it is a table's name and a folder's as well.
    """
    by_name = form == "delta" and "/" not in location and _is_named(spark, location)
    if not by_name and not any(mark in location for mark in "*?[{") and not exists(spark, location):
        raise BadInput(
            f"{form}:{location}: there is nothing at this place"
            + (", and no table of this name." if form == "delta" and "/" not in location else "."),
            hint="check the path or the table's name.",
        )
    if form == "parquet":
        refuse_unnamed(spark, f"{form}:{location}", location)
    reader = spark.read.format(form)
    try:
        return (reader.table(location) if by_name else reader.load(location)), by_name
    except AnalysisException as error:
        raise BadInput(
            f"{form}:{location}: Spark cannot read it as {form} ({error.getCondition() or 'no such table'}).",
            hint="check what lies there; `parquet:`, `delta:` and `folder:` before a place say what it is.",
        ) from None


def is_table_name(spark: SparkSession, text: str) -> bool:
    """Whether the catalog has a table of this name."""
    try:
        return bool(spark.catalog.tableExists(text))
    except AnalysisException:  # no table could have that name
        return False


def _is_named(spark: SparkSession, location: str) -> bool:
    named = is_table_name(spark, location)
    if named and exists(spark, location):
        raise BadInput(
            f"delta:{location}: there is a table of this name, and a folder.",
            hint=f"write delta:./{location} for the folder, or the table's name with its schema.",
        )
    return named


def table_layout(schema: StructType, place: str) -> Layout:
    """Which columns of a table are what; names count without their case, as in Spark's SQL.

    Raises:
        BadInput: pictures and names are not to be told. The message has the columns, and a view that would do.
    """
    columns = _columns(schema, place)
    pictures = {name: field for name, field in columns.items() if _fields(field[1]) == _BYTES_AND_PATH}
    content, uri = (_of_type(columns, name, kind) for name, kind in (("content", BinaryType), ("uri", StringType)))
    if not content and not uri and len(pictures) == 1:
        content, uri = _parts(*next(iter(pictures.values())))
        if content and uri and "image_id" not in columns:
            return Layout(uri, content, uri, own_ids=False)
    other = _is_other(columns, content, uri)
    own = "image_id" in columns and _is_id(columns["image_id"][1])
    if own and (content or uri) and not other:
        return Layout(f"CAST({_quoted(columns['image_id'][0])} AS STRING)", content, uri, own_ids=True)
    path = _of_type(columns, "path", StringType)
    if columns.keys() == _BINARY_FILE and content and path:
        return Layout(path, content, path, own_ids=False)
    found = ", ".join(f"{name} {kind.simpleString()}" for name, kind in columns.values())
    what = "content must be binary and uri a string" if other else _WANTED
    if "image_id" in columns and not own:
        what = "image_id must be a string, a whole number or a date"
    raise BadInput(f"{place}: {what}; found: {found}.", hint=_view(columns, place))


_WANTED: Final = "a table source needs the columns image_id and content or uri"


def _columns(schema: StructType, place: str) -> dict[str, tuple[str, DataType]]:
    """Name and type of each column by its name in small letters."""
    columns = {field.name.lower(): (field.name, field.dataType) for field in schema}
    if len(columns) < len(schema.fields):
        twice = sorted({f.name for f in schema if columns[f.name.lower()][0] != f.name})
        raise BadInput(
            f"{place}: columns that differ in case alone: {', '.join(twice)}.", hint="rename one of them in a view."
        )
    return columns


def _is_id(kind: DataType) -> bool:
    return isinstance(kind, _OF_IDS) or (isinstance(kind, DecimalType) and kind.scale <= 0)


def _made_id(column: str, kind: DataType) -> str | None:
    """What would be an id, out of a column of ids; None where nobody can say."""
    if _is_id(kind):
        return column
    made = next((made for kinds, made in _MADE_IDS.items() if isinstance(kind, kinds)), None)
    return made.format(column) if made else None


def _is_other(columns: dict[str, tuple[str, DataType]], content: str | None, uri: str | None) -> bool:
    """Whether `content` or `uri` is there and of another type."""
    return ("content" in columns and content is None) or ("uri" in columns and uri is None)


def _of_type(columns: dict[str, tuple[str, DataType]], name: str, kind: type[DataType]) -> str | None:
    found = columns.get(name)
    return _quoted(found[0]) if found and isinstance(found[1], kind) else None


def _fields(kind: DataType) -> set[str]:
    return {name.lower() for name in kind.fieldNames()} if isinstance(kind, StructType) else set()


def _parts(column: str, kind: DataType) -> tuple[str | None, str | None]:
    """`bytes` and `path` of a picture, where they are of their types."""
    assert isinstance(kind, StructType)  # noqa: S101 - it has fields
    parts = {field.name.lower(): field for field in kind}
    if len(kind.fields) != 2 or not isinstance(parts["bytes"].dataType, BinaryType):
        return None, None
    if not isinstance(parts["path"].dataType, StringType):
        return None, None
    return f"{_quoted(column)}.{_quoted(parts['bytes'].name)}", f"{_quoted(column)}.{_quoted(parts['path'].name)}"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _view(columns: dict[str, tuple[str, DataType]], place: str) -> str:
    """What would do: a SELECT with the columns that are most likely meant, for a person to look at."""
    made = (_made_id(_quoted(columns[name][0]), columns[name][1]) for name in _NAMES if name in columns)
    named = next((key for key in made if key), None)
    key = named or "<a column of ids>"
    points = [name for name, kind in columns.values() if _fields(kind) >= _POINTS]
    held = [name for key, (name, kind) in columns.items() if isinstance(kind, BinaryType) and key != "image_id"]
    held_in = [parts for name, kind in columns.values() if _fields(kind) == _BYTES_AND_PATH
               if (parts := _parts(name, kind)[0])]  # fmt: skip
    addresses = [columns[name][0] for name in _ADDRESSES if _of_type(columns, name, StringType)]
    if points:
        origin = f"{_quoted(points[0])}.origin"
        picture, note = f"{origin} AS uri", f" ({points[0]} holds points and no file; its origin is read instead)"
        key = key if named else origin
    elif held or held_in:
        picture, note = f"{_quoted(held[0]) if held else held_in[0]} AS content", ""
    elif addresses:
        picture, note = f"{_quoted(addresses[0])} AS uri", ""
    else:
        picture, note = "<a binary column of image files> AS content", ""
    view = f"SELECT {key} AS image_id, {picture} FROM <{place}>{note}"  # noqa: S608 - to be read by a person
    return f"make a view or table, and ingest that: {view}."
