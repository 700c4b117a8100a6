"""Images, basis records and the assessment of their source come into the warehouse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jobs.erasure.holds import images_on_hold
from jobs.errors import SettingsError
from jobs.governance.basis import import_basis, is_void, link_images, named_images, record_batch, write_template
from jobs.governance.basis_files import read_basis
from jobs.governance.pseudonyms import pseudonyms_of
from jobs.governance.tombstones import admission, key_ring
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, utc_now
from jobs.steps.ingest_messages import said_of_batch, said_of_images, said_of_records
from jobs.tables.images import ingest_images
from jobs.tables.sources import Source
from udfs.sources import BROKEN_SHARD, UNREADABLE_FOLDER


def template(source: Source | None, batch_id: str, assessment: Mapping[str, Any] | None, path: str) -> Result:
    """Write the files in which a person says what permits the images of a source."""
    if assessment:
        raise SettingsError(
            "--basis-template writes files only: what --batch says would not be recorded.",
            hint="give the batch by its id; or leave --basis-template out.",
        )
    if source is None:
        raise SettingsError("--basis-template needs --source.")
    rows = write_template(source.listing().where("reason IS NULL"), batch_id, path)
    batch_file = Path(path).with_suffix(".batch.yaml")
    return Result(
        f"template for {rows} images written to {path} and {batch_file}; complete both, then run "
        f"`ingest --source … --batch {batch_file} --basis {path}`. Until then every image is refused.",
        data={"rows": rows},
    )


def bring(
    job_: JobContext,
    source: Source | None,
    batch_id: str,
    assessment: dict[str, Any] | None,
    basis: str | None,
    by_uri: bool,
) -> Result:
    """The batch first, then records, then images, then the links of records to what came in; counts, and what to do."""
    warehouse, counts, parts, code = job_.warehouse, {}, [], 0
    names, ring = pseudonyms_of(job_.settings), key_ring(job_.settings)
    # First, so that a file which cannot be read leaves nothing behind.
    records = read_basis(job_.spark, basis, names) if basis else None
    record = assessment or {"source_batch_id": batch_id, "state": "unassessed"}
    if assessment or not _known_batch(job_, batch_id):
        changed = record_batch(warehouse, record, ring=ring, now=utc_now())
        void = not changed and is_void(warehouse, record, ring=ring)
        parts.append(said_of_batch(batch_id, str(record["state"]), changed=changed, void=void))
        code = int(void)
    image_ids = _image_ids(job_, source, batch_id)
    if records:
        job_.console.step("basis", "started")
        with job_.watching("basis", f"import basis records of batch {batch_id}"):
            done = import_basis(
                warehouse, records, image_ids, ring=ring, names=names, now=utc_now(), before_images=source is not None
            )
    if source:
        # After the records: one given anew admits an image whose former permission had expired.
        job_.console.step("images", "started", source=source.kind)
        with job_.watching("images", f"ingest images of batch {batch_id}"):
            images = ingest_images(
                warehouse,
                source,
                inline=not by_uri,
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
                since = link_images(warehouse, records, image_ids, ring=ring, names=names, now=utc_now())
            done = replace(done, new_links=done.new_links + since)
        counts["basis"] = asdict(done)
        job_.console.step("basis", "done", **counts["basis"])
        parts += said_of_records(done)
        code = code or int(done.nameless > 0)
    if source:
        parts += said_of_images(images, with_basis=basis is not None)
        # Part of the source was not even listed: whoever waits for the images has to know.
        code = code or int(bool(images.refused.keys() & {BROKEN_SHARD, UNREADABLE_FOLDER}))
    message = ("dry run: " if job_.dry_run else "") + "; ".join(parts)
    return Result(message, code, {"counts": counts})


def _image_ids(job_: JobContext, source: Source | None, batch_id: str) -> Any:
    """How the names in a basis file become image ids: as the source makes them, else as a folder would."""
    from jobs.tables.sources import FolderSource

    return (source or FolderSource(job_.spark, ".", batch_id, job_.settings)).image_id


def _known_batch(job_: JobContext, batch_id: str) -> bool:
    from jobs.schemas import SOURCE_BATCHES

    batches = job_.warehouse.read(SOURCE_BATCHES)
    return not batches.where(batches["source_batch_id"] == batch_id).isEmpty()
