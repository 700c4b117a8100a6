"""Erasing people by name: found under every key and rule, and said where nothing is found; and a person's copy."""

from __future__ import annotations

import json
import stat
import unicodedata
import zipfile
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pyspark.sql import SparkSession

from jobs.erasure.asked import Asked, asked_for
from jobs.erasure.kinds import COMPLETE, Target
from jobs.erasure.receipts import receipts
from jobs.erasure.subject_access import export, stored_about
from jobs.erasure.verify import prove_erased
from jobs.errors import GovernanceError, NotProvenError, SettingsError
from jobs.governance.tombstones import CONTENT, FACE, IMAGE, SUBJECT, key_ring
from jobs.runs.record import JobContext
from jobs.schemas import (
    BASIS_LINKS,
    EMBEDDINGS,
    ERASURE_ITEMS,
    ERASURE_REQUESTS,
    ERASURE_STEPS,
    IMAGES,
    PROCESSING_BASIS,
    RUN_STEPS,
    RUNS,
    TOMBSTONES,
    TableSpec,
)
from jobs.steps.erase import erase
from jobs.tables.files import remove_tree
from tests.spark.helpers import NOW, first_row, job_for, settings_for, warehouse_for
from tests.spark.indexed import KEY, Indexed, image, picture, principal, record_row
from tests.unit.governance.names import rule_1, rule_2, rule_3, settings_with
from udfs.arrays import EMBEDDING_DIM
from udfs.kinds import image_kind

pytestmark = pytest.mark.spark

ESCAPING = "../../../escaped"
NEW, OLD = (f"the {age} key of a test with more than 32 letters" for age in ("new", "old"))
REQUESTS = ["\ufeff" + unicodedata.normalize("NFD", "José  Núñez"), "", " ANN\u00a0o\u2019neill", principal(7)]
REQUESTS += ["Nobody Here", "ann O'Neill"]


@dataclass
class Asking:
    """A warehouse where two people have pseudonyms of former keys, and a file of requests."""

    made: Indexed
    job: JobContext
    asked: Asked


