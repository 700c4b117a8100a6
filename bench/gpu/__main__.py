"""Measure the pipeline on a GPU: equality, costs of each part, end to end. Each part has a limit; nine minutes in all.

    make gpu-kit                                   # here: dist/gpu-kit, at most 64 MiB
    python3 run.py --out results                   # there, in that folder: nothing is fetched or installed
    python -m bench.gpu --out results              # the same in a checkout with a GPU
    python -m bench.gpu --rehearse --out results   # on a processor: shows that the kit runs, measures nothing

Needed there: Python 3.12, torch with CUDA and cuda-bindings, torchvision, numpy, numba, pandas, Pillow, OpenCV and
pytest; the kit brings facenet-pytorch, pi-heif, simplejpeg and tenacity. A part's result is written before the
next begins, and a part that fails or takes too long costs its own result only. ``gpu.json`` is a record as the other
benchmarks' are: copied to bench/results, `python -m bench.table` and `python -m bench.rates` take it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import record
from bench.gpu import decisions
from bench.gpu.before import with_before
from bench.gpu.parts import PARTS, Kit, setting

_MARK = "RESULT "


def main() -> int:
    """Run all parts, or those that are named. Exit code 1: a part gave no result, or a test of equality failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder for gpu.json and tests.txt")
    parser.add_argument("--photos", type=Path, help="folder of the kit's photographs; made here where it is left out")
    parser.add_argument("--rehearse", action="store_true", help="on the processor, with few photographs")
    parser.add_argument("--only", nargs="*", choices=[*PARTS], default=[], help="these parts")
    parser.add_argument("--part", choices=[*PARTS], help=argparse.SUPPRESS)  # what a part's own process is given
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        kit = Kit(arguments.out, arguments.photos, rehearse=arguments.rehearse)
        # The machine is told by who used the device anyway: the process that starts the parts leaves it alone.
        print(_MARK + json.dumps({"figures": PARTS[arguments.part].measure(kit), "machine": record.machine()}))
        return 0
    return _all(arguments)


def _all(arguments: argparse.Namespace) -> int:
    results: dict[str, Any] = {}
    on: dict[str, Any] = {}
    for name, part in PARTS.items():
        if arguments.only and name not in arguments.only:
            continue
        begin = time.monotonic()
        told = _one(name, part.limit_s * (8 if arguments.rehearse else 1), arguments)
        results[name], on = told["figures"], told.get("machine", on)
        results[name]["seconds"] = round(time.monotonic() - begin, 1)
        figures, ratios = with_before(results, on.get("gpu"))
        record.write("gpu", figures, ratios, setting=setting(rehearse=arguments.rehearse), folder=arguments.out, on=on)
        print(name, json.dumps(results[name])[:1800], flush=True)
    for line in decisions.lines(results):
        print(line)
    failed = [name for name, result in results.items() if "failed" in result]
    if failed:
        print(f"{len(failed)} of {len(results)} parts failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _one(name: str, limit_s: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a part's own process tells: ``figures``, and the ``machine``; figures with ``failed`` where it told none."""
    command = [sys.executable, "-m", "bench.gpu", "--out", str(arguments.out), "--part", name]
    command += ["--rehearse"] if arguments.rehearse else []
    command += ["--photos", str(arguments.photos)] if arguments.photos else []
    # With a group of its own: what a part has started ends with it, and holds no GPU under the next one.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        said, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"figures": {"failed": f"not done within {limit_s} s"}}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found = [line for line in said.splitlines() if line.startswith(_MARK)]
    if process.returncode or not found:
        return {"figures": {"failed": f"exit code {process.returncode}", "said": errors[-1500:]}}
    result: dict[str, Any] = json.loads(found[-1][len(_MARK) :])
    return result


if __name__ == "__main__":
    sys.exit(main())
