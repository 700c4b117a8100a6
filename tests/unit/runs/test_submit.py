"""How a job has ended, whatever spark-submit ends with. No JVM; spark-submit is a script that says what it would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.errors import SettingsError
from jobs.runs.history import run_state
from jobs.runs.submit import End, Heard, Submission, how_it_ended
from jobs.tables.store import Warehouse
from tests.unit.runs.submissions import Said, client, container, kubernetes, lost, recorded, stub, yarn

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
MASTER = "Application application_1_1 failed 1 times due to AM Container for appattempt_1_1_1 exited with  exitCode: "
CODES = range(7)


def end_of(said: Said, asked: End | None = None, job: str = "verify") -> End:
    heard = Heard(job)
    for line in said.err.splitlines(keepends=True):
        heard.err(line)
    for line in said.out.splitlines(keepends=True):
        heard.out(line)
    return how_it_ended(said.code, heard, lambda: asked)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("mode", [kubernetes, yarn, client], ids=lambda mode: mode.__name__)
def test_a_job_ends_with_its_own_code_in_every_mode(mode: object, code: int) -> None:
    assert callable(mode)
    # Not even asked: the table may have a row of this id that an earlier attempt has left.
    assert end_of(mode(code), End(0, "an earlier attempt")).code == code


@pytest.mark.parametrize(
    "said",
    [
        kubernetes(None),
        kubernetes(4, info=False),
        kubernetes(0, info=False),
        kubernetes(0, name="driver", beside=container("proxy", 0)),
        yarn(0, info=False),
        Said("", "", 0),
        Said("", "sync: fine\n", 0),
        lost(),
        lost(-9),
        lost(0),
    ],
)
def test_silence_is_no_success(said: Said) -> None:
    end = end_of(said)
    assert end.code == 5, end
    assert "nobody has said" in end.witness
    assert end_of(said, End(0, "the `runs` table")).code == 0


@pytest.mark.parametrize("code", [137, 143])
@pytest.mark.parametrize("mode", [kubernetes, client], ids=lambda mode: mode.__name__)
def test_a_driver_that_was_killed_is_started_again(mode: object, code: int) -> None:
    assert callable(mode)
    assert end_of(mode(code)).code == 5


@pytest.mark.parametrize("code", [137, -100, -102])
def test_so_is_one_whose_container_yarn_took_away(code: int) -> None:
    assert end_of(yarn(1, diagnostics=f"{MASTER}{code}")).code == 5


@pytest.mark.parametrize("code", [7, 50, 101])
def test_a_code_that_is_none_of_ours_is_1(code: int) -> None:
    assert end_of(kubernetes(code)).code == 1


def test_yarn_counts_a_driver_that_ended_before_it_had_a_session() -> None:
    """Its own code is in the last lines of its log, which YARN shows."""
    tail = f"{MASTER}13\nLast 4096 bytes of stderr :\nERROR ApplicationMaster: User application exited with status 2"
    assert end_of(yarn(1, diagnostics=tail)).code == 2


def test_a_submission_that_was_refused_is_not_tried_again() -> None:
    assert end_of(Said("error: 403 Forbidden\n", "", 1)) == End(
        1, "spark-submit ended with 1, and no driver is known of"
    )


def test_of_several_containers_the_drivers_counts() -> None:
    assert end_of(kubernetes(4, beside=container("proxy", 0))).code == 4
    assert end_of(kubernetes(4, name="mine")).code == 4


def test_a_driver_that_runs_here_may_tell_of_executors_that_ended() -> None:
    """In the very words that a submission has for a driver's container."""
    told = "WARN The API gave the following container statuses:\n"
    lost_executor = told + container("spark-kubernetes-executor", 137)
    fine, failed = client(0), client(4)
    assert end_of(Said(lost_executor, fine.out, 0)).code == 0
    assert end_of(Said(lost_executor + failed.err, "", 4)).code == 4
    named = told + container("mine", 1)
    assert end_of(Said(named, fine.out, 0)).code == 0
    # The driver itself was killed, and said nothing.
    assert end_of(Said(lost_executor, "", 137)).code == 5


def test_it_says_where_the_drivers_lines_are() -> None:
    assert "kubectl logs -n face-reindex verify-1-driver" in end_of(kubernetes(4)).witness
    assert "yarn logs -applicationId application_1764122400000_0007" in end_of(yarn(4)).witness


