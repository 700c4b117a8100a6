"""`doctor` with milvus-lite and a real server: what it asks, what it says of what is wrong, and that nothing stays."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.diagnosis import milvus
from jobs.diagnosis.found import Found
from jobs.diagnosis.subject import new_name
from jobs.errors import FaceReindexError
from jobs.index.milvus import compaction
from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.settings import Settings
from tests.milvus.conftest import server_settings
from tests.milvus.patient import OF_MILVUS, examine
from tests.milvus.rows import DIM, INFO
from tests.milvus.server import MilvusStandalone
from tests.milvus.servers.double import MilvusDouble
from tests.milvus.servers.profiles import PROFILES

pytestmark = pytest.mark.milvus


def levels(found: dict[str, list[Found]]) -> dict[str, set[str]]:
    return {name: {one.level for one in of_it} for name, of_it in found.items()}


def embedded(path: Path) -> Settings:
    return Settings.model_validate({"warehouse": str(path.parent), "milvus": {"uri": str(path)}})


def test_an_embedded_index_that_is_not_there_yet_is_still_not_there(tmp_path: Path) -> None:
    examination, found = examine(embedded(tmp_path / "new" / "faces.db"), tmp_path / "staged")
    assert examination.exit_code == 0
    assert set(found) == {*(check.name for check in OF_MILVUS), "left behind"}
    unasked = {name for name, seen in levels(found).items() if seen != {"ok"}}
    assert unasked == {"roles", "limits", "reader", "privileges"}
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]

    # One that a killed doctor has left is gone, too; a name that is no index's is said so.
    (tmp_path / new_name(datetime(2026, 1, 1, tzinfo=UTC))).with_suffix(".db").mkdir()
    examination, found = examine(embedded(tmp_path / "faces"), tmp_path / "staged")
    assert examination.exit_code == 2
    assert "ends in .db" in found["milvus"][0].what
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]


def test_an_embedded_index_keeps_what_it_holds(tmp_path: Path) -> None:
    settings = embedded(tmp_path / "faces.db")
    killed = new_name(datetime(2026, 1, 1, tzinfo=UTC))
    with connect(settings) as index:
        for name in ("faces_r1", killed):
            index.create(name, dim=DIM, shards=1, properties=INFO)
            index.switch_alias(f"alias_{name}", name)
    examination, found = examine(settings, tmp_path / "staged")
    assert examination.exit_code == 0
    assert "1 collections of an earlier doctor" in found["database"][1].what
    with connect(settings) as index:
        assert index.list_collections() == ["faces_r1"]
        assert index.alias_target("alias_faces_r1") == "faces_r1"


def test_an_index_that_somebody_else_has_open_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "faces.db").write_text("no folder")
    examination, found = examine(embedded(tmp_path / "faces.db"), tmp_path / "staged")
    assert examination.exit_code == 5
    assert "cannot be opened" in found["milvus"][0].what
    assert "end the other job" in found["milvus"][0].next_step
    assert levels(found)["drop"] == {"not asked"}


def test_nobody_at_the_address(tmp_path: Path) -> None:
    examination, found = examine(server_settings("http://127.0.0.1:9"), tmp_path / "staged")
    assert examination.exit_code == 5
    assert found["milvus"][0].level == "failure"
    assert "http://127.0.0.1:9" in found["milvus"][0].what
    assert {name for name, seen in levels(found).items() if seen != {"not asked"}} == {"milvus", "left behind"}


def test_a_server_is_asked_all_that_a_night_does(
    server: VectorIndex, milvus_server: MilvusStandalone, tmp_path: Path
) -> None:
    examination, found = examine(server_settings(milvus_server.uri), tmp_path / "staged")
    assert examination.exit_code == 0, examination.found
    # It asks nobody who they are: that is told once, and makes roles no question.
    assert levels(found)["milvus"] == {"ok", "warning"}
    assert {name for name, seen in levels(found).items() if seen == {"not asked"}} == {
        "roles", "limits", "reader", "privileges",
    }  # fmt: skip
    assert found["collection"][1].what.startswith("Milvus's clock agrees")
    assert "imported" in found["import"][0].what
    assert "refused: GPU_CAGRA" in found["index types"][0].what
    assert server.list_collections() == []


@pytest.mark.parametrize("vector_type", ["float16", "bfloat16"])
def test_a_server_is_asked_for_the_type_of_vectors(
    vector_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("LOOK_S", 0.05), ("PLAN_LOOK_S", 0.05), ("FLUSH_S", 0.4)):
        monkeypatch.setattr(compaction, name, seconds)
    with MilvusDouble(PROFILES["2.6.24"], speed=40.0) as double:
        examination, found = examine(server_settings(double.uri, vector_type=vector_type), tmp_path / "staged")
        assert examination.exit_code == 0, examination.found
        assert f"vectors of {vector_type}" in found["collection"][0].what
        assert "imported" in found["import"][-1].what
        assert levels(found)["index and search"] == {"ok"}
        told = found["index types"][0].what
        assert f"over vectors of {vector_type}" in told
        assert ("refused: GPU_CAGRA" in told) == (vector_type == "bfloat16")
        assert list(double.core.store.all()) == []


def test_what_does_not_store_a_type_of_vectors_is_a_matter_of_settings(tmp_path: Path) -> None:
    settings = embedded(tmp_path / "faces.db")
    milvus_settings = settings.milvus.model_copy(update={"vector_type": "float16"})
    examination, found = examine(settings.model_copy(update={"milvus": milvus_settings}), tmp_path / "staged")
    assert examination.exit_code == 2
    assert "vector_type is float16" in found["collection"][0].what
    assert "float32" in found["collection"][0].next_step
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]


def test_what_a_server_has_not_is_a_matter_of_settings(
    server: VectorIndex, milvus_server: MilvusStandalone, tmp_path: Path
) -> None:
    examination, found = examine(server_settings(milvus_server.uri, database="nobodys"), tmp_path / "a")
    assert examination.exit_code == 2
    assert "no database of the name that milvus.database gives" in found["database"][0].what
    examination, found = examine(server_settings(milvus_server.uri, replicas=2, index_type="GPU_CAGRA"), tmp_path / "b")
    assert examination.exit_code == 2
    assert "milvus.replicas is 2" in found["index and search"][0].what
    assert "refuses GPU_CAGRA" in found["index types"][0].what
    assert levels(found)["compact"] == {"not asked"}
    assert levels(found)["drop"] == levels(found)["left behind"] == {"ok"}
    examination, found = examine(server_settings(milvus_server.uri, vector_type="float16"), tmp_path / "c")
    assert examination.exit_code == 2
    assert "does not store" in found["collection"][0].what
    assert server.list_collections() == []


def test_files_that_the_server_does_not_see_name_the_staging_path(
    server: VectorIndex, milvus_server: MilvusStandalone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where driver and server have folders of one name that are not the same.
    monkeypatch.setattr("jobs.index.bulk_import.import_path", lambda path: f"/not/on/the/server{path}")
    examination, found = examine(server_settings(milvus_server.uri), tmp_path / "staged")
    assert examination.exit_code == 5
    assert "staging.path lies where Milvus itself reads" in found["import"][0].next_step
    # What does not hang on it is asked all the same.
    assert levels(found)["index and search"] == levels(found)["compact"] == {"ok"}
    assert server.list_collections() == []


def test_an_error_half_way_leaves_nothing(
    server: VectorIndex, milvus_server: MilvusStandalone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise FaceReindexError("broken")

    monkeypatch.setattr(milvus, "_expect", broken)
    monkeypatch.setattr(milvus, "_drop", broken)
    examination, found = examine(server_settings(milvus_server.uri), tmp_path / "a")
    assert examination.exit_code == 5
    assert found["left behind"][0].level == "failure"
    left = server.list_collections("face_reindex_doctor_")
    assert left
    assert all(name in " ".join(left) for name in [found["left behind"][0].what.split()[5]])
    monkeypatch.undo()
    for name in left:
        server.drop(name)
    monkeypatch.setattr(milvus, "_expect", broken)
    _, found = examine(server_settings(milvus_server.uri), tmp_path / "b")
    assert levels(found)["left behind"] == {"ok"}
    assert server.list_collections() == []
