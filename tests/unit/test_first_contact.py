"""The first minutes: what is missing is told in one sentence with the next step, and help needs no Java."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import JOBS

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
    mistaken = run("jobs", "erase", "--subject", "x", path=tmp_path)
    assert mistaken.returncode == 2
    assert mistaken.stderr.endswith("Nothing was run. Did you mean: python -m jobs.erase --help\n")
    helped = run("jobs.reindex", "--help", path=tmp_path)
    assert helped.returncode == 0
    assert "Examples:" in helped.stdout


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
    done = run("jobs.status", path=tmp_path, **({"JAVA_HOME": str(tmp_path / "jdk")} if home else {}))
    assert done.returncode == 5
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert "Next step: install Java 17" in done.stderr


def test_the_failure_is_json_where_lines_are(tmp_path: Path) -> None:
    done = run("jobs.status", "--set", "logging.format=json", path=tmp_path)
    line = json.loads(done.stderr)
    assert (line["step"], line["state"]) == ("status", "failed")
    assert "Next step: install Java 17" in line["message"]
