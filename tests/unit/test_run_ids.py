"""A run's id is looked at before anything is written down under it."""

from __future__ import annotations

import importlib
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from jobs.errors import BadInput
from jobs.governance import audit
from jobs.run_ids import RUN_ID
from jobs.runs.record import new_run_id
from tests.unit.commands import COMMANDS

pytestmark = pytest.mark.unit

NO_IDS = ["Anna Schmidt", "x\ny", "x\n", "", " ", "a/b", "../x", "-x", ".", "é", "x" * 101, "a\0b", "\udcff"]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_guarantee_14_no_job_begins_under_what_is_no_run_id(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.cli._in_session", lambda *_: pytest.fail("the job has begun"))
    main = importlib.import_module(f"jobs.{name}").main
    for text in NO_IDS:
        with pytest.raises(SystemExit) as ended:
            main.main(["--run-id", text, "--json"], prog_name=name)
        out, err = capsys.readouterr()
        assert ended.value.code == 2
        assert "--run-id: letters, digits" in out
        assert "Schmidt" not in out + err


class _Untouched:
    def __getattr__(self, name: str) -> Any:
        pytest.fail(f"the table was asked for: {name}")


def test_guarantee_14_the_trail_takes_no_event_that_its_proof_would_refuse() -> None:
    for text in NO_IDS:
        for kind, run_id in ((text, "r1"), ("run-done", text)):
            with pytest.raises(BadInput, match="audit event"):
                audit.append(_Untouched(), kind, run_id, {}, now=datetime.now(UTC))  # type: ignore[arg-type]


def test_run_ids_that_are_made_are_run_ids() -> None:
    assert re.fullmatch(RUN_ID, new_run_id())
