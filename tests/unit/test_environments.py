"""What a job inherits, in detail; whole environments are in tests/unit/odd/corpus.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jobs import environment
from jobs.errors import SettingsError

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        ({"no_proxy": "corp.example"}, {}),
        ({"http_proxy": "http://p:1"}, {"": "localhost,127.0.0.1,::1"}),
        ({"ALL_PROXY": "socks5://p:1"}, {"": "localhost,127.0.0.1,::1"}),
        ({"grpc_proxy": "http://p:1", "no_proxy": "a, b,localhost"}, {"": "a,b,localhost,127.0.0.1,::1"}),
        # The first that is set counts alone: what stood in another one is kept.
        ({"https_proxy": "http://p:1", "NO_PROXY": "corp.example"}, {"": "corp.example,localhost,127.0.0.1,::1"}),
        (
            {"http_proxy": "http://p:1", "no_proxy": "a", "no_grpc_proxy": "b"},
            {"no_proxy": "a,localhost,127.0.0.1,::1", "no_grpc_proxy": "b,localhost,127.0.0.1,::1"},
        ),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, {"no_grpc_proxy": "*,localhost,127.0.0.1,::1"}),
        ({"http_proxy": ""}, {}),
    ],
)
def test_loopback_goes_past_a_proxy(before: dict[str, str], after: dict[str, str]) -> None:
    environ = dict(before)
    environment.keep_loopback_direct(environ)
    both = after.get("")
    changed = {"no_proxy": both, "no_grpc_proxy": both} if both else after
    assert environ == {**before, **changed}
    again = dict(environ)
    environment.keep_loopback_direct(again)
    assert again == environ


def test_which_proxy_stands_before_a_server() -> None:
    proxied = {"http_proxy": "http://p:1", "no_proxy": ".corp.example, 10.0.0.7"}
    hosts = ("milvus.corp.example", "10.0.0.7", "notcorp.example", "other")
    asked = [environment.proxy_before(host, proxied) for host in hosts]
    assert asked == ["", "", "http_proxy", "http_proxy"]
    assert environment.proxy_before("other", {**proxied, "no_grpc_proxy": "*"}) == ""
    assert environment.proxy_before("other", {}) == ""


def test_another_pyspark_before_ours_is_named() -> None:
    environment.check_pyspark("4.2")
    with pytest.raises(SettingsError, match=r"finds PySpark 4\.2\.0 \(in .*\), and PySpark 4\.20 is needed") as told:
        environment.check_pyspark("4.20")
    assert "PYTHONPATH" in told.value.hint


def test_where_libraries_can_be_loaded_from(tmp_path: Path) -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    barred = [Path(place) for _, place, _, options, *_ in mounts if "noexec" in options.split(",")]
    assert [place for place in barred if environment.may_run(place)] == []
    assert environment.may_run(tmp_path)
    assert not environment.may_run(tmp_path / "none")


def test_native_libraries_unpack_where_they_can_be_loaded(tmp_path: Path) -> None:
    unusable = "-Djava.io.tmpdir=/nonexistent"
    assert environment.native_folders(f"-Djava.io.tmpdir={tmp_path}", {}) == {}
    found = environment.native_folders(f"-DZstdTempFolder={tmp_path} {unusable}", {})
    assert set(found) == set(environment.NATIVE_FOLDERS) - {"ZstdTempFolder"}
    assert all(environment.may_run(Path(folder)) for folder in found.values())
    # The last one counts, also of what every Java is given.
    assert environment.native_folders(unusable, {"_JAVA_OPTIONS": f'"-Djava.io.tmpdir={tmp_path}"'}) == {}
    assert environment.as_options({"a": "/b c", "d": "/e"}) == '"-Da=/b c" -Dd=/e'


def test_the_projects_environment_keeps_no_notebook_and_no_other_spark(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.9\"' >&2\n")
    java.chmod(0o755)
    stale = {"SPARK_HOME": "/opt/spark-3.5", "SPARK_CONF_DIR": "/opt/spark-3.5/conf", "SPARK_REMOTE": "sc://h:1",
             "PYSPARK_DRIVER_PYTHON": "jupyter", "PYSPARK_DRIVER_PYTHON_OPTS": "notebook"}  # fmt: skip

    def given_to(inherited: dict[str, str]) -> dict[str, str]:
        done = subprocess.run(
            [str(ROOT / ".ci" / "env"), "env"], capture_output=True, text=True, check=True,
            env={"PATH": os.environ["PATH"], "JAVA_HOME": str(tmp_path), **inherited},
        )  # fmt: skip
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    given = given_to(stale)
    assert {name: given.get(name) for name in stale} == {
        **dict.fromkeys(stale), "PYSPARK_DRIVER_PYTHON": str(ROOT / ".venv" / "bin" / "python"),
    }  # fmt: skip
    locales: list[dict[str, str]] = [
        {},
        {"LC_ALL": "C", "LANG": "en_US.UTF-8"},
        {"LC_CTYPE": "de_DE.utf8"},
        {"LANG": "en_US.UTF-8"},
    ]
    assert [given_to(locale).get("LC_ALL") for locale in locales] == ["C.UTF-8", "C.UTF-8", None, None]
