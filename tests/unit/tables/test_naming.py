"""How names in a basis file become ids is told by what is on record and by images, and never guessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from jobs.errors import SettingsError
from jobs.tables.control import DeltaRsTable
from jobs.tables.naming import Naming, Seen, agreed, namings_on_record, said_naming
from jobs.tables.store import Warehouse

pytestmark = pytest.mark.unit


def row(run_id: str, state: str, naming: Naming | None) -> tuple[str, str, str]:
    counts = {"images": {"new": 1}} if naming is None else {"names": naming.record, "images": {"new": 1}}
    return run_id, state, json.dumps(counts)


def read_from(folder: Path, rows: Sequence[tuple[str, str, str]]) -> dict[str, frozenset[str | None]]:
    """What is on record in a table of runs; no Spark, as it lies in a local folder."""
    columns = ("run_id", "state", "counts", "job", "recorded_at")
    schema = pa.schema([(name, pa.string()) for name in columns[:-1]] + [(columns[-1], pa.timestamp("us", "UTC"))])
    DeltaTable.create(folder / "runs", schema)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    table = DeltaRsTable(str(folder / "runs"))
    table.append([(*row, "ingest", began + timedelta(hours=n)) for n, row in enumerate(rows)], None)
    table.append([("night", "done", json.dumps({"names": {"batch": "b", "prefix": "n/"}}), "reindex", began)], None)
    return namings_on_record(Warehouse(lambda: pytest.fail("Spark"), str(folder), is_path=True, read_only=True))


def test_guarantee_7_how_images_came_in_is_on_record_also_of_a_run_that_was_killed(tmp_path: Path) -> None:
    files, table, other = Naming("b"), Naming("b", ""), Naming("c%_\\é'", "s/")
    rows = [
        row("done", "running", files), row("done", "done", files),
        row("killed", "running", table),
        # Refused before anything came in; and failed when something may have.
        row("refused", "running", Naming("b", "x/")), row("refused", "failed", None),
        row("failed", "running", other), row("failed", "failed", other),
        row("records alone", "running", None), row("records alone", "failed", None), ("old", "done", ""),
    ]  # fmt: skip
    assert read_from(tmp_path / "1", rows) == {"b": {None, ""}, "c%_\\é'": {"s/"}}
    # Killed, and refused when it was given again under its id: what came in before the kill is here.
    again = [row("r", "running", table), row("r", "running", table), row("r", "failed", None)]
    assert read_from(tmp_path / "2", again) == {"b": {""}}
    nothing = Warehouse(lambda: pytest.fail("Spark"), str(tmp_path / "3"), is_path=True, read_only=True)
    assert namings_on_record(nothing) == {}


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
