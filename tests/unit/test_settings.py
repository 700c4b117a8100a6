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


def refused(folder: Path, text: str) -> str:
    (folder / "s.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(folder / "s.yaml", environ={})
    return str(caught.value).removeprefix(f"{folder / 's.yaml'}: ")


BOX = "governance:\n  coverage: box\n"
TWICE = {
    "a section": BOX + "erasure: {backup_days: 3}\ngovernance:\n  purposes: []\n",
    "a key": "governance:\n  coverage: box\n  openlineage: yes\n  coverage: any\n",
    "in braces": "governance: {coverage: box,\n\n\n coverage: any}\n",
}


@pytest.mark.parametrize("name", TWICE)
def test_guarantee_1_a_setting_that_stands_twice_is_refused_by_its_line(tmp_path: Path, name: str) -> None:
    """The first was dropped: records without a box covered people again."""
    assert refused(tmp_path, TWICE[name]).startswith("line 4: a name stands twice (first in line ")
    with pytest.raises(SettingsError, match=r"^--set governance: line 1: a name stands twice"):
        load_settings(overrides=["governance={coverage: box, coverage: any}"], environ={})


@pytest.mark.parametrize(
    "number", ["010", "-010", "0o17", "1:30", "1:30.5", "0b11", "1_0", "1_0000", "08", "0_7", ".nan", "007"]
)
@pytest.mark.parametrize("key", ["erasure.backup_days", "erasure.milvus_gc_hours", "milvus.database"])
def test_a_number_that_is_another_one_in_another_yaml_is_refused_by_its_line(
    tmp_path: Path, number: str, key: str
) -> None:
    section, name = key.split(".")
    said = refused(tmp_path, f"{section}:\n\n  {name}: {number}\n")
    assert said.startswith("line 3: a number that is octal")
    assert number not in said.removeprefix("line 3")
    with pytest.raises(SettingsError, match=rf"^--set {key}: line 1: a number that is octal"):
        load_settings(overrides=[f"{key}={number}"], environ={})


@pytest.mark.parametrize("word", ["no", "Off", "YES", "on", "true", "False"])
@pytest.mark.parametrize(
    "text", ["warehouse: {}", "erasure: {{backup_days: {}}}", "governance: {{purposes: [p, {}]}}",
             "milvus: {{index_params: {{M: {}}}}}", "detection: {{thresholds: [0.6, 0.7, {}]}}"]
)  # fmt: skip
def test_a_truth_is_no_text_and_no_number(tmp_path: Path, word: str, text: str) -> None:
    """`backup_days: no` was 0 days."""
    said = refused(tmp_path, "# a comment\n" + text.format(word))
    assert said.startswith("line 2: ")
    assert "yes, no, on and off are neither number nor text" in said
    (tmp_path / "s.yaml").write_text(f"governance: {{openlineage: {word}}}\nwarehouse: '{word}'\n")
    settings = load_settings(tmp_path / "s.yaml", environ={})
    assert (settings.governance.openlineage, settings.warehouse) == (word.lower() in ("yes", "on", "true"), word)


def test_plain_values_are_what_they_were(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "warehouse: /data/faces # a comment\n"
        "governance: {purposes: ['p:a'], allowed_purposes: ['p:a']}\n"
        "erasure:\n  backup_days: 0\n  milvus_gc_hours: 1.5\n  milvus_queue_hours: 1e2\n"
        "sync: {max_images: 10_000, max_faces: 0x10}\n"
        "model:\n  sha256: ~\n  seed: 7\n"
        "milvus:\n  uri: http://milvus.example:19530\n  database: '007'\n  index_params: {M: -16}\n"
    )
    settings = load_settings(tmp_path / "s.yaml", ["planning.core_hour=.04", "staging.path="], {})
    assert settings.warehouse == "/data/faces"
    erasure = settings.erasure
    assert (erasure.backup_days, erasure.milvus_gc_hours, erasure.milvus_queue_hours) == (0, 1.5, 100.0)
    assert (settings.sync.max_images, settings.sync.max_faces, settings.model.seed) == (10_000, 16, 7)
    assert (settings.milvus.uri, settings.milvus.database) == ("http://milvus.example:19530", "007")
    assert (settings.milvus.index_params, settings.planning.core_hour) == ({"M": -16}, 0.04)
    assert settings.staging.path is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("milvus:\n  shards: many\n", "line 2: milvus.shards: Input should be a valid integer"),
        ("milvus:\n  shard: 1\n", "line 2: unknown key 'milvus.shard'"),
        ("model:\n  seed: 1\nsync: *m\n", "line 3: aliases are not read"),
        ("warehouse: &data /faces\n", "line 1: anchors are not read"),
        ("model:\n  seed: !!int 1\n", "line 2: tags (!) are not read"),
        ("model:\n  seed: [\n", "line 3: is not valid YAML"),
        ("model: {}\n? [a]\n: b\n", "line 2: a name must be one text"),
    ],
)
def test_a_fault_in_the_file_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, text).startswith(said)


def test_on_a_command_line_nothing_is_a_comment() -> None:
    with pytest.raises(SettingsError, match=r"^--set warehouse: line 1: ` #` behind a value"):
        load_settings(overrides=["warehouse=/data/faces #2"], environ={})
    assert load_settings(overrides=["warehouse='/data/faces #2'"], environ={}).warehouse == "/data/faces #2"


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
