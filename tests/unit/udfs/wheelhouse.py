"""A folder that pip takes wheels from, and nothing else: its real work, without a network."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from udfs.wheels import Member

NAME = "pictured_model"
FILE = f"{NAME}/graph.pb"


def make_wheel(folder: Path, files: Mapping[str, bytes], member: str = FILE) -> Member:
    """Write a wheel that pip accepts; the pin of one of its files."""
    info = f"{NAME}-1.0.dist-info"
    whole = {
        # Needs what no index has: it must not be asked for.
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: pictured-model\nVersion: 1.0\nRequires-Dist: no-such\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **files,
    }
    whole[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in whole).encode()
    path = folder / f"{NAME}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in whole.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)
    data = files.get(member, b"")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Member("pictured-model", "1.0", digest, member, len(data), hashlib.sha256(data).hexdigest())


def serve(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the user's pip, by its own settings, know this folder only."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    # What users have set for installing, which would spoil this.
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    monkeypatch.setenv("PIP_TIMEOUT", "1000")
