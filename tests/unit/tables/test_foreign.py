"""Tables as others write them: read by what their columns are, or refused with a view that would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest
from pyspark.sql.types import BinaryType, DataType, IntegerType, LongType, StringType, StructType, TimestampType

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
