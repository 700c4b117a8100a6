"""Where the pages of a Parquet file stand, read from its footer (Thrift's compact protocol).

pyarrow reads footers, too, but a damaged one can end the whole process when it is asked for a chunk of a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Of FileMetaData the row groups, of these the columns, of these the metadata, and in that: the total compressed size,
#: and the places of the first data page and of the dictionary. Fields by their ids in parquet.thrift.
_GROUPS, _COLUMNS, _METADATA = 4, 1, 3
_SIZE, _DATA, _DICTIONARY = 7, 9, 11
_WANTED: Final[Mapping[int, Any]] = {_GROUPS: {_COLUMNS: {_METADATA: {_SIZE: {}, _DATA: {}, _DICTIONARY: {}}}}}
_TRUE, _FALSE, _BYTE, _I16, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12
#: Structs and lists in one another, and bytes of a number, that a footer has at most.
_DEPTH: Final = 32
_LONGEST: Final = 10


def chunks_of(footer: bytes) -> list[tuple[int, int]]:
    """From where to where each column of each row group has its pages, counted from where the file begins.

    Chunks without pages are left out, and a place of 0 is none: some writers give it where there is no dictionary.

    Raises:
        ValueError: it is no such footer.
    """
    found = []
    for group in _of(list, _Compact(footer).struct(_WANTED, 0).get(_GROUPS)):
        for column in _of(list, group.get(_COLUMNS)):
            told = _of(dict, column.get(_METADATA))
            size, *places = (_of(int, told.get(field)) for field in (_SIZE, _DATA, _DICTIONARY))
            if size > 0 and (known := [place for place in places if place > 0]):
                found.append((min(known), min(known) + size))
    return found


def _of(kind: type[Any], value: object) -> Any:
    """A value if it is of that kind, else an empty one: readers pass over a field of another type."""
    return value if isinstance(value, kind) else kind()


class _Compact:
    """Reads values of the compact protocol, one after the other. All raise ValueError where there is none."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, wanted: Mapping[int, Any], depth: int) -> dict[int, Any]:
        """The fields of a struct that are wanted, by their ids; of each is said what is wanted of it."""
        found, field = {}, 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            # A truth has no bytes of its own, but in lists.
            value = None if kind in (_TRUE, _FALSE) else self._value(kind, wanted.get(field, {}), depth + 1)
            if field in wanted:
                found[field] = value
        return found

    def _value(self, kind: int, wanted: Mapping[int, Any], depth: int) -> Any:
        if depth > _DEPTH:
            raise ValueError("too deep for a footer")
        if _I16 <= kind <= _I64:
            return self._signed()
        if kind == _BINARY:
            size = self._unsigned()
            self._at += size
        elif kind == _STRUCT:
            return self.struct(wanted, depth)
        elif kind in (_LIST, _SET):
            return self._list(wanted, depth)
        elif kind == _MAP:
            self._map(depth)
        elif kind in (_TRUE, _FALSE, _BYTE, _DOUBLE):
            self._at += 8 if kind == _DOUBLE else 1
        else:
            raise ValueError("no type of the protocol")
        return None

    def _list(self, wanted: Mapping[int, Any], depth: int) -> list[Any] | None:
        head = self._byte()
        count = head >> 4 if head >> 4 != 15 else self._unsigned()
        values = (self._value(head & 15, wanted, depth + 1) for _ in range(self._counted(count)))
        if wanted:
            return [value if isinstance(value, dict) else {} for value in values]
        for _ in values:
            pass
        return None

    def _map(self, depth: int) -> None:
        if count := self._counted(self._unsigned()):
            kinds = self._byte()
            for _ in range(count):
                self._value(kinds >> 4, {}, depth + 1)
                self._value(kinds & 15, {}, depth + 1)

    def _counted(self, count: int) -> int:
        """So many values, each of one byte at least."""
        if count > len(self._data) - self._at:
            raise ValueError("more values than bytes")
        return count

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)

    def _unsigned(self) -> int:
        number = 0
        for at in range(_LONGEST):
            byte = self._byte()
            number |= (byte & 127) << (7 * at)
            if byte < 128:
                return number
        raise ValueError("no number of 64 bits")

    def _byte(self) -> int:
        if self._at >= len(self._data):
            raise ValueError("the footer ends too early")
        self._at += 1
        return self._data[self._at - 1]
