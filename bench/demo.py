"""`make demo`: pictures to a promoted Milvus collection in one go, and what became of each kind of picture.

Without arguments it makes pictures that may be passed on (bench/pictures.py); with `--images` and `--basis` it does
the same with a person's own. The weights are those of bench/weights.py: trained ones where they can be had.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import click
import numpy as np
import yaml

from bench.weights import UNTRAINED, demo_weights
from jobs.settings import Settings, load_settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from rich.console import Console
    from rich.table import Table

    from bench.pictures import Picture
    from jobs.tables.store import Warehouse

HOME = Path(".demo")
REPORT = HOME / "report.html"
PURPOSE = "face-reindex:DuplicateDetection"
BATCH = {
    "source_batch_id": "demo",
    "supplier": "bench/pictures.py",
    "collection_method": "uploaded_by_subject",
    "assessment_ref": "demo-assessment-1",
    "assessed_at": "2026-01-01T00:00:00Z",
    "state": "assessed",
}


def main() -> None:
    """Run the demo and end with its exit code."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--images", help="a folder of your own images")
    parser.add_argument("--basis", help="your basis records (JSON lines or CSV), with BATCH.batch.yaml beside it")
    arguments = parser.parse_args()
    started = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    # Java needs its ten seconds while the weights are looked for and the pictures are made.
    Thread(target=_warm_spark, daemon=True).start()
    config = _settings()
    pictures: list[Picture] = []
    if arguments.images:
        code = _own(config, arguments.images, arguments.basis)
    else:
        pictures = _pictures()
        code = _run("ingest", config, "--source", str(HOME / "pictures"), "--batch", str(HOME / "demo.batch.yaml"),
                    "--basis", str(HOME / "basis.jsonl"))  # fmt: skip
    code = code or _run("reindex", config)
    if code == 0:
        code = _run("report", config, "--out", str(REPORT))
    if code == 0:
        _summary(config, pictures, started)
    sys.exit(code)


def _warm_spark() -> None:
    from jobs.session import open_session

    # A fault here is met again, and told, by the first job.
    with suppress(Exception):
        open_session("face-reindex demo")


def _settings() -> str:
    config = {
        "warehouse": f"./{HOME}/warehouse",
        "governance": {"purposes": [PURPOSE], "allowed_purposes": [PURPOSE]},
        "model": {"weights": demo_weights()},
        "milvus": {"uri": f"./{HOME}/face-index.db", "alias": "faces"},
    }
    path = HOME / "demo.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return str(path)


def _pictures() -> list[Picture]:
    from bench.pictures import make_pictures, write_basis

    pictures = make_pictures(HOME / "pictures")
    write_basis(pictures, HOME / "basis.jsonl", now=datetime.now(UTC))
    (HOME / "demo.batch.yaml").write_text(yaml.safe_dump(BATCH), encoding="utf-8")
    print(f"{len(pictures)} pictures made in {HOME / 'pictures'} (one public-domain portrait, altered).")
    return pictures


def _own(config: str, images: str, basis: str | None) -> int:
    if basis is None:
        code = _run("ingest", config, "--source", images, "--batch", "demo", "--basis-template", "basis.csv")
        if code:
            return code
        print("No BASIS was given, so every image is refused. Complete basis.csv and basis.batch.yaml, then run:")
        print(f"  make demo IMAGES={images} BASIS=basis.csv")
        return 3
    batch = Path(basis).with_suffix(".batch.yaml")
    source_batch = str(batch) if batch.is_file() else "demo"
    return _run("ingest", config, "--source", images, "--batch", source_batch, "--basis", basis)


def _run(name: str, config: str, *arguments: str) -> int:
    import importlib

    print(f"\n$ python -m jobs.{name} --config {config} {' '.join(arguments)}", flush=True)
    command: click.Command = importlib.import_module(f"jobs.{name}").main
    try:
        command.main(["--config", config, *arguments], prog_name=name)
    except SystemExit as end:  # a click command always ends so
        code = end.code
    return int(code or 0)


def _summary(config: str, pictures: list[Picture], started: float) -> None:
    from pyspark.sql import functions as F
    from rich.console import Console

    from jobs.schemas import IMAGES
    from jobs.session import open_session
    from jobs.tables.store import Warehouse

    settings = load_settings(config)
    spark = open_session("demo")
    warehouse = Warehouse(spark, settings.warehouse, is_path=True, read_only=True)
    kinds = [(picture.path, picture.kind) for picture in pictures] or [("", "")]
    # The demo's pictures lie in a folder a kind, so the end of the address says which.
    named = warehouse.read(IMAGES).select("image_id", F.substring_index("uri", "/", -2).alias("name"))
    named = named.join(F.broadcast(spark.createDataFrame(kinds, "name string, kind string")), "name", "left")
    console = Console(highlight=False)
    console.print(_outcomes(warehouse, named))
    if pictures:
        _damages(console, warehouse, named, pictures, settings)
    milvus, seconds = settings.milvus, time.monotonic() - started
    print(f"\nDone in {seconds:.0f} s. The index: {milvus.uri}, alias {milvus.alias}.")
    print(f"The report of this run, to be opened in a browser: {REPORT.absolute().as_uri()}")
    print("Try next:")
    print(f"  .venv/bin/python -m jobs.status --config {config}")
    print(f"  .venv/bin/python -m jobs.reindex --config {config}      # again: nothing is embedded twice")
    print("  make demo IMAGES=your/folder                            # your own pictures")
    spark.stop()


def _outcomes(warehouse: Warehouse, named: DataFrame) -> Table:
    from pyspark.sql import functions as F
    from rich.table import Table

    from jobs.schemas import IMAGE_STATUS
    from udfs.statuses import Status

    why = F.when(F.col("status") != Status.EMBEDDED.value, F.col("reason"))
    outcome = F.concat_ws(": ", "status", why)
    rows = (
        warehouse.read(IMAGE_STATUS)
        .join(named, "image_id")
        .groupBy(F.coalesce("kind", F.lit("your images")).alias("kind"), outcome.alias("outcome"))
        .agg(F.count("*").alias("images"), F.sum(F.coalesce("faces", F.lit(0))).alias("faces"))
        .orderBy("kind", "outcome")
        .collect()
    )
    table = Table(title="What became of each kind of picture", title_justify="left")
    for column in ("kind", "outcome", "images", "faces"):
        table.add_column(column, justify="right" if column in {"images", "faces"} else "left")
    for row in rows:
        table.add_row(row["kind"], row["outcome"], str(row["images"]), str(row["faces"]))
    return table


def _damages(
    console: Console, warehouse: Warehouse, named: DataFrame, pictures: list[Picture], settings: Settings
) -> None:
    """What rotation, colours, size and lossy formats do to an embedding: nothing that untrained weights could show."""
    from pyspark.sql import functions as F

    from bench.damage import damages, table
    from jobs.embedding.model import find_model
    from jobs.schemas import EMBEDDINGS

    if settings.model.weights == UNTRAINED:
        console.print("\nThe weights are UNTRAINED, so no cosine of two pictures means anything, and none is shown.")
        return
    model = find_model(settings)
    faces = warehouse.read(EMBEDDINGS).where(F.col("model_fingerprint") == model.fingerprint)
    rows = faces.join(named, "image_id").select("name", "embedding").collect()
    vectors = {row["name"]: np.array(row["embedding"], np.float32) for row in rows}
    console.print(table(damages(pictures, vectors, model.path, model.params)))
    console.print("For comparison, by these weights: pictures of two people have 0.17 on average (docs/evaluation.md).")


if __name__ == "__main__":
    main()
