"""A sieve that executors make, in parts."""

from __future__ import annotations

import hashlib

import pytest
from pyspark.sql import SparkSession

from jobs.erasure import sieve
from jobs.erasure.sieve import Sieve

pytestmark = pytest.mark.spark


def test_executors_make_its_parts(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sieve, "_A_PART", 100)
    digests = [hashlib.sha256(str(number).encode()).digest() for number in range(2_000)]
    among, others = digests[:450], digests[450:]
    frame = spark.createDataFrame([(digest.hex(),) for digest in among], "digest string")
    made = Sieve.of(frame, 450)
    assert [len(part) for part in made.parts] == [180] * 5
    assert made.passing(among) == among
    assert len(made.passing(others)) < 20
    assert Sieve.of(frame.where("false"), 0).parts == ()
    # Fewer than they were said to be, of which one part has none.
    assert Sieve.of(frame.limit(1), 450).passing(digests) == among[:1]
