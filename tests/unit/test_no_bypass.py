"""Guarantee 3: nothing but the gated line writes embeddings or puts rows into Milvus."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest

from jobs.embedding.chunks import Worklist, embed_chunk, worklist
from jobs.embedding.faces import PermittedFaces, permitted_faces
from jobs.embedding.measuring import MEASURED_SCHEMA
from jobs.governance.gate import Gated
from jobs.steps.load import stage_faces
from jobs.steps.sync import add_small
from jobs.tables.store import OPEN_TO_ALL

ROOT = Path(__file__).parents[2]
STORE = "jobs/tables/store.py"
#: What `doctor` writes to see whether it can be written: nobody's rows, under names of their own.
TRIALS = {"jobs/diagnosis/places.py", "jobs/diagnosis/milvus.py"}
CONTROL = "jobs/tables/control.py"


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


@cache
def makers(kind: str) -> frozenset[tuple[str, str]]:
    """(file, function or class at its top) of everything that makes one of a ``kind``."""
    found = set()
    for path in sorted((ROOT / "jobs").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            made = [call for call in ast.walk(node) if isinstance(call, ast.Call) and ast.unparse(call.func) == kind]
            found |= {(str(path.relative_to(ROOT)), getattr(node, "name", "")) for _ in made}
    return frozenset(found)


def test_guarantee_3_embeddings_are_appended_in_one_place_behind_the_gate() -> None:
    appends = {file for file, name, text in calls("jobs") if name == "append" and "EMBEDDINGS" in text}
    assert appends == {"jobs/embedding/chunks.py"}
    assert callers("embed_chunk") == {"jobs/steps/embed.py"}
    assert get_type_hints(embed_chunk)["wanted"] is Worklist


@pytest.mark.parametrize(
    ("kind", "made_by"),
    [
        (Worklist, {("jobs/embedding/chunks.py", "worklist")}),
        (PermittedFaces, {("jobs/embedding/faces.py", "permitted_faces")}),
        # What both are made from: nothing but the gate decides.
        (Gated, {("jobs/governance/gate.py", "gate"), ("jobs/governance/gate.py", "Gated")}),
    ],
)
def test_guarantee_3_what_may_be_embedded_staged_or_inserted_is_made_by_the_gate_alone(
    kind: type, made_by: set[tuple[str, str]]
) -> None:
    assert makers(kind.__name__) == made_by
    # Under no other name, nor from one that is there with something else in it.
    assert callers("replace", "copy", "deepcopy") & {file for file, _ in made_by} <= {"jobs/governance/gate.py"}
    assert get_type_hints(worklist)["gated"] is get_type_hints(permitted_faces)["gated"] is Gated


def test_guarantee_3_rows_reach_milvus_from_staged_files_only() -> None:
    assert callers("stage") - TRIALS == callers("load_files") - TRIALS == {"jobs/steps/load.py"}
    assert callers("stage_faces") == {"jobs/steps/load.py"}
    # Between nights `sync` inserts a few; compacting copies rows that are there.
    inserts = {file for file in callers("insert") if not file.startswith("jobs/index/milvus/")}
    assert inserts - TRIALS == {"jobs/index/loader.py", "jobs/steps/sync.py", "jobs/index/roles.py"}
    assert get_type_hints(stage_faces)["faces"] is get_type_hints(add_small)["faces"] is PermittedFaces
    for foreign in ("do_bulk_insert", "upsert", "bulk_import"):
        assert {f for f in callers(foreign) if not f.startswith("jobs/index/milvus/")} == set()


def test_guarantee_3_no_other_package_writes() -> None:
    writes = {"load_files", "do_bulk_insert", "bulk_import", "upsert"}
    found = {(file, name) for folder in ("udfs", "bench") for file, name, _ in calls(folder) if name in writes}
    # Invented faces, into a server of the benchmark's own.
    assert found == {("bench/server.py", "load_files")}


def test_guarantee_3_evaluation_embeds_and_stores_nothing() -> None:
    """Labelled pictures without basis records are embedded in this one place, and neither vector nor score is kept."""
    assert callers("embed_arrow") == {
        "jobs/embedding/chunks.py", "jobs/embedding/measuring.py", "jobs/evaluation/embed.py",
    }  # fmt: skip
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


def test_guarantee_3_what_is_measured_is_nobodys_picture_and_no_vector_comes_of_it() -> None:
    """`calibrate` has no way to a picture, in a table or a file; and what comes out has no place for a vector."""
    file = "jobs/embedding/measuring.py"
    source = (ROOT / file).read_text(encoding="utf-8")
    assert not {word for word in ("warehouse", "IMAGES", "uri", "roots", "spark.read") if word in source}
    called = {name for path, name, _ in calls("jobs") if path == file}
    opens = {"open", "read", "load", "table", "sql", "read_bytes", "read_text", "fromfile", "frombuffer", "glob"}
    assert called & {*opens, "save", "write_bytes", "write_text", "tofile"} == set()
    assert callers("measured") == {"jobs/planning/calibration.py"}
    assert MEASURED_SCHEMA == "executor string, began double, ended double, amount bigint, devices array<string>"


def test_guarantee_3_what_doctor_puts_into_milvus_is_nobodys() -> None:
    """Rows of `doctor` are vectors with a single 1: it has no way to a picture or a face, and names of its own."""
    files = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "jobs/diagnosis").glob("*.py"))
    source = {file: (ROOT / file).read_text(encoding="utf-8") for file in files}
    for file, text in source.items():
        assert not {word for word in ("IMAGES", "EMBEDDINGS", "permitted_faces", "ALL_TABLES") if word in text}, file
    assert {
        (f, name) for f, name, _ in calls("jobs") if f in files and name in {"read", "rows", "delta", "sql"}
    } == set()
    assert [text for f, name, text in calls("jobs") if f in files and name == "stage"] == [
        "rows_of_nobody(subject.spark), folder, 0, lambda _: 1, settings.milvus.vector_type"
    ]
    for name in ("create", "load_files", "insert", "delete", "drop_alias", "switch_alias"):
        for text in (text for f, called, text in calls("jobs") if f in files and called == name):
            first = text.split(", ")[1 if name == "load_files" else 0]
            assert first in {"name", "other", "subject.name", "alias"}, (name, text)
    # What another command may call with a collection's name is that of a reader's trial.
    assert callers("permitted_calls") == {"jobs/diagnosis/milvus.py"}


def test_guarantee_11_what_writes_a_table_carries_the_lease_or_is_named_here() -> None:
    writes = ("save", "saveAsTable", "insertInto", "writeTo", "merge", "whenMatchedUpdate", "whenMatchedDelete")
    trial = "jobs/tables/trial.py"
    assert callers(*writes) - {trial} == {STORE}
    # Which is no table of ours: `doctor` has made it, under a name of its own, and removes it.
    assert callers("write_and_read_table") == {"jobs/diagnosis/places.py"}
    assert [text for _, name, text in calls("jobs") if name == "write_and_read_table"] == [
        "subject.job.warehouse, subject.name, min(_FILES, tasks_for_all(subject.spark))"
    ]
    assert callers("executeCompaction", "vacuum") - {"jobs/erasure/purging.py"} == {STORE, CONTROL}
    # Rows by delta-rs, which the store alone asks for, with the lease's version.
    assert callers("write_deltalake") == {CONTROL}
    assert callers("DeltaRsTable") == {STORE}
    sources = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in (ROOT / "jobs").rglob("*.py")}
    # A job's warehouse asks for a lease, which a run puts there and nothing else takes away.
    assert callers("Warehouse") == {"jobs/cli.py"}
    # What is supposed is stored by nobody.
    assert callers("SupposedWarehouse") == {"jobs/steps/check.py"}
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
