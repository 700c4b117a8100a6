"""Milvus: three rows in a collection of its own go the way that faces go, and each call says what it needs to be had.

The collection, its alias and those for index types have names that nobody else has (`Subject.name`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
import pyarrow as pa

from jobs.diagnosis.found import Found, failure, not_asked, ok, warning
from jobs.diagnosis.places import ROWS, unit_vector
from jobs.diagnosis.subject import PREFIX, is_stale
from jobs.diagnosis.workers import in_time, judged, skew, tasks_for_all
from jobs.errors import DependencyUnavailable, FaceReindexError, NotPermitted, NotProvenError, SettingsError
from jobs.index.collections import default_index
from jobs.index.import_records import MemoryRecorder
from jobs.index.load_plan import FILE_BYTES_LIMIT, check_vector_type, uses_bulk_import
from jobs.index.loader import load_files
from jobs.index.milvus.connect import connect
from jobs.index.milvus.server import ServerIndex, bearer
from jobs.index.protocol import BUCKET, EXPIRES, KEY, PURPOSES, VECTOR, CollectionInfo, IndexSpec, VectorIndex
from jobs.index.roles import LOADER, PRIVILEGES, READER, differences, permitted_calls
from jobs.settings import MilvusSettings, Settings
from udfs.arrays import EMBEDDING_DIM

if TYPE_CHECKING:
    from jobs.diagnosis.subject import Subject

_ROLES: Final = "give it with `python -m jobs.index.roles` (docs/operations.md, A Milvus server's security)."


def reached(subject: Subject) -> Iterator[Found]:
    """Open the index. An embedded one that is not there yet is tried beside its place, and removed."""
    settings = subject.settings
    if settings.embedded and not settings.index_file.exists():
        settings = _beside(subject)
    subject.opened = index = connect(settings)
    subject.undo("the connection to Milvus", index.close)
    subject.version = version = index.server_version()
    if settings.embedded:
        yield ok(f"{version} opens {subject.settings.milvus.uri}")
        return
    yield ok(f"Milvus {version} answers")
    if not bearer(settings):
        yield warning(
            "nobody is asked who they are: whoever reaches this server can read, change and drop what it holds",
            "turn common.security.authorizationEnabled on, make the two roles, and set FACE_REINDEX_MILVUS_TOKEN "
            "(docs/operations.md, A Milvus server's security).",
        )


def _beside(subject: Subject) -> Settings:
    path = subject.settings.index_file
    # What is no name of an embedded index stays none.
    spare = path.with_name(f"{subject.name}{path.suffix}")
    missing = [folder for folder in path.parents if not folder.exists()]
    for left in path.parent.glob(f"{PREFIX}*"):
        if is_stale(left.name, subject.job.clock()):
            shutil.rmtree(left)

    def remove() -> None:
        if spare.exists():
            shutil.rmtree(spare)
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    subject.undo(f"the index {spare}", remove)
    milvus = subject.settings.milvus.model_copy(update={"uri": str(spare)})
    return subject.settings.model_copy(update={"milvus": milvus})


def reached_by_executors(subject: Subject) -> Iterator[Found]:
    """Executors compare keys themselves: each has to reach the server."""
    settings = subject.settings
    if settings.embedded:
        yield not_asked("milvus-lite is open in the driver alone")
        return
    tasks = tasks_for_all(subject.spark)

    def ask(batches: Iterable[Any]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            pass
        fault, step = "", ""
        try:
            with connect(settings) as index:
                index.server_version()
        except FaceReindexError as error:
            fault, step = error.message, error.hint
        yield pa.RecordBatch.from_pydict({"fault": [fault], "step": [step]})

    with in_time(subject.spark, subject.seconds):
        rows = subject.spark.range(0, tasks, 1, tasks).mapInArrow(ask, "fault string, step string").collect()
    faults = [row for row in rows if row["fault"]]
    if faults:
        told = f"{len(faults)} of {tasks} tasks on executors do not reach it: {faults[0]['fault']}"
        yield failure(told, faults[0]["step"])
    else:
        yield ok(f"executors reach it ({tasks} tasks)")


def database(subject: Subject) -> Iterator[Found]:
    """The database is there, and this account may list what is in it; what a killed doctor left is dropped."""
    name, index = subject.settings.milvus.database, subject.index
    with subject.using("ShowCollections"):
        there = index.list_collections()
    yield ok(f"database '{name}' holds {len(there)} collections")
    left = [collection for collection in there if is_stale(collection, subject.job.clock())]
    for collection in left:
        _drop(index, collection)
    if left:
        yield warning(f"{len(left)} collections of an earlier doctor that was killed are dropped", "nothing.")


def roles(subject: Subject) -> Iterator[Found]:
    """The two roles as they are on the server, where this account may look at them."""
    server = subject.server
    if server is None:
        yield not_asked("milvus-lite has no users and no roles")
        return
    if not bearer(subject.settings):
        yield not_asked("the server asks nobody who they are")
        return
    try:
        found = differences(server, subject.settings.milvus.database)
    except NotPermitted:
        yield not_asked(
            "this account may not look at roles, and need not; with an administrator's FACE_REINDEX_MILVUS_TOKEN both "
            "roles are compared with what they need"
        )
        return
    yield warning(
        "this account may look at all roles: it is an administrator's, or the server asks nobody who they are",
        "run jobs with an account that has the loader's role alone.",
    )
    for role in (LOADER, READER):
        missing, beyond = found[role]["missing"], found[role]["beyond"]
        if missing:
            yield warning(f"role {role} lacks {', '.join(missing)}", _ROLES)
        elif beyond:
            yield warning(f"role {role} has more than it needs: {', '.join(beyond)}", "revoke it.")
        else:
            yield ok(f"role {role} has its {len(PRIVILEGES[role])} privileges and no other")


def collection(subject: Subject) -> Iterator[Found]:
    """A collection of its own name, as a run makes one; by the way, the server's clock."""
    index, name, milvus = subject.index, subject.name, subject.settings.milvus
    check_vector_type(subject.settings, index.features)
    subject.undo(f"collections whose names begin with {name}", partial(_drop_all, index, name))
    before = time.time()
    with subject.using("CreateCollection", "CreateIndex"):
        _create(subject, name, shards=milvus.shards)
    after = time.time()
    with subject.using("DescribeCollection"):
        kept = index.info(name)
    if kept != _info(name):
        raise NotProvenError(
            "The collection does not keep what it is told to keep (its property face_reindex.info).",
            hint="report it, with the server's version: a night cannot tell its collections from others' there.",
        )
    yield ok(f"a collection is made (vectors of {milvus.vector_type}), and keeps what it was told")
    if subject.server is not None:
        away = skew(subject.server.created_at(name), before, after)
        yield judged("Milvus's clock", away, after - before, subject.settings)


