"""What is on record about servers is whole: every fact has a source, a test and its place on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.index.load_plan import index_bytes
from jobs.index.protocol import IndexSpec
from tests.milvus.servers.facts import FACTS, REFS, SECTIONS, Fact, shows
from tests.milvus.servers.page import page, shown_by
from tests.milvus.servers.profiles import PROFILES

pytestmark = pytest.mark.unit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "decisions" / "milvus-servers.md"


def test_every_fact_has_a_name_of_its_own_and_a_test() -> None:
    assert len(FACTS) == sum(len(section) for section in SECTIONS.values())
    assert sorted(set(FACTS) - set(shown_by())) == []


@pytest.mark.parametrize("fact", FACTS.values(), ids=list(FACTS))
def test_a_fact_that_was_read_says_where_and_one_that_was_not_says_so(fact: Fact) -> None:
    assert fact.source
    assert fact.names
    assert set(fact.refs) <= set(REFS)
    assert (fact.known == "read") == bool(fact.refs)


@pytest.mark.parametrize("version", PROFILES)
def test_of_facts_that_exclude_each_other_one_holds(version: str) -> None:
    for pair in (
        ("forgotten-after-3h", "forgotten-after-24h"),
        ("unknown-job-2100", "unknown-job-2101"),
        ("timeout-as-text", "timeout-as-json"),
        ("parquet-extra-refused", "parquet-extra-ignored"),
        ("parquet-fixed-refused", "parquet-fixed-taken"),
        ("half-parquet-floats-refused", "half-parquet-floats-taken"),
        ("half-insert-floats-refused", "half-insert-floats-taken"),
        ("half-search-refused", "half-search-converted"),
    ):
        assert sum(PROFILES[version].has(name) for name in pair) == 1, pair
    described = ("describe-any-collection", "describe-global", "describe-own-collection")
    assert sum(PROFILES[version].has(name) for name in described) == 1


def test_a_fact_holds_from_its_first_version_to_before_its_last() -> None:
    keyed = FACTS["key-header"]
    versions = ("2.6.23", "2.6.24", "2.6.99", "3.0.0", "3.0.1", "3.0.2", "3.1.0")
    assert [keyed.holds(v) for v in versions] == [False, True, True, False, False, True, True]
    with pytest.raises(KeyError):
        shows("no-such-fact")


@shows("half-index-sizes")
def test_the_plan_counts_with_what_indexes_keep_of_16_bit_numbers() -> None:
    sizes = {
        kind: [index_bytes(IndexSpec(kind), 1, 512, vectors) for vectors in ("float32", "float16", "bfloat16")]
        for kind in ("FLAT", "HNSW", "DISKANN", "GPU_CAGRA", "IVF_FLAT", "SCANN", "IVF_SQ8", "IVF_PQ")
    }
    for kind, (whole, *halves) in sizes.items():
        less = 1024 if kind in ("FLAT", "HNSW", "DISKANN", "GPU_CAGRA") else 0
        assert halves == [whole - less] * 2, kind


def test_the_page_is_made_of_the_facts() -> None:
    assert PAGE.read_text() == page(), "write it anew: `make docs`"
