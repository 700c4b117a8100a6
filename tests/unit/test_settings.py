"""Settings: strict, with hints, and secrets only from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import SettingsError
from jobs.settings import Settings, all_keys, load_settings

pytestmark = pytest.mark.unit


def test_set_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("milvus: {shards: 2, alias: people}\n")
    settings = load_settings(file, ["milvus.shards=4"], {})
    assert (settings.milvus.shards, settings.milvus.alias) == (4, "people")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("retension=4", "unknown key 'retension'"),
        ("milvus.shard=4", r"Hint: 'milvus\.shards'"),
        ("milvus.shards=many", "milvus.shards: Input should be a valid integer"),
        ("milvus.shards=0", "milvus.shards"),
        ("warehouse.x=1", "warehouse"),
        ("nonsense", "expected key=value"),
        ("milvus_token=abc", "FACE_REINDEX_MILVUS_TOKEN"),
        ("governance.purposes=[p]", "not in governance.allowed_purposes"),
    ],
)
def test_a_wrong_key_or_value_is_named(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(overrides=[override], environ={})


@pytest.mark.parametrize("warehouse", ["/data/faces", "s3a://bucket/faces", "main.faces"])
def test_guarantee_9_an_index_is_not_another_one_where_a_job_is_started_elsewhere(warehouse: str) -> None:
    settings = load_settings(overrides=[f"warehouse={warehouse}"], environ={})
    with pytest.raises(SettingsError, match=r"milvus\.uri 'face-index\.db' depends on the folder .*whole path"):
        _ = settings.index_file
    whole = load_settings(overrides=[f"warehouse={warehouse}", "milvus.uri=/data/faces.db"], environ={})
    assert whole.index_file == Path("/data/faces.db")
    # From another folder the warehouse is another one, too.
    both = load_settings(overrides=["warehouse=./faces", "milvus.uri=./faces/index.db"], environ={})
    assert both.index_file == Path("faces/index.db")


def test_a_fault_is_told_of_where_it_was_made(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("milvus: {shards: 2}\n")
    for override in ("milvus.shard=4", "milvus.shards=many"):
        with pytest.raises(SettingsError, match=r"^--set: .*milvus\.shard"):
            load_settings(file, [override], {})
    for wrong in ("milvus: {shard: 2}", "milvus: {shards: many}"):
        file.write_text(wrong)
        with pytest.raises(SettingsError, match=rf"^{file}: .*milvus\.shard"):
            load_settings(file, ["milvus.alias=people"], {})


def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("milvus_token: hunter2\n")
    with pytest.raises(SettingsError, match="is a secret") as caught:
        load_settings(file, environ={})
    assert "hunter2" not in str(caught.value)


def test_secrets_come_from_the_environment_and_stay_out_of_print_and_digest() -> None:
    without = load_settings(environ={})
    settings = load_settings(environ={"FACE_REINDEX_MILVUS_TOKEN": "hunter2", "FACE_REINDEX_HMAC_KEY": "k3y"})
    assert settings.milvus_token is not None
    assert settings.milvus_token.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings) + settings.canonical_json()
    assert settings.digest() == without.digest()


@pytest.mark.parametrize(
    ("warehouse", "is_path"),
    [("s3a://b/x", True), ("./w", True), ("/data/w", True), ("main.faces", False), ("faces", False)],
)
def test_a_warehouse_is_a_path_or_a_schema(warehouse: str, is_path: bool) -> None:
    assert Settings(warehouse=warehouse).warehouse_is_path is is_path


def test_every_key_is_documented() -> None:
    reference = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    assert [key for key in all_keys() if f"`{key}`" not in reference] == []


@pytest.mark.parametrize("name", ["local.yaml", "cluster.yaml"])
def test_the_shipped_settings_load(name: str) -> None:
    settings = load_settings(Path(__file__).parents[2] / "conf" / name, environ={})
    assert settings.governance.purposes
