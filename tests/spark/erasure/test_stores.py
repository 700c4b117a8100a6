"""An erasure accounts for every store that was ever filled, and goes on where tables that it goes by are damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.embedding.faces import permitted_faces
from jobs.erasure.closing import close
from jobs.erasure.find import find
from jobs.erasure.kinds import Target
from jobs.erasure.ledger import write_down
from jobs.erasure.requests import pending, request
from jobs.erasure.run import Outcome, erase_pending
from jobs.erasure.verify import prove_erased
from jobs.errors import LeaseHeld, NotProvenError, SettingsError, StoreMissing
from jobs.governance.gate import gate_warehouse
from jobs.governance.tombstones import key_ring
from jobs.index import promotion
from jobs.index.milvus.connect import connect
from jobs.runs.aliases import settle_alias
from jobs.runs.lease import Lease
from jobs.runs.results import FileImported, Imported, Lost, Promoted
from jobs.runs.staging_paths import recorded_bases
from jobs.runs.stores import own_live, unaccounted
from jobs.schemas import BASIS_LINKS, ERASURE_STEPS, IMAGES, PROCESSING_BASIS, RUN_STEPS
from jobs.settings import Settings
from jobs.steps import night
from jobs.steps.erase import erase
from jobs.steps.expire import expire_steps
from jobs.steps.load import load_steps
from jobs.steps.night import erase_open, night_steps
from jobs.steps.promote import last_verified
from jobs.steps.sync import add_small, remove_unpermitted_live
from jobs.tables.files import remove_tree
from tests.spark.helpers import NOW, job_for, settings_for, warehouse_for
from tests.spark.indexed import FINGERPRINT, SHARED, Indexed, image, principal, reindex, run_of
from udfs.arrays import EMBEDDING_DIM

pytestmark = pytest.mark.spark


def elsewhere(settings: Settings, index: Path) -> Settings:
    """The same settings with another, empty, index."""
    return settings.model_copy(update={"milvus": settings.milvus.model_copy(update={"uri": str(index)})})


def here(*names: str, index: str = "one") -> dict[str, str]:
    """Collections that are in the index with this id."""
    return dict.fromkeys(names, index)


@pytest.mark.faults
def test_guarantee_9_a_collection_that_is_not_in_the_index_of_the_settings_leaves_requests_open(
    indexed: Indexed, tmp_path: Path
) -> None:
    """Nor are staged files forgotten that lie where the settings say no longer."""
    made, old = indexed.copy_to(tmp_path / "w"), tmp_path / "staged before"
    left = old / "night-1" / "1" / "part-0.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a night that staged and came no further")
    step = ("night-1", "stage", "done", NOW, NOW, 0.0, json.dumps({"path": str(left.parent)}), 1)
    made.warehouse.append(made.spark.createDataFrame([step], RUN_STEPS.columns), RUN_STEPS)
    settings = elsewhere(made.settings, tmp_path / "another.db")
    job = job_for(made.spark, settings)
    with pytest.raises(StoreMissing, match="Collection faces_night_1 is not in the index of the settings"):
        erase(job, {Target("subject", principal(5)): ["--subject"]})
    assert pending(made.warehouse).count() == 1
    with connect(settings) as index, pytest.raises(StoreMissing, match="--lost faces_night_1`"):
        remove_unpermitted_live(made.warehouse, settings, index, lambda: pytest.fail("nobody asks the gate"))
    assert made.warehouse.read(IMAGES).where(f"image_id = '{image(5)}'").count() == 1
    with pytest.raises(NotProvenError, match="Not all was looked at: faces_night_1"):
        prove_erased(job, [], None)
    with pytest.raises(SettingsError, match=r"--lost faces: .*missing: faces_night_1\."):
        erase(job, {}, ["faces"])
    # It is gone for good: that is on record, and in the receipt.
    done = erase(job, {}, ["faces_night_1"])
    assert (done.exit_code, done.data["receipts"][0]["erased"]["faces"]) == (0, 1)
    assert done.data["receipts"][0]["stores"]["collections"] == {"faces_night_1": {"lost": True}}
    assert not left.parent.parent.exists()
    assert any(place.endswith("before") for place in prove_erased(job, [], None).data["places"])


@pytest.mark.faults
def test_guarantee_12_an_erasure_comes_to_its_end_where_the_warehouse_moves_to_another_index(
    indexed: Indexed, tmp_path: Path
) -> None:
    """As docs/operations.md has it: until the former collections are dropped, and that is on record, requests wait."""
    made = indexed.copy_to(tmp_path / "w")
    moved = Indexed(made.spark, made.folder, elsewhere(made.settings, tmp_path / "another.db"), made.warehouse)
    reindex(moved, "night-2")
    gone = made.faces_of(5)
    assert gone < moved.live_keys()
    job = job_for(moved.spark, moved.settings)
    wanted = "Collection faces_night_1 is not in .* once readers have moved; .*`erase --lost faces_night_1`"
    with pytest.raises(StoreMissing, match=wanted):
        erase(job, {Target("subject", principal(5)): ["--subject"]})
    # Nor with the settings of before; but whoever was asked for leaves both indexes, and a night goes on.
    index = made.index()
    with run_of(made, "n3", "reindex") as run:
        assert erase_open(run, index) is None
    index.close()
    assert not gone & (made.live_keys() | moved.live_keys())
    assert pending(made.warehouse).count() == 1
    index = made.index()
    index.drop_alias("faces")
    index.drop("faces_night_1")
    index.close()
    done = erase(job, {}, ["faces_night_1"])
    assert (done.exit_code, done.data["receipts"][0]["erased"]["faces"]) == (0, 1)
    assert prove_erased(job, [], None).data["collections"] == ["faces_night_2"]


def test_guarantee_9_an_alias_that_leads_to_another_warehouse_stops_what_takes_out(
    indexed: Indexed, tmp_path: Path
) -> None:
    made = indexed.copy_to(tmp_path / "w")
    # As docs/operations.md lets people do with damaged ones: this warehouse stays itself.
    for name in ("runs", "run_steps"):
        remove_tree(made.spark, f"{made.warehouse.location}/{name}")
    made.warehouse = warehouse_for(made.spark, made.settings)
    index = made.index()
    live = own_live(made.warehouse, made.settings, index)
    assert live is not None
    assert live[0] == "faces_night_1"
    index.create("faces_theirs", dim=EMBEDDING_DIM, shards=1, properties=replace(live[1], warehouse="another"))
    index.switch_alias("faces", "faces_theirs")
    index.close()
    job = job_for(made.spark, made.settings)
    acts: tuple[Callable[[], object], ...] = (lambda: erase(job, {}), lambda: prove_erased(job, [], None))
    for stopped in acts:
        with pytest.raises(SettingsError, match="Alias faces points at faces_theirs, which another warehouse built"):
            stopped()


def test_a_warehouse_of_an_earlier_release_keeps_the_identity_that_its_collections_carry(
    indexed: Indexed, tmp_path: Path
) -> None:
    made = indexed.copy_to(tmp_path / "w")
    made.spark.sql(
        f"ALTER TABLE delta.`{made.warehouse.location}/{ERASURE_STEPS.name}` UNSET TBLPROPERTIES "
        "('face_reindex.warehouse')"
    )
    first = warehouse_for(made.spark, made.settings)
    assert first.identity == indexed.warehouse.identity
    with run_of(made, "r1", "sync") as run:
        assert run.warehouse.identity == first.identity
    remove_tree(made.spark, f"{made.warehouse.location}/runs")
    assert warehouse_for(made.spark, made.settings).identity == first.identity


def test_guarantee_9_a_collection_is_on_record_from_its_first_row_until_it_is_dropped(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    before = {"import": {"collection": "old"}, "promote": {"current": "old", "dropped": ["older"]}}
    steps = [
        # By a release that told of no drop but a promotion's and an erasure's.
        ("r0", "import", {"collection": "older"}),
        *(("r1", step, result) for step, result in before.items()),
        ("r2", "import", {"collection": "cut_off"}),
        ("r3", "erase-index", {"collections": {"cut_off": {"dropped": True}, "old": {"left": 0}}}),
        # By this one.
        ("r4", "import/0", {"job_id": "", "state": "started", "collection": "begun"}),
        ("r5", "import/0", {"job_id": "", "state": "done", "collection": "again"}),
        ("r5", "drop-collections", {"dropped": ["again", "old"]}),
        ("r5", "import/0", {"job_id": "", "state": "done", "collection": "again"}),
        ("r6", "stage", {"path": "/a/r6/12"}),
        ("7", "stage", {"path": "s3a://b/c/7"}),
        ("r8", "stage", {"path": "/copied/from/_staging/r8/1"}),
        ("r9", "stage", {"path": "/d/_staging/r9/1", "apart": True}),
        ("r10", "stage", {"path": "/copied/from/_staging/r10/1", "apart": False}),
        # Given up, and filled again by somebody who found it.
        ("r11", "import/0", {"job_id": "", "state": "done", "collection": "given_up"}),
        ("r11", "import/0", {"job_id": "", "state": "done", "collection": "back"}),
        ("r12", "lost-collections", {"dropped": ["back", "given_up"]}),
        ("r13", "fill-collection", {"collection": "back"}),
    ]
    later = [NOW + timedelta(seconds=number) for number in range(len(steps))]
    rows = [
        (run, step, "done", NOW, at, 0.0, json.dumps(result), 1)
        for (run, step, result), at in zip(steps, later, strict=True)
    ]
    warehouse.append(spark.createDataFrame(rows[:4], RUN_STEPS.columns), RUN_STEPS)
    assert unaccounted(warehouse, {}) == ["cut_off", "old"]
    assert unaccounted(warehouse, here("old")) == []
    warehouse.append(spark.createDataFrame(rows[4:], RUN_STEPS.columns), RUN_STEPS)
    assert unaccounted(warehouse, here("again")) == ["back", "begun"]
    # Of one that was about to be dropped nobody knows, unless another of that index is here.
    assert unaccounted(warehouse, {}) == ["again", "back", "begun", "old"]
    # After a move what is here was filled since: it tells nothing of the former index.
    at = later[-1] + timedelta(seconds=1)
    moved = ("r14", "import/0", "done", at, at, 0.0, json.dumps({"collection": "moved"}), 1)
    dropped = ("r14", "dropped-collections", "done", at, at, 0.0, json.dumps({"dropped": ["begun"]}), 1)
    warehouse.append(spark.createDataFrame([moved, dropped], RUN_STEPS.columns), RUN_STEPS)
    assert unaccounted(warehouse, here("moved")) == ["again", "back", "old"]
    assert unaccounted(warehouse, here("again", "moved")) == ["back"]
    # Nor does what is there once the warehouse is back tell of a drop that was begun in the other one since.
    at += timedelta(seconds=1)
    late = ("r15", "import/0", "done", at, at, 0.0, json.dumps({"collection": "late"}), 1)
    at += timedelta(seconds=1)
    begun = json.dumps({"dropped": ["late"], "index": ["other"]})
    late_drop = ("r15", "drop-collections", "done", at, at, 0.0, begun, 1)
    warehouse.append(spark.createDataFrame([late, late_drop], RUN_STEPS.columns), RUN_STEPS)
    assert unaccounted(warehouse, here("again")) == ["back", "late", "moved"]
    assert unaccounted(warehouse, here("again", "moved")) == ["back", "late"]
    assert unaccounted(warehouse, here("again", index="other")) == ["back", "moved"]
    assert recorded_bases(warehouse) == {"/a", "s3a://b/c", "/d/_staging"}


@pytest.mark.faults
def test_a_run_that_is_resumed_behind_its_switch_loads_nothing_again(
    indexed: Indexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does an erasure that it carries out make it: a server would keep every row beside the one that is there."""
    made = indexed.copy_to(tmp_path / "w")
    done = Imported(collection="faces_night_1")
    monkeypatch.setattr(night, "embed_steps", lambda *_, **__: pytest.fail("it begins again"))
    with run_of(made, "n2", "reindex") as run, closing(made.index()) as index:
        run.record(done)
        run.record(Promoted(current="faces_night_1"))
        ring, now = key_ring(made.settings), datetime.now(UTC)
        request(made.warehouse, [Target("subject", principal(5))], ring, run_id="asked", now=now)
        assert erase_open(run, index) is not None
        assert run.result(Imported) == done
        night_steps(run, index, recompute=False)


