"""Tables as others write them: read by what their columns are, or refused with a view that would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    DataType,
    DateType,
    DayTimeIntervalType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    NullType,
    ShortType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
    VarcharType,
    VariantType,
)

from jobs.errors import BadInput
from jobs.tables.foreign import Layout, table_layout

pytestmark = pytest.mark.unit

Shape = DataType | Mapping[str, "Shape"]

TEXT, BYTES, LONG = StringType(), BinaryType(), LongType()
BOTH: Final[Shape] = {"bytes": BYTES, "path": TEXT}
BINARY_FILE: Final[dict[str, Shape]] = {
    "path": TEXT, "modificationTime": TimestampType(), "length": LONG, "content": BYTES,
}  # fmt: skip
POINTS: Final[Shape] = {
    "origin": TEXT, "height": IntegerType(), "width": IntegerType(), "nChannels": IntegerType(),
    "mode": IntegerType(), "data": BYTES,
}  # fmt: skip
ID = "CAST(`image_id` AS STRING)"


def type_of(shape: Shape) -> DataType:
    return shape if isinstance(shape, DataType) else schema(shape)


def schema(shape: Mapping[str, Shape]) -> StructType:
    found = StructType()
    for name, inner in shape.items():
        found.add(name, type_of(inner))
    return found


def layout(columns: Mapping[str, Shape]) -> Layout:
    return table_layout(schema(columns), "photos")


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"image_id": TEXT, "content": BYTES}, (ID, "`content`", None, True)),
        ({"image_id": LONG, "uri": TEXT}, (ID, None, "`uri`", True)),
        ({"IMAGE_ID": TEXT, "Content": BYTES, "URI": TEXT},
         ("CAST(`IMAGE_ID` AS STRING)", "`Content`", "`URI`", True)),
        ({"image": BOTH, "label": LONG}, ("`image`.`path`", "`image`.`bytes`", "`image`.`path`", False)),
        ({"image_id": TEXT, "image": BOTH}, (ID, "`image`.`bytes`", "`image`.`path`", True)),
        ({"my `photo": {"Path": TEXT, "Bytes": BYTES}},
         ("`my ``photo`.`Path`", "`my ``photo`.`Bytes`", "`my ``photo`.`Path`", False)),
        (BINARY_FILE, ("`path`", "`content`", "`path`", False)),
        # Its own ids come before names, whatever else there is.
        ({"image_id": TEXT, **BINARY_FILE}, (ID, "`content`", None, True)),
    ],
)  # fmt: skip
def test_columns_are_known_by_names_and_types(
    columns: dict[str, Shape], found: tuple[str, str | None, str | None, bool]
) -> None:
    assert layout(columns) == Layout(*found)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"id": LONG, "jpg": BYTES},
            ("found: id bigint, jpg binary", "SELECT `id` AS image_id, `jpg` AS content FROM"),
        ),
        ({"name": TEXT, "url": TEXT}, ("SELECT `name` AS image_id, `url` AS uri FROM",)),
        ({"label": LONG}, ("<a column of ids> AS image_id, <a binary column of image files> AS content",)),
        ({"image": POINTS}, ("SELECT `image`.origin AS image_id, `image`.origin AS uri FROM", "points and no file")),
        ({"image_id": TEXT, "image": POINTS}, ("SELECT `image_id` AS image_id, `image`.origin AS uri FROM",)),
        ({"image_id": TEXT, "content": TEXT}, ("content must be binary and uri a string", "content string")),
        ({"image_id": TEXT, "content": BYTES, "uri": LONG}, ("content must be binary and uri a string",)),
        ({"one": BOTH, "two": BOTH}, ("`one`.`bytes` AS content",)),
        ({"image": {"bytes": TEXT, "path": TEXT}}, ("found: image struct<bytes:string,path:string>",)),
        ({"id": TEXT, "Id": TEXT, "content": BYTES}, ("differ in case alone: id",)),
        ({"path": TEXT, "content": BYTES}, ("SELECT `path` AS image_id, `content` AS content FROM",)),
    ],
)
def test_what_is_not_known_is_refused_with_its_columns_and_a_view(
    columns: dict[str, Shape], said: tuple[str, ...]
) -> None:
    with pytest.raises(BadInput) as refused:
        layout(columns)
    assert all(part in str(refused.value) for part in said), str(refused.value)


@pytest.mark.parametrize(
    "kind",
    [TEXT, VarcharType(9), ByteType(), ShortType(), IntegerType(), LongType(), DecimalType(20, 0), DateType()],
    ids=str,
)
def test_an_id_is_of_a_type_that_is_one_text_wherever_it_is_read(kind: DataType) -> None:
    assert layout({"image_id": kind, "content": BYTES}).key == ID


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (BYTES, "hex(`image_id`)"),
        (DoubleType(), "CAST(`image_id` AS DECIMAL(38, 0))"),
        (FloatType(), "CAST(`image_id` AS DECIMAL(38, 0))"),
        (DecimalType(10, 2), "CAST(`image_id` AS DECIMAL(38, 0))"),
        (TimestampType(), "unix_micros(`image_id`)"),
        (MapType(TEXT, TEXT), "to_json(`image_id`)"),
        (ArrayType(TEXT), "to_json(`image_id`)"),
        (VariantType(), "to_json(`image_id`)"),
        (StructType().add("a", TEXT), "to_json(`image_id`)"),
        (NullType(), "<a column of ids>"),
        (BooleanType(), "<a column of ids>"),
        (TimestampNTZType(), "<a column of ids>"),
        (DayTimeIntervalType(), "<a column of ids>"),
    ],
    ids=str,
)
def test_an_id_of_another_type_is_refused_with_what_would_be_one(kind: DataType, made: str) -> None:
    """Bytes became replaced characters, so that a thousand pictures had one id; a double another one by its digits."""
    for columns in ({"content": BYTES}, {"uri": TEXT}):
        with pytest.raises(BadInput) as refused:
            layout({"image_id": kind, **columns})
        assert "photos: image_id must be a string, a whole number or a date; found: image_id" in str(refused.value)
        # (Where there is no other, an address is the name.)
        key = "`uri`" if made.startswith("<") and "uri" in columns else made
        assert f"SELECT {key} AS image_id, `{next(iter(columns))}` AS " in str(refused.value)
