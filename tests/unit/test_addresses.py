"""Addresses with a secret in them are taken by no setting and no option, and are not repeated."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import get_type_hints

import click
import pytest
from pydantic import BaseModel

from jobs.addresses import holds_credentials, with_port
from jobs.cli import NO_PLACES
from jobs.errors import SettingsError
from jobs.settings import Settings, load_settings
from tests.unit.commands import COMMANDS

pytestmark = pytest.mark.unit

WITH_SECRET = [
    "s3a://KEY:SECRET@bucket/x", "s3a://KEY:SEC/RET@bucket/x", "s3a://KEY:SE+C/RE/T@bucket", "s3a://KEY@bucket/x",
    "S3A://KEY:SECRET@b", "s3a:///KEY:SECRET@b/x", "s3a://KEY:0/SECRET@b/x", "delta:s3a://KEY:SECRET@b/x",
    "a-b:s3://KEY:SE/CRET@b/x", "https://root:SECRET@h:19530", "https://root:1/SECRET@h:19530", "https://SECRET@h",
    "hdfs://u:SECRET@nn:8020/x", "abfss://c:SECRET@account.dfs.core.windows.net/x", "abfss://u:SECRET@c@account/x",
    "https://b.s3.amazonaws.com/w.pt?X-Amz-Signature=SECRET&x=1", "https://h/w.pt?access_token=SECRET",
    "abfss://c@a.dfs.core.windows.net/w?sv=1&sig=SECRET", "jdbc:db://h/d;password=SECRET", "s3a://KEY:SEC\nRET@b/x",
]  # fmt: skip
WITHOUT = [
    "s3a://bucket/x", "s3a://bucket", "s3a://bucket/user@host/x:y", "s3a://my_bucket.with-dots/a?b#c", "gs://b/x",
    "s3a://bucket/x=1/key=2", "abfss://container@account.dfs.core.windows.net/wh", "https://h:19530",
    "http://[::1]:19530", "http://localhost:19530/db", "hdfs://nn:8020/a@b/c:d", "hdfs:///a/b", "file:///home/a@b:c/x",
    "folder:/data/a:b@c/x", "/data/u:p@x", "main.faces", "vggface2", "face-index.db", "delta:lake.photos", "a b@c", "",
]  # fmt: skip
# Texts that name no place.
NO_PLACE_SETTINGS = {
    "model.sha256", "milvus.database", "milvus.alias", "planning.currency", "milvus_user",
}  # fmt: skip


def test_an_address_with_a_secret_is_told_from_one_without() -> None:
    assert [text for text in WITH_SECRET if not holds_credentials(text)] == []
    assert [text for text in WITHOUT if holds_credentials(text)] == []


def _texts(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Settings that are one text."""
    found = []
    kinds = get_type_hints(model)
    for name, field in model.model_fields.items():
        kind = kinds[name]
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _texts(kind, f"{prefix}{name}.")
        elif not field.exclude and kind in (str, str | None):
            found.append(prefix + name)
    return found


def test_guarantee_14_no_setting_takes_an_address_with_a_secret() -> None:
    places = sorted(set(_texts(Settings)) - NO_PLACE_SETTINGS)
    assert {"warehouse", "milvus.uri", "model.weights", "staging.path", "erasure.evidence_path"} <= set(places)
    for place in places:
        for text in WITH_SECRET:
            with pytest.raises(SettingsError, match=f"{place}: .*credentials") as stopped:
                load_settings(overrides=[f"{place}={text!r}"], environ={})
            assert "SECRET" not in str(stopped.value)
            assert "RET@" not in str(stopped.value)
    for text in WITH_SECRET:
        with pytest.raises(SettingsError, match=r"sources\.roots"):
            load_settings(overrides=[f"sources.roots=[{text!r}]"], environ={})


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_guarantee_14_no_option_takes_an_address_with_a_secret(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.cli._in_session", lambda *_: pytest.fail("the job has begun"))
    command: click.Command = importlib.import_module(f"jobs.{name}").main
    text_options = [p for p in command.params if isinstance(p.type, click.types.StringParamType | click.Path)]
    for option in text_options:
        if option.name in NO_PLACES:
            continue
        for text in WITH_SECRET:
            with pytest.raises(SystemExit) as ended:
                command.main([option.opts[0], text, "--json"], prog_name=name)
            out, err = capsys.readouterr()
            assert ended.value.code == 2
            assert f"{option.opts[0]}: there are credentials" in out
            assert "RET" not in (out + err).replace("AWS_SECRET_ACCESS_KEY", "")


def test_the_shipped_places_are_taken() -> None:
    for file in ("local.yaml", "cluster.yaml"):
        load_settings(Path(__file__).parents[2] / "conf" / file, environ={})


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("http://milvus", "http://milvus:19530"),
        ("http://milvus/", "http://milvus:19530"),
        ("https://milvus", "https://milvus:443"),
        ("https://milvus:19531/", "https://milvus:19531"),
        ("http://[::1]", "http://[::1]:19530"),
    ],
)
def test_without_a_port_milvus_is_asked_where_pymilvus_asks(uri: str, asked: str) -> None:
    from pymilvus.client.connection_manager import ConnectionConfig

    assert with_port(uri) == asked
    port = ConnectionConfig.from_uri(uri, db_name="default", token="").address.rpartition(":")[2]
    assert asked.endswith(f":{port}")
