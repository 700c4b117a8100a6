"""What a job leaves on a machine is for its user alone. No JVM; the whole of a job is in tests/e2e/test_private.py."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark import SparkConf

from jobs import private, session
from jobs.errors import SettingsError
from jobs.runs.metrics import RunMetrics

pytestmark = pytest.mark.unit

SLEEPER = """
import sys, time
from jobs.private import keep_private, private_folder
keep_private()
folder = private_folder(sys.argv[1])
(folder / "faces").write_text("a face")
print(folder, flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)
    private.private_folder.cache_clear()


def started(place: Path, seconds: float) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", SLEEPER, str(place), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def age(path: Path) -> None:
    os.utime(path, (time.time() - 3600,) * 2)


@pytest.mark.parametrize(("umask", "expected"), [("077", 0o600), ("027", 0o640), ("0022", 0o644)])
def test_files_have_the_mode_that_the_properties_say(tmp_path: Path, umask: str, expected: int) -> None:
    private.keep_private(umask)
    (tmp_path / "receipt").write_text("")
    assert mode(tmp_path / "receipt") == expected


@pytest.mark.parametrize("umask", ["u=rwx", "77", "0o077", "999", ""])
def test_what_is_no_umask_is_told(umask: str) -> None:
    with pytest.raises(SettingsError, match=r"umask-mode.*octal"):
        private.keep_private(umask)


def test_a_folder_is_private_and_goes_with_its_process(tmp_path: Path) -> None:
    process, folder = started(tmp_path, 0.5)
    assert (mode(folder), mode(folder / "faces")) == (0o700, 0o600)
    assert process.wait() == 0
    assert not folder.exists()


def test_what_a_killed_process_left_goes_with_the_next_start(tmp_path: Path) -> None:
    """And nothing else: not what is in use, is young, is a link, or is no folder of a job."""
    killed, left = started(tmp_path, 60)
    young, fresh = started(tmp_path, 60)
    living, used = started(tmp_path, 60)
    for process in (killed, young):
        process.send_signal(signal.SIGKILL)
        process.wait()
    elsewhere = tmp_path / "elsewhere" / "face-reindex-x"
    elsewhere.mkdir(parents=True)
    (elsewhere / "in-use").touch()
    (tmp_path / "face-reindex-link").symlink_to(elsewhere)
    (tmp_path / "face-reindex-mine").mkdir()
    for path in (left, used, elsewhere, tmp_path / "face-reindex-mine"):
        age(path)
    mine = private.private_folder(str(tmp_path))
    assert not left.exists()
    link, unlocked = tmp_path / "face-reindex-link", tmp_path / "face-reindex-mine"
    for kept in (fresh, used, elsewhere / "in-use", link, unlocked, mine):
        assert kept.exists(), kept.name
    living.kill()
    living.wait()


def test_a_folder_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, left = started(tmp_path, 60)
    killed.kill()
    killed.wait()
    age(left)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        private.private_folder(str(tmp_path))
    assert left.exists()


def test_no_place_for_temporary_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot be written there.*spark\.local\.dir"):
        private.private_folder(str(tmp_path / "file"))


def test_properties_reach_the_jvm_by_a_file_and_not_by_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ps` shows everybody's arguments; a properties file may hold a secret."""
    monkeypatch.delenv("SPARK_LOCAL_DIRS", raising=False)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--verbose pyspark-shell")
    values = {"spark.authenticate.secret": "a b=c:d\\e#f", "spark.hadoop.x#y": "1", "spark.local.dir": f"{tmp_path},"}
    with session._submission(SparkConf(loadDefaults=False).setAll(list(values.items()))):
        arguments = os.environ["PYSPARK_SUBMIT_ARGS"]
        option, file, *rest = shlex.split(arguments)[1:]
        assert (option, rest) == ("--properties-file", ["--verbose", "pyspark-shell"])
        assert mode(Path(file)) == 0o600
        assert "spark.authenticate.secret=a b=c:d\\\\e#f" in Path(file).read_text().splitlines()
        place = Path(os.environ["SPARK_LOCAL_DIRS"])
        assert (place.parent, mode(place)) == (tmp_path, 0o700)
    assert not Path(file).exists()
    assert os.environ["PYSPARK_SUBMIT_ARGS"] == "--verbose pyspark-shell"
    assert "SPARK_LOCAL_DIRS" not in os.environ


def test_metrics_are_for_another_users_process(tmp_path: Path) -> None:
    private.keep_private()
    metrics = RunMetrics(str(tmp_path / "{job}.prom"), "sync", "r1")
    assert metrics.write() is None
    assert mode(tmp_path / "sync.prom") == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["sync.prom"]
