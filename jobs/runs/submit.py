"""Run a job by spark-submit, and end as the job has ended, in every deploy mode.

    python -m jobs.runs.submit -- spark-submit --properties-file conf/spark-yarn.conf jobs/verify.py --audit

Where the driver runs on the cluster, spark-submit's own exit code is not the job's: to Kubernetes it is 0 whatever
became of the driver, and YARN makes 1 of every failure (Spark 4.2.0). So it is taken from who saw the job end:

1. the cluster's manager, whose word spark-submit passes on: the exit code of the driver's container on Kubernetes, the
   application's diagnostics and final status on YARN;
2. the job itself, where its driver ran here: its last line, and then spark-submit's exit code;
3. where neither was heard (a submission that was killed, or that lost the cluster while the driver went on): the
   `runs` table, for what was recorded of this run since the submission began. A run that goes on is waited for.

Where nobody has said so, a job has not ended well: 0 is never taken from silence.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import IO, Any, Final

import click

from jobs import environment
from jobs.errors import NOTHING_FOUND, DependencyUnavailable, FaceReindexError, SettingsError

_RETRY: Final = DependencyUnavailable.exit_code
_CODES: Final = range(NOTHING_FOUND + 1)
#: A process that a signal has ended has 128 and the signal's number; YARN has numbers below 0 for what it takes away.
_SIGNALLED: Final = 128
#: How much the driver's clock may be behind this one's before a row of this run looks like an earlier one's.
_SKEW: Final = timedelta(seconds=30)

# As org.apache.spark.deploy.k8s.KubernetesUtils writes the state of a pod, one pair a line.
_PAIR: Final = re.compile(r"^\s+(container name|container state|exit code|pod name|namespace): (\S+)\s*$")
_DRIVER, _EXECUTOR = "spark-kubernetes-driver", "spark-kubernetes-executor"
# As org.apache.spark.deploy.yarn.ApplicationMaster and Client, and YARN's own diagnostics, have them.
_USER_CODE: Final = re.compile(r"User application exited with status (\d+)")
_MASTER_CODE: Final = re.compile(r"AM Container for \S+ exited with +exitCode: (-?\d+)")
_FINAL_STATUS: Final = re.compile(r"^\s+final status: (\w+)\s*$")
_APPLICATION: Final = re.compile(r"\bapplication_\d+_\d+\b")


# Options of spark-submit whose values may end like a script's name.
_FILES: Final = ("--py-files", "--files")


@dataclass(frozen=True)
class End:
    """How a job ended, and who says so."""

    code: int
    witness: str
    message: str = ""


@dataclass
class Submission:
    """What spark-submit was told, as far as it matters here.

    ``job`` is the script's name; ``asking`` are the options that lead `status` to the same warehouse.
    """

    command: tuple[str, ...]
    job: str
    run_id: str | None
    asking: tuple[str, ...]
    as_json: bool

    @classmethod
    def of(cls, command: Sequence[str]) -> Submission:
        """Read the command line.

        Raises:
            SettingsError: no word of it is a script of Python.
        """
        words = enumerate(zip(command[1:], command, strict=False), start=1)
        at = next((i for i, (word, before) in words if word.endswith(".py") and before not in _FILES), None)
        if at is None:
            raise SettingsError(
                "There is no script among the words of this command.",
                hint="name one: python -m jobs.runs.submit -- spark-submit … jobs/reindex.py --config …",
            )
        options = command[at + 1 :]
        asking = [w for name in ("--config", "--set") for value in _values(options, name) for w in (name, value)]
        run_id = next(iter(_values(options, "--run-id")), None)
        return cls(tuple(command), PurePosixPath(command[at]).stem, run_id, tuple(asking), "--json" in options)


def _values(options: Sequence[str], name: str) -> list[str]:
    """What an option was given, each time: `--name value` or `--name=value`."""
    pairs = zip(options, [*options[1:], ""], strict=False)  # of no options there is none behind, either
    return [
        word.removeprefix(f"{name}=") if word != name else after
        for word, after in pairs
        if word == name or word.startswith(f"{name}=")
    ]


@dataclass
class Heard:
    """What a submission has said so far of how its ``job`` ended."""

    job: str
    own: bool = False
    containers: dict[str, int | None] = field(default_factory=dict)
    user_code: int | None = None
    master_code: int | None = None
    final_status: str = ""
    pod: str = ""
    namespace: str = ""
    application: str = ""
    _container: str = ""

    def out(self, line: str) -> None:
        """A line of stdout: only a job that runs here says anything there."""
        self.own = self.own or line.startswith((f"{self.job}: ", f'{{"job": "{self.job}", '))

    def err(self, line: str) -> None:
        """A line of stderr: the submission's log, or the job's own lines."""
        self.own = self.own or line.startswith(f"{self.job}: failed: ") or _failed(line, self.job)
        if found := _PAIR.match(line):
            self._of_pod(*found.groups())
        if found := _USER_CODE.search(line):
            self.user_code = int(found[1])
        if found := _MASTER_CODE.search(line):
            self.master_code = int(found[1])
        if found := _FINAL_STATUS.match(line):
            self.final_status = found[1]
        if found := _APPLICATION.search(line):
            self.application = found[0]

    def _of_pod(self, key: str, value: str) -> None:
        if key == "container name":
            self._container = value
        elif key == "pod name":
            self.pod = value
        elif key == "namespace":
            self.namespace = value
        elif self._container == _EXECUTOR:
            # A driver that runs here tells of executors' containers in the same words.
            return
        elif key == "container state":
            # The last word on a container counts; one that runs has no code.
            self.containers[self._container] = None
        else:
            self.containers[self._container] = int(value) if value.isdigit() else None

    def by_yarn(self) -> End | None:
        """How the driver ended, as YARN says; None: it has not."""
        logs = f"; its output: yarn logs -applicationId {self.application}"
        if self.final_status == "SUCCEEDED":
            return End(0, f"YARN's final status is {self.final_status}{logs}")
        if self.user_code is not None:
            return End(self.user_code, f"YARN's diagnostics say: exited with status {self.user_code}{logs}")
        return None

    def by_container(self) -> End | None:
        """How the driver's container ended; None: nobody has said so, or YARN's code is its master's own."""
        # Of several, one is the driver's, and the others stand beside it: a proxy, a collector of logs.
        name = next(iter(self.containers)) if len(self.containers) == 1 else _DRIVER
        if (code := self.containers.get(name)) is not None:
            logs = f"; its output: kubectl logs -n {self.namespace} {self.pod}" if self.pod else ""
            return End(code, f"the exit code of its container is {code}{logs}")
        if self.master_code is not None and (self.master_code < 0 or self.master_code >= _SIGNALLED):
            logs = f"; its output: yarn logs -applicationId {self.application}"
            return End(self.master_code, f"YARN says that its container ended with {self.master_code}{logs}")
        return None