def _create(subject: Subject, name: str, shards: int = 1) -> None:
    """A collection as a run makes it."""
    vector_type = subject.settings.milvus.vector_type
    subject.index.create(name, dim=EMBEDDING_DIM, shards=shards, properties=_info(name), vector_type=vector_type)


def _info(name: str) -> CollectionInfo:
    """Of no warehouse, so that no erasure and no promotion takes it for one of its own."""
    return CollectionInfo(
        model_fingerprint="doctor", run_id=name, trained=False, label="doctor", created_at="", warehouse="doctor"
    )


def imports(subject: Subject) -> Iterator[Found]:
    """The staged file by bulk import (up to 2.3 over gRPC, later over REST), or by rows where the settings say so."""
    index, settings, staged = subject.index, _impatient(subject), subject.staged
    assert staged is not None  # noqa: S101 - needs `staging`
    by_import = uses_bulk_import(settings, index.features)
    if by_import and index.features.files_per_job > 1:
        with subject.using("Import"):
            index.check_imports()
        yield ok("imports can be asked about over REST")
    try:
        with subject.using(*["Import"] if by_import else ["Insert", "Upsert"]):
            load_files(index, subject.name, staged.files, settings, recorder=MemoryRecorder())
    except (NotPermitted, DependencyUnavailable):
        raise
    except FaceReindexError as error:
        raise DependencyUnavailable(
            error.message,
            hint="see that staging.path lies where Milvus itself reads: its own bucket, or with local storage the same "
            "folder, which its user may read (docs/deployment.md, Milvus server); else see the data node's log.",
        ) from None
    subject.rows |= {key: key for key in range(1, ROWS + 1)}
    yield ok(f"{ROWS} rows of a staged file are {'imported' if by_import else 'inserted'}")


def _impatient(subject: Subject) -> Settings:
    """One attempt at an import, and no longer than a check may take."""
    limits = dict.fromkeys(("import_timeout_s", "index_timeout_s", "ready_timeout_s"), subject.seconds)
    milvus = subject.settings.milvus.model_copy(update={**limits, "import_attempts": 1})
    return subject.settings.model_copy(update={"milvus": milvus})


def inserts(subject: Subject) -> Iterator[Found]:
    """A row more, as `sync` brings some."""
    index, key = subject.index, ROWS + 1
    columns: dict[str, Any] = {name: pa.array([0], pa.int64()) for name in (BUCKET, PURPOSES, EXPIRES)}
    columns |= {KEY: pa.array([key], pa.int64()), VECTOR: pa.array([unit_vector(key)], pa.list_(pa.float32()))}
    with subject.using("Insert", "Upsert"):
        index.insert(subject.name, pa.table(columns))
    with subject.using("Flush", "GetFlushState"):
        index.flush(subject.name, timeout=subject.seconds)
    subject.rows[key] = key
    yield ok("a row is written over RPC, as `sync` writes")


