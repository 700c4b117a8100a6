"""The steps between permitted faces and a loaded collection, each recorded in the run: stage, import, index."""

from __future__ import annotations

from jobs.embedding.faces import PermittedFaces, permitted_faces, resolve_id_collisions
from jobs.errors import LeaseLost, MixedFingerprints, NotProvenError
from jobs.governance.gate import Gated
from jobs.index import staging
from jobs.index.collections import collection_name, default_index
from jobs.index.load_plan import check_load, plan_load, uses_bulk_import
from jobs.index.loader import RebuildNeeded, load_files
from jobs.index.permitted_keys import not_permitted
from jobs.index.protocol import CollectionInfo, VectorIndex
from jobs.runs.aliases import has_switched
from jobs.runs.history import staged_under
from jobs.runs.machines import cluster_resources
from jobs.runs.record import Run, utc_now
from jobs.runs.results import FileImported, IdCollisionsResolved, Imported, Indexed, Nodes, Screened, Staged
from jobs.runs.staging_paths import clear_staging, staging_path
from jobs.runs.stores import drop, index_id
from jobs.settings import Settings
from jobs.steps.gate import gate_step
from jobs.steps.import_recorder import RunImportRecorder
from jobs.tables.files import remove_tree
from udfs.arrays import EMBEDDING_DIM


def load_steps(run: Run, index: VectorIndex) -> str:
    """Gate again, stage, gate again, import, index, load; returns the collection's name.

    Raises:
        SettingsError: `milvus.load_by`, `milvus.vector_type` or `milvus.index_type` asks for what this Milvus cannot
            do; or its REST interface is not where the settings say.
    """
    # Before the files are staged.
    check_load(run.settings, index)
    collection = collection_name(run.settings.milvus.alias, run.run_id)
    run.facts["collection"] = collection
    fingerprint = known_fingerprint(run)
    if run.result(Imported) is None:
        # Before the files are staged: it may take hours, and one that readers see is neither filled nor dropped.
        check_not_seen(run, index, collection)
    with run.step(IdCollisionsResolved) as step:
        step.result = IdCollisionsResolved(faces=resolve_id_collisions(run.warehouse, fingerprint))
    gated = None if run.result(Staged) is not None else gate_step(run)
    _stage(run, index, fingerprint)
    if run.result(Imported) is None and _unpermitted_since(run, gated, fingerprint):
        # The files hold what is no longer permitted: they go, and a collection begun with them.
        drop(run, index, collection)
        run.forget(Imported, FileImported)
        _stage(run, index, fingerprint, anew=True)
    staged = staged_files(run)
    run.once(Imported, lambda: import_staged(run, index, collection, staged, fingerprint))
    run.once(Indexed, lambda: build_and_load(run, index, collection, staged.rows))
    return collection


def _stage(run: Run, index: VectorIndex, fingerprint: str, *, anew: bool = False) -> None:
    """Stage what the gate permits at this moment. Without the lease, nothing of it stays."""

    def staged() -> Staged:
        return stage_faces(run, index, permitted_faces(run.warehouse, gate_step(run), fingerprint))

    try:
        if anew:
            with run.step(Staged) as step:
                step.result = staged()
        else:
            run.once(Staged, staged)
    except LeaseLost:
        if not staged_under(run.warehouse, run.run_id, run.lease.token):
            remove_tree(run.job.spark, staging_path(run))
        raise


def known_fingerprint(run: Run) -> str:
    """The model that the run embedded with.

    Raises:
        NotProvenError: the run has embedded nothing.
    """
    gate = run.result(Screened)
    if gate is None or not gate.fingerprint:
        raise NotProvenError(
            f"Run {run.run_id} has not embedded anything yet.", hint="give the --run-id of a run of `embed`."
        )
    run.facts.update(model_fingerprint=gate.fingerprint, weights=gate.weights)
    return gate.fingerprint


def _unpermitted_since(run: Run, staged_under: Gated | None, fingerprint: str) -> bool:
    gated = gate_step(run)
    if gated.is_same_answer_as(staged_under):
        return False
    permitted = permitted_faces(run.warehouse, gated, fingerprint).keys
    return not not_permitted(staged_files(run).read(run.job.spark), permitted).isEmpty()


def staged_files(run: Run) -> staging.Manifest:
    """The manifest of this run, from the run record."""
    staged = run.result(Staged)
    if staged is None:
        raise NotProvenError(f"Run {run.run_id} has staged nothing yet.", hint="run `load --run-id` for it first.")
    # A run is not resumed with another milvus.vector_type than it staged with.
    return staging.Manifest(staged.path, staged.files, staged.buckets, run.settings.milvus.vector_type)


