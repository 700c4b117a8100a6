"""`make demo`: pictures to a promoted Milvus collection in one go, and a table of what became of each kind.

Without arguments it makes pictures that may be passed on (bench/pictures.py); with `--images` and `--basis` it does
the same with a person's own. The weights are `vggface2` where the download answers soon, else `random` (untrained).
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

import click
import yaml

from jobs.settings import load_settings

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
    kinds: dict[str, str] = {}
    if arguments.images:
        code = _own(config, arguments.images, arguments.basis)
    else:
        kinds = _pictures()
        code = _run("ingest", config, "--source", str(HOME / "pictures"), "--batch", str(HOME / "demo.batch.yaml"),
                    "--basis", str(HOME / "basis.jsonl"))  # fmt: skip
    code = code or _run("reindex", config)
    if code == 0:
        code = _run("report", config, "--out", str(REPORT))
    if code == 0:
        _summary(config, kinds, time.monotonic() - started)
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
        "model": {"weights": _weights()},
        "milvus": {"uri": f"./{HOME}/face-index.db", "alias": "faces"},
    }
    path = HOME / "demo.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return str(path)


def _weights() -> str:
    """`vggface2` where it is cached or the download works soon; otherwise untrained ones, and the reader is told."""
    from udfs.weights import WeightsError, resolve_weights

    cache = Path(load_settings().model.cache_dir).expanduser()
    try:
        resolve_weights("vggface2", cache_dir=cache, timeout_s=5)
    except WeightsError as error:
        if error.kind != "unavailable":
            raise
        print("The trained weights (vggface2) cannot be downloaded here: using seeded random ones, UNTRAINED.")
        print("The index is real, its distances mean nothing. Put weights of your own into model.weights.")
        return "random"
    return "vggface2"


def _pictures() -> dict[str, str]:
    from bench.pictures import make_pictures, write_basis

    pictures = make_pictures(HOME / "pictures")
    write_basis(pictures, HOME / "basis.jsonl", now=datetime.now(UTC))
    (HOME / "demo.batch.yaml").write_text(yaml.safe_dump(BATCH), encoding="utf-8")
    print(f"{len(pictures)} pictures made in {HOME / 'pictures'} (one public-domain portrait, altered).")
    return {picture.path: picture.kind for picture in pictures}


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


def _summary(config: str, kinds: dict[str, str], seconds: float) -> None:
    from pyspark.sql import functions as F
    from rich.console import Console
    from rich.table import Table

    from jobs.schemas import IMAGE_STATUS, IMAGES
    from jobs.session import open_session
    from jobs.tables.store import Warehouse

    settings = load_settings(config)
    spark = open_session("demo")
    warehouse = Warehouse(spark, settings.warehouse, is_path=True, read_only=True)
    names = spark.createDataFrame(list(kinds.items()) or [("", "")], "name string, kind string")
    # The demo's pictures lie in a folder a kind, so the end of the address says which.
    named = warehouse.read(IMAGES).select("image_id", F.substring_index("uri", "/", -2).alias("name"))
    status = warehouse.read(IMAGE_STATUS).join(named, "image_id").join(F.broadcast(names), "name", "left")
    outcome = F.when(F.col("status") == "embedded", "embedded").otherwise(F.concat_ws(": ", "status", "reason"))
    rows = (
        status.groupBy(F.coalesce("kind", F.lit("your images")).alias("kind"), outcome.alias("outcome"))
        .agg(F.count("*").alias("images"), F.sum(F.coalesce("faces", F.lit(0))).alias("faces"))
        .orderBy("kind", "outcome")
        .collect()
    )
    table = Table(title="What became of each kind of picture", title_justify="left")
    for column in ("kind", "outcome", "images", "faces"):
        table.add_column(column, justify="right" if column in {"images", "faces"} else "left")
    for row in rows:
        table.add_row(row["kind"], row["outcome"], str(row["images"]), str(row["faces"]))
    Console(highlight=False).print(table)
    print(f"\nDone in {seconds:.0f} s. The index: {settings.milvus.uri}, alias {settings.milvus.alias}.")
    print(f"The report of this run, to be opened in a browser: {REPORT.absolute().as_uri()}")
    print("Try next:")
    print(f"  .venv/bin/python -m jobs.status --config {config}")
    print(f"  .venv/bin/python -m jobs.reindex --config {config}      # again: nothing is embedded twice")
    print("  make demo IMAGES=your/folder                            # your own pictures")
    spark.stop()


if __name__ == "__main__":
    main()
