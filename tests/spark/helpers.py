"""Small building blocks of the Spark tests."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession

from jobs.runs.console import Console
from jobs.runs.record import JobContext
from jobs.settings import Settings, load_settings
from jobs.tables.store import Warehouse
from tests.conftest import PURPOSE

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BATCH = {
    "source_batch_id": "b1",
    "supplier": "tests",
    "collection_method": "uploaded_by_subject",
    "assessment_ref": "a-1",
    "assessed_at": "2026-01-01T00:00:00Z",
    "state": "assessed",
}


def settings_for(folder: Path, *overrides: str) -> Settings:
    return load_settings(
        overrides=[
            f"warehouse={folder}/warehouse",
            f"governance.purposes=[{PURPOSE}]",
            f"governance.allowed_purposes=[{PURPOSE}]",
            "model.weights=random",
            f"model.cache_dir={folder.parent}/weights",
            f"milvus.uri={folder}/index.db",
            "verify.recall_sample=20",
            *overrides,
        ]
    )


def warehouse_for(spark: SparkSession, settings: Settings, **options: Any) -> Warehouse:
    return Warehouse(spark, settings.warehouse, is_path=settings.warehouse_is_path, **options)


def job_for(spark: SparkSession, settings: Settings, run_id: str | None = None) -> JobContext:
    return JobContext(settings, warehouse_for(spark, settings), Console(quiet=True), run_id, False)


def first_row(frame: DataFrame) -> Row:
    """Its first row, which has to be there."""
    row = frame.first()
    assert row is not None
    return row


def rows(frame: DataFrame, *columns: str) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in frame.select(*columns).collect()}
