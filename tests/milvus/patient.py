"""`doctor`'s checks of Milvus without Spark: what executors would have staged is written here."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import numpy as np

from jobs.diagnosis import milvus
from jobs.diagnosis.check import Check, Examination
from jobs.diagnosis.examination import CHECKS
from jobs.diagnosis.found import Found
from jobs.diagnosis.places import ROWS, unit_vector
from jobs.diagnosis.subject import Subject, new_name
from jobs.index.staging import Manifest
from jobs.runs.console import Console
from jobs.runs.record import JobContext
from jobs.settings import Settings
from jobs.tables.store import Warehouse
from tests.milvus.rows import stage_files

_SPARKS: Final = {"executors", "staging"}
#: Those that ask Milvus alone.
OF_MILVUS: Final = tuple(
    Check(check.name, check.look, tuple(name for name in check.needs if name not in _SPARKS))
    for check in CHECKS
    if check.look.__module__ == milvus.__name__ and check.name != "executors to milvus"
)


def patient(settings: Settings, folder: Path | None = None) -> Subject:
    """A subject without a session; ``folder``: where its rows are staged."""

    def no_session() -> NoReturn:
        raise AssertionError("Spark was asked for")

    warehouse = Warehouse(no_session, settings.warehouse, is_path=True)
    job = JobContext(settings, warehouse, Console(quiet=True), None, False)
    subject = Subject(job, seconds=120, name=new_name(datetime.now(UTC)))
    if folder is not None:
        vectors = np.array([unit_vector(key) for key in range(1, ROWS + 1)], np.float32)
        vector_type = settings.milvus.vector_type
        files = stage_files(folder, np.arange(1, ROWS + 1), vectors, 1, vector_type)
        subject.staged = Manifest(str(folder), tuple(files), 4, vector_type)
    return subject


def examine(settings: Settings, folder: Path) -> tuple[Examination, dict[str, list[Found]]]:
    """All of them; what each found, by its name."""
    examination = Examination(lambda _: None)
    examination.run(OF_MILVUS, patient(settings, folder))
    by_name: dict[str, list[Found]] = {}
    for found in examination.found:
        by_name.setdefault(found.check, []).append(found)
    return examination, by_name