def stage_faces(run: Run, index: VectorIndex, faces: PermittedFaces) -> Staged:
    """Write ``faces`` where Milvus reads."""
    clear_staging(run)
    staged = staging.stage(
        faces.rows,
        staging_path(run),
        purpose_flags=purpose_flags(run.settings),
        files_for=lambda rows: plan_load(rows, run.settings, index.features).files,
        vector_type=run.settings.milvus.vector_type,
    )
    return Staged(
        path=staged.path,
        apart=run.settings.staging.path is not None,
        rows=staged.rows,
        buckets=staged.buckets,
        files=staged.files,
        machines=cluster_resources(run.job.spark, run.settings),
    )


def purpose_flags(settings: Settings) -> int:
    """The purposes of a run as bits, by their place in the allow-list."""
    governance = settings.governance
    return sum(1 << governance.allowed_purposes.index(purpose) for purpose in governance.purposes)


def import_staged(
    run: Run, index: VectorIndex, collection: str, staged: staging.Manifest, fingerprint: str
) -> Imported:
    """Bring every staged row into the collection exactly once; one that is left in doubt is built anew.

    So is one that is there while no import into it is on record: what it holds would be in it twice, for Milvus keeps
    both rows of a key.

    Raises:
        MixedFingerprints: the collection holds another model's embeddings.
        NotProvenError: readers see the collection.
        RebuildNeeded: still in doubt after `milvus.import_attempts` collections (a ``NotProvenError``).
    """
    # Milvus would take rows from a run that has lost its lease as well.
    run.lease.check()
    there = index.info(collection)
    if there is not None and there.model_fingerprint != fingerprint:
        raise MixedFingerprints(
            f"Collection {collection} holds embeddings of another model than this run's; nothing was imported.",
            hint="start a new run without --run-id.",
        )
    check_not_seen(run, index, collection)
    if there is not None and not run.parts(FileImported):
        drop(run, index, collection)
    attempts = run.settings.milvus.import_attempts
    for attempt in range(1, attempts + 1):
        if not index.exists(collection):
            run.forget(FileImported)
            _create(run, index, collection, fingerprint)
        try:
            _load_files(run, index, collection, staged)
            break
        except RebuildNeeded as doubt:
            if attempt == attempts:
                raise
            run.job.console.step("import", "in doubt, so the collection is built anew", reason=doubt)
            drop(run, index, collection)
    return Imported(collection=collection, rows=staged.rows, nodes=_nodes(run, index))


def check_not_seen(run: Run, index: VectorIndex, collection: str) -> None:
    """Make sure that the run may fill its ``collection``, or drop it: no alias leads readers there.

    Raises:
        NotProvenError: one does.
    """
    if index.exists(collection) and (index.aliases_of(collection) or has_switched(run, index)):
        raise NotProvenError(
            f"Collection {collection} of run {run.run_id} is live, and no import into it is on record; nothing was "
            "imported, for each row would be there twice.",
            hint="start a new run without --run-id.",
        )


def _nodes(run: Run, index: VectorIndex) -> Nodes:
    by_import = uses_bulk_import(run.settings, index.features)
    return Nodes(by_import=by_import, data_nodes=run.settings.milvus.data_nodes if by_import else 1)


def _create(run: Run, index: VectorIndex, collection: str, fingerprint: str) -> None:
    info = CollectionInfo(
        model_fingerprint=fingerprint,
        run_id=run.run_id,
        trained=run.trained,
        label=str(run.facts.get("weights")),
        created_at=utc_now().isoformat(timespec="seconds"),
        warehouse=run.warehouse.identity,
        purposes=run.settings.governance.purposes,
        index=index_id(run.warehouse, run.settings, index),
    )
    milvus = run.settings.milvus
    index.create(collection, dim=EMBEDDING_DIM, shards=milvus.shards, properties=info, vector_type=milvus.vector_type)


def _load_files(run: Run, index: VectorIndex, collection: str, staged: staging.Manifest) -> None:
    with run.job.console.meter("import", "rows") as progress:
        load_files(
            index,
            collection,
            staged.files,
            run.settings,
            recorder=RunImportRecorder(run, collection),
            digest=staging.digests(run.job.spark, staged.files),
            on_progress=progress,
        )


def build_and_load(run: Run, index: VectorIndex, collection: str, rows: int) -> Indexed:
    """Index the collection and load it into memory."""
    milvus = run.settings.milvus
    spec = default_index(run.settings, rows, embedded=run.settings.embedded)
    with run.job.console.meter("index", "rows") as progress:
        index.build_index(collection, spec, timeout=milvus.index_timeout_s, on_progress=progress)
    ensure_loaded(run, index, collection)
    return Indexed(index=spec.index_type, rows=rows, nodes=_nodes(run, index))


def ensure_loaded(run: Run, index: VectorIndex, collection: str) -> None:
    """Load a collection if it is not loaded: a process that opens an embedded index finds all of them released."""
    milvus = run.settings.milvus
    index.load(collection, replicas=milvus.replicas, timeout=milvus.index_timeout_s)
