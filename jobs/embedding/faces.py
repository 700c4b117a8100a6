"""Rows of `embeddings`: one face each, its key, who may see it, and what must go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.embedding.status import INPUT, REFUSED
from jobs.errors import GovernanceError, MixedFingerprints
from jobs.governance.gate import Gated
from jobs.governance.holds import images_on_hold
from jobs.schemas import BASIS_LINKS, EMBEDDINGS, IMAGE_STATUS, REMOVED_FACES
from jobs.tables.store import Warehouse, materialise


def face_rows(stamped: DataFrame, fingerprint: str, run_id: str) -> DataFrame:
    """One row a face, with its id."""
    faces = stamped.select("image_id", "input_digest", F.explode("faces").alias("face"))
    return faces.select(
        F.lit(fingerprint).alias("model_fingerprint"),
        "image_id",
        "input_digest",
        "face.*",
        F.lit(run_id).alias("run_id"),
    ).withColumn("face_id", face_id())


def face_id(salt: Column | int = 0, *, bits: int = 64) -> Column:
    """A face's key: the first ``bits`` of a SHA-256 over what it was computed from, as a signed 64-bit integer.

    At 3 × 10⁹ faces two of 64 bits collide with probability 0.2 (birthday bound): see `resolve_id_collisions`.
    """
    salted = F.lit(salt) if isinstance(salt, int) else salt
    text = F.concat_ws("|", "model_fingerprint", "image_id", "input_digest", "face_index", salted)
    digest = F.sha2(text, 256)
    high = F.conv(F.substring(digest, 1, 8), 16, 10).cast("bigint")
    low = F.conv(F.substring(digest, 9, 8), 16, 10).cast("bigint")
    whole = F.shiftleft(high, 32).bitwiseOR(low)
    return whole if bits == 64 else F.shiftrightunsigned(whole, 64 - bits)


@dataclass(frozen=True, eq=False)
class PermittedFaces:
    """Faces of one model that the gate permits: what may be staged, or brought into a collection, and nothing else may.

    Only `permitted_faces` makes one, from decisions of the gate. ``rows``: those of `embeddings`, with `valid_until`.
    """

    rows: DataFrame
    fingerprint: str

    @property
    def keys(self) -> DataFrame:
        """Their keys (face_id)."""
        return self.rows.select("face_id")


def permitted_faces(warehouse: Warehouse, gated: Gated, fingerprint: str) -> PermittedFaces:
    """Faces of one model that the gate permits now.

    A face needs its own records: every one that it was embedded under must still be among those that cover the
    image, which equality of `input_digest` says.
    """
    accepted = gated.accepted.select(*INPUT, "valid_until")
    faces = warehouse.read(EMBEDDINGS).where(F.col("model_fingerprint") == fingerprint)
    return PermittedFaces(faces.join(accepted, list(INPUT)), fingerprint)


def remove_unpermitted_faces(warehouse: Warehouse, gated: Gated, *, now: datetime) -> int:
    """Delete every face, of any model, whose image or coverage is no longer accepted; returns the faces deleted.

    A revoked batch, an ended consent, a changed or deleted image: all end here (Guarantee 6). A legal hold suspends
    destruction as well as serving (Guarantee 7): what it covers stays in the table, and out of every index. Keys are
    written down before their rows go: an erasure that follows tells by them whose faces collections may hold still.

    Raises:
        GovernanceError: there is no link at all, so that every face would go, also of what is on hold.
    """
    permitted = gated.accepted.select(*INPUT)
    # By faces as well: the link to a record on hold may be lost.
    on_hold = materialise(images_on_hold(warehouse))

    def stale_in(rows: DataFrame) -> DataFrame:
        gone = rows.join(permitted, list(INPUT), "left_anti")
        return materialise(gone.join(on_hold, "image_id", "left_anti"))

    stale = stale_in(warehouse.read(EMBEDDINGS).select(*INPUT, "face_id", "basis_record_ids"))
    faces = stale.count()
    outdated = stale_in(warehouse.read(IMAGE_STATUS).where(F.col("status") != REFUSED).select(*INPUT))
    if faces:
        # Asked where it matters: most runs withdraw nothing.
        _need_links(warehouse)
        stamped = stale.withColumn("recorded_at", F.lit(now).cast("timestamp"))
        warehouse.append(stamped, REMOVED_FACES)
        warehouse.delete_matching(EMBEDDINGS, stale, INPUT)
    if not outdated.isEmpty():
        warehouse.delete_matching(IMAGE_STATUS, outdated, INPUT)
    return faces


def _need_links(warehouse: Warehouse) -> None:
    if warehouse.read(BASIS_LINKS).isEmpty():
        raise GovernanceError(
            "basis_links: no image is linked to a basis record, so none is permitted, and nobody can tell on which a "
            "legal hold is; no face was deleted.",
            hint='if the table was removed or damaged, ingest the basis files again (docs/operations.md, "A damaged '
            'table").',
        )


def resolve_id_collisions(warehouse: Warehouse, fingerprint: str, *, bits: int = 64) -> int:
    """Find faces of different images that got one id, and give all but the first a salted one; returns how many.

    Deterministic: the order is that of image_id and face_index. The table keeps the new id, so later runs see it.

    Raises:
        MixedFingerprints: one and the same face stands twice, which no salt can mend.
    """
    key = ["model_fingerprint", "image_id", "input_digest", "face_index"]
    moved = 0
    for salt in range(1, 9):
        faces = warehouse.read(EMBEDDINGS).where(F.col("model_fingerprint") == fingerprint).select("face_id", *key)
        # Not cached: Spark finds a cached Delta query by the table's path, whatever its version, and an erasure's
        # VACUUM may have removed the files that an earlier run's was computed from.
        shared = materialise(faces.groupBy("face_id").count().where("count > 1").select("face_id"))
        if shared.isEmpty():
            return moved
        clashing = materialise(faces.join(F.broadcast(shared), "face_id"))
        if clashing.groupBy(*key).count().where("count > 1").count():
            raise MixedFingerprints(
                "embeddings: a face stands twice under one key.", hint="run `reindex --recompute` with a new run id."
            )
        first = clashing.groupBy("face_id").agg(F.min(F.struct(*key[1:])).alias("first"))
        later = clashing.join(first, "face_id").where(F.struct(*key[1:]) != F.col("first"))
        fresh = materialise(later.select(*key, face_id(salt, bits=bits).alias("fresh")))
        moved += warehouse.update_matching(EMBEDDINGS, fresh, key, {"face_id": "k.fresh"})
    raise MixedFingerprints("embeddings: ids still collide after eight salts.", hint="report this; it is a defect.")