def _failed(line: str, job: str) -> bool:
    """Whether it is the line by which a job with ``logging.format: json`` says that it fails."""
    if not line.startswith("{"):
        return False
    try:
        said = json.loads(line)
    except ValueError:
        return False
    return isinstance(said, dict) and (said.get("step"), said.get("state")) == (job, "failed")


def how_it_ended(submitted: int, heard: Heard, ask: Callable[[], End | None]) -> End:
    """The job's end, of a submission that ended with ``submitted`` (negative: by a signal).

    ``ask``: what the `runs` table says, for who has heard nothing else.
    """
    end = heard.by_yarn()
    # Spark ends with none of the greater ones itself: a driver that ran here did, whether it said a line or could not.
    if end is None and submitted in _CODES and (heard.own or submitted > FaceReindexError.exit_code):
        end = End(submitted, "spark-submit's exit code, whose driver ran here")
    end = end or heard.by_container()
    if end is not None and end.code in _CODES:
        return end
    if end is not None:
        # Killed, or taken away: started again by its id it goes on. Anything else is nothing that we know.
        again = end.code < 0 or end.code >= _SIGNALLED
        return End(_RETRY if again else FaceReindexError.exit_code, end.witness)
    if (asked := ask()) is not None:
        return asked
    if 0 < submitted < _SIGNALLED:
        return End(FaceReindexError.exit_code, f"spark-submit ended with {submitted}, and no driver is known of")
    return End(
        _RETRY,
        f"spark-submit ended with {submitted}, and nobody has said how the job ended. If that comes again: spark-submit"
        " has to log at the level INFO, and to wait for its application (docs/deployment.md)",
    )


