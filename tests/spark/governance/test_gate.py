"""The gate's Spark expression equals the pure rule, and refuses by default."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from pyspark.sql import SparkSession

from jobs.errors import GovernanceError
from jobs.governance.barred import Barred
from jobs.governance.batches import current_batches
from jobs.governance.decide import (
    COLLECTION_METHODS,
    LAWFUL_BASES,
    SPECIAL_CATEGORY_CONDITIONS,
    STATE_ORDER,
    Batch,
    Content,
    Event,
    Policy,
    Reason,
    Record,
    decide_image,
    decide_records,
    has_ended,
    is_over,
)
from jobs.governance.gate import Gated, RunGate, gate, gate_warehouse
from jobs.governance.jurisdictions import load_rules
from jobs.governance.records import record_decisions
from jobs.governance.tombstones import key_ring
from jobs.schemas import AWAITED, BASIS_LINKS, BASIS_QUARANTINE, IMAGES, PROCESSING_BASIS, SOURCE_BATCHES, TOMBSTONES
from jobs.session import packaged_conf
from jobs.settings import Settings
from jobs.tables.store import Warehouse
from tests.spark.helpers import NOW, first_row, settings_for, warehouse_for
from tests.unit.governance import cases
from tests.unit.governance.cases import BOXES, FIELDS, TIES

pytestmark = pytest.mark.spark

PURPOSES = ("p:a", "p:b")
POLICY = Policy(PURPOSES, PURPOSES, load_rules())
BOX_ONLY = replace(POLICY, box_required=True)
PERSON = "hmac:" + "a" * 64
GOOD = replace(cases.GOOD, pii_principal_id=PERSON, purposes=("p:a", "p:b", "p:c"), source_batch_id="b1")


def mutated(rng: random.Random) -> Record:
    """A good record with none to three fields changed to something that occurs in bad data."""
    choices = {
        "schema_version": (None, "", "2.0"),
        "pii_principal_id": (
            None,
            "Jane",
            "hmac:xyz",
            "hmac:" + "A" * 64,
            "hmac:" + "a" * 64 + "\n",
            "hmac2:" + "a" * 64,
            "hmac3:" + "a" * 64,
        ),
        "purposes": (None, (), ("p:a",), ("p:a", "p:b"), (None, "p:a")),
        "pii_controllers": (None, ()),
        "lawful_basis": (None, " ", "eu-gdpr:A6-1-z", *LAWFUL_BASES),
        "special_category_condition": (None, "x", *SPECIAL_CATEGORY_CONDITIONS),
        "collection_method": (None, "x", *COLLECTION_METHODS),
        "retention_period": (None, "", "P", "2Y", "P1D", "P10D", "P1M", "PT5H", "P2Y1M3W4D", "P1Y\n"),
        "jurisdiction": (None, "", "XX", "CA", "DE", *("CA-QC", "US-IL") * 4),
        "withdrawal_method": (None, "  "),
        "source_batch_id": (None, "", "b2"),
        "face_box": ((1.0, 2.0, 3.0, 4.0), (3.0, 2.0, 1.0, 4.0), (1.0, 2.0), (), (0.0, 0.0, float("nan"), 1.0)),
        "expires_at": (NOW, NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)),
        "legal_hold_ref": ("h-1", ""),
        "last_interaction_at": (None, NOW - timedelta(days=9), NOW.replace(year=2023), NOW.replace(year=2022)),
        "written_release_ref": ("w", " "),
        "authority_disclosure_ref": ("d", ""),
        "authority_disclosed_at": (NOW - timedelta(days=60), NOW - timedelta(days=59)),
        "quarantined": (True,),
        "erased_at": (NOW - timedelta(days=30), NOW - timedelta(days=200)),
        "contents": (("c",), ("d", "c"), ("d",), ("",), (AWAITED,), (AWAITED,), (AWAITED, "d"), (AWAITED, "c")),
        "events": (None, ()),
    }
    changes: dict[str, Any] = {}
    for name in rng.sample(sorted(choices), rng.choice((0, 0, 1, 1, 2, 3))):
        changes[name] = rng.choice(choices[name])
    if changes.get("jurisdiction") in ("CA-QC", "US-IL") and rng.random() < 0.8:
        for name in (
            "last_interaction_at",
            "written_release_ref",
            "authority_disclosure_ref",
            "authority_disclosed_at",
        ):
            changes.setdefault(name, choices[name][rng.choice((0, 1))] or NOW - timedelta(days=9))
    if "events" not in changes:
        changes["events"] = tuple(event(rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    return replace(GOOD, **changes)


def together(rng: random.Random) -> list[Record | None]:
    """Records of one image: of one person or several, with boxes or without, and links to no record."""
    people = [PERSON, rng.choice((PERSON, "hmac:" + "b" * 64))]
    found: list[Record | None] = []
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))):
        record = mutated(rng)
        if record.pii_principal_id == PERSON:
            record = replace(record, pii_principal_id=rng.choice(people))
        if found and record.face_box is None and rng.random() < 0.3:
            record = replace(record, face_box=(1.0, 2.0, 3.0, 4.0))
        found.append(record if rng.random() < 0.95 else None)
    return found


def apart(records: list[list[Record | None]]) -> list[list[Record | None]]:
    """Whoever was erased is a person without other records: the others are not erased along. Nobody erases no one."""
    number = itertools.count()

    def alone(r: Record | None) -> Record | None:
        if r is None or r.erased_at is None:
            return r
        if r.pii_principal_id is None:
            return replace(r, erased_at=None)
        return replace(r, pii_principal_id=f"hmac:{next(number):064x}")

    return [[alone(r) for r in linked] for linked in records]


def event(rng: random.Random) -> Event:
    at = rng.choice((NOW - timedelta(days=30), NOW - timedelta(days=30), NOW - timedelta(days=400), NOW, None))
    if rng.random() < 0.85 and at is None:
        at = NOW - timedelta(days=31)
    if rng.random() < 0.1:
        at = NOW + timedelta(seconds=1)
    state = rng.choice(("ConsentGiven",) * 12 + (*STATE_ORDER, None, "", "Nonsense"))
    kind = rng.choice(("explicit_consent",) * 15 + (None, ""))
    return Event(at, rng.choice(("P1Y", "P1Y", "P1Y", "P30D", "P1M", "P4W", "P5Y", "P18M", None, "x")), kind, state)


def basis_row(number: int, record: Record) -> tuple[object, ...]:
    processing = (
        list(record.purposes) if record.purposes is not None else None,
        record.lawful_basis,
        record.special_category_condition,
        list(record.pii_controllers) if record.pii_controllers is not None else None,
        record.collection_method,
        record.retention_period,
        record.jurisdiction,
        record.withdrawal_method,
        record.impact_assessment,
        record.privacy_notice,
    )
    events = record.events
    return (
        f"r{number}",
        record.schema_version,
        record.pii_principal_id,
        processing,
        None,
        [(e.event_time, e.validity_duration, e.event_type, e.event_state) for e in events]
        if events is not None
        else None,
        record.source_batch_id,
        list(record.face_box) if record.face_box is not None else None,
        record.last_interaction_at,
        record.expires_at,
        record.written_release_ref,
        record.authority_disclosure_ref,
        record.legal_hold_ref,
        f"d{number}",
        NOW,
        record.authority_disclosed_at,
    )


def image_row(
    number: int, batch: str | None = "b1", *, changed: bool = False, content: str | None = "c"
) -> tuple[object, ...]:
    return (0, f"i{number}", None, None, content, 1, batch, NOW, True, NOW if changed else None, None)


def somebody_left(number: int, linked: list[Record | None]) -> bool:
    """Whether somebody was erased from an image of these tests."""
    return number % 5 == 4 and len(linked) > 1


def content_of(number: int) -> Content:
    """What the images of these tests show."""
    read = number % 7 != 6
    return Content("c" if read else "unread:EMPTY", changed=number % 3 == 2, read=read)


class Tables:
    """The gate's inputs for images of which image i is linked to ``records[i]`` (None: a link to nothing).

    Every third image has other bytes than the first that it had, of every seventh there is nothing to read.
    """

    def __init__(self, spark: SparkSession, records: list[list[Record | None]], batch: Batch | None) -> None:
        basis, links, number, quarantined, erased = [], [], 0, [], []
        for image, linked in enumerate(records):
            for record in linked:
                contents = record.contents if record is not None else ()
                links += [(f"i{image}", f"r{number}", NOW, content) for content in contents or (None,)]
                if record is not None:
                    if record.erased_at is not None:
                        erased.append((record.pii_principal_id, record.erased_at))
                    basis.append(basis_row(number, record))
                    if record.quarantined:
                        quarantined.append((f"r{number}",))
                number += 1
        shown = [content_of(i) for i in range(len(records))]
        images = [image_row(i, changed=content.changed, content=content.sha256) for i, content in enumerate(shown)]
        batches = [("b1", "s", batch.collection_method, "a", NOW, batch.state, NOW)] if batch else []
        self.images = spark.createDataFrame(images, IMAGES.columns)
        self.links = spark.createDataFrame(links, BASIS_LINKS.columns)
        self.basis = spark.createDataFrame(basis, PROCESSING_BASIS.columns)
        self.batches = spark.createDataFrame(batches, SOURCE_BATCHES.columns)
        shared = [(f"i{image}",) for image, linked in enumerate(records) if somebody_left(image, linked)]
        self.barred = Barred(
            shared=spark.createDataFrame(shared, "row_key string"),
            principals=spark.createDataFrame(erased, "row_key string, erased_at timestamp"),
            records=spark.createDataFrame(quarantined, "row_key string"),
        )

    def decide(self, policy: Policy = POLICY) -> dict[str, Any]:
        """The gate's decision on each image."""
        result = gate(
            self.images, self.links, self.basis, self.batches, policy=policy, now=NOW, barred=self.barred
        )  # fmt: skip
        until = "unix_micros(valid_until) AS until"
        found = result.decisions.selectExpr(
            "image_id", "reason", until, "size(covered) AS n", "covered", "on_hold", "over"
        )
        return {row["image_id"]: row for row in found.collect()}

    def ended(self) -> dict[str, bool]:
        """Whether each record is over for good."""
        decided = record_decisions(self.basis, policy=POLICY, now=NOW, barred=self.barred)
        return {row["record_id"]: row["ended"] for row in decided.select("record_id", "ended").collect()}