def served(subject: Subject) -> Iterator[Found]:
    """Indexed, loaded, counted; each row finds itself."""
    index, name = subject.index, subject.name
    with subject.using("CreateIndex", "IndexDetail"):
        index.build_index(name, IndexSpec("FLAT"), timeout=subject.seconds)
    try:
        with subject.using("Load", "GetLoadState"):
            index.load(name, replicas=subject.settings.milvus.replicas, timeout=subject.seconds)
    except FaceReindexError as error:
        if "not enough" not in error.message:
            raise
        raise SettingsError(
            f"milvus.replicas is {subject.settings.milvus.replicas}, and the server has not so many query nodes.",
            hint="lower milvus.replicas, or start more query nodes.",
        ) from None
    with subject.using("Query"):
        _expect(index, name, subject.rows)
    vectors = np.array([unit_vector(place) for place in subject.rows.values()], np.float32)
    with subject.using("Search"):
        found, _ = index.search(name, vectors, 1)
    if found[:, 0].tolist() != list(subject.rows):
        raise NotProvenError(
            "A search does not find the rows that it was asked with.", hint="see the query node's log."
        )
    keys, stored = index.fetch(name, list(subject.rows))
    # Of zeros and a one, which each type of vectors holds exactly.
    if keys.tolist() != list(subject.rows) or not np.array_equal(stored, vectors):
        raise NotProvenError(
            "Milvus gives back other vectors than those that it was given "
            f"(milvus.vector_type {index.vector_type(name)}).",
            hint="report it, with the server's version: no night can be proven there.",
        )
    yield ok(f"{len(subject.rows)} rows are indexed, loaded (replicas: {subject.settings.milvus.replicas}) and found")


def _expect(index: VectorIndex, name: str, rows: dict[int, int], gone: tuple[int, ...] = ()) -> None:
    """Exactly these keys are there, and none of those that are gone.

    Raises:
        NotProvenError: it is otherwise.
    """
    counts = index.count(name), index.count_ids(name, list(rows)), index.count_ids(name, list(gone)) if gone else 0
    if counts != (len(rows), len(rows), 0):
        raise NotProvenError(
            f"Milvus counts {counts[0]} rows where there are {len(rows)}, {counts[1]} of them by key, and {counts[2]} "
            "of those that were deleted.",
            hint="report it, with the server's version: no night can be proven there.",
        )


def deletes(subject: Subject) -> Iterator[Found]:
    """A row is deleted and is not found any more."""
    key = next(iter(subject.rows))
    with subject.using("Delete"):
        subject.index.delete(subject.name, [key])
    del subject.rows[key]
    _expect(subject.index, subject.name, subject.rows, (key,))
    yield ok("a deleted row is not served any more")


def compacts(subject: Subject) -> Iterator[Found]:
    """A compaction, as an erasure asks for it, comes to its end and loses nothing."""
    index, name = subject.index, subject.name
    before = time.monotonic()
    with subject.using("Compaction"):
        index.compact(name, timeout=min(subject.seconds, subject.settings.erasure.compact_timeout_s))
    _expect(index, name, subject.rows, tuple(sorted({*range(1, ROWS + 2)} - set(subject.rows))))
    yield ok(f"a compaction ends ({time.monotonic() - before:.0f} s), and the others are still there")


def aliases(subject: Subject) -> Iterator[Found]:
    """An alias of its own is set, moved and removed."""
    index, name = subject.index, subject.name
    alias, other = f"{name}_alias", f"{name}_other"
    _create(subject, other)
    # To move an alias is CreateAlias, too.
    with subject.using("CreateAlias"):
        index.switch_alias(alias, other)
        index.switch_alias(alias, name)
    with subject.using("DescribeAlias"):
        target = index.alias_target(alias)
    with subject.using("ListAliases"):
        listed = index.aliases_of(name)
    if (target, listed) != (name, [alias]):
        raise NotProvenError(
            f"The alias points at {target} after it was moved to {name}.", hint="see the server's log."
        )
    _expect(index, alias, subject.rows)
    with subject.using("DropAlias"):
        index.drop_alias(alias)
    yield ok("an alias is set, moved to another collection, read through and removed")


