"""The commands: names, options, exit codes, the last line (Guarantee 15: no identify command)."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import pytest

from jobs import errors
from jobs.__main__ import JOBS
from tests.unit.commands import COMMANDS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
COMMON = {"--config", "--set", "--run-id", "--dry-run", "--json", "--quiet", "--properties-file"}


def test_guarantee_15_the_commands_are_these_and_no_others() -> None:
    entry_points = {p.stem for p in (ROOT / "jobs").glob("*.py") if 'if __name__ == "__main__"' in p.read_text()}
    assert entry_points - {"__main__"} == COMMANDS == set(JOBS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_job_has_the_common_options_and_an_example(name: str) -> None:
    command: click.Command = importlib.import_module(f"jobs.{name}").main
    options = {o for p in command.params for o in p.opts}
    assert options >= COMMON
    assert command.help is not None
    assert f"jobs.{name}" in command.help


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_entry_points_read_like_recipes(name: str) -> None:
    assert len((ROOT / "jobs" / f"{name}.py").read_text().splitlines()) <= 80


def test_exit_codes_are_those_of_the_design() -> None:
    codes = {
        errors.FaceReindexError: 1,
        errors.BadInput: 1,
        errors.SettingsError: 2,
        errors.GovernanceError: 3,
        errors.NotProvenError: 4,
        errors.MixedFingerprints: 4,
        errors.DependencyUnavailable: 5,
        errors.LeaseHeld: 5,
        errors.LeaseLost: 5,
    }
    for error, code in codes.items():
        assert error.exit_code == code
        assert error.retry_helps is (code == 5)
    assert "Next step: do it" in str(errors.BadInput("wrong.", hint="do it"))


def test_a_settings_error_ends_with_2_and_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.status import main

    with pytest.raises(SystemExit) as ended:
        main.main(["--set", "retension=1", "--json"], prog_name="status")
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert '"exit_code": 2' in out.splitlines()[-1]
    assert "retension" in err