class Cut(BaseException):
    """Ends a run where it stands."""


@pytest.mark.faults
def test_guarantee_12_a_night_that_is_killed_in_the_watch_is_watched_again_and_loads_nothing(
    indexed: Indexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alias leads to its collection, and no step of it says so yet; an erasure comes in between."""
    made = indexed.copy_to(tmp_path / "w")

    def cut(*_: object) -> None:
        # No error of ours, which would switch the alias back; and the lease is given back.
        raise RuntimeError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(promotion, "_look_through", cut)
        with pytest.raises(RuntimeError, match="cut off"):
            reindex(made, "night-2")
    ring, now = key_ring(made.settings), datetime.now(UTC)
    request(made.warehouse, [Target("subject", principal(5))], ring, run_id="asked", now=now)
    with run_of(made, "s1", "sync") as run, closing(made.index()) as index:
        settle_alias(run, index)
        assert erase_pending(run, index).completed == 1
    monkeypatch.setattr(night, "embed_steps", lambda *_, **__: pytest.fail("it begins again"))
    with run_of(made, "night-2", "reindex") as run, closing(made.index()) as index:
        settle_alias(run, index)
        night_steps(run, index, recompute=False)
        promoted = run.result(Promoted)
        assert promoted is not None
        assert promoted.previous == "faces_night_1"
        assert last_verified(run).collection == index.alias_target("faces") == "faces_night_2"
        # As an earlier release has forgotten it.
        run.forget(Imported, FileImported)
        with pytest.raises(NotProvenError, match="faces_night_2 of run night-2 is live"):
            load_steps(run, index)
        assert index.exists("faces_night_2")


def test_guarantee_9_a_collection_is_on_record_before_sync_brings_a_row_into_it(
    indexed: Indexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though somebody had given it up: settings lead to it again, and it is filled again."""
    made = indexed.copy_to(tmp_path / "w")
    with run_of(made, "l1", "erase") as run:
        run.record(Lost(dropped=("faces_night_1",)))
    assert unaccounted(made.warehouse, {}) == []
    # A face that is permitted and missing, of a record that was given since.
    made.record(5)
    index = made.index()
    index.load("faces_night_1", timeout=60)
    index.delete("faces_night_1", sorted(made.faces_of(5)))

    def cut(*_: object) -> None:
        raise Cut

    monkeypatch.setattr(index, "insert", cut)
    now = datetime.now(UTC)
    gated = gate_warehouse(made.warehouse, made.settings, now=now, ingested_by=now)
    with pytest.raises(Cut), run_of(made, "s1", "sync") as run:
        add_small(run, index, "faces_night_1", permitted_faces(made.warehouse, gated, FINGERPRINT))
    index.close()
    assert unaccounted(made.warehouse, {}) == ["faces_night_1"]


@pytest.mark.faults
def test_guarantee_9_pictures_go_whose_records_are_gone_for_good(indexed: Indexed, tmp_path: Path) -> None:
    """Else no person's request would ever be complete. What is linked to another record as well stays for that one."""
    made = indexed.copy_to(tmp_path / "w")
    warehouse, job = made.warehouse, job_for(made.spark, made.settings)
    warehouse.delta(PROCESSING_BASIS).delete("record_id IN ('r6', 's2')")
    done = erase(job, {Target("subject", principal(5)): ["--subject"]})
    assert (done.exit_code, done.data["receipts"]) == (3, [])
    assert "0 requests complete: 0 images, 0 faces, 0 records erased; 1 request open still" in done.message
    assert "where links came from a backup) `erase --lost-records` takes the links" in done.message
    done = erase(job, {}, lost_records=True)
    assert done.exit_code == 0
    assert {r["kind"]: (r["erased"]["images"], r["erased"]["shared_images"]) for r in done.data["receipts"]} == {
        "subject": (1, 0), "expiry": (1, 1)
    }  # fmt: skip
    left = {row["image_id"] for row in warehouse.read(IMAGES).collect()}
    assert left & {image(5), image(6), SHARED} == {SHARED}
    links = {(row["image_id"], row["record_id"]) for row in warehouse.read(BASIS_LINKS).collect()}
    assert {link for link in links if link[0] in (image(6), SHARED)} == {(SHARED, "s1")}
    warehouse.delta(PROCESSING_BASIS).delete()
    with pytest.raises(SettingsError, match="no basis record at all"):
        erase(job, {}, lost_records=True)


@pytest.mark.faults
def test_guarantee_8_without_any_record_everybody_leaves_the_live_collection(indexed: Indexed, tmp_path: Path) -> None:
    """As docs/operations.md lets people remove the table of records, until they are ingested again."""
    made = indexed.copy_to(tmp_path / "w")
    assert made.live_keys()
    basis = Path(made.warehouse.location) / PROCESSING_BASIS.name
    remove_tree(made.spark, str(basis))
    lease = Lease(made.warehouse, "another", 600)
    lease.acquire()
    job = job_for(made.spark, made.settings)
    with pytest.raises(LeaseHeld, match="15 faces taken out of the live collection"):
        erase(job, {})
    assert made.live_keys() == set()
    lease.release()
    index = made.index()
    links = made.warehouse.read(BASIS_LINKS).count()
    with run_of(made, "e1", "expire") as run:
        assert expire_steps(run, index, sweep=True).completed == 0
    index.close()
    # Nobody asked for anything to be destroyed.
    assert made.warehouse.read(BASIS_LINKS).count() == links
    # Who asks now has pictures here, and no job can tell which.
    ring, now = key_ring(made.settings), datetime.now(UTC)
    request(made.warehouse, [Target("subject", principal(5))], ring, run_id="asked", now=now)
    targets = pending(made.warehouse)
    found = find(made.warehouse, targets)
    items = write_down(made.warehouse, targets, found, ring, now=now)
    assert close(made.warehouse, targets, found, items, ring, blind=False, run_id="e2", now=now) == (0, 0, 1, 0)
    assert "1 request open still" in Outcome(0, 0, {}, 1).waiting
    remove_tree(made.spark, str(basis))
    shutil.copytree(Path(indexed.warehouse.location) / PROCESSING_BASIS.name, basis)
    jvm: Any = made.spark._jvm
    jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    found = find(warehouse_for(made.spark, made.settings), targets)
    assert {row["value"] for row in found.where("kind = 'image'").collect()} == {image(5)}
