"""The corpus of what people bring (corpus.py), played: what comes of each entry is what its table says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import FaceReindexError
from tests.unit.environments import all_told, check
from tests.unit.odd.corpus import CORPUS, REPORTS, Entry, Refused
from tests.unit.odd.play import PLAYERS

pytestmark = pytest.mark.unit

ENVIRONMENT = "environment"


def outcome(entry: Entry, folder: Path) -> Any:
    """What comes of an entry; of what is refused by our own errors, the message. Any other error is a defect."""
    try:
        return PLAYERS[entry.kind](folder, entry.brought)
    except FaceReindexError as error:
        return Refused(str(error))
    except ValueError as error:
        # Of a reader of one file, whose sentence the job puts behind the file's name; any other kind is none of ours.
        if type(error) is not ValueError:
            raise
        return Refused(str(error))


def is_as_said(found: Any, said: Any) -> bool:
    if isinstance(said, Refused):
        return isinstance(found, Refused) and said.said in found.said
    if isinstance(said, list):
        return isinstance(found, list) and len(found) == len(said) and all(map(is_as_said, found, said))
    return bool(found == said)


@pytest.mark.parametrize("entry", [entry for entry in CORPUS if entry.kind != ENVIRONMENT], ids=str)
def test_what_people_bring_ends_as_the_table_says(tmp_path: Path, entry: Entry) -> None:
    found = outcome(entry, tmp_path)
    assert is_as_said(found, entry.outcome), (found, entry.outcome)


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of all environments, from one process of their own."""
    return all_told(tmp_path_factory.mktemp("environments"))


@pytest.mark.parametrize("entry", [entry for entry in CORPUS if entry.kind == ENVIRONMENT], ids=str)
def test_an_inherited_environment_ends_as_the_table_says(environments: dict[str, dict[str, Any]], entry: Entry) -> None:
    check(entry.brought, environments[entry.brought.name])


def test_a_message_holds_no_name_that_was_brought(tmp_path: Path) -> None:
    """Whose pictures and permissions they are is in the names."""
    for number, entry in enumerate(entry for entry in CORPUS if entry.kind in ("CSV in short form", "subject file")):
        (tmp_path / f"{number}").mkdir()
        found = outcome(entry, tmp_path / f"{number}")
        told = [one.said for one in (found if isinstance(found, list) else [found]) if isinstance(one, Refused)]
        assert not re.search("Anna|Zo|Miller|0012[^,]", re.sub(r"\('0012.*?\)", "", " ".join(told))), (entry, told)


def test_each_entry_is_there_once_and_each_report_is_of_one() -> None:
    names = [str(entry) for entry in CORPUS]
    assert len(names) == len(set(names))
    assert set(REPORTS) <= set(names)
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", report) for report in REPORTS.values())
    assert {entry.kind for entry in CORPUS} == {*PLAYERS, ENVIRONMENT}
