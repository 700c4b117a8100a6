"""A small warehouse with a promoted collection, made in seconds: everything real but the detection of faces.

Images are random bytes that nothing else contains, so that a scanner can look for them. Twelve people have a picture
each; person 0 has two; persons 1 and 2 share one, each under a record with a box; person 4's picture came in batch b2.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from pyspark.sql import functions as F

from jobs.embedding.faces import face_id
from jobs.governance.gate import gate_warehouse
from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.runs.record import Run, open_run
from jobs.runs.results import Screened
from jobs.schemas import BASIS_LINKS, EMBEDDINGS, IMAGE_STATUS, IMAGES, PROCESSING_BASIS, SOURCE_BATCHES
from jobs.settings import Settings
from jobs.steps.load import load_steps
from jobs.steps.promote import promote_steps
from jobs.steps.verify import verify_steps
from jobs.tables.store import Warehouse
from tests.conftest import PURPOSE
from tests.spark.helpers import job_for, settings_for, warehouse_for
from udfs.arrays import EMBEDDING_DIM

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

PEOPLE = 12
#: What its persons' names and its tombstones are keyed with.
KEY = "a test's key of more than 32 letters"
FINGERPRINT = "f" * 64
LONG_AGO = datetime.now(UTC) - timedelta(days=60)


def principal(person: int) -> str:
    """The pseudonym of a person."""
    return "hmac:" + hashlib.sha256(f"person {person}".encode()).hexdigest()


def picture(name: str) -> bytes:
    """The bytes of an image: random, and the same each time."""
    return np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)).bytes(800)


def image(person: int, number: int = 0) -> str:
    """An image's id."""
    return hashlib.sha256(f"image {person} {number}".encode()).hexdigest()[:32]


SHARED = hashlib.sha256(b"image shared").hexdigest()[:32]


@dataclass
class Indexed:
    """A warehouse, its settings, and ways to look at it."""

    spark: SparkSession
    folder: Path
    settings: Settings
    warehouse: Warehouse

    def index(self) -> VectorIndex:
        """The database; close it."""
        return connect(self.settings)

    def live_keys(self, alias: str | None = None) -> set[int]:
        """Keys behind an alias; None: that of the settings."""
        return self.keys_of(alias or self.settings.milvus.alias)

    def keys_of(self, name: str) -> set[int]:
        """Keys in a collection, or in that behind an alias."""
        index = self.index()
        try:
            collection = index.alias_target(name) or name
            index.load(collection, timeout=60)
            pages = list(index.keys(collection))
            return set(np.concatenate(pages).tolist()) if pages else set()
        finally:
            index.close()

    def faces(self, where: str = "true") -> set[int]:
        """Keys in the table of embeddings."""
        return {row["face_id"] for row in self.warehouse.read(EMBEDDINGS).where(where).select("face_id").collect()}

    def faces_of(self, person: int) -> set[int]:
        """Keys of the faces under a person's records."""
        return self.faces(f"exists(basis_record_ids, r -> r = 'r{person}' OR r = 's{person}')")

    def record(self, person: int, **changes: Any) -> None:
        """A later version of a person's record: columns of the table, or of `processing`."""
        row = record_row(f"r{person}", person, **changes)
        self.warehouse.append(self.spark.createDataFrame([row], PROCESSING_BASIS.columns), PROCESSING_BASIS)

    def copy_to(self, folder: Path, *overrides: str) -> Indexed:
        """The same once more, in another place."""
        shutil.copytree(self.folder, folder)
        settings = indexed_settings(folder, *overrides)
        return Indexed(self.spark, folder, settings, warehouse_for(self.spark, settings))


def indexed_settings(folder: Path, *overrides: str) -> Settings:
    """Settings of a warehouse in ``folder``, with keys as the environment would give them."""
    settings = settings_for(folder, "erasure.milvus_gc_hours=0", *overrides)
    return settings.model_copy(update={"hmac_key": _secret(KEY)})


def _secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)


