"""A night's second half against a real cluster, and what becomes of it when parts of the cluster die."""

from __future__ import annotations

from tests.cluster.conftest import Night

ROWS = 20_000


def test_spark_stages_through_s3a_and_the_cluster_imports(night: Night) -> None:
    result = night.run("r1", ROWS)
    proof = result["proof"]
    assert (proof["rows_found"], proof["keys_missing"], proof["keys_unexpected"]) == (ROWS, 0, 0)
    assert proof["recall"] >= 0.95
    assert result["files"] == 4
    index = night.index()
    assert index.alias_target(night.alias) == result["collection"]
    assert index.count(night.alias) == ROWS
    index.close()