def gated(spark: SparkSession, records: list[list[Record | None]], batch: Batch | None) -> dict[str, Any]:
    return Tables(spark, records, batch).decide()


ASSESSED = Batch("assessed", "uploaded_by_subject")


@pytest.fixture(scope="module")
def drawn(spark: SparkSession) -> Callable[[int], tuple[list[list[Record | None]], Tables]]:
    """Random records of so many images, and their tables; made once."""

    @cache
    def draw(images: int) -> tuple[list[list[Record | None]], Tables]:
        rng = random.Random(25)
        records: list[list[Record | None]] = [[replace(GOOD, **changes)] for changes in edges()]
        records += [list(linked) for linked in itertools.product(linked_records(), repeat=2)]
        records += [together(rng) for _ in range(images - len(records))]
        records = apart(records)
        return records, Tables(spark, records, ASSESSED)

    return draw


def edges() -> Iterator[dict[str, Any]]:
    """What chance meets too seldom: the ends of boxes, blanks and times; two events at one instant."""
    yield from ({"face_box": box} for box in BOXES)
    yield from (changes for changes, _ in FIELDS)
    for state in STATE_ORDER[-3:]:
        at = NOW - timedelta(days=30)
        yield {"events": tuple(Event(at, "P1Y", "explicit_consent", s) for s in (state, "Nonsense"))}
    yield {"source_batch_id": "b2"}
    yield {"events": (), "expires_at": NOW}
    for begun in (NOW, NOW + timedelta(seconds=1)):
        yield {"events": (Event(begun, "P1Y", "explicit_consent", "ConsentGiven"),), "expires_at": NOW}
    for durations in TIES:
        at = NOW - timedelta(days=20)
        yield {"events": tuple(Event(at, d, "explicit_consent", "ConsentGiven") for d in durations)}


