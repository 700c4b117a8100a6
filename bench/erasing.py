"""What governance costs: the gate, an erasure of many people in one pass, and the check of the audit trail.

    python -m bench.erasing              # about fifteen minutes on two cores; writes bench/results/erasing.{json,png}

* ``gate``: a million images, each with a record and a link, decided; without tombstones and with ten thousand.
* ``erasure``: 1, 100 and 10,000 people out of a million faces: found, written down, deleted, purged, vacuumed; in the
  tables alone (Milvus deletes by key, see its own figures). Each on a copy, with its bytes rewritten.
* ``images``: the same for one person in a table that holds image bytes.
* ``audit``: a million chained events verified.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import record
from bench.faces import SHAPE, drawn
from udfs.statuses import Status

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1_000_000
SUBJECTS = (1, 100, 10_000)
PICTURES, PICTURE_BYTES = 4_000, 100_000
PURPOSE = "face-reindex:DuplicateDetection"
NOW = datetime.now(UTC)


def main() -> None:
    """Measure, write, and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.erasing")
    parser.add_argument("--rows", type=int, default=ROWS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="face-reindex-bench-") as name:
        bench = Governance(Path(name), arguments.rows)
        figures = bench.measure()
        bench.spark.stop()
    erasure = {count: sum(found["seconds"].values()) for count, found in figures["erasure"].items()}
    few, many = (erasure[count] for count in (min(erasure, key=int), max(erasure, key=int)))
    image_ms = record.result("pipeline")["figures"]["ours_spark_ms_an_image"]["median"]
    run_s = image_ms / 1000 * arguments.rows
    ratios = {
        "gate_to_a_run_that_embeds_all": figures["gate"]["seconds"] / run_s,
        "gate_with_tombstones_to_a_run_that_embeds_all": figures["gate"]["seconds_with_tombstones"] / run_s,
        f"erasing_{max(erasure, key=int)}_to_erasing_{min(erasure, key=int)}": many / few,
    }
    setting = {"rows": arguments.rows, "pictures": PICTURES, "picture_bytes": PICTURE_BYTES, "vectors": SHAPE}
    path = record.write("erasing", figures, ratios, setting=setting)
    _plot(figures, path.with_suffix(".png"))
    print(path)