def test_a_command_line_is_read() -> None:
    words = (
        "spark-submit --py-files a.py --conf x=y jobs/sync.py --config p.yaml --set a=1 --set=b=2 --run-id=n1 --json"
    )
    of = Submission.of(words.split())
    assert (of.job, of.run_id, of.as_json) == ("sync", "n1", True)
    assert of.asking == ("--config", "p.yaml", "--set", "a=1", "--set", "b=2")
    with pytest.raises(SettingsError, match="no script"):
        Submission.of(["spark-submit", "--version"])


# --- The command itself ----------------------------------------------------------------------------------------------


def submit(folder: Path, said: Sequence[Said], *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (folder / "prod.yaml").write_text(f"warehouse: {folder}/warehouse\n")
    command = [str(stub(folder, said)), "--x", "local:///j/verify.py", "--config", str(folder / "prod.yaml"), *options]
    return subprocess.run(
        [sys.executable, "-m", "jobs.runs.submit", "--", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_what_is_said_is_handed_on_and_the_end_is_the_last_line(tmp_path: Path) -> None:
    said = kubernetes(4)
    done = submit(tmp_path, [said], "--audit", "--json")
    assert done.returncode == 4
    assert done.stderr == said.err
    told = json.loads(done.stdout)
    assert {key: told[key] for key in ("job", "ok", "exit_code")} == {"job": "verify", "ok": False, "exit_code": 4}
    assert (tmp_path / "submissions").read_text().startswith("--x local:///j/verify.py --config ")


def test_a_job_that_ran_here_has_the_last_word_itself(tmp_path: Path) -> None:
    done = submit(tmp_path, [client(0)], "--audit")
    assert (done.returncode, done.stdout, done.stderr) == (0, "verify: fine\n", "")


def test_what_a_shell_has_for_notebooks_is_nothing_to_a_job(tmp_path: Path) -> None:
    """spark-submit would run `jupyter jobs/verify.py`."""
    (tmp_path / "spark-submit").write_text("#!/bin/sh\necho verify: ${PYSPARK_DRIVER_PYTHON:-none} $LC_ALL\n")
    (tmp_path / "spark-submit").chmod(0o755)
    command = [sys.executable, "-m", "jobs.runs.submit", "--", str(tmp_path / "spark-submit"), "jobs/verify.py"]
    told = []
    for python in ("/opt/conda/bin/jupyter", "ipython3", "/opt/python3.11"):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_DRIVER_PYTHON": python, "LC_ALL": "C"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        told.append((done.stdout.splitlines()[0], "is left aside" in done.stderr))
    assert told == [
        ("verify: none C.UTF-8", True), ("verify: none C.UTF-8", True), ("verify: /opt/python3.11 C.UTF-8", False),
    ]  # fmt: skip


def test_a_table_that_cannot_be_asked_tells_nothing(tmp_path: Path) -> None:
    nowhere = {"NIGHTLY_STATUS_CONFIG": str(tmp_path / "nowhere.yaml")}
    done = submit(tmp_path, [lost()], "--run-id", "n1", **nowhere)
    assert done.returncode == 5
    assert "could not be asked (status ended with 2)" in done.stderr
    assert "nobody has said how the job ended" in done.stdout


def test_what_was_recorded_before_a_submission_is_another_attempts(tmp_path: Path) -> None:
    """No Spark: the table lies in a local folder."""
    began = datetime.now(UTC)
    recorded(tmp_path, "n1", "done", 0, began - timedelta(hours=20))
    warehouse = Warehouse(lambda: pytest.fail("Spark"), str(tmp_path), is_path=True, read_only=True)
    assert run_state(warehouse, "n1", began).exit_code == 0
    assert run_state(warehouse, "n1", began, since=began).state == "unknown"
    recorded(tmp_path, "n1", "failed", 4, began + timedelta(minutes=2))
    assert run_state(warehouse, "n1", began, since=began).exit_code == 4


def test_what_cannot_be_started_is_a_usage_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.runs.submit", "--", str(tmp_path / "nothing"), "jobs/verify.py"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cannot be started" in done.stderr


def test_who_ends_it_ends_the_submission(tmp_path: Path) -> None:
    path = tmp_path / "spark-submit"
    path.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600\n")
    path.chmod(0o755)
    command = [sys.executable, "-m", "jobs.runs.submit", "--", str(path), "jobs/verify.py"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        until = time.monotonic() + 60
        while not (tmp_path / "pid").exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
