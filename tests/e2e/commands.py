"""Jobs as commands, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"jobs.{name}", "--config", "settings.yaml", "--json", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1"}


def job(home: Path, name: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        command(name, *arguments), cwd=home, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
