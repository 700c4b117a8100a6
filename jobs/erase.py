"""Erase a person, an image or a source batch from every store, and prove it."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from jobs.cli import Result, job
from jobs.errors import LeaseHeld, SettingsError
from jobs.governance import audit, erasure
from jobs.governance.basis import record_batch
from jobs.governance.basis_files import pseudonym
from jobs.governance.decide import PRINCIPAL_PATTERN
from jobs.governance.gate import Gated, gate_warehouse
from jobs.governance.subject import export, held_about
from jobs.governance.tombstones import key_ring
from jobs.index.milvus import VectorIndex, connect
from jobs.runs.erasing import erase_pending, receipts
from jobs.runs.record import Job, new_run_id, open_run, utc_now
from jobs.runs.syncing import withdraw_live

_EXAMPLES = """
python -m jobs.erase --config conf/local.yaml --subject-file requests.txt
python -m jobs.erase --config conf/local.yaml --subject hmac:… --dry-run --export person.zip
python -m jobs.erase --config conf/local.yaml --batch crm-2025
python -m jobs.erase --config conf/local.yaml --json          (carries out what is still open)
"""


@job("erase", examples=_EXAMPLES)
@click.option("--subject", help="A person's pseudonym (hmac:…). Names only by --subject-file: arguments are seen.")
@click.option("--subject-file", help="A file of pseudonyms, or of names as in a basis CSV's `subject`; one a line.")
@click.option("--image", help="An image_id.")
@click.option("--batch", help="A source batch: it is revoked, and all that descends from it goes.")
@click.option("--export", "export_to", help="With --dry-run and one subject: write that person's copy (zip) here.")
@click.option("--receipts", "receipts_of", metavar="RUN_ID", help="Say the receipts of an earlier erasure again.")
def main(
    job_: Job,
    subject: str | None,
    subject_file: str | None,
    image: str | None,
    batch: str | None,
    export_to: str | None,
    receipts_of: str | None,
) -> Result:
    """Erase a person, an image or a source batch from every store, and prove it. Without a target: what is open."""
    if receipts_of:
        found = receipts(job_.warehouse, job_.settings, receipts_of)
        return {"receipts": found, "message": f"{len(found)} receipts of run {receipts_of}"}
    targets = _targets(job_, subject, subject_file, image, batch)
    if job_.dry_run:
        return _held(job_, targets, export_to)
    run_id = job_.run_id or new_run_id()
    if targets:
        _request(job_, targets, run_id)
    with closing(connect(job_.settings)) as index:
        return _erase(job_, index, run_id)


def _erase(job_: Job, index: VectorIndex, run_id: str) -> Result:
    try:
        with open_run(Job(**{**vars(job_), "run_id": run_id}), "erase") as run:
            outcome = erase_pending(run, index, sweep=True)
            kinds = outcome.items
            run.facts["message"] = message = (
                f"{outcome.completed} requests complete: {kinds.get('image', 0)} images, {kinds.get('face', 0)} faces, "
                f"{kinds.get('record', 0)} records erased"
                + (f"; {outcome.suspended} requests suspended by a legal hold" if outcome.suspended else "")
            )
            found = receipts(run.warehouse, run.settings, run.run_id)
    except LeaseHeld as held:

        def decide() -> Gated:
            return gate_warehouse(job_.warehouse, job_.settings, now=job_.clock())

        removed = withdraw_live(job_.warehouse, job_.settings, index, decide)["removed"]
        raise LeaseHeld(
            f"Recorded, barred from every index from now on, and {removed} faces taken out of the live collection; "
            f"the rest waits for the run that is writing. {held}"
        ) from None
    return {"run_id": run_id, "message": message, "receipts": found, "exit_code": 3 if outcome.suspended else 0}


def _targets(
    job_: Job, subject: str | None, subject_file: str | None, image: str | None, batch: str | None
) -> list[erasure.Target]:
    targets = [erasure.Target("image", image)] if image else []
    targets += [erasure.Target("batch", batch)] if batch else []
    if subject:
        if not re.fullmatch(PRINCIPAL_PATTERN, subject):
            raise SettingsError("--subject takes a pseudonym (hmac: and 64 hex digits).", hint="use --subject-file.")
        targets.append(erasure.Target("subject", subject))
    if subject_file:
        targets += [erasure.Target("subject", value) for value in _subjects(job_, subject_file)]
    return list(dict.fromkeys(targets))


def _subjects(job_: Job, path: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise SettingsError(f"--subject-file {path}: cannot be read ({why}).") from None
    key = job_.settings.hmac_key
    if key is None and not all(re.fullmatch(PRINCIPAL_PATTERN, line) for line in lines):
        raise SettingsError(
            f"--subject-file {path}: names are turned into pseudonyms with a key, and there is none.",
            hint="set FACE_REINDEX_HMAC_KEY to the key that the records were imported with.",
        )
    secret = key.get_secret_value() if key else ""
    return [line if re.fullmatch(PRINCIPAL_PATTERN, line) else pseudonym(line, secret) for line in lines]


def _request(job_: Job, targets: list[erasure.Target], run_id: str) -> None:
    """Written down before the lease is asked for, so that a reindex that runs keeps clear of it (Guarantee 11)."""
    now = utc_now()
    ring = key_ring(job_.settings)
    for target in targets:
        if target.kind == erasure.BATCH:
            record_batch(job_.warehouse, {"source_batch_id": target.value, "state": "revoked"}, now=now)
    ids = erasure.request(job_.warehouse, targets, ring, run_id=run_id, now=now)
    facts: dict[str, Any] = {"requests": len(ids), "kinds": sorted({t.kind for t in targets})}
    audit.append(job_.warehouse, "erasure-requested", run_id, facts, now=now)


def _held(job_: Job, targets: list[erasure.Target], export_to: str | None) -> Result:
    if not targets:
        raise SettingsError("erase --dry-run needs a target.", hint="see `erase --help` for examples.")
    held = held_about(job_.warehouse, targets)
    counts = ", ".join(f"{count} {kind}" for kind, count in held["counts"].items()) or "nothing"
    message = f"dry run: held and to be erased: {counts}"
    if export_to:
        from udfs.kinds import image_kind

        export(job_.warehouse, targets, export_to, image_kind)
        message += f"; copy written to {export_to}"
    return {"held": held, "message": message}


if __name__ == "__main__":
    main()
