"""The whole line in one process: what the end-to-end tests share."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import yaml

from bench.pictures import Picture, write_basis
from bench.weights import UNTRAINED, demo_weights
from tests.conftest import PURPOSE

BATCH = {
    "source_batch_id": "demo",
    "supplier": "tests",
    "collection_method": "uploaded_by_subject",
    "assessment_ref": "a-1",
    "assessed_at": "2026-01-01T00:00:00Z",
    "state": "assessed",
}


def prepare(home: Path, chosen: list[Picture], **overrides: Any) -> Path:
    """Write basis records, the batch's assessment and the settings; returns the settings file."""
    home.mkdir(parents=True, exist_ok=True)
    write_basis(chosen, home / "basis.jsonl", now=datetime.now(UTC))
    (home / "demo.batch.yaml").write_text(yaml.safe_dump(BATCH))
    settings: dict[str, Any] = {
        "warehouse": str(home / "warehouse"),
        "governance": {"purposes": [PURPOSE], "allowed_purposes": [PURPOSE]},
        "model": model_settings(home.parent / "weights"),
        "milvus": {"uri": str(home / "index.db")},
        "verify": {"recall_sample": 20},
    }
    for key, value in overrides.items():
        settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value
    (home / "settings.yaml").write_text(yaml.safe_dump(settings))
    return home / "settings.yaml"


def trained() -> bool:
    """Whether `make weights` has put trained weights into the user's cache, so that the line runs on them."""
    return demo_weights(fetch=False) != UNTRAINED


def model_settings(cache: Path) -> dict[str, Any]:
    """The section `model`: trained weights where they are, else random ones in a ``cache`` of the test's own."""
    return {"weights": demo_weights(fetch=False)} if trained() else {"weights": UNTRAINED, "cache_dir": str(cache)}


def run_job(name: str, config: Path, *arguments: str, read: Callable[[], str]) -> tuple[int, dict[str, Any]]:
    """Run a job in this process with --json; returns its exit code and the last line of stdout. ``read`` is capsys."""
    import importlib

    command: click.Command = importlib.import_module(f"jobs.{name}").main
    code = 0
    try:
        command.main(["--config", str(config), "--json", "--quiet", *arguments], prog_name=name)
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, json.loads(read().strip().splitlines()[-1])
