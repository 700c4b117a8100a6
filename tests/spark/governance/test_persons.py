"""One person, one pseudonym: through a change of keys, of the rule for names, and of spelling."""

from __future__ import annotations

import csv
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.erasure.kinds import COMPLETE, Target
from jobs.erasure.requests import request
from jobs.errors import GovernanceError, SettingsError
from jobs.governance.basis import BasisImported, import_basis
from jobs.governance.basis_files import read_basis
from jobs.governance.persons import check_keys
from jobs.governance.pseudonyms import pseudonyms_of
from jobs.governance.tombstones import SUBJECT, KeyRing, key_ring
from jobs.runs.record import open_run
from jobs.schemas import (
    AUDIT_EVENTS,
    ERASURE_STEPS,
    KEYS_NOTED,
    LEASES,
    PROCESSING_BASIS,
    PSEUDONYM_KEYS,
    RUNS,
    TOMBSTONES,
)
from jobs.settings import Settings
from tests.spark.helpers import NOW, job_for, rows, settings_for, warehouse_for
from tests.unit.governance.names import rule_1, rule_2, rule_3, settings_with

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("tables")]

PERSON = "hmac:" + "a" * 64

BEFORE, AFTER = (NOW - timedelta(days=1)).isoformat(), (NOW + timedelta(days=1)).isoformat()


