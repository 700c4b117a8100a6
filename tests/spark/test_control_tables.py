"""Control tables by delta-rs and by Spark: the same rules for both."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from delta.exceptions import ConcurrentTransactionException
from pyspark.sql import SparkSession

from jobs.schemas import AUDIT_EVENTS, LEASES, RUNS
from jobs.tables.control import DeltaRsTable
from jobs.tables.store import Warehouse
from tests.spark.helpers import rows, settings_for, warehouse_for

NOW = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=["delta-rs", "spark"])
def warehouse(
    request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Warehouse:
    if request.param == "spark":
        monkeypatch.setattr(Warehouse, "_control", lambda *_: None)
    return warehouse_for(spark, settings_for(tmp_path))


def act(token: int, run_id: str = "r", later: int = 0) -> tuple[object, ...]:
    return ("warehouse", token, run_id, "renew", NOW + timedelta(seconds=later), None)


def test_what_is_added_is_found(warehouse: Warehouse) -> None:
    warehouse.append([act(1), act(2, "n-1.a_b", 5)], LEASES)
    warehouse.append([act(2, "n-1.a_b", 7)], LEASES)
    found = warehouse.rows(
        LEASES, "token, run_id, at, expires_at", where="run_id = {of}", order_by="at DESC", limit=1, of="n-1.a_b"
    )
    assert found == [{"token": 2, "run_id": "n-1.a_b", "at": NOW + timedelta(seconds=7), "expires_at": None}]
    assert found[0]["at"].tzinfo is not None
    assert warehouse.rows(LEASES, "max(token) AS token", where="token < {below}", below=2)[0]["token"] == 1
    back = "*, ROW_NUMBER() OVER (PARTITION BY run_id ORDER BY at DESC) AS back"
    last = warehouse.rows(LEASES, back, order_by="back, at DESC", limit=2)
    assert [(row["run_id"], row["at"].second, row["back"]) for row in last] == [("n-1.a_b", 7, 1), ("r", 0, 1)]
    assert warehouse.rows(RUNS, "run_id") == []
    assert warehouse.version(LEASES) == 2
    # By either engine it is a table as any other.
    assert rows(warehouse.read(LEASES), "token", "run_id") == {(1, "r"), (2, "n-1.a_b")}
    warehouse.maintain(LEASES, optimize=True, vacuum_hours=0)
    assert len(warehouse.read(LEASES).inputFiles()) == 1
    assert warehouse.read(LEASES).count() == 3


def test_of_a_transactions_name_only_what_is_above_the_last_is_taken(warehouse: Warehouse) -> None:
    for token, version in ((1, 5), (2, 5), (3, 4), (4, 6)):
        warehouse.append([act(token)], LEASES, transaction="t", transaction_version=version)
    warehouse.append([act(5)], LEASES, transaction="another", transaction_version=1)
    assert rows(warehouse.read(LEASES), "token") == {(1,), (4,), (5,)}


def test_of_those_who_race_for_a_number_one_gets_it(warehouse: Warehouse) -> None:
    warehouse.append([], AUDIT_EVENTS)

    def race(number: int) -> str:
        event = (1, NOW, f"kind{number}", "r", "{}", "0", str(number))
        try:
            warehouse.append([event], AUDIT_EVENTS, transaction="chain", transaction_version=1)
        except ConcurrentTransactionException:
            return "conflict"
        return "added or skipped"

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(race, range(4)))) == 4
    assert warehouse.read(AUDIT_EVENTS).count() == 1


def test_a_commit_in_between_is_a_conflict(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import deltalake

    warehouse = warehouse_for(spark, settings_for(tmp_path))
    warehouse.append([act(1)], LEASES, transaction="t", transaction_version=1)
    write, table = deltalake.write_deltalake, DeltaRsTable(f"{warehouse.location}/leases")

    def late(*args: Any, **options: Any) -> None:
        monkeypatch.setattr(deltalake, "write_deltalake", write)
        table.append([act(2)], ("leases/t", 3))
        write(*args, **options)

    monkeypatch.setattr(deltalake, "write_deltalake", late)
    with pytest.raises(ConcurrentTransactionException):
        table.append([act(3)], ("leases/t", 2))
    assert rows(warehouse.read(LEASES), "token") == {(1,), (2,)}


@pytest.mark.parametrize("value", ["x' OR '1' = '1", "a\\b", 'a"b', "a b", "é"])
def test_only_plain_texts_stand_in_a_statement(spark: SparkSession, tmp_path: Path, value: str) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    warehouse.append([act(1)], LEASES)
    with pytest.raises(ValueError, match="of may not stand in a statement"):
        warehouse.rows(LEASES, "token", where="run_id = {of}", of=value)
