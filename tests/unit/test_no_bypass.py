"""Guarantee 3: nothing but the gated line writes embeddings or puts rows into Milvus."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from jobs.tables.store import OPEN_TO_ALL

ROOT = Path(__file__).parents[2]
STORE = "jobs/tables/store.py"


@cache
def calls(folder: str) -> tuple[tuple[str, str, str], ...]:
    """(file, name of the function that is called, source of its arguments) of every call."""
    return tuple(_calls(folder))


def _calls(folder: str) -> Iterator[tuple[str, str, str]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                arguments = ", ".join(ast.unparse(a) for a in [*node.args, *(k.value for k in node.keywords)])
                yield str(path.relative_to(ROOT)), name, arguments


def callers(*names: str) -> set[str]:
    return {file for file, name, _ in calls("jobs") if name in names}


def test_guarantee_3_embeddings_are_appended_in_one_place_behind_the_gate() -> None:
    appends = {file for file, name, text in calls("jobs") if name == "append" and "EMBEDDINGS" in text}
    assert appends == {"jobs/embedding/chunks.py"}
    assert callers("embed_chunk") == {"jobs/steps/embed.py"}
    # The worklist of that one caller is what the gate accepted.
    assert "new = gated.accepted.join(done" in (ROOT / "jobs/steps/embed.py").read_text(encoding="utf-8")


def test_guarantee_3_rows_reach_milvus_from_staged_files_only() -> None:
    assert callers("stage") == callers("load_files") == {"jobs/steps/load.py"}
    # What the one caller of that stages is what the gate permits at that moment.
    stagings = [(file, arguments) for file, name, arguments in calls("jobs") if name == "stage_faces"]
    permitted = "run, index, permitted_faces(run.warehouse, gate_step(run), fingerprint)"
    assert stagings == [("jobs/steps/load.py", permitted)]
    # Between nights `sync` inserts a few, which the gate permits as well; compacting copies rows that are there.
    inserts = {file for file in callers("insert") if not file.startswith("jobs/index/milvus/")}
    assert inserts == {"jobs/index/loader.py", "jobs/steps/sync.py"}
    adding = (ROOT / "jobs/steps/sync.py").read_text(encoding="utf-8")
    assert "faces = permitted_faces(warehouse, gated, info.model_fingerprint)" in adding
    for foreign in ("do_bulk_insert", "upsert", "bulk_import"):
        assert {f for f in callers(foreign) if not f.startswith("jobs/index/milvus/")} == set()


def test_guarantee_3_no_other_package_writes() -> None:
    writes = {"load_files", "do_bulk_insert", "bulk_import", "upsert"}
    found = {(file, name) for folder in ("udfs", "bench") for file, name, _ in calls(folder) if name in writes}
    # Invented faces, into a server of the benchmark's own.
    assert found == {("bench/server.py", "load_files")}


def test_guarantee_3_evaluation_embeds_and_stores_nothing() -> None:
    """Labelled pictures without basis records are embedded in this one place, and neither vector nor score is kept."""
    assert callers("embed_arrow") == {"jobs/embedding/chunks.py", "jobs/evaluation/embed.py"}
    assert callers("embed_pictures") == {"jobs/evaluation/embed.py"}
    source = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (ROOT / "jobs").rglob("*.py")}
    # Nothing else leaves bystanders out instead of refusing their picture.
    assert {file for file, text in source.items() if "central_only" in text} == {"jobs/evaluation/embed.py"}
    parts = {
        "jobs/evaluate.py",
        *(str(path.relative_to(ROOT)) for path in (ROOT / "jobs/evaluation").glob("[!_]*.py")),
    }
    assert "jobs/evaluation/embed.py" in parts
    for file in parts:
        assert not {word for word in ("warehouse", "milvus", "open_run") if word in source[file].lower()}, file
    keeps = {
        "save",
        "saveAsTable",
        "parquet",
        "csv",
        "cache",
        "persist",
        "checkpoint",
        "localCheckpoint",
        "materialise",
    }
    called = {(file, name) for file, name, _ in calls("jobs") if file in parts}
    assert {name for _, name in called} & {*keeps, "tofile", "savez", "dump", "pickle", "write_bytes"} == set()
    assert {(f, n) for f, n in called if n in {"write_text", "savefig"}} == {
        ("jobs/evaluate.py", "write_text"), ("jobs/evaluation/roc_plot.py", "savefig"),
    }  # fmt: skip
    assert "needs_write=False" in source["jobs/evaluate.py"]


def test_guarantee_11_what_writes_a_table_carries_the_lease_or_is_named_here() -> None:
    writes = ("save", "saveAsTable", "insertInto", "writeTo", "merge", "whenMatchedUpdate", "whenMatchedDelete")
    assert callers(*writes) == callers("executeCompaction", "vacuum") - {"jobs/erasure/run.py"} == {STORE}
    sources = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in (ROOT / "jobs").rglob("*.py")}
    # A job's warehouse asks for a lease, which a run puts there and nothing else takes away.
    assert callers("Warehouse") == {"jobs/cli.py"}
    assert "lease_required=True" in sources["jobs/cli.py"]
    assert {file for file, text in sources.items() if ".fence = " in text} == {"jobs/runs/record.py"}
    # A transaction name of one's own is no fence: the lease's own table, and a chain of numbers.
    named = {file for file, text in sources.items() if "transaction=" in text}
    assert named == {"jobs/runs/lease.py", "jobs/governance/audit.py"}
    # What is written while another run holds the lease forbids something.
    assert [spec.name for spec in OPEN_TO_ALL] == [
        "leases", "audit_events", "erasure_requests", "erasure_items", "tombstones", "source_batches",
        "pseudonym_keys",
    ]  # fmt: skip
    requests = [(file, arguments) for file, name, arguments in calls("jobs") if name == "record_batch"]
    assert ("jobs/steps/erase.py", "job_.warehouse, revoked, ring, now") in requests
    assert (
        'revoked = {"source_batch_id": target.value, "state": "revoked", "assessed_at": now}'
        in sources["jobs/steps/erase.py"]
    )
    assert {file for file, _ in requests} == {"jobs/steps/erase.py", "jobs/steps/ingest.py"}