def ask_runs(of: Submission, since: datetime, instead: Sequence[str]) -> End | None:
    """What the `runs` table has on this run since then, once it has ended; None: nothing, or it cannot be asked.

    ``instead`` are further options of `status`, which win over those that the job was given.
    """
    if of.run_id is None:
        return None
    options = [*of.asking, *instead, "--run-id", of.run_id, "--since", (since - _SKEW).isoformat(timespec="seconds")]
    command = [sys.executable, "-m", "jobs.status", *options, "--wait", "--quiet", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - words of our own
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        run = told["run"]
    except (IndexError, KeyError, TypeError, ValueError):
        _say(f"The `runs` table could not be asked (status ended with {done.returncode}).")
        return None
    if run["state"] == "unknown":
        return None
    return End(int(run["exit_code"]), "the `runs` table", str(told["message"]))


def _run(command: Sequence[str], heard: Heard) -> int:
    """Run it, hand on what it says, and listen; its exit code, negative where a signal has ended it."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603 - the caller's
    except OSError as error:
        raise SettingsError(
            f"{command[0]} cannot be started ({error.strerror}).", hint="give its path, or put it on PATH."
        ) from None
    assert process.stdout is not None  # noqa: S101 - asked for above
    assert process.stderr is not None  # noqa: S101 - asked for above
    listeners = [
        threading.Thread(target=_hand_on, args=(process.stdout, sys.stdout.buffer, heard.out), daemon=True),
        threading.Thread(target=_hand_on, args=(process.stderr, sys.stderr.buffer, heard.err), daemon=True),
    ]
    with process:
        try:
            for listener in listeners:
                listener.start()
            for listener in listeners:
                listener.join()
            return process.wait()
        except BaseException:
            process.terminate()
            raise


def _hand_on(said: IO[bytes], to: IO[bytes], listen: Callable[[str], None]) -> None:
    # Closed where nobody reads any more, as the submission itself would find it.
    with said, suppress(BrokenPipeError):
        for line in said:
            listen(line.decode("utf-8", "replace"))
            to.write(line)
            to.flush()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--status-config",
    envvar="NIGHTLY_STATUS_CONFIG",
    help="The settings by which `runs` is asked, where the job's are a path on the cluster.",
)
@click.option(
    "--status-properties",
    envvar="NIGHTLY_STATUS_PROPERTIES",
    help="The Spark properties for that: what `status` takes as --properties-file.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(status_config: str | None, status_properties: str | None, command: tuple[str, ...]) -> None:
    """Run a job by spark-submit, and end with the job's own exit code, in every deploy mode.

    \b
    Example:
    python -m jobs.runs.submit -- spark-submit --properties-file conf/spark-yarn.conf jobs/sync.py --config prod.yaml
    """
    # Whoever ends this means the submission.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(_SIGNALLED + number))
    began = datetime.now(UTC)
    environment.leave_notebooks(_say)
    environment.name_files_in_utf_8()
    try:
        of = Submission.of(command)
        heard = Heard(of.job)
        instead = [
            *(("--config", status_config) if status_config else ()),
            *(("--properties-file", status_properties) if status_properties else ()),
        ]
        submitted = _run(of.command, heard)
        end = how_it_ended(submitted, heard, lambda: ask_runs(of, began, instead))
    except SettingsError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    if not heard.own:
        print(_last_line(of, end), flush=True)  # noqa: T201
    sys.exit(end.code)


def _last_line(of: Submission, end: End) -> str:
    """What the job would have said here, had its driver run here."""
    message = end.message or f"ended with exit code {end.code}: {end.witness}"
    if not of.as_json:
        return f"{of.job}: {message}"
    told: dict[str, Any] = {"job": of.job, "ok": end.code == 0, "exit_code": end.code, "message": message}
    return json.dumps(told)


if __name__ == "__main__":
    main()
