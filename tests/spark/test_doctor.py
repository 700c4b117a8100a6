"""`doctor` on a local session with milvus-lite: all is well, what is wrong is named, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.diagnosis.examination import CHECKS
from jobs.doctor import main

pytestmark = pytest.mark.spark


def doctor(capsys: pytest.CaptureFixture[str], *sets: str) -> tuple[int, dict[str, Any], list[str]]:
    """The exit code, the JSON and the lines before it, of the command as it is typed."""
    words = [word for setting in sets for word in ("--set", setting)]
    with pytest.raises(SystemExit) as ended:
        main.main([*words, "--json", "--seconds", "600"], prog_name="doctor")
    *lines, last = capsys.readouterr().out.splitlines()
    return int(ended.value.code or 0), json.loads(last), lines


def levels(said: dict[str, Any]) -> dict[str, set[str]]:
    """What each check found, by its name."""
    return {check: {f["level"] for f in said["found"] if f["check"] == check} for check in names(said)}


def names(said: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(found["check"] for found in said["found"]))


def test_all_is_well_and_nothing_is_left_behind(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse = tmp_path / "not there yet" / "warehouse"
    code, said, lines = doctor(capsys, f"warehouse={warehouse}", f"milvus.uri={warehouse}/index.db")
    assert code == 0, lines
    assert names(said) == [*(check.name for check in CHECKS), "left behind"]
    asked = {name for name, found in levels(said).items() if found == {"ok"}}
    assert set(names(said)) - asked == {"gpu", "executors to milvus", "roles", "limits", "reader", "privileges"}
    assert said["milvus"]["kind"] == "embedded"
    assert lines[0].startswith("ok        spark: Java 17")
    assert list(tmp_path.iterdir()) == []

    # A catalog's schema: it is made for the table, and is gone with it.
    code, said, lines = doctor(
        capsys, "warehouse=doctors_schema", f"staging.path={tmp_path}/staged", f"milvus.uri={tmp_path}/index.db"
    )
    assert code == 0, lines
    assert levels(said)["tables"] == levels(said)["staging"] == {"ok"}
    assert not spark.catalog.databaseExists("doctors_schema")
    assert list(tmp_path.iterdir()) == []


def test_a_warehouse_that_cannot_be_written_and_an_address_where_nobody_is(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    code, said, lines = doctor(
        capsys, f"warehouse={tmp_path}/file/warehouse", "milvus.uri=http://127.0.0.1:9", "executor.gpus_per_task=1"
    )
    # A wrong setting comes before what is out of reach.
    assert code == 2
    found = levels(said)
    assert {name for name in found if "failure" in found[name]} == {"gpu", "places", "staging", "milvus"}
    assert (
        found["spark"] == found["executors"] == found["packages"] == found["clocks"] == found["left behind"] == {"ok"}
    )
    assert found["tables"] == found["database"] == found["drop"] == {"not asked"}
    assert all(f["next_step"] for f in said["found"] if f["level"] == "failure")
    assert any(line.endswith("database: it needs `milvus`") for line in lines)
    assert "milvus" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.unforeseen
def test_an_error_half_way_leaves_nothing(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.index.milvus.embedded import EmbeddedIndex

    def broken(*_: object, **__: object) -> bool:
        raise KeyError("a defect")

    monkeypatch.setattr(EmbeddedIndex, "compact", broken)
    monkeypatch.delenv("FACE_REINDEX_TRACEBACK", raising=False)
    code, said, lines = doctor(capsys, f"warehouse={tmp_path}/warehouse", f"milvus.uri={tmp_path}/index.db")
    assert code == 1
    assert "failure   compact: an unforeseen KeyError." in lines
    assert levels(said)["drop"] == levels(said)["left behind"] == {"ok"}
    assert list(tmp_path.iterdir()) == []
