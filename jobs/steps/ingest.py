"""Images, basis records and the assessment of their source come into the warehouse."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import BadInput, SettingsError
from jobs.formatting import counted
from jobs.governance.basis import (
    import_basis,
    is_void,
    link_images,
    named_images,
    record_batch,
    with_absent,
    write_template,
)
from jobs.governance.basis_files import BasisFile, read_basis
from jobs.governance.expansion import expand, write_whole
from jobs.governance.holds import images_on_hold
from jobs.governance.pseudonyms import pseudonyms_of
from jobs.governance.terms import read_terms
from jobs.governance.tombstones import KeyRing, admission, key_ring
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, utc_now
from jobs.schemas import RUNS, SOURCE_BATCHES
from jobs.steps.ingest_messages import (
    said_of_batch,
    said_of_expansion,
    said_of_images,
    said_of_others,
    said_of_records,
    said_of_template,
)
from jobs.tables.images import counted_by, ids_of_others, ingest_images, to_come
from jobs.tables.naming import Naming, naming_of
from jobs.tables.sources import Source, TableSource
from jobs.tables.store import Warehouse, materialise

#: Of how many runs it is looked up how a table came in.
_LOOKED_BACK: Final = 1000


def template(source: Source | None, batch_id: str, assessment: Mapping[str, Any] | None, path: str) -> Result:
    """Write the files in which a person says what permits the images of a source."""
    if assessment:
        raise SettingsError(
            "--basis-template writes files only: what --batch says would not be recorded.",
            hint="give the batch by its id; or leave --basis-template out.",
        )
    if source is None:
        raise SettingsError("--basis-template needs --source.")
    met: list[DataFrame] = []

    def images() -> DataFrame:
        met.append(materialise(source.listing()))
        return met[0].where("reason IS NULL")

    rows = write_template(images, batch_id, path)
    left = met[0].where("reason IS NULL").count() - rows
    refused, suffixes = counted_by(met[0].where("reason IS NOT NULL"))
    batch_file = Path(path).with_suffix(".batch.yaml")
    parts = [*said_of_template(rows, left, f"{path} and {batch_file}"), *said_of_others(refused, suffixes)]
    return Result(
        f"{'; '.join(parts)}. Complete both files, then run `ingest --source … --batch {batch_file} --basis {path}`. "
        "Until then every image is refused.",
        data={"rows": rows, "left_out": left, "refused": refused, "suffixes": suffixes},
    )


@dataclass(frozen=True)
class Given:
    """What `ingest` is given beside a source: the batch and its assessment, a file of records, how bytes are kept.

    ``terms``: a file of what the lines of ``basis`` have in common; ``expanded``: where their whole records go as CSV.
    ``naming``: how names in ``basis`` become ids, where that is said and not told by a source, or by the tables.
    """

    batch_id: str
    assessment: dict[str, Any] | None = None
    basis: str | None = None
    by_uri: bool = False
    terms: str | None = None
    expanded: str | None = None
    naming: Naming | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The batch's state: as it was assessed, else that nobody has."""
        return self.assessment or {"source_batch_id": self.batch_id, "state": "unassessed"}


def counts_at_start(source: Source | None) -> dict[str, Any]:
    """What the record of a run says before anything of ``source`` is here: how its names become ids."""
    return {"names": source.naming.record} if source else {}


def bring(job_: JobContext, source: Source | None, given: Given, facts: dict[str, Any] | None = None) -> Result:
    """The batch first, then records, then images, then the links of records to what came in; counts, and what to do.

    ``facts``: what the run's record says; from the first image on that images came in, and how.

    Raises:
        BadInput, SettingsError: ids of a table are another batch's, or had another prefix before (`ids_apart`).
    """
    warehouse, counts, parts = job_.warehouse, counts_at_start(source), list[str]()
    facts = {} if facts is None else facts
    # Of what fails before them no image is here.
    facts.pop("counts", None)
    batch_id, basis = given.batch_id, given.basis
    names, ring = pseudonyms_of(job_.settings), key_ring(job_.settings)
    if table := ids_apart(warehouse, source):
        counts["table"] = table
    # First, so that a file which cannot be read leaves nothing behind.
    records = read_records(job_, warehouse, source, given, parts)
    code = int(settle_batch(warehouse, given, ring, parts, now=utc_now()))
    naming = naming_for(warehouse, source, given, records)
    image_ids = naming.image_id
    if records:
        job_.console.step("basis", "started")
        with job_.watching("basis", f"import basis records of batch {batch_id}"):
            done = import_basis(
                warehouse, records, image_ids, ring=ring, names=names, now=utc_now(), before_images=source is not None
            )
    if source:
        # After the records: one given anew admits an image whose former permission had expired.
        job_.console.step("images", "started", source=source.kind)
        facts["counts"] = counts
        with job_.watching("images", f"ingest images of batch {batch_id}"):
            images, left = ingest_images(
                warehouse,
                source,
                inline=not given.by_uri,
                now=utc_now(),
                images_a_part=job_.settings.tables.part_images,
                dry_run=job_.dry_run,
                admit=admission(warehouse, job_.settings),
                on_hold=images_on_hold(warehouse, named_images(records, image_ids) if records else None),
            )
        counts["images"] = asdict(images)
        job_.console.step("images", "done", **counts["images"])
    if records:
        if source:
            # What is given beside pictures is given for these, also where they came in place of others.
            with job_.watching("basis", f"link basis records of batch {batch_id}"):
                since, waiting = link_images(
                    warehouse, records, image_ids, ring=ring, names=names, left=left, now=utc_now()
                )
            done = replace(done, new_links=done.new_links + since, left_links=waiting)
        # In a dry run no image came in: it is those that would have that count.
        coming = to_come(warehouse, source, None)[0] if source and job_.dry_run else None
        done = with_absent(warehouse, done, coming)
        counts["basis"] = done.counts
        job_.console.step("basis", "done", **counts["basis"])
        parts += said_of_records(done, None if source else naming.words)
        # A hold on nothing keeps nothing. Beside a source its pictures were looked for.
        idle = done.held_idle > 0 or (done.held_absent > 0 and not source)
        code = code or int(done.nameless > 0 or done.left_links > 0 or idle)
    if source:
        parts += said_of_images(images, with_basis=basis is not None)
        # Whoever waits for all of it, or for what was given for it, has to know.
        code = code or int(images.in_part or images.unbound > 0)
    if isinstance(source, TableSource) and source.id_prefix:
        parts.append(f"its ids begin with {source.id_prefix} here")
    message = ("dry run: " if job_.dry_run else "") + "; ".join(parts)
    return Result(message, code, {"counts": counts})


