"""How jobs end, and what they leave open: nothing."""

from __future__ import annotations

import ast
import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from jobs.index.milvus.connect import connect
from jobs.runs.job_result import Result
from jobs.runs.record import Run
from jobs.settings import Settings

pytestmark = pytest.mark.unit

JOBS = Path(__file__).parents[3] / "jobs"
OPENERS = {"connect", "ServerIndex.open", "EmbeddedIndex.open"}


def opened(path: Path) -> tuple[set[int], set[int]]:
    """Lines on which a module opens an index, and those on which it does so for a `with`."""
    text = path.read_text(encoding="utf-8")
    if not any(opener in text for opener in OPENERS):
        return set(), set()
    tree = ast.parse(text)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in OPENERS]
    items = [item.context_expr for node in ast.walk(tree) if isinstance(node, ast.With) for item in node.items]
    return {call.lineno for call in calls}, {call.lineno for call in calls if call in items}


def test_every_index_that_a_job_opens_is_closed_by_a_with() -> None:
    found = {str(path.relative_to(JOBS)): opened(path) for path in JOBS.rglob("*.py")}
    assert sum(bool(calls) for calls, _ in found.values()) > 8
    left = {name: calls - closed for name, (calls, closed) in found.items() if calls - closed}
    # One hands on what it opens; the doctor closes it among all else that it undoes (tests/milvus/test_doctor.py).
    assert set(left) == {"index/milvus/connect.py", "diagnosis/milvus.py"}


def test_an_index_is_closed_however_its_with_ends(tmp_path: Path) -> None:
    """It gives back the lock of its folder, which another job would find taken."""
    index = connect(Settings.model_validate({"milvus": {"uri": str(tmp_path / "faces.db")}}))

    def lock() -> None:
        with (tmp_path / "faces.db" / "LOCK").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def cut() -> None:
        with index as entered:
            assert entered is index
            with pytest.raises(BlockingIOError):
                lock()
            raise ValueError("cut")

    with pytest.raises(ValueError, match="cut"):
        cut()
    lock()


@pytest.mark.parametrize("result", [Result("all is well", data={"run_id": "r", "n": 1}), Result("not all", 6)])
def test_a_result_is_the_last_line_and_the_exit_code(
    result: Result, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_in_session", lambda *_: result)
    command = cli.job("try")(lambda _: result)
    for arguments in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            command.main(arguments, prog_name="try")
        assert ended.value.code == result.exit_code
    plain, told = capsys.readouterr().out.splitlines()
    assert plain == f"try: {result.message}"
    start = {"job": "try", "ok": result.exit_code == 0, "exit_code": result.exit_code, "message": result.message}
    assert list(json.loads(told).items()) == [*start.items(), *result.data.items()]


def test_a_run_ends_as_its_result_says() -> None:
    made: dict[str, Any] = {"job": None, "lease": None, "started_at": None, "metrics": None}
    run = Run(run_id="night-1", **made)
    told = run.end(Result("done so far", 3, {"counts": {"images": 1}}))
    assert (run.ended.message, run.ended.exit_code) == ("done so far", 3)
    # The id first, as readers of the last line have known it.
    assert list(told.data.items()) == [("run_id", "night-1"), ("counts", {"images": 1})]
