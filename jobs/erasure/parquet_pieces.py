"""The Parquet files in the bytes of a file: the whole of it, or pieces that stand anywhere in it."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.erasure.parquet_chunks import chunks_of

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_MAGIC: Final = b"PAR1"
#: How footers and pages begin: the head of field 1, of 32 bits (Thrift's compact protocol).
_FIRST_IS_I32: Final = b"\x15"
#: How often the bytes of a file are looked at in search of Parquet that begins and ends anywhere. Once is the rule.
_EFFORT: Final = 32
#: What opening a piece costs, in bytes that could be read meanwhile, and a byte of a footer.
_OPENING_BYTES: Final = 512
_FOOTER_COSTS: Final = 8
#: Marks that may be the begin of one piece: so many are looked at, and so many tried; and the chunks compared for that.
_MARKS_SEEN, MARKS_TRIED, _CHUNKS_SEEN = 64, 4, 8


@dataclass(frozen=True)
class Footer:
    """A footer that is understood, where it begins and where the mark behind it ends (byte offsets in the file).

    ``chunks``: from where to where each column of each row group has its pages, counted from where its file begins;
    ``edges`` are the same, sorted, with those that touch or overlap as one.
    """

    begin: int
    end: int
    metadata: pq.FileMetaData
    chunks: list[tuple[int, int]]
    edges: list[tuple[int, int]]

    @classmethod
    def of(cls, begin: int, end: int, metadata: pq.FileMetaData, chunks: list[tuple[int, int]]) -> Footer:
        """The footer, with the edges of its chunks."""
        edges: list[tuple[int, int]] = []
        for first, last in sorted(chunks):
            if edges and first <= edges[-1][1]:
                edges[-1] = edges[-1][0], max(last, edges[-1][1])
            else:
                edges.append((first, last))
        return cls(begin, end, metadata, chunks, edges)

    @property
    def last_begin(self) -> int:
        """The last place where its file may begin: the mark there and all chunks stand before the footer."""
        return self.begin - (self.edges[-1][1] if self.edges else len(_MAGIC))


def _chunks_of(footer: bytes) -> list[tuple[int, int]]:
    """The places of the chunks, if they are told: pyarrow may still understand what is damaged."""
    try:
        return chunks_of(footer)
    except ValueError:
        return []


class Pieces:
    """The Parquet files in the bytes of a file: the whole of it, or pieces between two marks.

    Marks stand in values, too: by chance, or because somebody has put a million of them, or a whole Parquet file, into
    a picture. So it goes from the last one forward: the four bytes before a mark say where its footer begins, which is
    understood or not, once; the places of the chunks say where its file begins. No other mark in chunks that were read
    is looked at. What still makes more work than `_EFFORT` is given up, which is a finding.
    """

    def __init__(self, data: bytes) -> None:
        import pyarrow as pa

        self._data, self._held = data, pa.py_buffer(data)
        self._marks = [found.start() for found in re.finditer(_MAGIC, data)]
        self._closed, self._told = bytearray(len(self._marks)), bytearray(len(self._marks))
        self._effort = _EFFORT * (len(data) + _OPENING_BYTES)
        self.is_given_up = False

    def footers(self) -> Iterator[Footer]:
        """What is understood as a footer, the last one first; it leaves out what was closed meanwhile."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for at in reversed(range(len(self._marks))):
            mark = self._marks[at]
            begin = mark - 4 - int.from_bytes(self._data[max(mark - 4, 0) : mark], "little")
            # Every writer begins with the version, field 1, an i32. Before a footer at least a mark stands.
            if self._closed[at] or begin < len(_MAGIC) or self._data[begin : begin + 1] != _FIRST_IS_I32:
                continue
            if not self._may(_FOOTER_COSTS * (mark - begin)):
                return
            held = self._held.slice(begin - len(_MAGIC), mark - begin + 2 * len(_MAGIC))
            try:
                metadata = pq.read_metadata(pa.BufferReader(held))
                footer = Footer.of(begin, mark + len(_MAGIC), metadata, _chunks_of(self._data[begin : mark - 4]))
            except (pa.ArrowException, OSError, ValueError):
                continue  # the mark was none: it may stand in a value by chance
            yield footer

    def begins(self, footer: Footer) -> Iterator[int]:
        """Marks where the file of a footer may begin, the likely ones first, and not many.

        The nearest first: before it another file of the same layout may stand, whose pages fit the footer, too.
        """
        first = self._marks[0]
        at = bisect.bisect_right(self._marks, footer.last_begin)
        near = range(at - 1, max(at - 1 - _MARKS_SEEN, -1), -1)
        likely = [self._marks[i] for i in near if not self._closed[i] and self._has_pages(self._marks[i], footer)]
        for begin in dict.fromkeys((*likely[:MARKS_TRIED], *([first] if first <= footer.last_begin else []))):
            if not self._may(sum(last - start for start, last in footer.chunks)):
                return
            yield begin

    def opened(self, begin: int, footer: Footer) -> pq.ParquetFile:
        """The file of a footer, if it begins there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        held = pa.BufferReader(self._held.slice(begin, footer.end - begin))
        # A page with a checksum, as Spark writes them, is compared with it.
        return pq.ParquetFile(held, metadata=footer.metadata, pre_buffer=False, page_checksum_verification=True)

    def close(self, begin: int, footer: Footer) -> None:
        """Look at no mark in the chunks of what was read, nor in its footer."""
        for first, last in (*((begin + a, begin + b) for a, b in footer.edges), (footer.begin, footer.end - 8)):
            self._fill(self._closed, first, last)

    def tell(self, begin: int, footer: Footer) -> None:
        """Note that the marks from there on belong to something that is read, or told as not readable."""
        self._fill(self._told, begin, footer.end)

    def is_told(self, footer: Footer) -> bool:
        """Whether a footer stands in a piece that was told of."""
        return bool(self._told[bisect.bisect_left(self._marks, footer.end - len(_MAGIC))])

    def has_untold(self) -> bool:
        """Whether a mark belongs to no piece."""
        return 0 in self._told

    def is_whole(self, footer: Footer) -> bool:
        """Whether the whole file may be what a footer describes."""
        return footer.end == len(self._data) and self._data.startswith(_MAGIC)

    def _has_pages(self, begin: int, footer: Footer) -> bool:
        """Whether pages stand where they should if the file begins there: each begins with field 1, an i32."""
        firsts = (begin + first for first, _ in footer.chunks[:_CHUNKS_SEEN])
        return all(self._data[at : at + 1] == _FIRST_IS_I32 for at in firsts)

    def _may(self, size: int) -> bool:
        self._effort -= _OPENING_BYTES + size
        self.is_given_up = self.is_given_up or self._effort < 0
        return not self.is_given_up

    def _fill(self, flags: bytearray, first: int, last: int) -> None:
        a, b = bisect.bisect_left(self._marks, first), bisect.bisect_left(self._marks, last)
        flags[a:b] = b"\1" * (b - a)