@pytest.fixture(scope="module")
def asking(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Asking:
    made = indexed.copy_to(tmp_path_factory.mktemp("names") / "w")
    secrets = settings_with(hmac_key=f"{NEW}, {OLD}", tombstone_keys=f"{NEW},{KEY}")
    keys = {name: getattr(secrets, name) for name in ("hmac_key", "tombstone_keys")}
    made.settings = made.settings.model_copy(update=keys)
    made.record(5, pii_principal_id=rule_1("José  Núñez", OLD))
    made.record(6, pii_principal_id=rule_2("Ann O'Neill", OLD))
    other = {"image_id": ESCAPING, "content": picture("escaped"), "content_sha256": "0" * 64}
    for spec in (IMAGES, BASIS_LINKS):
        row = first_row(made.warehouse.read(spec).where(f"image_id = '{image(5)}'"))
        changed = {name: other.get(name, value) for name, value in row.asDict().items()}
        made.warehouse.append(made.spark.createDataFrame([tuple(changed.values())], spec.columns), spec)
    (made.folder / "requests.txt").write_text("\n".join(REQUESTS), encoding="utf-8")
    asked = asked_for(
        made.settings, subject=None, subject_file=str(made.folder / "requests.txt"), image="f" * 32, batch=None
    )
    return Asking(made, job_for(made.spark, made.settings, "e1"), asked)


def test_a_copy_has_everything_of_a_person_and_no_name_of_anybody_elses_choice(asking: Asking, tmp_path: Path) -> None:
    """Under a former key and rule; no id of a table is a path in the archive."""
    (person,) = [target for target, places in asking.asked.items() if places == ["line 1"]]
    warehouse, copy = asking.made.warehouse, tmp_path / "copy.zip"
    export(warehouse, [person], str(copy), image_kind)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with zipfile.ZipFile(copy) as archive:
        about = json.loads(archive.read("about_you.json"))
        files = {entry["image_id"]: entry["file"] for entry in about["images"]}
        assert sorted(archive.namelist()) == ["about_you.json", "images/000001", "images/000002"]
        assert archive.read(files[ESCAPING]) == picture("escaped")
        assert archive.read(files[image(5)]) == picture("picture 5")
    (tmp_path / "link.zip").symlink_to(tmp_path / "elsewhere.zip")
    for place in (copy, tmp_path / "link.zip"):
        with pytest.raises(SettingsError, match="is there already"):
            export(warehouse, [person], str(place), image_kind)
    assert not (tmp_path / "elsewhere.zip").exists()
    with pytest.raises(SettingsError, match="cannot be written"):
        export(warehouse, [person], str(tmp_path / "no" / "folder.zip"), image_kind)


def test_guarantee_14_a_copy_of_one_person_has_nothing_of_another(spark: SparkSession, tmp_path: Path) -> None:
    """Pictures that two people are recorded for; a record that was somebody else's before."""
    warehouse, ann, bob = warehouse_for(spark, settings_for(tmp_path)), principal(1), principal(2)
    records = [record_row("a", 1), record_row("a-box", 1, face_box=[0.0, 0.0, 9.0, 9.0]), record_row("b", 2)]
    # What named Ann by mistake is Bob's, and what named Bob is Ann's.
    records += [record_row("was-a", 1, recorded_at=NOW), record_row("was-a", 2)]
    records += [record_row("was-b", 2, recorded_at=NOW), record_row("was-b", 1)]
    warehouse.append(spark.createDataFrame(records, PROCESSING_BASIS.columns), PROCESSING_BASIS)
    given = {
        "own": ["a", "was-b"],
        "shared": ["a", "b"],
        "boxed": ["a-box", "b"],
        "bobs": ["was-a"],
        "open": ["a", "?"],
    }
    links: list[tuple[str, str, datetime, str | None]] = [
        (name, record, NOW, None) for name, records_of in given.items() for record in records_of
    ]
    # Somebody has put other bytes into its place, and it is on no record who is in these.
    given["replaced"] = []
    links.append(("replaced", "a", NOW, "f" * 64))
    warehouse.append(spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)
    images = [(0, name, picture(name), None, f"sha of {name}", 800, "b1", NOW, False, None, None) for name in given]
    warehouse.append(spark.createDataFrame(images, IMAGES.columns), IMAGES)
    # Nobody knows whose the two of `shared` are; of `boxed` one is known to be hers, one is under both records.
    under = [("own", ["a"]), ("shared", ["a", "b"]), ("shared", ["a"]), ("boxed", ["a-box"]), ("boxed", ["a-box", "b"]),
             ("bobs", ["was-a"]), ("open", ["a"])]  # fmt: skip
    faces = [
        ("f", number, name, "d", 0, [0.0] * 4, [0.0] * 10, 1.0, [float(number)] * EMBEDDING_DIM, ids, "r")
        for number, (name, ids) in enumerate(under)
    ]
    warehouse.append(spark.createDataFrame(faces, EMBEDDINGS.columns), EMBEDDINGS)
    export(warehouse, [Target(SUBJECT, ann)], str(tmp_path / "copy.zip"), image_kind)
    with zipfile.ZipFile(tmp_path / "copy.zip") as archive:
        names, text = archive.namelist(), archive.read("about_you.json").decode()
    about = json.loads(text)
    assert bob not in text
    assert sorted(record["record_id"] for record in about["records"]) == ["a", "a-box", "was-a", "was-b"]
    assert sorted((face["image_id"], face["face_id"]) for face in about["faces"]) == [("boxed", 3), ("own", 0)]
    assert about["faces_that_may_be_others"] == 5
    assert [entry["image_id"] for entry in about["images"]] == ["own"]
    assert len(names) == 2
    assert about["pictures_shared_with_others"] == ["bobs", "boxed", "open", "replaced", "shared"]


@pytest.mark.faults
def test_guarantee_9_names_are_erased_under_every_key_and_what_is_not_found_is_said(asking: Asking) -> None:
    made, asked = asking.made, asking.asked
    assert list(asked.values()) == [["--image"], ["line 1"], ["line 3", "line 6"], ["line 4"], ["line 5"]]
    assert [asked[target] for target in stored_about(made.warehouse, list(asked))["unknown"]] == [
        ["--image"],
        ["line 5"],
    ]
    gone = made.faces_of(5) | made.faces_of(6) | made.faces_of(7)
    live = made.live_keys()
    said = erase(asking.job, asked)
    assert made.live_keys() == live - gone
    assert len(gone) == 3
    assert said.exit_code == 6
    assert "2 of them found NOTHING (" in said.message
    assert {"line 5", "--image"} < set(said.message.replace("(", ",").replace(")", ",").replace(", ", ",").split(","))
    assert "Nobody" not in json.dumps(asdict(said))
    assert sorted(said.data["nothing_found"].values()) == [["--image"], ["line 5"]]
    outcomes = [next(iter(receipt.items())) for receipt in said.data["receipts"]]
    assert sorted(outcomes) == [("outcome", "erased")] * 3 + [("outcome", "nothing found")] * 2
    written = (made.folder / "warehouse" / "_evidence" / "receipts" / "e1.jsonl").read_text().splitlines()
    assert sum(line.startswith('{"outcome": "nothing found"') for line in written) == 2
    assert first_row(made.warehouse.read(RUNS).where("run_id = 'e1' AND state = 'done'"))["exit_code"] == 6


@pytest.mark.faults
def test_guarantee_13_who_was_not_found_is_barred_under_every_key(asking: Asking) -> None:
    """Depends on the pass above: its tombstones."""
    ring = key_ring(asking.made.settings)
    stones = {row["digest"] for row in asking.made.warehouse.read(TOMBSTONES).where("kind = 'subject'").collect()}
    names = [rule("Nobody Here", key) for rule in (rule_1, rule_2, rule_3) for key in (NEW, OLD)]
    assert {ring.digest(SUBJECT, name) for name in names} <= stones


def test_a_second_request_for_the_same_says_that_it_was_erased_before(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    nothing, some = ({"images": n, "faces": n, "records": n, "shared_images": 0} for n in (0, 1))
    # request, target, what it found; in this order of time
    ledger: list[tuple[str, str, Any]] = [
        ("a", "known", some), ("b", "known", nothing), ("c", "unknown", nothing), ("d", "unknown", nothing),
        ("e", "later", nothing), ("f", "later", some),
    ]  # fmt: skip
    requests = [(name, "subject", target, "k", "r", NOW) for name, target, _ in ledger]
    steps = [
        (name, "complete", "r", json.dumps(found), NOW + timedelta(hours=hour))
        for hour, (name, _, found) in enumerate(ledger)
    ]
    warehouse.append(spark.createDataFrame(requests, ERASURE_REQUESTS.columns), ERASURE_REQUESTS)
    warehouse.append(spark.createDataFrame(steps, ERASURE_STEPS.columns), ERASURE_STEPS)
    found = {r["request_id"]: r["outcome"] for r in receipts(warehouse, settings_for(tmp_path))}
    nothing_found = dict.fromkeys("cde", "nothing found")
    assert found == {"a": "erased", "b": "erased before", **nothing_found, "f": "erased"}


def test_guarantee_10_what_an_open_request_names_or_a_hold_keeps_is_no_finding_and_is_said(
    spark: SparkSession, tmp_path: Path
) -> None:
    """As a sweep leaves it alone."""
    settings = settings_for(tmp_path).model_copy(update={"tombstone_keys": SecretStr(KEY)})
    warehouse, ring = warehouse_for(spark, settings), key_ring(settings)

    def add(spec: TableSpec, *added: tuple[object, ...]) -> None:
        warehouse.append(spark.createDataFrame(added, spec.columns), spec)

    def said() -> str:
        return prove_erased(job_for(spark, settings), [], None).message.partition("; not looked for: ")[2]

    # Of a first request that is complete; the same is here again from a backup, and asked for again.
    named = [(SUBJECT, principal(5)), (IMAGE, "i5"), (CONTENT, "c5"), (FACE, "5")]
    add(ERASURE_STEPS, ("first", COMPLETE, "r", "{}", NOW))
    add(TOMBSTONES, *((kind, ring.current, ring.digest(kind, value), "first", NOW) for kind, value in named))
    add(ERASURE_REQUESTS, ("again", SUBJECT, ring.digest(SUBJECT, principal(5)), ring.current, "r", NOW))
    add(ERASURE_ITEMS, *(("again", kind, value, "i5") for kind, value in named))
    add(BASIS_LINKS, ("i5", "r5", NOW, "c5"))
    assert said() == "what open requests (1) name"
    # Complete, and its items left behind: that is found.
    add(ERASURE_STEPS, ("again", COMPLETE, "r", "{}", NOW))
    with pytest.raises(NotProvenError, match=r"tombstone of \w+ in .*(erasure_items|basis_links)"):
        prove_erased(job_for(spark, settings), [], None)
    warehouse.delta(ERASURE_ITEMS).delete()
    # Whatever else it was erased with: a hold keeps the picture, and with it the records that name it.
    add(PROCESSING_BASIS, record_row("r5", 5, legal_hold_ref="case 1"))
    warehouse.vacuum([ERASURE_ITEMS], 0)
    assert said() == "what a legal hold keeps, or may"
    # Nothing is found of what is keyed with a key that is not there, and that is no proof.
    elsewhere = settings.model_copy(update={"tombstone_keys": SecretStr(f"another {KEY}")})
    with pytest.raises(GovernanceError, match="cannot be read"):
        prove_erased(job_for(spark, elsewhere), [], None)
    # Another record of that person has come back, of which the hold says nothing.
    add(PROCESSING_BASIS, record_row("r55", 5, events=[(NOW - timedelta(days=1), "P5Y", "t", "ConsentGiven")]))
    with pytest.raises(NotProvenError, match=r"tombstone of subject in .*processing_basis"):
        prove_erased(job_for(spark, settings), [], None)
    warehouse.delta(PROCESSING_BASIS).delete()
    warehouse.vacuum([PROCESSING_BASIS], 0)
    with pytest.raises(NotProvenError, match="basis_links"):
        prove_erased(job_for(spark, settings), [], None)


@pytest.mark.faults
def test_guarantee_14_who_was_erased_before_is_known_under_a_new_key(indexed: Indexed, tmp_path: Path) -> None:
    """And it stays so in the receipts, whatever keys and settings are later on."""
    made = indexed.copy_to(tmp_path / "w")
    erase(job_for(made.spark, made.settings, "e1"), {Target("subject", principal(5)): ["--subject"]})
    first = receipts(made.warehouse, made.settings, "e1")
    made.settings = made.settings.model_copy(update={"tombstone_keys": SecretStr(f"{NEW},{KEY}")})
    # Their picture went with them; of person 99 nothing was ever here.
    targets = [("subject", principal(5)), ("image", image(5)), ("subject", principal(99))]
    done = erase(job_for(made.spark, made.settings, "e2"), {Target(*target): ["again"] for target in targets})
    said = {receipt["target"]: receipt["outcome"] for receipt in done.data["receipts"]}
    ring = key_ring(made.settings)
    outcomes = ("erased before", "erased before", "nothing found")
    assert said == {ring.digest(*target): outcome for target, outcome in zip(targets, outcomes, strict=True)}
    limits = {"milvus_gc_hours": 999.0, "milvus_queue_hours": 999.0, "backup_days": 999}
    later = made.settings.model_copy(
        update={"tombstone_keys": None, "erasure": made.settings.erasure.model_copy(update=limits)}
    )
    assert receipts(made.warehouse, later, "e1") == first
    assert receipts(made.warehouse, later, "e2") == done.data["receipts"]
    # As docs/operations.md lets people do with a damaged table.
    remove_tree(made.spark, f"{made.warehouse.location}/{RUN_STEPS.name}")
    warehouse = warehouse_for(made.spark, made.settings)
    assert receipts(warehouse, later, "e1") == first
    # Of an earlier release's pass nothing is left then, which is no date of 1970.
    warehouse.delta(ERASURE_STEPS).delete("step = 'carried-out'")
    said = receipts(warehouse, later, "e1")[0]
    assert (said["no_longer_served_at"], said["erased"]) == ("not on record any more", first[0]["erased"])
    assert set(said["stores"].values()) == set(said["physically_gone"].values()) == {"not on record any more"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"Jos\xe9\n", "not UTF-8"),
        (b"\n \xc2\xa0\n", "names nobody"),
        (b"Ann\nhmac:0123\n", "line 2: begins like a pseudonym"),
        (b"HMAC2 :" + b"0" * 64, "line 1: begins like a pseudonym"),
    ],
)
def test_a_file_of_requests_is_read_strictly(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "r.txt").write_bytes(text)
    with pytest.raises(SettingsError, match=message) as raised:
        asked_for(
            settings_with(hmac_key="k"), subject=None, subject_file=str(tmp_path / "r.txt"), image=None, batch=None
        )
    assert "Ann" not in str(raised.value)
    (tmp_path / "r.txt").write_text("A Person")
    with pytest.raises(SettingsError, match="FACE_REINDEX_HMAC_KEY"):
        asked_for(settings_with(), subject=None, subject_file=str(tmp_path / "r.txt"), image=None, batch=None)


def test_a_pseudonym_of_any_rule_needs_no_key(tmp_path: Path) -> None:
    given = [rule_1("A", "k"), rule_2("A", "k"), rule_3("A", "k")]
    (tmp_path / "r.txt").write_text("\r\n".join(given))
    asked = asked_for(settings_with(), subject=given[0], subject_file=str(tmp_path / "r.txt"), image=None, batch=None)
    assert asked == {
        Target("subject", given[0]): ["--subject", "line 1"],
        Target("subject", given[1]): ["line 2"],
        Target("subject", given[2]): ["line 3"],
    }
