"""A sieve of tombstones: small enough for every worker to hold, where all of them are not.

It is a Bloom filter (Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970): it lets through all
that is in it, and about one in 1,700 of what is not. What passes is compared with the tombstones themselves, by a join.
A digest is a hash already, and so are its parts: where it stands is taken from these (Kirsch and Mitzenmacher, "Less
hashing, same performance", 2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

#: Bits a digest, and how many of them it sets: 2 MB a million digests.
_BITS: Final = 16
_PROBES: Final = 8
#: Digests that one part of a sieve is of, which an executor makes at once.
_A_PART: Final = 1_000_000
_LEAST_BITS: Final = 64
_MADE: Final = "part int, bits binary"


@dataclass(frozen=True)
class Sieve:
    """Parts of bits (uint8); the part of a digest follows from itself. Without a part nothing passes."""

    parts: tuple[NDArray[np.uint8], ...] = ()

    @classmethod
    def of(cls, digests: DataFrame, count: int) -> Sieve:
        """The sieve of the ``digest`` column of `digests` (64 hex digits), at most ``count`` of them."""
        parts = math.ceil(count / _A_PART)
        if not parts:
            return cls()
        size = _size(count, parts)

        def make(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
            import pyarrow as pa

            bits = _filled(_words([bytes.fromhex(text) for text in rows.column("digest").to_pylist()]), size)
            return pa.table({"part": pa.array([key[0].as_py()], pa.int32()), "bits": [bits.tobytes()]})

        # The first 28 bits, as in `_words`.
        part = F.pmod(F.conv(F.substring("digest", 1, 7), 16, 10).cast("int"), F.lit(parts))
        made = digests.select(part.alias("part"), "digest").groupBy("part").applyInArrow(make, _MADE)
        found = {row["part"]: np.frombuffer(row["bits"], np.uint8) for row in made.toLocalIterator()}
        nothing = np.zeros(size // 8, np.uint8)
        return cls(tuple(found.get(number, nothing) for number in range(parts)))

    @classmethod
    def of_few(cls, digests: Sequence[bytes]) -> Sieve:
        """The sieve of ``digests`` (32 bytes each) that are here already."""
        return cls((_filled(_words(digests), _size(len(digests), 1)),)) if digests else cls()

    def passing(self, digests: Sequence[bytes]) -> list[bytes]:
        """Those of ``digests`` (32 bytes each) that pass."""
        if not self.parts or not digests:
            return []
        words = _words(digests)
        part = words[:, 0] % np.uint64(len(self.parts))
        passes = np.zeros(len(digests), bool)
        for number in np.unique(part):
            of_part = np.flatnonzero(part == number)
            bits = self.parts[int(number)]
            at = _positions(words[of_part], 8 * len(bits))
            passes[of_part] = ((bits[at >> 3] >> (at & 7).astype(np.uint8)) & 1).all(axis=1)
        return [digests[at] for at in np.flatnonzero(passes).tolist()]


def _size(count: int, parts: int) -> int:
    """Bits of a part: a multiple of 8."""
    return 8 * math.ceil(max(_LEAST_BITS, _BITS * count / parts) / 8)


def _words(digests: Sequence[bytes]) -> NDArray[np.uint64]:
    """What of each digest says its part (its first 28 bits) and its places: (n, 3)."""
    words = np.frombuffer(b"".join(digests), ">u8").reshape(len(digests), 4)[:, :3].astype(np.uint64)
    words[:, 0] >>= np.uint64(36)
    return words


def _positions(words: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """Where the bits of each digest stand: (n, probes)."""
    first, step = words[:, 1, None], words[:, 2, None] | np.uint64(1)
    return ((first + np.arange(_PROBES, dtype=np.uint64) * step) % np.uint64(size)).astype(np.int64)


def _filled(words: NDArray[np.uint64], size: int) -> NDArray[np.uint8]:
    bits = np.zeros(size // 8, np.uint8)
    at = _positions(words, size).ravel()
    np.bitwise_or.at(bits, at >> 3, (1 << (at & 7)).astype(np.uint8))
    return bits