class Governance:
    """One session; a warehouse that is made once and copied for each erasure."""

    def __init__(self, folder: Path, rows: int) -> None:
        from jobs.session import open_session

        self.spark = open_session("bench erasing")
        self._folder, self._rows = folder, rows
        self._number = 0

    def measure(self) -> dict[str, Any]:
        """All figures."""
        base = self._folder / "base"
        self._people(base, self._rows, pictures=False)
        figures: dict[str, Any] = {"gate": self._gate(base)}
        figures["erasure"] = {str(n): self._erase(base, n) for n in SUBJECTS if n < self._rows}
        shutil.rmtree(base)
        pictures = self._folder / "pictures"
        self._people(pictures, PICTURES, pictures=True)
        figures["images"] = self._erase(pictures, 1)
        figures["audit"] = self._audit()
        return figures

    # -- data ----------------------------------------------------------------------------------------------------------

    def _warehouse(self, folder: Path) -> Any:
        from jobs.tables.store import Warehouse

        return Warehouse(self.spark, str(folder), is_path=True)

    def _settings(self, folder: Path) -> Any:
        from pydantic import SecretStr

        from jobs.settings import load_settings

        settings = load_settings(
            overrides=[f"warehouse={folder}", f"governance.purposes=[{PURPOSE}]",
                       f"governance.allowed_purposes=[{PURPOSE}]"]
        )  # fmt: skip
        return settings.model_copy(update={"hmac_key": SecretStr("a key of the bench, of 32 letters or more")})

    def _people(self, folder: Path, rows: int, *, pictures: bool) -> None:
        """A person, an image, a record, a link, a face and a status for each number."""
        from pyspark.sql import functions as F

        from jobs.schemas import BASIS_LINKS, EMBEDDINGS, IMAGE_STATUS, IMAGES, PROCESSING_BASIS, SOURCE_BATCHES

        warehouse = self._warehouse(folder)
        before = F.lit(NOW - timedelta(days=30)).cast("timestamp")
        numbers = self.spark.range(0, rows, 1, 8)
        image, record_id = F.md5(F.concat(F.lit("i"), "id")), F.concat(F.lit("r"), "id")
        content = (
            numbers.mapInArrow(_bytes, "id bigint, content binary")
            if pictures
            else numbers.withColumn("content", F.lit(None).cast("binary"))
        )
        images = content.select(
            (F.col("id") / 50_000).cast("int").alias("part"), image.alias("image_id"), "content",
            F.concat(F.lit("/x/"), "id").alias("uri"), F.sha2(F.col("id").cast("string"), 256).alias("content_sha256"),
            F.lit(1).alias("byte_size"), F.lit("b").alias("source_batch_id"), before.alias("ingested_at"),
            F.lit(not pictures).alias("by_uri"), F.lit(None).alias("changed_at"), F.lit(None).alias("root"),
        )  # fmt: skip
        warehouse.append(images, IMAGES)
        batch = [("b", "s", "uploaded_by_subject", "a", NOW, "assessed", NOW)]
        warehouse.append(self.spark.createDataFrame(batch, SOURCE_BATCHES.columns), SOURCE_BATCHES)
        processing = F.struct(
            F.array(F.lit(PURPOSE)), F.lit("eu-gdpr:A6-1-a"), F.lit("eu-gdpr:A9-2-a"), F.array(F.lit("c")),
            F.lit("uploaded_by_subject"), F.lit("P9Y"), F.lit("EU"), F.lit("w"), F.lit("i"), F.lit("n"),
        )  # fmt: skip
        event = F.struct(before, F.lit("P5Y"), F.lit("explicit_consent"), F.lit("ConsentGiven"))
        given = {
            "record_id": record_id, "schema_version": F.lit("1.0"),
            "pii_principal_id": F.concat(F.lit("hmac:"), F.sha2(F.col("id").cast("string"), 256)),
            "processing": processing, "events": F.array(event), "source_batch_id": F.lit("b"),
            "content_digest": F.col("id").cast("string"), "recorded_at": before,
        }  # fmt: skip
        columns = self.spark.createDataFrame([], PROCESSING_BASIS.columns).columns
        records = numbers.select(*(given.get(c, F.lit(None)).alias(c) for c in columns))
        warehouse.append(records, PROCESSING_BASIS)
        links = numbers.select(image.alias("image_id"), record_id.alias("record_id"), before.alias("recorded_at"))
        warehouse.append(links.withColumn("content_sha256", F.lit(None).cast("string")), BASIS_LINKS)
        faces = {
            "model_fingerprint": F.lit("f"), "face_id": F.xxhash64("id"), "image_id": image,
            "input_digest": F.lit("d"), "face_index": F.lit(0), "basis_record_ids": F.array(record_id),
            "run_id": F.lit("r"), "embedding": F.col("embedding"),
        }  # fmt: skip
        vectors = numbers.mapInArrow(drawn(0), "id bigint, embedding array<float>")
        columns = self.spark.createDataFrame([], EMBEDDINGS.columns).columns
        warehouse.append(vectors.select(*(faces.get(c, F.lit(None)).alias(c) for c in columns)), EMBEDDINGS)
        status = {
            "image_id": image, "input_digest": F.lit("d"), "model_fingerprint": F.lit("f"),
            "status": F.lit(Status.EMBEDDED.value), "faces": F.lit(1), "run_id": F.lit("r"), "decided_at": before,
        }  # fmt: skip
        columns = self.spark.createDataFrame([], IMAGE_STATUS.columns).columns
        warehouse.append(numbers.select(*(status.get(c, F.lit(None)).alias(c) for c in columns)), IMAGE_STATUS)

    # -- figures -------------------------------------------------------------------------------------------------------

    def _gate(self, folder: Path) -> dict[str, float]:
        from pyspark.sql import functions as F

        from jobs.governance.gate import gate_warehouse
        from jobs.schemas import TOMBSTONES

        warehouse, settings = self._warehouse(folder), self._settings(folder)

        def decide() -> float:
            begin = time.monotonic()
            gated = gate_warehouse(warehouse, settings, now=NOW, ingested_by=NOW)
            accepted = gated.decisions.agg(
                F.count(F.when(F.col("reason").isNull(), 1)), F.count("input_digest")
            ).first()
            if accepted is None or accepted[0] != self._rows:
                raise RuntimeError("the gate refused what it should permit: no figure comes of this")
            return round(time.monotonic() - begin, 1)

        decide()
        plain = decide()
        from jobs.governance.tombstones import key_ring

        key_id = key_ring(settings).current
        stones = self.spark.range(10_000).select(
            F.lit("image").alias("kind"), F.lit(key_id).alias("key_id"),
            F.sha2(F.col("id").cast("string"), 256).alias("digest"), F.lit("r").alias("request_id"),
            F.lit(NOW).cast("timestamp").alias("recorded_at"),
        )  # fmt: skip
        warehouse.append(stones, TOMBSTONES)
        with_stones = decide()
        warehouse.delta(TOMBSTONES).delete()
        return {"seconds": plain, "seconds_with_tombstones": with_stones,
                "us_a_row": round(1e6 * plain / self._rows, 1)}  # fmt: skip

    def _erase(self, base: Path, people: int) -> dict[str, Any]:
        from jobs.erasure.find import find
        from jobs.erasure.kinds import Target
        from jobs.erasure.ledger import write_down
        from jobs.erasure.requests import pending, request
        from jobs.erasure.rows import TABLES, destroy_rows
        from jobs.governance.tombstones import key_ring
        from jobs.tables.store import materialise

        self._number += 1
        folder = self._folder / f"copy-{self._number}"
        shutil.copytree(base, folder)
        warehouse, ring = self._warehouse(folder), key_ring(self._settings(folder))
        targets = [
            Target("subject", "hmac:" + hashlib.sha256(str(n * 97 % self._rows_in(people)).encode()).hexdigest())
            for n in range(people)
        ]
        watch = record.Stopwatch()
        request(warehouse, targets, ring, run_id="bench", now=NOW)
        watch.lap("request")
        wanted = materialise(pending(warehouse))
        found = find(warehouse, wanted)
        watch.lap("find")
        items = write_down(warehouse, wanted, found, ring, now=NOW)
        watch.lap("write down")
        stores = destroy_rows(warehouse, items)
        watch.lap("delete and look")
        there = {p for p in folder.rglob("*.parquet") if "_delta_log" not in p.parts}
        warehouse.purge(TABLES)
        rewritten = [p for p in folder.rglob("*.parquet") if "_delta_log" not in p.parts and p not in there]
        by_table = {spec.name: sum(p.stat().st_size for p in rewritten if spec.name in p.parts) for spec in TABLES}
        watch.lap("purge")
        warehouse.vacuum(TABLES, 0)
        watch.lap("vacuum")
        shutil.rmtree(folder)
        erased = stores["images"]["erased"]
        if erased != people:
            raise RuntimeError(f"{erased} images were erased where {people} were to be: no figure comes of this")
        found_seconds = {name: round(seconds, 1) for name, seconds in watch.laps.items()}
        print(people, found_seconds, by_table, flush=True)
        return {"seconds": found_seconds, "bytes_rewritten": by_table,
                "mb_rewritten_an_image": round(sum(by_table.values()) / 1e6 / people, 3)}  # fmt: skip

    def _rows_in(self, people: int) -> int:
        return self._rows if people > 1 else 1

    def _audit(self) -> dict[str, float]:
        import pyarrow as pa

        from jobs.governance import audit
        from jobs.schemas import AUDIT_EVENTS

        warehouse = self._warehouse(self._folder / "audit")
        at, previous, rows = int(NOW.timestamp() * 1e6), "0" * 64, []
        for seq in range(1, self._rows + 1):
            digest = audit._digest(seq, at, "run-done", "r", "{}", previous)
            rows.append((seq, previous, digest))
            previous = digest
        numbers, befores, digests = zip(*rows, strict=True)
        table = pa.table({"seq": numbers, "previous": befores, "digest": digests})
        path = str(self._folder / "events.parquet")
        import pyarrow.parquet as pq

        pq.write_table(table, path, row_group_size=100_000)
        frame = self.spark.read.parquet(path).selectExpr(
            "seq", f"timestamp_micros({at}) AS at", "'run-done' AS kind", "'r' AS run_id", "'{}' AS facts", "previous",
            "digest",
        )  # fmt: skip
        warehouse.append(frame, AUDIT_EVENTS)
        begin = time.monotonic()
        if audit.verify(warehouse.read(AUDIT_EVENTS)).seq != self._rows:
            raise RuntimeError("the chain is not whole: no figure comes of this")
        return {"seconds_a_million_events": round((time.monotonic() - begin) * 1e6 / self._rows, 1)}