def record_row(record_id: str, person: int, **changes: Any) -> tuple[Any, ...]:
    """A row of `processing_basis` that permits, unless ``changes`` say otherwise."""
    at = changes.pop("recorded_at", datetime.now(UTC))
    events = changes.pop("events", [(LONG_AGO, "P5Y", "explicit_consent", "ConsentGiven")])
    processing = {
        "purposes": [PURPOSE], "lawful_basis": "eu-gdpr:A6-1-a", "special_category_condition": "eu-gdpr:A9-2-a",
        "pii_controllers": ["c"], "collection_method": "uploaded_by_subject", "retention_period": "P9Y",
        "jurisdiction": "EU", "withdrawal_method": "w", "impact_assessment": "i", "privacy_notice": "n",
    }  # fmt: skip
    processing |= {k: changes.pop(k) for k in list(changes) if k in processing}
    row = {
        "record_id": record_id, "schema_version": "1.0", "pii_principal_id": principal(person),
        "processing": tuple(processing.values()), "parties": None, "events": events, "source_batch_id": "b1",
        "face_box": None, "last_interaction_at": None, "expires_at": None, "written_release_ref": None,
        "authority_disclosure_ref": None, "legal_hold_ref": None,
        "content_digest": hashlib.sha256(f"{record_id}{at}{changes}".encode()).hexdigest(), "recorded_at": at,
        "authority_disclosed_at": None,
    } | changes  # fmt: skip
    return tuple(row.values())


def build(spark: SparkSession, folder: Path) -> Indexed:
    """The warehouse of this module, with a collection behind its alias; what was built there before, if it was."""
    settings = indexed_settings(folder)
    made = Indexed(spark, folder, settings, warehouse_for(spark, settings))
    complete = folder / "complete"
    if not complete.exists():
        _sources(made)
        _embeddings(made)
        reindex(made, "night-1")
        complete.touch()
    return made


def reindex(made: Indexed, run_id: str, *, weights: str = "random(seed=0), UNTRAINED") -> None:
    """A night over the embeddings that are there, which ``weights`` are said to have made."""
    index = made.index()
    try:
        with open_run(job_for(made.spark, made.settings, run_id), "reindex") as run:
            screened(run, weights)
            load_steps(run, index)
            verify_steps(run, index)
            promote_steps(run, index)
    finally:
        index.close()


def screened(run: Run, weights: str = "random(seed=0), UNTRAINED") -> None:
    """As if the run had embedded what is there: its gate counted no images."""
    with run.step(Screened) as step:
        step.result = Screened(fingerprint=FINGERPRINT, weights=weights)


def _sources(made: Indexed) -> None:
    spark, warehouse, before = made.spark, made.warehouse, datetime.now(UTC) - timedelta(minutes=5)
    images = [(image(p), f"picture {p}", "b2" if p == 4 else "b1") for p in range(PEOPLE)]
    images += [(image(0, 1), "picture 0 1", "b1"), (SHARED, "shared", "b1")]
    rows = [
        (
            0,
            i,
            picture(name),
            f"/originals/{i}.jpg",
            hashlib.sha256(picture(name)).hexdigest(),
            800,
            batch,
            before,
            False,
            None,
            None,
        )
        for i, name, batch in images
    ]
    warehouse.append(spark.createDataFrame(rows, IMAGES.columns), IMAGES)
    batches = [(b, "s", "uploaded_by_subject", "a", before, "assessed", before) for b in ("b1", "b2")]
    warehouse.append(spark.createDataFrame(batches, SOURCE_BATCHES.columns), SOURCE_BATCHES)
    records = [
        record_row(f"r{p}", p, source_batch_id="b2" if p == 4 else "b1", recorded_at=before) for p in range(PEOPLE)
    ]
    boxes = {1: [0.0, 0.0, 40.0, 40.0], 2: [60.0, 0.0, 99.0, 40.0]}
    records += [record_row(f"s{p}", p, face_box=box, recorded_at=before) for p, box in boxes.items()]
    warehouse.append(spark.createDataFrame(records, PROCESSING_BASIS.columns), PROCESSING_BASIS)
    links = [(image(p), f"r{p}", before, None) for p in range(PEOPLE)]
    links += [(image(0, 1), "r0", before, None), (SHARED, "s1", before, None), (SHARED, "s2", before, None)]
    warehouse.append(spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)


