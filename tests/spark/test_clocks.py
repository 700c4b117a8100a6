"""Times come out of Spark in UTC, wherever the driver's machine stands."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.tables.store import utc_text

pytestmark = pytest.mark.spark


@pytest.fixture(params=["Asia/Kolkata", "America/St_Johns", "UTC"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def test_a_time_is_a_text_in_utc(spark: SparkSession, zone: str) -> None:
    at = F.timestamp_seconds(F.lit(1_769_860_800))
    row = (
        spark.range(1).select(utc_text(at).alias("at"), utc_text(F.lit(None).cast("timestamp")).alias("never")).first()
    )
    assert row is not None
    assert (row["at"], row["never"]) == ("2026-01-31T12:00:00Z", None)
