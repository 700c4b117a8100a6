"""How names in a basis file become ids is told by what is on record and by images, and never guessed."""

from __future__ import annotations

import json

import pytest

from jobs.errors import SettingsError
from jobs.ingest import said_naming
from jobs.tables.naming import Naming, Seen, agreed, ways_by_batch

pytestmark = pytest.mark.unit


def row(run_id: str, state: str, naming: Naming | None) -> dict[str, str]:
    counts = {} if naming is None else {"names": naming.record, "images": {"new": 1}}
    return {"run_id": run_id, "state": state, "counts": json.dumps(counts)}


def test_guarantee_7_how_images_came_in_is_on_record_also_of_a_run_that_was_killed() -> None:
    files, table, other = Naming("b"), Naming("b", ""), Naming("c%_\\é", "s/")
    rows = [
        row("done", "running", files), row("done", "done", files),
        row("killed", "running", table),
        # Refused before anything came in; and failed when something may have.
        row("refused", "running", Naming("b", "x/")), row("refused", "failed", None),
        row("failed", "running", other), row("failed", "failed", other),
        row("records alone", "running", None), row("records alone", "failed", None),
    ]  # fmt: skip
    assert ways_by_batch(rows) == {"b": {None, ""}, "c%_\\é": {"s/"}}
    # Killed, and refused when it was given again under its id: what came in before the kill is here.
    again = [row("r", "running", table), row("r", "running", table), row("r", "failed", None)]
    assert ways_by_batch(again) == {"b": {""}}
    assert ways_by_batch([{"run_id": "r", "state": "failed", "counts": ""}]) == {}


@pytest.mark.parametrize(
    ("on_record", "seen", "prefix"),
    [
        (set(), Seen(), None),
        (set(), Seen(hashed=True), None),
        ({None}, Seen(hashed=True), None),
        ({""}, Seen(), ""),
        ({"s/"}, Seen(), "s/"),
    ],
)
def test_guarantee_7_names_are_taken_as_the_images_of_their_batch_came_in(
    on_record: set[str | None], seen: Seen, prefix: str | None
) -> None:
    assert agreed("b", frozenset(on_record), seen) == Naming("b", prefix)


@pytest.mark.parametrize(
    ("on_record", "seen", "said"),
    [
        # The record of runs was lost, or never had it.
        (set(), Seen(own=True), "not on record with which --id-prefix"),
        ({None}, Seen(own=True, hashed=True), "not on record with which --id-prefix"),
        ({"s/"}, Seen(own=True), "not on record with which --id-prefix"),
        ({None, ""}, Seen(), "several ways"),
        ({"", "s/"}, Seen(), "several ways"),
        ({"s/"}, Seen(hashed=True), "several ways"),
    ],
)
def test_guarantee_7_what_a_name_means_is_asked_for_where_the_tables_do_not_tell(
    on_record: set[str | None], seen: Seen, said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as stopped:
        agreed("b", frozenset(on_record), seen)
    assert "--ids-of table, with --id-prefix" in str(stopped.value.hint)


def test_what_names_are_can_be_said_for_a_basis_file_without_a_source() -> None:
    def said(ids_of: str | None, prefix: str = "", *, source: bool = False, basis: bool = True) -> Naming | None:
        return said_naming("b", ids_of, prefix, source=source, basis=basis)

    assert said(None) is None
    assert said("files") == Naming("b")
    assert said("table") == Naming("b", "")
    assert said("table", "s/") == said(None, "s/") == Naming("b", "s/")
    # A source's own prefix: it is opened with it.
    assert said(None, "s/", source=True) is None
    wrong = [("files", "s/", False, True), ("table", "", True, True), ("table", "", False, False)]
    for ids_of, prefix, source, basis in (*wrong, (None, "s/", False, False)):
        with pytest.raises(SettingsError):
            said(ids_of, prefix, source=source, basis=basis)