def settle_batch(warehouse: Warehouse, given: Given, ring: KeyRing, said: list[str], *, now: datetime) -> bool:
    """Record what is ``given`` of a batch, where that is new of it, and say so; whether it counts for nothing."""
    if not given.assessment and _is_known(warehouse, given.batch_id):
        return False
    changed = record_batch(warehouse, given.record, ring=ring, now=now)
    void = not changed and is_void(warehouse, given.record, ring=ring)
    said.append(said_of_batch(given.batch_id, str(given.record["state"]), changed=changed, void=void))
    return void


def ids_apart(warehouse: Warehouse, source: Source | None) -> dict[str, str] | None:
    """What goes on record of a table that brings its own ids: which one, of which batch, and the prefix of its ids.

    None: ``source`` is none.

    Raises:
        BadInput: it comes in for the first time, and images of other batches have ids of it.
        SettingsError: it came into this batch with another prefix, so that each image would be there twice.
    """
    if not isinstance(source, TableSource) or not source.layout.own_ids:
        return None
    # By a hash: the record of a run names no place of a source.
    place = hashlib.sha256(source.place.encode()).hexdigest()[:32]
    now = {"place": place, "batch": source.batch_id, "id_prefix": source.id_prefix}
    before = "job = 'ingest' AND state = 'done' AND counts LIKE {wanted}"
    found = warehouse.rows(
        RUNS, "counts", where=before, order_by="recorded_at DESC", limit=_LOOKED_BACK, wanted=f"%{place}%"
    )
    said = [json.loads(row["counts"])["table"] for row in found]
    former = next((table["id_prefix"] for table in said if table["batch"] == source.batch_id), None)
    if former is None:
        count, owners = ids_of_others(warehouse, source)
        if count:
            raise BadInput(
                f"{counted(count, 'id')} of this table are those of images of other batches ({', '.join(owners)}), "
                "which are not about the same pictures for all we know: nothing was taken.",
                hint="give its ids a beginning of their own, such as --id-prefix "
                f"{source.batch_id}/ (each time; basis files name images without it).",
            )
    elif former != source.id_prefix:
        raise SettingsError(
            f"--id-prefix: this table came into batch {source.batch_id} with {former!r} before its ids, and not with "
            f"{source.id_prefix!r}: each of its images would come in a second time.",
            hint="give the former one.",
        )
    return now


def read_records(
    job_: JobContext, warehouse: Warehouse, source: Source | None, given: Given, said: list[str]
) -> BasisFile | None:
    """The records that are given; of a short file what it came to is shown, and ``said`` in a sentence.

    Raises:
        BadInput, SettingsError: the file, or its terms, are not of their form; an option lacks another one.
    """
    names = pseudonyms_of(job_.settings)
    if given.terms is None:
        if given.expanded:
            raise SettingsError("--expanded writes what --terms and --basis make.", hint="give --terms as well.")
        return read_basis(job_.spark, given.basis, names) if given.basis else None
    if given.basis is None or source is None:
        raise SettingsError(
            "--terms is for the lines of a --basis CSV, and their images are looked for in --source.",
            hint="give both as well; docs/basis-record.md (`Terms`) has an example.",
        )
    terms = read_terms(given.terms, given.batch_id)
    with job_.watching("basis", f"expand the lines of batch {given.batch_id}"):
        done = expand(
            warehouse, given.basis, terms, source.listing(), names, ring=key_ring(job_.settings), now=utc_now()
        )
    for name, value in terms.model_dump(exclude_none=True).items():
        job_.console.note(f"  {name}: {'; '.join(value) if isinstance(value, list) else value}")
    said.append(said_of_expansion(done))
    job_.console.note(said[-1])
    if given.expanded:
        write_whole(done.file.records, given.expanded)
        said.append(f"they stand in {given.expanded}")
    return done.file


def naming_for(warehouse: Warehouse, source: Source | None, given: Given, records: BasisFile | None) -> Naming:
    """How the names in a basis file become ids: as the source makes them, as was said, else as the batch's images came.

    Raises:
        SettingsError: the tables do not tell that for sure (`naming_of`).
    """
    if source:
        return source.naming
    if given.naming or records is None:
        return given.naming or Naming(given.batch_id)
    return naming_of(warehouse, given.batch_id, records.records.select(F.explode("images").alias("key")))


def _is_known(warehouse: Warehouse, batch_id: str) -> bool:
    batches = warehouse.read(SOURCE_BATCHES)
    return not batches.where(batches["source_batch_id"] == batch_id).isEmpty()
