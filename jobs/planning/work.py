"""What a run would have to do, counted from metadata: no image is read, nothing is written."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.embedding.status import REFUSED, RETRIED, computed, outcomes
from jobs.governance.gate import Gated, gate_warehouse
from jobs.planning.model import Rate, Work
from jobs.runs.record import JobContext
from jobs.schemas import IMAGE_STATUS
from jobs.tables.store import Warehouse, materialise

_KEY = ["image_id", "input_digest"]


def count_work(
    warehouse: Warehouse, decided: Gated, fingerprint: str | None, faces_each: float, *, recompute: bool
) -> Work:
    """Images by what becomes of them, under the model ``fingerprint`` (None: nothing has been embedded yet)."""
    gated = decided.computed()
    accepted, refused = gated.accepted.select(*_KEY), gated.refused.count()
    if fingerprint is None:
        return Work(new=accepted.count(), refused=refused, faces_each=faces_each)
    status = warehouse.read(IMAGE_STATUS)
    done = computed(status, fingerprint, "", recompute=recompute)
    wanted = materialise(accepted.join(done, _KEY, "left_anti"))
    known = _of_model(warehouse, fingerprint).select("image_id").distinct()
    changed = wanted.join(known, "image_id", "left_semi").count()
    embedded = wanted.count()
    known_faces = outcomes(gated, status, fingerprint).agg(F.sum("faces").alias("faces")).first()
    return Work(
        new=embedded - changed,
        changed=changed,
        reused=accepted.count() - embedded,
        refused=refused,
        # What is embedded again brings its faces anew.
        faces_reused=0 if recompute or known_faces is None else int(known_faces["faces"] or 0),
        faces_each=faces_each,
    )


def faces_each(warehouse: Warehouse, fingerprint: str | None) -> Rate | None:
    """Faces an image that was embedded with this model had, on average."""
    if fingerprint is None:
        return None
    # One that could not be read has a row for each night that tried.
    read = _of_model(warehouse, fingerprint).where(~F.col("status").isin(*RETRIED))
    found = read.agg(F.count("*").alias("images"), F.sum("faces").alias("faces")).first()
    if found is None or not found["images"]:
        return None
    images, faces = int(found["images"]), int(found["faces"] or 0)
    return Rate(faces / images, "faces/image", f"the table image_status: {faces:,} faces of {images:,} images")


def _of_model(warehouse: Warehouse, fingerprint: str) -> DataFrame:
    status = warehouse.read(IMAGE_STATUS)
    return status.where((F.col("model_fingerprint") == fingerprint) & (F.col("status") != REFUSED))


def counted(job: JobContext, model: str | None, faces: Rate, recompute: bool) -> Work:
    """The work that there is now, as the gate decides it."""
    gated = gate_warehouse(job.warehouse, job.settings, now=job.clock())
    return count_work(job.warehouse, gated, model, faces.value, recompute=recompute)