class Records:
    """Imports of a CSV that names persons, into one warehouse, under keys that change."""

    def __init__(self, spark: Any, folder: Path) -> None:
        self.spark, self.folder = spark, folder
        self.warehouse = warehouse_for(spark, settings_for(folder))

    def settings(self, **secrets: str) -> Settings:
        given = settings_with(**secrets)
        return settings_for(self.folder).model_copy(update={name: getattr(given, name) for name in secrets})

    def bring(self, *people: tuple[str, str, str], **secrets: str) -> BasisImported:
        """``people``: record, name, time of the consent."""
        settings = self.settings(**secrets)
        with (self.folder / "b.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["record_id", "subject", "event_time", "event_type", "event_state"])
            writer.writerows((record, name, at, "consent", "ConsentGiven") for record, name, at in people)
        names = pseudonyms_of(settings)
        found = read_basis(self.spark, str(self.folder / "b.csv"), names)
        return import_basis(self.warehouse, found, lambda c: c, ring=key_ring(settings), names=names, now=NOW)

    def stored(self) -> set[tuple[Any, ...]]:
        return rows(self.warehouse.read(PROCESSING_BASIS), "record_id", "pii_principal_id")

    def store(self, record: str, pseudonym: str) -> None:
        """As an earlier release did."""
        row = self.spark.createDataFrame([(record, pseudonym)], "record_id string, pii_principal_id string")
        columns = self.warehouse.read(PROCESSING_BASIS).limit(0)
        self.warehouse.append(columns.unionByName(row, allowMissingColumns=True), PROCESSING_BASIS)

    def ring(self, **secrets: str) -> KeyRing:
        return key_ring(self.settings(**secrets))

    def erase(self, pseudonym: str, **secrets: str) -> None:
        ring = self.ring(**secrets)
        stone = (SUBJECT, ring.current, ring.digest(SUBJECT, pseudonym), "er-1", NOW)
        self.warehouse.append(self.spark.createDataFrame([stone], TOMBSTONES.columns), TOMBSTONES)
        self.warehouse.delta(PROCESSING_BASIS).delete(f"pii_principal_id = '{pseudonym}'")


@pytest.fixture
def records(spark: SparkSession, tmp_path: Path) -> Records:
    return Records(spark, tmp_path)


def test_guarantee_13_a_new_key_brings_nobody_back_who_was_erased(records: Records) -> None:
    """By the rotation that docs/security.md describes: the new key in front of both rings, all records anew."""
    records.bring(("r1", "A Person", BEFORE), ("r2", "Another", BEFORE), hmac_key="old")
    records.erase(rule_3("A Person", "old"), hmac_key="old")
    everyone = [
        ("r1", "A Person", BEFORE),
        ("r9", "a  PERSON", BEFORE),
        ("r2", "Another", BEFORE),
        ("r3", "New", BEFORE),
    ]
    done = records.bring(*everyone, hmac_key="new,old", tombstone_keys="new,old")
    assert (done.barred, done.new_versions) == (2, 1)
    # Who is known keeps the pseudonym: a second one would cover a second face.
    assert records.stored() == {("r2", rule_3("Another", "old")), ("r3", rule_3("New", "new"))}
    # With a consent of later the person may come back, under the pseudonym that the tombstone knows.
    records.bring(("r8", "A Person", AFTER), hmac_key="new,old", tombstone_keys="new,old")
    assert ("r8", rule_3("A Person", "old")) in records.stored()


def test_guarantee_13_asking_again_under_a_new_key_does_not_bring_back_a_consent_dated_ahead(records: Records) -> None:
    """Nor does it open a second request where one is open."""
    rotated = {"hmac_key": "new,old", "tombstone_keys": "new,old"}
    records.bring(("r1", "A Person", AFTER), hmac_key="old")
    people = [Target(SUBJECT, rule_3(name, "old")) for name in ("A Person", "Another")]
    (first, still_open) = request(records.warehouse, people, records.ring(hmac_key="old"), run_id="a", now=NOW)
    done = records.spark.createDataFrame([(first, COMPLETE, "a", "{}", NOW)], ERASURE_STEPS.columns)
    records.warehouse.append(done, ERASURE_STEPS)
    records.warehouse.delta(PROCESSING_BASIS).delete()
    people = [Target(SUBJECT, rule_3(name, "new"), (rule_3(name, "old"),)) for name in ("A Person", "Another")]
    (second, same) = request(records.warehouse, people, records.ring(**rotated), run_id="b", now=NOW)
    assert (second != first, same) == (True, still_open)
    assert records.bring(("r1", "A Person", AFTER), **rotated).barred == 1
    assert records.stored() == set()


def test_guarantee_14_a_key_that_can_be_guessed_is_not_taken_into_use(records: Records) -> None:
    """In use it stays, with a warning: what was keyed with it is found under it alone."""
    said: list[str] = []

    def check(**secrets: str) -> None:
        check_keys(records.warehouse, records.settings(**secrets), said.append)

    long = "0123456789abcdef" * 2
    for short in ("a", "secret", "a" * 64, long[:31], f"a,{long}"):
        for name in ("hmac_key", "tombstone_keys"):
            with pytest.raises(SettingsError, match=f"FACE_REINDEX_{name.upper()}: .*guessed"):
                check(**{name: short})
    check(hmac_key=f"{long},a", tombstone_keys=long)
    assert said == []
    # A pseudonym of a file's own is no name that was keyed here, whatever it looks like.
    records.store("r1", rule_1("A", "old"))
    with pytest.raises(SettingsError):
        check(hmac_key="old")
    # A warehouse of an earlier release, which left no id; then one that did.
    table = f"delta.`{records.warehouse.location}/{PROCESSING_BASIS.name}`"
    records.spark.sql(f"ALTER TABLE {table} UNSET TBLPROPERTIES ('{KEYS_NOTED}')")
    check(hmac_key="old")
    records.bring(("r1", "A Person", BEFORE), hmac_key="old")
    check(hmac_key="old")
    assert len(said) == 2
    assert "in front of it" in said[0]
    with pytest.raises(SettingsError):
        check(hmac_key="new,old")


def test_guarantee_14_no_job_takes_a_key_into_use_that_can_be_guessed(records: Records) -> None:
    """Whatever expires, or comes back, gets tombstones as well: not only `ingest` and `erase` write under a key."""
    job = job_for(records.spark, records.settings(hmac_key="0123456789abcdef" * 2, tombstone_keys="a"))
    with pytest.raises(SettingsError, match=r"FACE_REINDEX_TOMBSTONE_KEYS: .*guessed"), open_run(job, "expire"):
        pytest.fail("it has begun")
    assert all(records.warehouse.read(spec).isEmpty() for spec in (RUNS, LEASES, AUDIT_EVENTS))


def test_guarantee_13_a_key_that_names_were_keyed_with_may_not_be_missing(records: Records) -> None:
    records.bring(("r1", "A Person", BEFORE), hmac_key="old")
    records.erase(rule_3("A Person", "old"), hmac_key="old")
    with pytest.raises(GovernanceError, match="FACE_REINDEX_HMAC_KEY"):
        records.bring(("r1", "A Person", BEFORE), hmac_key="new", tombstone_keys="new,old")
    assert records.stored() == set()
    assert records.warehouse.read(PSEUDONYM_KEYS).count() == 1


def test_guarantee_13_pseudonyms_of_an_earlier_release_stay_valid(records: Records) -> None:
    """Also after the rotation that its page of security described: the former key among those of the tombstones."""
    records.store("r1", rule_1("José", "k"))
    records.store("r2", rule_1("Ann", "k"))
    records.erase(rule_1("Ann", "k"), hmac_key="k")
    # One file with two spellings: what only differs by the rule's levelling is one person.
    records.store("r7", rule_2("\u0130brahim", "new"))
    people = [("r3", "José", BEFORE), ("r4", "JOSÉ", BEFORE), ("r5", "ann", BEFORE), ("r6", "Ann", BEFORE)]
    people += [("r8", "ibrahim", BEFORE), ("r9", "IBRAHIM", BEFORE)]
    done = records.bring(*people, hmac_key="new", tombstone_keys="new,k")
    assert done.barred == 2
    ibrahim = {(record, rule_2("\u0130brahim", "new")) for record in ("r7", "r8", "r9")}
    assert records.stored() == {(record, rule_1("José", "k")) for record in ("r1", "r3", "r4")} | ibrahim


def test_a_pseudonym_that_is_given_is_taken_as_it_is(records: Records) -> None:
    (records.folder / "b.csv").write_text(f"record_id,pii_principal_id\nr1,{PERSON}\n")
    names = pseudonyms_of(records.settings(hmac_key="k"))
    file = read_basis(records.spark, str(records.folder / "b.csv"), names)
    import_basis(records.warehouse, file, lambda c: c, ring=key_ring(records.settings()), names=names, now=NOW)
    assert records.stored() == {("r1", PERSON)}
    # Nobody was named, so no key is needed from now on.
    assert records.warehouse.read(PSEUDONYM_KEYS).isEmpty()