def reader(subject: Subject) -> Iterator[Found]:
    """A reader's account: it may search and query, and nothing that changes what is there."""
    settings = subject.settings
    token = settings.milvus_reader_token
    if subject.server is None or token is None:
        why = "milvus-lite has no users" if subject.server is None else "FACE_REINDEX_MILVUS_READER_TOKEN is not set"
        yield not_asked(why)
        return
    with ServerIndex.open(settings.model_copy(update={"milvus_token": token})) as as_reader:
        asked = np.array(unit_vector(ROWS + 1), np.float32)
        may = permitted_calls(as_reader, subject.name, asked, settings.milvus.vector_type)
    needed = [privilege for _, privilege in PRIVILEGES[READER]]
    lacks = [privilege for privilege in needed if not may[privilege]]
    beyond = [privilege for privilege, permitted in may.items() if permitted and privilege not in needed]
    if lacks:
        yield failure(f"the reader's account lacks {', '.join(lacks)}", _ROLES)
    if beyond:
        yield warning(
            f"the reader's account has more than it needs: {', '.join(beyond)}",
            "give it the reader's role alone; with none refused, turn common.security.authorizationEnabled on.",
        )
    if not lacks and not beyond:
        yield ok(f"the reader's account has {', '.join(needed)}, and is refused {len(may) - len(needed)} other calls")


def index_types(subject: Subject) -> Iterator[Found]:
    """Which index types are accepted: asked of empty collections, so that none is built."""
    settings, index = subject.settings, subject.index
    accepted, refused = [], []
    for kind in get_args(MilvusSettings.model_fields["index_type"].annotation):
        if kind == "AUTO":
            continue
        milvus = settings.milvus.model_copy(update={"index_type": kind, "index_params": {}})
        spec = default_index(settings.model_copy(update={"milvus": milvus}), ROWS, embedded=settings.embedded)
        name = f"{subject.name}_{kind.lower()}"
        _create(subject, name)
        try:
            index.build_index(name, spec, timeout=subject.seconds)
            accepted.append(kind)
        except DependencyUnavailable:
            raise
        except FaceReindexError:
            refused.append(kind)
        finally:
            _drop(index, name)
    chosen = settings.milvus.index_type
    wanted = [chosen] if chosen != "AUTO" else ["FLAT"] if settings.embedded else ["FLAT", "HNSW", "IVF_SQ8"]
    if lacking := [kind for kind in wanted if kind in refused]:
        yield failure(
            f"milvus.index_type {chosen}: this server refuses {', '.join(lacking)}",
            f"set milvus.index_type to one that it accepts: {', '.join(accepted)}.",
            SettingsError,
        )
    told = f"; refused: {', '.join(refused)}" if refused else ""
    over = "" if settings.milvus.vector_type == "float32" else f" over vectors of {settings.milvus.vector_type}"
    yield ok(f"accepted{over}, and none of them built: {', '.join(accepted)}{told}")


def limits(subject: Subject) -> Iterator[Found]:
    """What bounds an import: no server tells it."""
    features = subject.index.features
    if not features.bulk_import:
        yield not_asked("milvus-lite has no bulk import")
        return
    files = f"{features.files_per_job:,} file{'s' if features.files_per_job > 1 else ''} a job"
    yield not_asked(
        f"no Milvus tells its limits; a night counts with {FILE_BYTES_LIMIT // 10**9} GB a file, {files}, "
        f"and {subject.settings.milvus.import_jobs} jobs at once: see that yours are not set lower (from 2.4 on "
        "dataNode.import.maxImportFileSizeInGB, dataCoord.import.maxImportFileNumPerReq and maxImportJobNum)"
    )


def dropped(subject: Subject) -> Iterator[Found]:
    """Released and dropped, and then not there."""
    if subject.index.exists(subject.name):
        with subject.using("Release"):
            subject.index.release(subject.name)
    with subject.using("DropCollection"):
        _drop_all(subject.index, subject.name)
    yield ok("its collections are released and dropped")


def loaders_privileges(subject: Subject) -> Iterator[Found]:
    """Which of the loader's privileges this account was seen to have: each was used above."""
    if subject.server is None or not bearer(subject.settings):
        yield not_asked("nobody is asked who they are")
        return
    wanted = [privilege for _, privilege in PRIVILEGES[LOADER]]
    seen = subject.used.union(*subject.refused.values())
    unknown = [privilege for privilege in wanted if privilege not in seen]
    if subject.refused:
        yield failure(f"this account lacks {', '.join(subject.refused)}", _ROLES)
    if unknown:
        yield not_asked(f"what would have used {', '.join(unknown)} was not reached")
    if not subject.refused and not unknown:
        yield ok(f"this account has the loader's {len(wanted)} privileges: each was used")


def _drop(index: VectorIndex, name: str) -> None:
    for alias in index.aliases_of(name) if index.exists(name) else []:
        index.drop_alias(alias)
    index.drop(name)


def _drop_all(index: VectorIndex, prefix: str) -> None:
    """Drop every collection of a prefix, and see that none is left.

    Raises:
        DependencyUnavailable: some are.
    """
    assert prefix.startswith(PREFIX)  # noqa: S101 - nobody else's collections have such names
    for name in index.list_collections(prefix):
        _drop(index, name)
    if left := index.list_collections(prefix):
        raise DependencyUnavailable(f"{len(left)} collections are still there after they were dropped.", hint=None)