def linked_records() -> Iterator[Record]:
    """Of people of their own: what has ended or not, was given for the bytes that are there now, or for former ones."""
    gone = (*(GOOD.events or ()), Event(NOW - timedelta(days=1), None, "withdrawal", "ConsentWithdrawn"))
    changes: tuple[dict[str, Any], ...] = (
        {}, {"contents": ("c",)}, {"contents": ("d",)}, {"contents": ("d",), "purposes": ("p:a",)},
        {"contents": (AWAITED,)}, {"contents": (AWAITED,), "events": gone},
        {"events": gone}, {"events": gone, "contents": ("c",)}, {"events": gone, "contents": ("d",)},
        {"events": gone, "contents": ("c",), "impact_assessment": None},
        {"events": gone, "contents": ("c",), "jurisdiction": "XX"},
        {"events": gone, "contents": ("c",), "schema_version": "2.0"},
        {"events": gone, "contents": ("c",), "legal_hold_ref": "h"},
    )  # fmt: skip
    for number, changed in enumerate(changes):
        yield replace(GOOD, pii_principal_id=f"hmac:{number + 10**9:064x}", **changed)


@pytest.mark.parametrize("images", [1_100, pytest.param(100_000, marks=pytest.mark.faults)])
def test_guarantee_4_the_spark_expression_equals_the_pure_rule(
    drawn: Callable[[int], tuple[list[list[Record | None]], Tables]], images: int
) -> None:
    records, tables = drawn(images)
    found, boxed = tables.decide(), tables.decide(BOX_ONLY)
    assert len(found) == images
    seen, over = set(), set()
    for number, linked in enumerate(records):
        content, left = content_of(number), somebody_left(number, linked)
        with_box = decide_image(ASSESSED, "b1", linked, policy=BOX_ONLY, now=NOW, content=content, left=left).reason
        assert boxed[f"i{number}"]["reason"] == (with_box.value if with_box else None), linked
        seen.add(with_box)
        expected = decide_image(ASSESSED, "b1", linked, policy=POLICY, now=NOW, content=content, left=left)
        each = decide_records(ASSESSED, "b1", linked, policy=POLICY, now=NOW, content=content, left=left)
        row = found[f"i{number}"]
        assert row["reason"] == (expected.reason.value if expected.reason else None), linked
        assert row["on_hold"] == any(record is not None and record.legal_hold_ref is not None for record in linked)
        covered = sum(expected.allowed and decision.allowed for decision in each)
        assert row["n"] == len(row["covered"]) == covered, linked
        if expected.allowed:
            assert expected.valid_until is not None
            assert row["until"] == int(expected.valid_until.timestamp() * 1e6), linked
        seen.add(expected.reason)
        is_over_ = is_over(ASSESSED, "b1", linked, policy=POLICY, now=NOW, content=content)
        assert row["over"] is is_over_, linked
        over.add((is_over_, expected.reason))
    every = [record for linked in records for record in linked]
    ended = {f"r{n}": has_ended(record, policy=POLICY, now=NOW) for n, record in enumerate(every) if record}
    assert tables.ended() == ended
    # What is refused for its form or its law is over as well, and so is what shares a picture with former bytes.
    assert over >= {(True, Reason.FIELD_MISSING), (True, Reason.JURISDICTION_UNKNOWN), (True, Reason.CONTENT_CHANGED)}
    # Everything that a record alone can cause did occur, so that the comparison means something.
    batch_reasons = {Reason.BATCH_UNKNOWN, Reason.BATCH_NOT_ASSESSED, Reason.BATCH_REVOKED, Reason.PURPOSE_NOT_ALLOWED}
    assert seen >= set(Reason) - batch_reasons - {Reason.PUBLIC_WEB_WITHOUT_CONSENT} | {None}


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (None, Reason.BATCH_UNKNOWN),
        (Batch("unassessed", "uploaded_by_subject"), Reason.BATCH_NOT_ASSESSED),
        (Batch("assessed", None), Reason.BATCH_NOT_ASSESSED),
        (Batch(None, "uploaded_by_subject"), Reason.BATCH_NOT_ASSESSED),
        (Batch("revoked", "uploaded_by_subject"), Reason.BATCH_REVOKED),
        (Batch("assessed", "public_web"), Reason.PUBLIC_WEB_WITHOUT_CONSENT),
    ],
)
def test_guarantee_6_the_source_decides_first(spark: SparkSession, batch: Batch | None, reason: Reason) -> None:
    record = replace(GOOD, lawful_basis="eu-gdpr:A6-1-f")
    expected = decide_image(batch, "b1", [record], policy=POLICY, now=NOW)
    assert expected.reason == reason
    assert gated(spark, [[record]], batch)["i0"]["reason"] == reason.value


