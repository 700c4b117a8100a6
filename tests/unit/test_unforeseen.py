"""What no test may say: that a job met an error which nobody foresaw. Here pytest runs tests that do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
TESTS = '''
import logging
import sys
import pytest
from jobs.cli import job
from jobs.diagnosis.check import found_in
from jobs.settings import Settings


@job("status", starts_spark=False)
def broken(context):
    """Ends as a job does that has a defect."""
    raise KeyError("a name")


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        broken.main(list(arguments))
    return ended.value.code


def test_a_job_says_it():
    assert run() == 1


def test_a_job_says_it_and_the_test_reads_it(capsys):
    assert run("--json") == 1
    assert "KeyError" in capsys.readouterr().err


def test_it_is_read_as_bytes(capfdbinary):
    assert run() == 1
    assert b"KeyError" in capfdbinary.readouterr().err


def test_doctor_says_it():
    print(found_in(KeyError("a name"), Settings()).what)


def test_it_is_logged():
    logging.getLogger("jobs").warning("an unforeseen KeyError.")


@pytest.fixture
def late():
    yield
    print("an unforeseen KeyError.")


def test_it_is_said_when_all_is_over(late):
    pass


@pytest.mark.unforeseen
def test_that_is_about_it():
    assert run() == 1


@pytest.mark.unforeseen
def test_that_is_no_longer_about_it():
    pass


def test_that_says_something_else(capsys):
    print("unforeseen circumstances", file=sys.stderr)
    assert capsys.readouterr().err
'''
FAILED = {
    "test_a_job_says_it", "test_a_job_says_it_and_the_test_reads_it", "test_it_is_read_as_bytes", "test_doctor_says_it",
    "test_it_is_logged", "test_that_is_no_longer_about_it",
}  # fmt: skip


def test_a_test_that_says_unforeseen_fails_the_suite(tmp_path: Path) -> None:
    (tmp_path / "test_said.py").write_text(TESTS)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "-rA"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("FACE_REINDEX_TRACEBACK", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), "test_said.py"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    ended = {name: end for end, name in re.findall(r"^(PASSED|FAILED|ERROR) test_said\.py::(\w+)", done.stdout, re.M)}
    assert {name for name, end in ended.items() if end == "FAILED"} == FAILED, done.stdout
    assert {name for name, end in ended.items() if end == "ERROR"} == {"test_it_is_said_when_all_is_over"}
    assert {name for name, end in ended.items() if end == "PASSED"} == {
        "test_that_is_about_it", "test_that_says_something_else",
    }  # fmt: skip
    assert "Give that error a reason of its own" in done.stdout
    assert done.returncode == 1
