"""The first minutes: what is missing is told in one sentence with the next step, and help needs no Java."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import JOBS, main

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


def run(*arguments: str, path: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """A command in an environment that has only the programs of ``path``."""
    env = {"PATH": str(path), "PYTHONPATH": str(ROOT), "HOME": str(path), **changes}
    return subprocess.run(
        [sys.executable, "-m", *arguments], env=env, cwd=path, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_list_of_jobs_and_their_help_need_no_java(tmp_path: Path) -> None:
    listed = run("jobs", path=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert all(f"python -m jobs.{name}" in listed.stdout for name in JOBS)
    for mistaken in (["erasse", "--subject", "x"], ["--subject", "x", "erase"]):
        done = run("jobs", *mistaken, path=tmp_path)
        assert done.returncode == 2
        assert done.stderr.endswith("Nothing was run. Did you mean: python -m jobs.erase --help\n")
    for name in (["jobs.reindex"], ["jobs", "reindex"]):
        helped = run(*name, "--help", path=tmp_path)
        assert helped.returncode == 0
        assert "Usage: python -m jobs.reindex [OPTIONS]" in helped.stdout
        assert "Examples:" in helped.stdout


SCRIPT = """
import sys
sys.argv[0] = "/usr/bin/face-reindex"
from jobs.__main__ import main
code = main()
print("loaded", *({"click", "pyspark", "torch", "pymilvus", "numpy"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["no-job"]])
def test_the_console_script_lists_the_jobs_and_loads_none(tmp_path: Path, arguments: list[str]) -> None:
    env = {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == (2 if arguments == ["no-job"] else 0)
    *listed, loaded = done.stdout.splitlines()
    assert loaded == "loaded"
    assert [line.split()[1] for line in listed if line.startswith("  face-reindex ")] == list(JOBS)


def test_the_console_script_runs_a_job_and_hands_on_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/face-reindex", "status", "--set", "retension=1", "--quiet"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("home", "version", "message"),
    [
        (False, None, "No Java: PATH has none."),
        (True, None, "No Java: JAVA_HOME"),
        (False, "11.0.20", "is Java 11; Spark needs 17 or later."),
        (False, "1.8.0_392", "is Java 8; Spark needs 17 or later."),
    ],
)
def test_a_missing_java_is_one_sentence(tmp_path: Path, home: bool, version: str | None, message: str) -> None:
    if version is not None:
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2023-07-18' >&2\n")
        java.chmod(0o755)
    done = run("jobs.plan", path=tmp_path, **({"JAVA_HOME": str(tmp_path / "jdk")} if home else {}))
    assert done.returncode == 5
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert "Next step: install Java 17" in done.stderr


def test_the_failure_is_json_where_lines_are(tmp_path: Path) -> None:
    done = run("jobs.plan", "--set", "logging.format=json", path=tmp_path)
    line = json.loads(done.stderr)
    assert (line["step"], line["state"]) == ("plan", "failed")
    assert "Next step: install Java 17" in line["message"]


def test_what_runs_there_were_is_told_without_java(tmp_path: Path) -> None:
    """Of a warehouse in a local folder: no session of Spark is started for it."""
    done = run("jobs.status", "--set", f"warehouse={tmp_path}/warehouse", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "there is no warehouse at" in done.stdout
