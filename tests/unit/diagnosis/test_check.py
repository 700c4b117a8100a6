"""`doctor`: how checks follow each other, what becomes of their errors, and what is undone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.diagnosis import milvus, workers
from jobs.diagnosis.check import Check, Examination
from jobs.diagnosis.examination import CHECKS
from jobs.diagnosis.found import Found, failure, not_asked, ok, warning
from jobs.diagnosis.subject import PREFIX, Subject, is_stale, new_name
from jobs.diagnosis.verdict import MILVUS, MILVUS_LITE, verdict
from jobs.diagnosis.worker import PACKAGES, Worker
from jobs.diagnosis.workers import RUN_WITH, differences, judged, skew
from jobs.errors import DependencyUnavailable, FaceReindexError, NotPermitted, SettingsError
from jobs.index.milvus.versions import detect
from jobs.index.roles import LOADER, PRIVILEGES
from jobs.session import read_properties
from jobs.settings import Settings
from tests.milvus.patient import patient

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


@pytest.fixture
def subject() -> Subject:
    return patient(Settings())


def examined(subject: Subject, *checks: Check) -> Examination:
    told: list[Found] = []
    examination = Examination(told.append)
    examination.run(checks, subject)
    assert told == examination.found
    return examination


def raising(error: Exception) -> Check:
    def look(_: Subject) -> Iterator[Found]:
        yield ok("so far")
        raise error

    return Check("first", look)


def test_what_needs_a_check_that_failed_is_not_asked_and_says_why(subject: Subject) -> None:
    def never(_: Subject) -> Iterator[Found]:
        raise AssertionError("asked")

    examination = examined(
        subject,
        raising(DependencyUnavailable("Away.", hint="start it.")),
        Check("second", never, ("first",)),
        Check("third", never, ("second",)),
        Check("other", lambda _: [ok("fine")]),
    )
    assert [(f.check, f.level, f.what, f.next_step) for f in examination.found] == [
        ("first", "ok", "so far", ""),
        ("first", "failure", "Away.", "start it."),
        ("second", "not asked", "it needs `first`", ""),
        ("third", "not asked", "it needs `second`", ""),
        ("other", "ok", "fine", ""),
        ("left behind", "ok", "nothing", ""),
    ]


def test_what_is_not_asked_for_a_reason_of_its_own_or_is_a_warning_stops_nothing(subject: Subject) -> None:
    first = Check("first", lambda _: [not_asked("there is none"), warning("odd", "look at it.")])
    examination = examined(subject, first, Check("second", lambda _: [ok("asked")], ("first",)))
    assert [f.level for f in examination.found] == ["not asked", "warning", "ok", "ok"]
    assert examination.exit_code == 0


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([DependencyUnavailable("x")], 5),
        ([NotPermitted("x")], 5),
        ([FaceReindexError("x")], 5),
        ([SettingsError("x")], 2),
        ([DependencyUnavailable("x"), SettingsError("x")], 2),
        ([KeyError("x")], 1),
        ([DependencyUnavailable("x"), KeyError("x")], 1),
        ([KeyError("x"), SettingsError("x")], 2),
    ],
)
def test_the_exit_code_is_the_one_that_is_mended_first(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, errors: list[Exception], code: int
) -> None:
    monkeypatch.delenv("FACE_REINDEX_TRACEBACK", raising=False)
    examination = examined(subject, *(raising(error) for error in errors))
    assert examination.exit_code == code
    assert all(found.next_step for found in examination.found if found.level == "failure")


def test_a_defect_is_told_without_its_text_and_raised_for_whoever_looks_for_it(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACE_REINDEX_TRACEBACK", raising=False)
    found = examined(subject, raising(KeyError("Ada Lovelace"))).found[1]
    assert (found.level, found.what) == ("failure", "an unforeseen KeyError.")
    undone: list[str] = []
    subject.undo("a thing", lambda: undone.append("a thing"))
    monkeypatch.setenv("FACE_REINDEX_TRACEBACK", "1")
    with pytest.raises(KeyError):
        examined(subject, raising(KeyError("x")))
    assert undone == ["a thing"]


def test_all_is_undone_the_last_first_also_where_one_fails_or_somebody_interrupts(subject: Subject) -> None:
    undone: list[str] = []

    def fails() -> None:
        raise DependencyUnavailable("Milvus is away.", hint="wait.")

    subject.undo("the first", lambda: undone.append("first"))
    subject.undo("the second", fails)
    subject.undo("the third", lambda: undone.append("third"))

    def interrupted(_: Subject) -> Iterator[Found]:
        raise KeyboardInterrupt

    told: list[Found] = []
    with pytest.raises(KeyboardInterrupt):
        Examination(told.append).run([Check("first", interrupted)], subject)
    assert undone == ["third", "first"]
    assert told == [
        Found(
            "failure",
            "the second could not be removed: Milvus is away.",
            "remove it by hand. wait.",
            5,
            "left behind",
        )
    ]


def test_names_tell_who_made_them_and_when() -> None:
    made = new_name(datetime(2026, 1, 31, 2, tzinfo=UTC))
    assert re.fullmatch(PREFIX + r"20260131T020000_[0-9a-f]{8}", made)
    assert new_name(datetime(2026, 1, 31, 2, tzinfo=UTC)) != made
    day, next_day = datetime(2026, 1, 31, 3, tzinfo=UTC), datetime(2026, 2, 1, 3, tzinfo=UTC)
    assert not is_stale(made, day)
    assert is_stale(made, next_day)
    assert is_stale(f"{made}_hnsw", next_day)
    for other in ("faces_20200101T000000_ab", PREFIX, f"{PREFIX}mine"):
        assert not is_stale(other, next_day)


def test_every_privilege_of_the_loader_is_used_by_a_check() -> None:
    source = Path(milvus.__file__).read_text(encoding="utf-8")
    used = set(re.findall(r'"(\w+)"', " ".join(re.findall(r"subject\.using\((.*?)\)", source))))
    assert used == {privilege for _, privilege in PRIVILEGES[LOADER]}


def test_each_check_needs_only_what_stands_before_it() -> None:
    before: set[str] = set()
    for check in CHECKS:
        assert set(check.needs) <= before, check.name
        assert check.name not in before
        before.add(check.name)


def test_the_page_explains_every_check_and_shows_lines_as_they_are() -> None:
    page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    part = page.split("## Before the first night\n")[1].split("\n## ")[0]
    first = " ".join(re.findall(r"^\| (`.*?) \|", part, re.MULTILINE))
    names = [*(check.name for check in CHECKS), "left behind"]
    assert sorted(re.findall(r"`(.+?)`", first)) == sorted(names)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    *lines, last = [line for line in shown.splitlines() if not line.startswith((" ", "It is"))]
    told = [re.fullmatch(r"(ok|warning|failure|not asked) +([a-z ]+): .+", line) for line in lines]
    assert [line for line, match in zip(lines, told, strict=True) if match is None] == []
    order = [names.index(match[2]) for match in told if match]
    assert order == sorted(order)
    assert {match[1] for match in told if match} == {"ok", "warning", "failure", "not asked"}
    assert re.fullmatch(r"doctor: ok \d+, warnings \d+, failures \d+, not asked \d+; a night would fail", last)


# --- Versions, packages, clocks ---------------------------------------------------------------------------------------


def test_what_it_calls_run_is_what_the_tests_run_with() -> None:
    lock = dict(
        line.split("==") for line in (ROOT / "requirements.lock.txt").read_text().splitlines() if "==" in line[1:]
    )
    lock = {name.lower().replace("_", "-"): version for name, version in lock.items() if not name.startswith("#")}
    assert (RUN_WITH["Spark"], RUN_WITH["Delta"]) == (lock["pyspark"], lock["delta-spark"])
    assert RUN_WITH["Delta"] in read_properties()["spark.jars.packages"]
    assert (lock["milvus"], lock["milvus-lite"]) == (MILVUS, MILVUS_LITE)
    assert set(PACKAGES) <= set(lock)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| Java | {RUN_WITH['Java']} |" in readme
    assert f"| Milvus | milvus-lite {MILVUS_LITE}; server {MILVUS}," in readme


def test_packages_that_differ_or_are_missing_are_named_with_an_executor() -> None:
    driver = Worker.here()
    assert [f.level for f in differences(driver, {"a/1": driver, "b/2": Worker.here()})] == ["ok"]
    other = Worker(driver.python, {**driver.packages, "torch": "1.0", "numpy": None})
    found = list(differences(driver, {"a/1": driver, "b/2": other}))
    assert [f.level for f in found] == ["failure", "failure"]
    assert found[0].what == f"torch is {driver.packages['torch']} on the driver and is 1.0 on executor b/2"
    assert found[1].what.endswith("on the driver and is missing on executor b/2")
    none = Worker(driver.python, {**driver.packages, "numba": None})
    assert [f.what for f in differences(none, {"a/1": none})] == ["numba is missing on driver and executors"]


@pytest.mark.parametrize(
    ("away", "level"), [(0.0, "ok"), (2.0, "ok"), (2.1, "warning"), (60.0, "warning"), (61.0, "failure")]
)
def test_a_clock_is_judged_by_the_lease(away: float, level: str) -> None:
    found = judged("Milvus's clock", away, 0.3, Settings())
    assert found.level == level
    assert ("60" if away == 60 else f"{away:.1f}") in found.what or level == "ok"


def test_a_clock_is_compared_with_when_it_was_read() -> None:
    assert skew(100.0, 99.0, 101.0) == 0
    assert skew(90.0, 99.0, 101.0) == 9
    assert skew(111.0, 99.0, 101.0) == 10


def test_a_worker_without_a_gpu_says_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACE_REINDEX_DEVICE", raising=False)
    assert "a GPU was asked for and Spark assigned none" in workers.gpu_of_a_worker().fault
    monkeypatch.setenv("FACE_REINDEX_DEVICE", "cpu")
    assert "FACE_REINDEX_DEVICE" in workers.gpu_of_a_worker().fault


# --- The verdict ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "said", "ways"),
    [
        ("v2.3.5", "the one that this project's tests run against", 0),
        ("v2.3.12", "2.3.5 is the one that", 0),
        ("v2.4.13", "2.3.5 is the one that", 4),
        ("v2.6.24", "2.3.5 is the one that", 5),
        ("v3.0.2", "2.3.5 is the one that", 6),
    ],
)
def test_the_verdict_names_what_was_never_run_against_such_a_server(version: str, said: str, ways: int) -> None:
    settings = Settings.model_validate({"milvus": {"uri": "http://milvus.example:19530"}})
    found = verdict(detect(version), version, settings)
    assert said in found.lines()[0]
    assert len(found.never_run) == ways
    assert all("read in the source" in way for way in found.never_run)
    assert found.record() == {"kind": "server", "version": version, "never_run": list(found.never_run)}


def test_the_verdict_knows_what_the_settings_add() -> None:
    settings = Settings.model_validate({"milvus": {"uri": "https://milvus.example", "index_type": "DISKANN"}})
    found = " ".join(verdict(detect("2.5.27"), "2.5.27", settings).never_run)
    assert "REST beside TLS" in found
    assert "DISKANN" in found
    assert verdict(detect("2.5.27"), "milvus_lite-3.2.2", Settings()).lines() == [
        "It is milvus-lite (milvus_lite-3.2.2); the one that this project's tests run against."
    ]
    assert failure("x", "y", SettingsError).exit_code == 2
