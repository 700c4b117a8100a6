"""What is asked to be erased: what is stored of it, how it is written down, and carried out with all that is open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.erasure.asked import Asked, names_persons, nothing_found, places
from jobs.erasure.kinds import EXPIRY, NOT_FOUND, SWEEP
from jobs.erasure.receipts import receipts
from jobs.erasure.requests import request
from jobs.erasure.run import erase_pending, records_given_up
from jobs.erasure.subject_access import export, stored_about
from jobs.errors import NOTHING_FOUND, LeaseHeld, SettingsError
from jobs.formatting import counted
from jobs.governance import audit
from jobs.governance.basis import record_batch
from jobs.governance.persons import keep_keys
from jobs.governance.pseudonyms import pseudonyms_of
from jobs.governance.tombstones import BATCH, key_ring
from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.runs.aliases import settle_alias
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext, check_may_begin, new_run_id, open_run, utc_now
from jobs.runs.stores import give_up
from jobs.steps.sync import remove_without_lease


def erase(job_: JobContext, asked: Asked, lost: Sequence[str] = (), lost_records: bool = False) -> Result:
    """Record what is asked for, and carry out everything that is open; ``lost``: collections that are gone for good.

    ``lost_records``: also take what links to records that are gone for good.
    """
    # Before anything is written down, for that cannot be taken back.
    check_may_begin(job_)
    run_id = job_.run_id or new_run_id()
    requests = _request(job_, asked, run_id) if asked else {}
    with connect(job_.settings) as index:
        return _erase(JobContext(**{**vars(job_), "run_id": run_id}), index, requests, lost, lost_records)


def _erase(
    job_: JobContext, index: VectorIndex, requests: dict[str, list[str]], lost: Sequence[str], lost_records: bool
) -> Result:
    try:
        with open_run(job_, "erase") as run:
            settle_alias(run, index)
            give_up(run, index, lost)
            due = records_given_up(run) if lost_records else None
            outcome = erase_pending(run, index, due=due, sweep=True)
            found = receipts(run.warehouse, run.settings, run.run_id)
            # Not of what nobody asked for: a sweep may find a status alone, whose image is missing.
            asked = [r for r in found if r["kind"] not in (EXPIRY, SWEEP)]
            nothing = [r["request_id"] for r in asked if r["outcome"] == NOT_FOUND]
            unknown = {request_id: requests.get(request_id, []) for request_id in nothing}
            message = outcome.said + (f"; {nothing_found(unknown)}" if unknown else "")
            later = LeaseHeld.exit_code if outcome.again else NOTHING_FOUND if unknown else 0
            code = 3 if outcome.waiting else later
            return run.end(Result(message, code, {"nothing_found": unknown, "receipts": found}))
    except LeaseHeld as lease:
        removed = remove_without_lease(job_, index)
        raise LeaseHeld(
            f"Recorded, barred from every index from now on, and {counted(removed, 'face')} taken out of the live "
            f"collection; the rest waits for the run that is writing. {lease}"
        ) from None


def _keep_keys(job_: JobContext, asked: Asked) -> None:
    if (names := pseudonyms_of(job_.settings)) and names_persons(asked):
        keep_keys(job_.warehouse, names, now=utc_now())


def _request(job_: JobContext, asked: Asked, run_id: str) -> dict[str, list[str]]:
    """Written down before the lease is asked for, so that a reindex that runs keeps clear of it (Guarantee 11).

    Returns where each request was asked for.
    """
    now, targets = utc_now(), list(asked)
    _keep_keys(job_, asked)
    ring = key_ring(job_.settings)
    for target in targets:
        if target.kind == BATCH:
            # With its time, so that one which is asked for once more is a later revocation.
            revoked = {"source_batch_id": target.value, "state": "revoked", "assessed_at": now}
            record_batch(job_.warehouse, revoked, ring=ring, now=now)
    ids = request(job_.warehouse, targets, ring, run_id=run_id, now=now)
    facts: dict[str, Any] = {"requests": len(ids), "kinds": sorted({t.kind for t in targets})}
    audit.append(job_.warehouse, "erasure-requested", run_id, facts, now=now)
    return dict(zip(ids, asked.values(), strict=True))


def dry_run(job_: JobContext, asked: Asked, export_to: str | None) -> Result:
    """What is stored of it, and would be erased; a copy of it for the person, where one is asked for."""
    if not asked:
        raise SettingsError("erase --dry-run needs a target.", hint="see `erase --help` for examples.")
    _keep_keys(job_, asked)
    targets = list(asked)
    stored = stored_about(job_.warehouse, targets)
    unknown = [asked[target] for target in stored.pop("unknown")]
    counts = ", ".join(f"{count} {kind}" for kind, count in stored["counts"].items()) or "nothing"
    message = f"dry run: stored and to be erased: {counts}"
    if unknown:
        message += f"; nothing of {places(unknown)}"
    if export_to:
        from udfs.kinds import image_kind

        export(job_.warehouse, targets, export_to, image_kind)
        message += f"; copy written to {export_to}"
    return Result(message, NOTHING_FOUND if unknown else 0, {"stored": stored, "nothing_found": unknown})
