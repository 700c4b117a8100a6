"""Staged files into a collection: by bulk import on a server, by rows when embedded; each exactly once.

Guarantee 3: besides a few rows of `sync`, this is the only way into Milvus, and what is staged comes from the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobs.index.bulk_import import Importer
from jobs.index.import_records import DONE, LAG_S, ImportRecorder, KnownImport, LoadResult, MemoryRecorder
from jobs.index.load_plan import check_collection, share_out, uses_bulk_import
from jobs.index.protocol import FLUSH_TIMEOUT_S, VectorIndex, VectorType
from jobs.index.staged_files import (
    RebuildNeeded,
    StagedFile,
    check_file,
    check_rows,
    import_path,
    read_batches,
    sha256_of,
)
from jobs.settings import Settings

INSERTED = "insert"


def load_files(
    index: VectorIndex,
    collection: str,
    files: Sequence[StagedFile],
    settings: Settings,
    *,
    recorder: ImportRecorder,
    digest: Callable[[str], str] = sha256_of,
    on_progress: Callable[[int, int], None] | None = None,
) -> LoadResult:
    """Load every file exactly once; a restarted load adopts jobs that still run and skips what is done.

    Args:
        index: where the collection is.
        collection: an existing collection; not loaded into memory while a bulk import runs.
        files: the manifest.
        settings: ``milvus.load_by`` and the limits of imports.
        recorder: the record that outlives this process.
        digest: SHA-256 of a URI's bytes; executors can do it in place of this process.
        on_progress: called with rows done and rows in all.

    Raises:
        NotProvenError: a file is not what staging wrote.
        RebuildNeeded: a file may be half loaded, or twice (a ``NotProvenError``): drop the collection, forget the
            record, and load into a fresh one.
        SettingsError: ``milvus.load_by`` asks for bulk import where there is none; or the collection's vectors are not
            of ``milvus.vector_type``, as the files are.
        DependencyUnavailable: the server stayed out of reach for ``milvus.ready_timeout_s``.
    """
    numbers = [file.file_no for file in files]
    if len(set(numbers)) != len(numbers):
        raise ValueError("two staged files have the same number")
    check_collection(settings, index, collection)
    by_import = uses_bulk_import(settings, index.features)
    with recorder.committed_at_the_end():
        if not by_import:
            return _insert_all(index, collection, files, settings.milvus.vector_type, recorder, digest, on_progress)
        in_flight, files_per_job = share_out(len(files), settings, index.features)
        return Importer(
            index,
            collection,
            files,
            settings,
            recorder,
            digest,
            on_progress,
            in_flight=in_flight,
            files_per_job=files_per_job,
        ).run()


def _insert_all(
    index: VectorIndex,
    collection: str,
    files: Sequence[StagedFile],
    vector_type: VectorType,
    recorder: ImportRecorder,
    digest: Callable[[str], str],
    on_progress: Callable[[int, int], None] | None,
) -> LoadResult:
    """Row by row, written by key: a file that was cut off is simply written again."""
    done = {number for number, (_, state) in recorder.known().items() if state == DONE}
    total, rows = sum(file.rows for file in files), 0
    recorder.starting([file.file_no for file in files if file.file_no not in done])
    for file in files:
        if file.file_no not in done:
            check_file(file, digest(file.path))
            recorder.check()
            recorder.started([file.file_no], INSERTED)
            written = sum(index.insert(collection, batch) for batch in read_batches(file, vector_type))
            check_rows(file, written)
            recorder.finished([file.file_no], DONE)
            recorder.commit(after_s=LAG_S)
        rows += file.rows
        if on_progress:
            on_progress(rows, total)
    index.flush(collection, timeout=FLUSH_TIMEOUT_S)
    return LoadResult(rows=total, files=len(files), skipped=len([f for f in files if f.file_no in done]))


__all__ = [
    "ImportRecorder",
    "KnownImport",
    "LoadResult",
    "MemoryRecorder",
    "RebuildNeeded",
    "StagedFile",
    "import_path",
    "load_files",
    "sha256_of",
]
