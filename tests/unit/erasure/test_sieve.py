"""The sieve of tombstones lets through all that is in it, and little else."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.erasure.sieve import Sieve

pytestmark = pytest.mark.unit


def digests(count: int, *, of: str = "erased") -> list[bytes]:
    return [hashlib.sha256(f"{of} {number}".encode()).digest() for number in range(count)]


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=300))
def test_all_that_is_in_it_passes(some: list[bytes]) -> None:
    assert Sieve.of_few(some).passing(some) == some


def test_of_what_is_not_in_it_one_in_1700_passes() -> None:
    sieve = Sieve.of_few(digests(20_000))
    others = digests(200_000, of="other")
    assert sum(part.nbytes for part in sieve.parts) == 40_000
    # 0.00057 is (1 - e^(-8/16))^8; so many of 200,000 are within seven standard deviations.
    assert 0 < len(sieve.passing(others)) < 200_000 * 0.00057 + 7 * 10.7


def test_parts_are_asked_for_their_own() -> None:
    one = Sieve.of_few(digests(500))
    nothing = replace(one, parts=(one.parts[0] * 0,))
    both = Sieve((one.parts[0], nothing.parts[0]))
    passed = both.passing(digests(500))
    assert passed == [digest for digest in digests(500) if not digest[3] >> 4 & 1]


def test_where_there_is_none_nothing_passes() -> None:
    assert Sieve().passing(digests(3)) == Sieve.of_few([]).passing(digests(3)) == []
    assert Sieve.of_few(digests(3)).passing([]) == []
