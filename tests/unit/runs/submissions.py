"""A `spark-submit` that says, and ends with, what the real one does in each deploy mode; and a table of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from jobs.schemas import RUNS

_ARROW = {"string": pa.string(), "int": pa.int32(), "timestamp": pa.timestamp("us", tz="UTC")}


@dataclass(frozen=True)
class Said:
    """What spark-submit says on stderr and stdout, and its exit code."""

    err: str
    out: str
    code: int


def container(name: str, code: int | None) -> str:
    """A container's state, as Spark's `KubernetesUtils` writes it; None: it runs."""
    state = "running" if code is None else "terminated"
    pairs = {"container name": name, "container image": "registry.example/face-reindex:0.1.0", "container state": state}
    if code is not None:
        pairs |= {"container started at": "2026-11-26T02:00:05Z", "container finished at": "2026-11-26T02:03:11Z"}
        pairs |= {"exit code": str(code), "termination reason": "Error" if code else "Completed"}
    return "".join(f"\n\t {key}: {value}" for key, value in pairs.items()) + "\n\n"


def kubernetes(code: int | None, *, name: str = "spark-kubernetes-driver", beside: str = "", info: bool = True) -> Said:
    """Cluster mode: 0, whatever became of the driver's container. Without ``info``, at the level WARN, not a word."""
    log = "26/11/26 02:00:01 INFO LoggingPodStatusWatcherImpl: "
    lines = [
        f"{log}State changed, new state: \n\t pod name: verify-1-driver\n\t namespace: face-reindex\n\t phase: Running"
        f"\n\t container status: \n\t{container(name, None)}",
        f"{log}Application status for spark-1 (phase: Running)\n",
        f"{log}Container final statuses:\n\n{beside}{container(name, code)}",
        f"{log}Application verify.py with application ID spark-1 and submission ID face-reindex:verify-1 finished\n",
    ]
    return Said("".join(lines) if info else "26/11/26 02:00:00 WARN NativeCodeLoader: no native code\n", "", 0)


def yarn(code: int, *, diagnostics: str = "", status: str = "", info: bool = True) -> Said:
    """Cluster mode: 0, or 1 for every other code of the driver."""
    status = status or ("FAILED" if code else "SUCCEEDED")
    diagnostics = diagnostics or (f"User application exited with status {code}" if code else "N/A")
    report = f"\n\t client token: N/A\n\t diagnostics: {diagnostics}\n\t queue: default\n\t final status: {status}\n"
    lines = "26/11/26 02:00:01 INFO Client: Submitted application application_1764122400000_0007\n"
    lines += "\t final status: UNDEFINED\n"
    lines += f"26/11/26 02:03:00 INFO Client: Application report for application_1764122400000_0007{report}"
    told = f"26/11/26 02:03:00 ERROR Client: Application diagnostics message: {diagnostics}\n" if code else ""
    return Said((lines if info else "") + told, "", 1 if code or status != "SUCCEEDED" else 0)


def client(code: int, *, job: str = "verify", as_json: bool = False) -> Said:
    """Client mode: the job's own lines, and its code."""
    if code == 0:
        return Said(
            "",
            f'{{"job": "{job}", "ok": true, "exit_code": 0, "message": "fine"}}\n' if as_json else f"{job}: fine\n",
            0,
        )
    return Said(f"{job}: failed: It did not.\n", "", code)


def lost(code: int = 143) -> Said:
    """The submission itself is killed, and the driver goes on."""
    return Said(kubernetes(None).err, "", code)


def stub(folder: Path, said: Sequence[Said], name: str = "spark-submit") -> Path:
    """A program that says one after the other, and writes down how it was called."""
    for number, one in enumerate(said, start=1):
        (folder / f"{number}.err").write_text(one.err)
        (folder / f"{number}.out").write_text(one.out)
        (folder / f"{number}.code").write_text(str(one.code))
    path = folder / name
    path.write_text(
        f"""#!/bin/sh
cd {folder}
echo "$@" >> submissions
n=$(wc -l < submissions)
cat "$n.err" >&2
cat "$n.out"
exit "$(cat "$n.code")"
"""
    )
    path.chmod(0o755)
    return path


def recorded(warehouse: Path, run_id: str, state: str, exit_code: int | None, at: datetime, **more: Any) -> None:
    """Put a state of a run on record, as a driver does."""
    names = [column.split() for column in RUNS.columns.split(", ")]
    row = {
        "run_id": run_id,
        "job": "reindex",
        "state": state,
        "exit_code": exit_code,
        "started_at": at,
        "recorded_at": at,
    }
    row |= {"message": "as recorded", "settings_digest": "", "inputs": "{}", "counts": "{}", **more}
    columns = {name: pa.array([row.get(name)], _ARROW[kind]) for name, kind in names}
    write_deltalake(str(warehouse / RUNS.name), pa.table(columns), mode="append")