def test_guarantee_5_no_purpose_or_one_outside_the_allow_list_is_refused(spark: SparkSession) -> None:
    tables = Tables(spark, [[GOOD]], ASSESSED)
    for purposes, expected in (((), Reason.PURPOSE_NOT_GRANTED), (("p:c",), Reason.PURPOSE_NOT_ALLOWED)):
        policy = replace(POLICY, purposes=purposes)
        assert decide_image(ASSESSED, "b1", [GOOD], policy=policy, now=NOW).reason == expected
        assert tables.decide(policy)["i0"]["reason"] == expected.value


def digest(covered: str) -> str:
    """What an embedding of content `c` was computed from."""
    return hashlib.sha256(f"c|{covered}".encode()).hexdigest()


def test_of_an_image_without_a_usable_batch_nothing_is_covered(spark: SparkSession) -> None:
    other = replace(GOOD, source_batch_id="b0", lawful_basis="eu-gdpr:A6-1-f")
    batches: tuple[str | None, ...] = (None, "b0", "b1")
    result = gate(
        spark.createDataFrame([image_row(n, b) for n, b in enumerate(batches)], IMAGES.columns),
        spark.createDataFrame([(f"i{n}", f"r{n % 2}", NOW, None) for n in range(3)], BASIS_LINKS.columns),
        spark.createDataFrame([basis_row(0, GOOD), basis_row(1, other)], PROCESSING_BASIS.columns),
        spark.createDataFrame([("b0", "s", None, "a", NOW, "assessed", NOW),
                               ("b1", "s", "uploaded_by_subject", "a", NOW, "revoked", NOW)], SOURCE_BATCHES.columns),
        policy=POLICY,
        now=NOW,
    )  # fmt: skip
    found = {row["image_id"]: (row["reason"], row["reasons"]) for row in result.decisions.collect()}
    assert found == {
        "i0": ("BATCH_UNKNOWN", ["BATCH_MISMATCH"]),
        "i1": ("BATCH_NOT_ASSESSED", ["PUBLIC_WEB_WITHOUT_CONSENT"]),
        "i2": ("BATCH_REVOKED", [None]),
    }
    rows = result.decisions.select("part", "source_batch_id", "content_sha256", "covered", "input_digest").collect()
    assert {tuple(row)[1]: tuple(row)[::2] for row in rows} == dict.fromkeys(batches, (0, "c", digest("[]")))
    assert [row["covered"] for row in rows] == [[]] * 3