def _bytes(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for batch in batches:
        ids = batch.column("id").to_pylist()
        for start in range(0, len(ids), 100):
            some = ids[start : start + 100]
            content = [np.random.default_rng(number).bytes(PICTURE_BYTES) for number in some]
            yield pa.RecordBatch.from_arrays([pa.array(some), pa.array(content, pa.binary())], names=["id", "content"])


def _plot(figures: dict[str, Any], path: Path) -> None:
    figure, axes = record.canvas(7, 3.2)
    colours = ["#1f4e79", "#2f6fab", "#6fa3d0", "#9aa5b1", "#c3cbd3", "#e2e6ea"]
    for row, found in enumerate(figures["erasure"].values()):
        left = 0.0
        for colour, (part, seconds) in zip(colours, found["seconds"].items(), strict=True):
            axes.barh(row, seconds, left=left, color=colour, label=part if row == 0 else None)
            left += seconds
        axes.text(left, row, f" {left:.0f} s", va="center", fontsize=8)
    axes.set_yticks(
        range(len(figures["erasure"])), [f"{int(p):,} {'person' if p == '1' else 'people'}" for p in figures["erasure"]]
    )
    axes.invert_yaxis()
    axes.set_xlabel("seconds, in the tables, of a million faces")
    axes.margins(x=0.1)
    axes.legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
