"""What stands in the columns of a Parquet file: bytes that are looked for, and values that a tombstone may match."""

from __future__ import annotations

import hmac
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from jobs.erasure.sieve import Sieve
from jobs.governance.tombstones import CONTENT, FACE, IMAGE, SUBJECT, keyed_text
from jobs.index.protocol import SCALARS
from jobs.schemas import ALL_TABLES

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

#: What was found: a needle's name, or what a tombstone is of; in which column; and the digest that may be a tombstone.
Hit: TypeAlias = tuple[str, str, str | None]
_ROWS: Final = 65_536
#: Of Milvus's delete logs up to 2.5: each value is JSON with a key and a time, or both with a comma between.
_DELETES: Final = "delta"
#: Columns whose values are compared with tombstones, and the kinds that they may be.
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "image_id": (IMAGE,),
    "value": (IMAGE, CONTENT, FACE, SUBJECT),
    "content_sha256": (CONTENT,),
    "face_id": (FACE,),
    "pii_principal_id": (SUBJECT,),
    "principal": (SUBJECT,),
    _DELETES: (FACE,),
}
#: Columns of this program's own int64 that are no keys.
_NO_KEYS: Final = frozenset(re.findall(r"(\w+) bigint", ", ".join(t.columns for t in ALL_TABLES))) | {*SCALARS}


@dataclass(frozen=True)
class Look:
    """What is looked for in columns: ``needles`` by name, and values whose digest under ``keys`` passes the sieve."""

    needles: dict[str, bytes]
    keys: dict[str, bytes]
    sieve: Sieve

    def through(self, file: pq.ParquetFile) -> Generator[Hit, None, set[str]]:
        """Search one column of one row group after the other; the names of columns that could not be read."""
        import pyarrow as pa

        try:
            columns = list(dict.fromkeys(file.schema_arrow.names))
        except (pa.ArrowException, ValueError):
            return {"schema"}
        failed: set[str] = set()
        for group in range(file.num_row_groups):
            for column in columns:
                try:
                    # No threads: this process was forked, and holds one column at a time.
                    read = file.read_row_group(group, columns=[column], use_threads=False)
                    yield from self.in_table(read)
                except (pa.ArrowException, OSError, ValueError):
                    failed.add(column)
        return failed

    def in_table(self, read: pa.Table) -> Iterator[Hit]:
        """Search the columns of what was read."""
        for column, values in zip(read.column_names, read.columns, strict=True):
            for piece in _buffers(values) if self.needles else ():
                yield from ((name, column, None) for name, needle in self.needles.items() if needle in piece)
            for kind in _kinds_of(column, values.type) if self.sieve.parts else ():
                for some in _values_of(column, values):
                    yield from ((f"tombstone of {kind}", column, digest) for digest in self._passing(kind, some))

    def _passing(self, kind: str, values: Iterable[object]) -> Iterator[str]:
        texts = [text for value in values if (text := keyed_text(kind, value)) is not None]
        for key in self.keys.values():
            for digest in self.sieve.passing([hmac.digest(key, text, "sha256") for text in texts]):
                yield digest.hex()


def _kinds_of(column: str, type_: pa.DataType) -> tuple[str, ...]:
    """What a column's values may be. Keys of faces are told by their type: Milvus names a column by its field's id."""
    import pyarrow as pa

    kinds = COLUMNS.get(column, ())
    may_be_key = pa.types.is_int64(type_) and column not in _NO_KEYS and FACE not in kinds
    return (*kinds, FACE) if may_be_key else kinds


def _values_of(column: str, values: pa.ChunkedArray) -> Iterator[Sequence[object]]:
    """The values of a column, so many at once; those of delete logs are the numbers in them."""
    for chunk in values.chunks:
        for start in range(0, len(chunk), _ROWS):
            some = chunk.slice(start, _ROWS).to_pylist()
            if column == _DELETES:
                some = [n for v in some for n in (re.findall(r"-?\d+", v) if isinstance(v, str) else [v])]
            yield some


def _buffers(values: pa.ChunkedArray) -> Iterator[bytes]:
    """The values of a column, one after the other, as bytes; nested ones included, and those of dictionaries."""
    for chunk in values.chunks:
        for array in (chunk, *_dictionaries(chunk)):
            for buffer in array.buffers():
                if buffer is not None:
                    yield buffer.to_pybytes()


def _dictionaries(array: pa.Array) -> Iterator[pa.Array]:
    """The dictionaries in a column, which no buffer of it holds: each value once, as it stands in the file.

    Parquet brings back dictionaries of text and bytes only (a pandas Categorical, say), at any depth.
    """
    import pyarrow as pa

    type_ = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _dictionaries(array.storage)
    elif pa.types.is_dictionary(type_):
        yield array.dictionary
    elif pa.types.is_struct(type_):
        for at in range(type_.num_fields):
            yield from _dictionaries(array.field(at))
    elif pa.types.is_map(type_):
        yield from _dictionaries(array.keys)
        yield from _dictionaries(array.items)
    elif type_.num_fields:
        yield from _dictionaries(array.values)