def test_guarantee_1_no_basis_table_stops_the_job(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with pytest.raises(GovernanceError) as stopped:
        gate_warehouse(warehouse_for(spark, settings, read_only=True), settings, now=NOW, ingested_by=NOW)
    assert str(stopped.value) == (
        "There is no basis record, so every image is refused and nothing was read. Next step: write a template with "
        "`ingest --source … --batch … --basis-template FILE`, complete it, and run `ingest --basis FILE`."
    )


def test_guarantee_8_without_any_record_what_takes_out_goes_on_and_what_indexes_stops(
    spark: SparkSession, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path)
    warehouse = warehouse_for(spark, settings)
    warehouse.append(spark.createDataFrame([image_row(0)], IMAGES.columns), IMAGES)
    asked = RunGate(warehouse, settings, clock=lambda: NOW, ingested_by=NOW)
    refused = asked.decide(to_destroy=True)
    assert [row["reason"] for row in refused.decisions.collect()] == ["BATCH_UNKNOWN"]
    assert asked.decide(to_destroy=True) is refused
    for _ in range(2):
        with pytest.raises(GovernanceError, match="no basis record"):
            asked.decide()


def test_a_later_version_that_omits_a_withdrawal_does_not_undo_it(spark: SparkSession) -> None:
    withdrawn = replace(
        GOOD, events=(*(GOOD.events or ()), Event(NOW - timedelta(days=1), None, "withdrawal", "ConsentWithdrawn"))
    )
    first, second = list(basis_row(0, withdrawn)), list(basis_row(0, GOOD))
    second[-3:-1] = ["d-later", NOW + timedelta(hours=1)]
    images = spark.createDataFrame([image_row(0)], IMAGES.columns)
    result = gate(
        images,
        spark.createDataFrame([("i0", "r0", NOW, None)], BASIS_LINKS.columns),
        spark.createDataFrame([tuple(first), tuple(second)], PROCESSING_BASIS.columns),
        spark.createDataFrame([("b1", "s", "uploaded_by_subject", "a", NOW, "assessed", NOW)], SOURCE_BATCHES.columns),
        policy=POLICY,
        now=NOW,
    )
    assert first_row(result.decisions)["reason"] == Reason.CONSENT_ENDED.value


def test_the_last_recorded_version_counts_of_records_and_of_batches(spark: SparkSession) -> None:
    def version(number: int, digest: str, hours: int, **changes: Any) -> tuple[object, ...]:
        row = list(basis_row(number, replace(GOOD, **changes)))
        row[-3:-1] = [digest, NOW + timedelta(hours=hours)]
        return tuple(row)

    less = {"purposes": ("p:a",)}
    # Of two that were recorded at one instant nobody can say which is the last: none permits, and a hold holds.
    basis = [
        version(0, "z", 0), version(0, "a", 1, **less),
        version(1, "a", 1), version(1, "z", 0, **less),
        version(2, "a", 0), version(2, "z", 0, **less),
        version(3, "z", 0), version(3, "a", 0, legal_hold_ref="h"),
        version(4, "z", 1), version(4, "z", 1), version(4, "a", 0, legal_hold_ref="h"),
    ]  # fmt: skip
    batch, before = ("b1", "s", "uploaded_by_subject", "a"), NOW - timedelta(hours=1)
    batches = [(*batch, before, "revoked", before), (*batch, NOW, "assessed", NOW)]
    result = gate(
        spark.createDataFrame([image_row(n) for n in range(5)], IMAGES.columns),
        spark.createDataFrame([(f"i{n}", f"r{n}", NOW, None) for n in range(5)], BASIS_LINKS.columns),
        spark.createDataFrame(basis, PROCESSING_BASIS.columns),
        spark.createDataFrame(batches, SOURCE_BATCHES.columns),
        policy=POLICY,
        now=NOW,
    )
    refused, contested = Reason.PURPOSE_NOT_GRANTED.value, Reason.QUARANTINED.value
    hold = Reason.LEGAL_HOLD.value
    assert decided(result) == {"i0": refused, "i1": None, "i2": contested, "i3": hold, "i4": None}
    assert {row["image_id"] for row in result.decisions.where("on_hold").collect()} == {"i3"}
    computed_from = {row["image_id"]: row["input_digest"] for row in result.accepted.collect()}
    assert computed_from == {
        f"i{n}": digest(f'[{{"record_id":"r{n}","principal":"{GOOD.pii_principal_id}"}}]') for n in (1, 4)
    }


def test_guarantee_6_of_two_states_of_a_batch_at_one_instant_none_is_in_force(spark: SparkSession) -> None:
    states: dict[str, list[tuple[str, str | None]]] = {
        "same": [("assessed", "public_web"), ("assessed", "public_web")],
        "collected": [("assessed", "public_web"), ("assessed", "uploaded_by_subject")],
        "revoked": [("unassessed", None), ("revoked", None), ("assessed", "uploaded_by_subject")],
    }
    versions = [(b, "s", method, "a", NOW, state, NOW) for b, said in states.items() for state, method in said]
    found = current_batches(spark.createDataFrame(versions, SOURCE_BATCHES.columns)).collect()
    assert {tuple(row) for row in found} == {
        ("same", "assessed", "public_web", True), ("collected", None, None, True), ("revoked", "revoked", None, True)
    }  # fmt: skip


def test_guarantee_6_what_was_revoked_is_in_force_again_by_a_later_assessment_only(spark: SparkSession) -> None:
    # State, its own date, when it was recorded; in hours.
    states: dict[str, list[tuple[str, int | None, int]]] = {
        "never": [("assessed", 9, 0)],
        "former": [("assessed", -5, -4), ("revoked", -5, 0), ("assessed", -5, 1)],
        "at once": [("revoked", -5, 0), ("assessed", 0, 1)],
        "undated": [("revoked", -5, 0), ("assessed", None, 1)],
        "ahead": [("assessed", 9, -4), ("revoked", -5, 0), ("assessed", 9, 10)],
        "twice": [("revoked", -5, 0), ("assessed", 1, 2), ("revoked", -5, 3), ("assessed", 2, 4)],
        "later": [("assessed", -5, -4), ("revoked", -5, 0), ("assessed", 1, 2)],
        "again": [("revoked", -5, 0), ("assessed", 1, 2), ("assessed", 1, 3)],
        "not yet": [("revoked", -5, 0), ("unassessed", None, 1)],
    }

    def at(hours: int | None) -> datetime | None:
        return None if hours is None else NOW + timedelta(hours=hours)

    rows = [(b, "s", "public_web", "a", at(own), state, at(n)) for b, said in states.items() for state, own, n in said]
    found = current_batches(spark.createDataFrame(rows, SOURCE_BATCHES.columns)).collect()
    assert {row["source_batch_id"]: row["batch_state"] for row in found} == {
        **dict.fromkeys(("never", "later", "again"), "assessed"), "not yet": "unassessed",
        **dict.fromkeys(("former", "at once", "undated", "ahead", "twice"), "revoked"),
    }  # fmt: skip
    # An erasure is one more revocation, which the table of batches need not know of.
    erased = spark.createDataFrame(
        [("never", at(8)), ("later", at(1)), ("not yet", at(9))], "row_key string, erased_at timestamp"
    )
    found = current_batches(spark.createDataFrame(rows, SOURCE_BATCHES.columns), erased).collect()
    standing = {row["source_batch_id"]: row["batch_state"] for row in found}
    assert {name: standing[name] for name in ("never", "later", "again", "former", "not yet")} == {
        "never": "assessed", "later": "revoked", "again": "assessed", "former": "revoked", "not yet": "unassessed"
    }  # fmt: skip


def test_guarantee_8_the_gate_of_a_run_decides_anew_when_something_changed(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "governance.purposes=[p:a]", "governance.allowed_purposes=[p:a]")
    warehouse = warehouse_for(spark, settings)
    short = replace(GOOD, expires_at=NOW + timedelta(hours=2))
    images = [image_row(n) for n in range(3)]
    basis = [basis_row(0, GOOD), basis_row(1, GOOD), basis_row(2, short)]
    warehouse.append(spark.createDataFrame(images, IMAGES.columns), IMAGES)
    warehouse.append(spark.createDataFrame(basis, PROCESSING_BASIS.columns), PROCESSING_BASIS)
    links = [(f"i{n}", f"r{n}", NOW, None) for n in range(3)]
    warehouse.append(spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)
    batch = [("b1", "s", "uploaded_by_subject", "a", NOW, "assessed", NOW)]
    warehouse.append(spark.createDataFrame(batch, SOURCE_BATCHES.columns), SOURCE_BATCHES)
    now = [NOW]
    asked = RunGate(warehouse, settings, clock=lambda: now[0], ingested_by=NOW)

    def accepted() -> set[str]:
        return {row["image_id"] for row in asked.decide().accepted.collect()}

    assert accepted() == {"i0", "i1", "i2"}
    first = asked.decide()
    # It holds to the last second of the shortest permission.
    now[0] = NOW + timedelta(hours=2, seconds=-1)
    assert asked.decide() is first
    # A withdrawal is committed.
    gone = replace(GOOD, events=(*(GOOD.events or ()), Event(NOW, None, "withdrawal", "ConsentWithdrawn")))
    later = [*basis_row(0, gone)[:-3], "d-later", NOW + timedelta(minutes=30), None]
    warehouse.append(spark.createDataFrame([tuple(later)], PROCESSING_BASIS.columns), PROCESSING_BASIS)
    assert accepted() == {"i1", "i2"}
    # A permission ends, and nothing is committed at all.
    now[0] = NOW + timedelta(hours=2)
    assert accepted() == {"i1"}
    # The source is revoked.
    revoked = [(*batch[0][:5], "revoked", NOW + timedelta(hours=2))]
    warehouse.append(spark.createDataFrame(revoked, SOURCE_BATCHES.columns), SOURCE_BATCHES)
    assert accepted() == set()


def someone(number: int, **changes: Any) -> Record:
    """A good record of a person of its own."""
    return replace(GOOD, pii_principal_id=f"hmac:{number:064x}", **changes)


@pytest.fixture(scope="module")
def tables(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Settings]:
    """A warehouse with an image for each thing that bars one; image 0 is permitted, 8 came later."""
    settings = settings_for(
        tmp_path_factory.mktemp("gate"), "governance.purposes=[p:a]", "governance.allowed_purposes=[p:a]"
    )
    settings = settings.model_copy(update={"hmac_key": SecretStr("a test's key of more than 32 letters")})
    warehouse, ring = warehouse_for(spark, settings), key_ring(settings)
    after, before = NOW + timedelta(hours=1), NOW - timedelta(days=60)
    images = [(0, f"i{n}", None, None, f"c{n}", 1, "b1", NOW if n < 8 else after, True, None, None) for n in range(9)]
    images += [(0, i, None, None, f"c {i}", 1, "b1", NOW, True, None, None) for i in ("left", "same bytes")]
    links = [(f"i{n}", f"r{n}", NOW, None) for n in range(9)]
    links += [(i, "r0", NOW, None) for i in ("left", "same bytes")]
    batch = [("b1", "s", "uploaded_by_subject", "a", NOW, "assessed", NOW)]
    stones = [("image", "i1", NOW), ("content", "c2", NOW), ("subject", f"hmac:{3:064x}", NOW),
              ("subject", f"hmac:{4:064x}", before), ("face", "i0", NOW),
              ("left", "left", NOW), ("left content", "c same bytes", NOW)]  # fmt: skip
    keyed = [(kind, ring.current, ring.digest(kind, value), "er", at) for kind, value, at in stones]
    unread = [("r5", "f", "NO_JSON_OBJECT", "d5", after), ("r6", "f", "NO_JSON_OBJECT", "d6", before),
              ("r7", "f", "NO_JSON_OBJECT", "d7", NOW), (None, "f", "NO_JSON_OBJECT", "d8", after)]  # fmt: skip
    for spec, rows in (
        (IMAGES, images),
        (PROCESSING_BASIS, [basis_row(n, someone(n)) for n in range(9)]),
        (BASIS_LINKS, links),
        (SOURCE_BATCHES, batch),
        (TOMBSTONES, keyed),
        (BASIS_QUARANTINE, unread),
    ):
        warehouse.append(spark.createDataFrame(rows, spec.columns), spec)
    return warehouse, settings


def decided(gated_: Gated) -> dict[str, str | None]:
    return {row["image_id"]: row["reason"] for row in gated_.decisions.select("image_id", "reason").collect()}


def test_guarantee_13_the_gate_of_a_warehouse_bars_what_was_erased_or_not_read(
    tables: tuple[Warehouse, Settings],
) -> None:
    found = decided(gate_warehouse(*tables, now=NOW, ingested_by=NOW))
    assert found == {
        "i0": None, "i1": "ERASED", "i2": "ERASED", "i3": "ERASED", "i4": None, "i5": "QUARANTINED", "i6": None,
        "i7": "QUARANTINED", "left": "OTHERS_REFUSED", "same bytes": "OTHERS_REFUSED",
    }  # fmt: skip


def test_the_gate_of_a_warehouse_can_be_asked_of_some_images(
    spark: SparkSession, tables: tuple[Warehouse, Settings]
) -> None:
    some = spark.createDataFrame([("i0",), ("i1",), ("i8",), ("i1",)], "image_id string")
    found = decided(gate_warehouse(*tables, now=NOW, ingested_by=NOW + timedelta(hours=1), only=some))
    assert found == {"i0": None, "i1": "ERASED", "i8": None}


@pytest.mark.parametrize(
    ("purposes", "allowed", "expected"),
    [(["p:z"], ["p:z"], "PURPOSE_NOT_GRANTED"), (["p:a"], ["p:b"], "PURPOSE_NOT_ALLOWED")],
)
def test_guarantee_5_the_settings_say_what_is_asked_for_and_allowed(
    spark: SparkSession, tables: tuple[Warehouse, Settings], purposes: list[str], allowed: list[str], expected: str
) -> None:
    warehouse, settings = tables
    governance = settings.governance.model_copy(update={"purposes": purposes, "allowed_purposes": allowed})
    some = spark.createDataFrame([("i0",)], "image_id string")
    asked = settings.model_copy(update={"governance": governance})
    assert decided(gate_warehouse(warehouse, asked, now=NOW, ingested_by=NOW, only=some)) == {"i0": expected}


def test_guarantee_16_the_settings_can_require_boxes_and_what_stood_without_is_void(
    spark: SparkSession, tables: tuple[Warehouse, Settings]
) -> None:
    warehouse, settings = tables
    governance = settings.governance.model_copy(update={"coverage": "box"})
    some = spark.createDataFrame([("i0",), ("i9",)], "image_id string")
    boxed = someone(9, face_box=(0.0, 0.0, 9.0, 9.0))
    images = [(0, "i9", None, None, "c9", 1, "b1", NOW + timedelta(hours=1), True, None, None)]
    links = [("i9", "r0", NOW, None), ("i9", "r9", NOW, None)]
    for spec, rows in ((IMAGES, images), (BASIS_LINKS, links), (PROCESSING_BASIS, [basis_row(9, boxed)])):
        warehouse.append(spark.createDataFrame(rows, spec.columns), spec)
    both = [
        gate_warehouse(warehouse, asked, now=NOW, ingested_by=NOW + timedelta(hours=1), only=some)
        for asked in (settings, settings.model_copy(update={"governance": governance}))
    ]
    assert [decided(gated_) for gated_ in both] == [{"i0": None, "i9": None}, {"i0": "BOX_REQUIRED", "i9": None}]
    # What was embedded under a record without a box belongs to another coverage, and so is withdrawn.
    covered, digests = (
        [{row["image_id"]: row[column] for row in gated_.accepted.collect()} for gated_ in both]
        for column in ("covered", "input_digest")
    )
    assert [[record["record_id"] for record in found["i9"]] for found in covered] == [["r0", "r9"], ["r9"]]
    assert digests[0]["i9"] != digests[1]["i9"]


def test_the_settings_name_the_rules_of_jurisdictions(
    spark: SparkSession, tables: tuple[Warehouse, Settings], tmp_path: Path
) -> None:
    warehouse, settings = tables
    rules = yaml.safe_load(packaged_conf("jurisdictions.yaml").read_text())
    rules["rules"] = [rule for rule in rules["rules"] if rule["name"] != "GDPR"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    governance = settings.governance.model_copy(update={"jurisdictions": str(tmp_path / "rules.yaml")})
    some = spark.createDataFrame([("i0",)], "image_id string")
    asked = settings.model_copy(update={"governance": governance})
    found = decided(gate_warehouse(warehouse, asked, now=NOW, ingested_by=NOW, only=some))
    assert found == {"i0": "JURISDICTION_UNKNOWN"}


def test_guarantee_5_no_purpose_stops_the_job(tables: tuple[Warehouse, Settings]) -> None:
    warehouse, settings = tables
    asked = settings.model_copy(update={"governance": settings.governance.model_copy(update={"purposes": []})})
    with pytest.raises(GovernanceError) as stopped:
        gate_warehouse(warehouse, asked, now=NOW, ingested_by=NOW)
    assert str(stopped.value) == (
        "governance.purposes is empty: an index without a purpose is not permitted. "
        "Next step: name the purpose in the settings, and in governance.allowed_purposes."
    )


def test_guarantee_2_the_plan_reads_no_image_bytes(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    warehouse = warehouse_for(spark, settings)
    warehouse.append(spark.createDataFrame([basis_row(0, GOOD)], PROCESSING_BASIS.columns), PROCESSING_BASIS)
    plan = gate_warehouse(warehouse, settings, now=NOW, ingested_by=NOW).decisions._jdf.queryExecution().toString()
    scans = [line for line in plan.split("== Physical Plan ==")[1].splitlines() if "FileScan" in line]
    assert scans
    assert not [line for line in scans if "content:binary" in line]
