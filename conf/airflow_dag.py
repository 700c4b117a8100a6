"""Airflow: the night, the minutes between nights, and the weekly proof. Copy it into the DAG folder.

Imported and tried in Airflow 3.3; the imports for Airflow 2 follow its documentation and are untried.

A run's id comes from the logical date, so a retry resumes the run. By its exit code: 5 is retried; all others fail at
once, for a retry cannot help. Wherever the driver runs, `python -m jobs.runs.submit` ends with the job's own code.

In the worker's environment, beside the secrets (the same names as for conf/nightly.sh):
    NIGHTLY_HOME               the checkout, or where this project is installed
    NIGHTLY_CONFIG             the settings file, as the driver sees it
    NIGHTLY_SUBMIT             starts a job, without its script: spark-submit --properties-file conf/spark-yarn.conf …
                               (unset: python -m jobs.NAME)
    NIGHTLY_JOBS               where spark-submit finds the scripts (jobs; on Kubernetes local:///opt/face-reindex/jobs)
    NIGHTLY_STATUS_CONFIG      the settings by which `runs` is asked, where NIGHTLY_CONFIG is a path on the cluster;
    NIGHTLY_STATUS_PROPERTIES  the Spark properties for that, where the warehouse needs some (S3)
    NIGHTLY_PYTHON             the Python that has this project (python)
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

try:
    from airflow.sdk import dag, get_current_context, task
    from airflow.sdk.exceptions import AirflowFailException
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.exceptions import AirflowFailException
    from airflow.operators.python import get_current_context

log = logging.getLogger(__name__)

# jobs/errors.py has one class for each.
FAIL_AT_ONCE = {
    1: "unforeseen, or a source that cannot be read",
    2: "usage or settings",
    3: "refused by governance",
    4: "not proven, so not promoted",
    6: "an erasure found nothing of what it was asked for",
}
RETRY = 5
# The lease of a run that died ends after ten minutes; a Milvus or a store that is restarted is back by then, too.
RETRIES = {
    "retries": 5,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=20),
}
STARTED = {"start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False, "max_active_runs": 1}


def run_id(name: str) -> str:
    """The same for each try of one DAG run: of the night by its date, of anything else by Airflow's own id."""
    context = get_current_context()
    run = context["dag_run"]
    scheduled = str(getattr(run.run_type, "value", run.run_type)) == "scheduled"
    if name == "nightly" and scheduled and context.get("ds"):
        return f"nightly-{context['ds']}"
    return f"{name}-{re.sub(r'[^A-Za-z0-9_.-]', '-', run.run_id)}"[:100]


def call(command: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Run a command; its exit code, and the JSON object on its last line. A task that is killed takes it along."""
    log.info("%s", shlex.join(command))
    last = ""
    with subprocess.Popen(  # noqa: S603 - words of this file and of the worker's environment
        command,
        cwd=os.environ.get("NIGHTLY_HOME"),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        umask=0o077,  # for what a JVM of spark-submit writes
    ) as process:
        try:
            for line in process.stdout or ():
                last = line.strip() or last
                log.info("%s", line.rstrip())
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
    try:
        said = json.loads(last)
    except ValueError:
        said = {}
    return process.returncode, said if isinstance(said, dict) else {}


def perform(job: str, name: str, *options: str) -> str:
    """Run one job to its end, and raise as its exit code demands."""
    environ = os.environ
    command = [environ.get("NIGHTLY_PYTHON", "python"), "-m"]
    if submit := shlex.split(environ.get("NIGHTLY_SUBMIT", "")):
        command += ["jobs.runs.submit", "--", *submit, f"{environ.get('NIGHTLY_JOBS', 'jobs')}/{job}.py"]
    else:
        command += [f"jobs.{job}"]
    config, named = environ.get("NIGHTLY_CONFIG", "conf/cluster.yaml"), run_id(name)
    code, said = call([*command, "--config", config, "--run-id", named, "--json", *options])
    message = f"{named}: {said.get('message', 'no result')} (exit code {code})"
    if code in FAIL_AT_ONCE:
        raise AirflowFailException(f"{message}: {FAIL_AT_ONCE[code]}. See docs/operations.md.")
    if code:
        # 5, or killed by a signal: the same id resumes.
        raise RuntimeError(f"{message}: tried again under the same id.")
    return message


@dag(dag_id="face_reindex_nightly", schedule="0 2 * * *", default_args=RETRIES, **STARTED)
def nightly() -> None:
    """What has reached its end is destroyed; then the whole index is built, proven, and put behind the alias."""

    @task
    def expire() -> str:
        return perform("expire", "expire")

    @task
    def reindex() -> str:
        return perform("reindex", "nightly")

    expire() >> reindex()


@dag(dag_id="face_reindex_sync", schedule="*/5 * * * *", default_args={"retries": 0}, **STARTED)
def between_nights() -> None:
    """Withdrawals, holds and small additions reach the live collection, also while a night runs."""

    @task
    def sync() -> str:
        return perform("sync", "sync")

    sync()


@dag(dag_id="face_reindex_proof", schedule="0 12 * * 0", default_args=RETRIES, **STARTED)
def weekly() -> None:
    """What was erased is gone, and the audit trail is whole."""

    @task
    def erased() -> str:
        return perform("verify", "erased", "--erased")

    @task
    def audit() -> str:
        return perform("verify", "audit", "--audit")

    erased() >> audit()


nightly()
between_nights()
weekly()