def _embeddings(made: Indexed) -> None:
    """A face for each covered record, as a detector that finds exactly those would give."""
    now = datetime.now(UTC)
    accepted = gate_warehouse(made.warehouse, made.settings, now=now, ingested_by=now).accepted
    faces = accepted.select("image_id", "input_digest", F.posexplode("covered").alias("face_index", "record"))
    rows = faces.select(
        F.lit(FINGERPRINT).alias("model_fingerprint"), "image_id", "input_digest", "face_index",
        F.array(*(F.lit(float(x)) for x in (0, 0, 40, 40))).cast("array<float>").alias("box"),
        F.array(*(F.lit(1.0) for _ in range(10))).cast("array<float>").alias("landmarks"),
        F.lit(1.0).cast("float").alias("confidence"),
        F.array("record.record_id").alias("basis_record_ids"), F.lit("night-0").alias("run_id"),
    ).withColumn("face_id", face_id())  # fmt: skip
    made.warehouse.append(rows.mapInArrow(_with_vectors, _WITH_VECTORS), EMBEDDINGS)
    status = accepted.select(
        "image_id", "input_digest", F.lit(FINGERPRINT).alias("model_fingerprint"), F.lit("embedded").alias("status"),
        F.lit(None).cast("string").alias("reason"), F.lit(100).alias("width"), F.lit(100).alias("height"),
        F.size("covered").alias("faces"),
        F.lit(None).alias("dropped"),
        F.lit("night-0").alias("run_id"), F.lit(now).cast("timestamp").alias("decided_at"),
    )  # fmt: skip
    made.warehouse.append(status, IMAGE_STATUS)


_WITH_VECTORS = (
    "model_fingerprint string, image_id string, input_digest string, face_index int, box array<float>, "
    "landmarks array<float>, confidence float, basis_record_ids array<string>, run_id string, face_id bigint, "
    "embedding array<float>"
)


def _with_vectors(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for batch in batches:
        vectors = [vector_of(key).tolist() for key in batch.column("face_id").to_pylist()]
        yield pa.RecordBatch.from_arrays(
            [*batch.columns, pa.array(vectors, pa.list_(pa.float32()))], names=[*batch.schema.names, "embedding"]
        )


def vector_of(key: int) -> np.ndarray:
    """A face's vector: random, of unit length, and the same each time."""
    vector = np.random.default_rng(key % 2**63).standard_normal(EMBEDDING_DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def write_settings(made: Indexed, ttl_s: float = 1) -> Path:
    """The settings of a warehouse as a file, for commands; and requests of two people."""
    settings = {
        "warehouse": str(made.folder / "warehouse"),
        "governance": {"purposes": [PURPOSE], "allowed_purposes": [PURPOSE]},
        "milvus": {"uri": str(made.folder / "index.db")},
        # A killed process's lease must not be waited for.
        "lease": {"ttl_s": ttl_s},
    }
    config = made.folder / "settings.yaml"
    config.write_text(yaml.safe_dump(settings))
    (made.folder / "requests.txt").write_text("\n".join(principal(person) for person in (5, 1)))
    return config


def digest_of(made: Indexed, spec: Any, without: str = "") -> list[str]:
    """What a table holds, row by row, so that survivors can be compared; ``without``: columns left out."""
    rows = made.warehouse.read(spec).drop(*without.split())
    return sorted(row["text"] for row in rows.select(F.to_json(F.struct("*")).alias("text")).collect())


def run_of(made: Indexed, run_id: str | None, name: str) -> Any:
    """`open_run` for a job of this warehouse: a context that gives the run."""
    return open_run(job_for(made.spark, made.settings, run_id), name)


@contextmanager
def opened(made: Indexed, name: str, run_id: str | None = None) -> Iterator[tuple[Any, Any]]:
    """A run of this warehouse, and its database."""
    index = made.index()
    try:
        with run_of(made, run_id, name) as run:
            yield run, index
    finally:
        index.close()


__all__ = [
    "Indexed", "Run", "build", "digest_of", "image", "opened", "picture", "principal", "reindex", "run_of", "vector_of",
]  # fmt: skip
