"""What tests of listing and of shards share: sources as executors see them, without Spark."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.settings import Settings
from udfs.listing import ListSpec, list_folders
from udfs.reading import unread_reason
from udfs.sources import IMAGE_SUFFIXES, ReadSpec, read_files, read_shards

JPEG = b"\xff\xd8\xff\xe0 a picture"
SKIP = Settings().sources.skip


def spec(root: Path, **changes: Any) -> ReadSpec:
    return replace(ReadSpec(5, 0, 0, 1000, keep_bytes=True, roots=(str(root),), skip=SKIP), **changes)


def listed(root: Path, **changes: Any) -> list[dict[str, Any]]:
    """Rows and counts of a tree: its root, and then each folder in it as a task of its own."""
    wanted = ListSpec(IMAGE_SUFFIXES, look=True, read=spec(root))
    task = list_folders(replace(wanted, **changes))

    def of(uri: str, *, recursive: bool) -> list[dict[str, Any]]:
        batch = pa.RecordBatch.from_pylist([{"uri": uri, "recursive": recursive}])
        return [row for found in task(iter([batch])) for row in found.to_pylist()]

    rows = of(str(root), recursive=False)
    for row in [row for row in rows if row["folder"]]:
        rows += of(row["folder"], recursive=True)
    return [row for row in rows if not row["folder"]]


def outcomes(root: Path) -> Counter[str]:
    """How all that a tree holds ends: "" for an image that is read, else the reason, and how many."""
    rows = listed(root)
    files = [{"source_key": row["uri"], **row} for row in rows if row["uri"]]
    found = Counter({row["reason"]: 0 for row in rows if not row["uri"]})
    for row in rows:
        found[row["reason"]] += row["entries"] if not row["uri"] else 0
    del found[None]
    if files:
        batch = pa.RecordBatch.from_pylist(files)
        read = [row for out in read_files(spec(root))(iter([batch])) for row in out.to_pylist()]
        found.update(_end(row) for row in read)
    return found


def close_folders(monkeypatch: pytest.MonkeyPatch, ending: bytes) -> None:
    """Folders whose paths end so may not be read; by their modes they could be, by root."""
    scan = os.scandir

    def refuse(path: bytes) -> Any:
        if path.endswith(ending):
            raise PermissionError
        return scan(path)

    monkeypatch.setattr("udfs.listing.os.scandir", refuse)


def of_shard(path: Path, **changes: Any) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pylist([{"uri": str(path), "reason": None}])
    return [row for out in read_shards(spec(path.parent, **changes))(iter([batch])) for row in out.to_pylist()]


def ends(rows: list[dict[str, Any]]) -> Counter[str]:
    """How the members of a shard end: as `outcomes`."""
    found: Counter[str] = Counter()
    for row in rows:
        found[row["reason"] or _end(row)] += row["entries"]
    return found


def _end(row: Mapping[str, Any]) -> str:
    """An image has bytes, or a reason in place of their digest."""
    reason = unread_reason(row["content_sha256"])
    assert (row["content"] is None) == (reason is not None)
    return reason or ""
