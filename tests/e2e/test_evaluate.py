"""`evaluate` from pictures to figures, of invented persons: all faces are one, so no weights can tell them apart."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench.pictures import Picture, make_pictures
from jobs.embedding.model import find_model
from jobs.evaluation.embed import embed_pictures
from jobs.settings import load_settings
from tests.e2e.line import model_settings, run_job, trained
from udfs.coverage import CoveredPrincipal
from udfs.pipeline import Pipeline
from udfs.results import ImageInput

pytestmark = pytest.mark.e2e

PEOPLE = 11
IMPOSTORS = 104
KINDS = ("greyscale", "several_faces", "exif_rotated", "no_face", "truncated")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Picture]]:
    """A folder with pictures and settings, and the pictures; those of no face come last."""
    home = tmp_path_factory.mktemp("evaluate")
    made = make_pictures(home / "pictures", kinds=KINDS)
    good = [p for p in made if p.expected == "embedded"]
    # A truncated picture of one kind cannot be decoded; one of the cat shows nobody.
    bad = [next(p for p in made if p.kind == kind) for kind in ("no_face", "truncated")]
    settings = {
        "warehouse": str(home / "warehouse"),
        "model": model_settings(home / "weights"),
        "executor": {"partition_images": 16},
    }
    (home / "settings.yaml").write_text(yaml.safe_dump(settings))
    return home, [*good, *bad]


@pytest.fixture
def evaluate(spark: Any, home: tuple[Path, list[Picture]], capsys: Any) -> Callable[..., tuple[int, dict[str, Any]]]:
    folder, _ = home

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        images = ("--images", str(folder / "pictures"))
        read = lambda: capsys.readouterr().out  # noqa: E731
        return run_job("evaluate", folder / "settings.yaml", *images, *arguments, read=read)

    return run


def write_pairs(path: Path, pictures: list[Picture]) -> list[dict[str, Any]]:
    """Pairs of invented persons: picture n is said to show person n modulo 11; a pair each for those without a face."""
    person = [n % PEOPLE for n in range(len(pictures))]
    good = range(len(pictures) - 2)
    same = [(a, b) for a, b in combinations(good, 2) if person[a] == person[b]]
    different = [(a, b) for step in (1, 2, 3) for a, b in zip(good, good[step:], strict=False)][:IMPOSTORS]
    empty, broken = len(pictures) - 2, len(pictures) - 1
    rows = [
        {
            "left": pictures[a].path, "right": pictures[b].path, "same": int(person[a] == person[b]),
            "group": "small" if n % 9 == 0 else "large",
            "left_subject": f"Person {person[a]}", "right_subject": f"Person {person[b]}",
        }
        for n, (a, b) in enumerate([*same, (empty, empty % PEOPLE), *different, (broken, 0)])
    ]  # fmt: skip
    with path.open("w", newline="") as target:
        writer = csv.DictWriter(target, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_guarantee_15_pictures_to_aggregates(
    evaluate: Callable[..., tuple[int, dict[str, Any]]], home: tuple[Path, list[Picture]]
) -> None:
    folder, pictures = home
    rows = write_pairs(folder / "pairs.csv", pictures)
    out = folder / "out"
    code, result = evaluate(
        "--pairs", str(folder / "pairs.csv"), "--out", str(out), "--lawful-basis", "invented people", "--floor", "1",
    )  # fmt: skip
    assert (code, result["ok"]) == (4, False)
    assert "below the floor of 1" in result["message"]
    assert result["files"] == ["evaluation.json", "roc.png", "roc.svg"]
    text = (out / "evaluation.json").read_text()
    found = json.loads(text)

    # Untrained, everywhere, if it is so; and which model it was.
    known = trained()
    assert found["weights"]["trained"] == known
    assert found["weights"]["label"] == ("casia-webface" if known else "random(seed=0), UNTRAINED")
    assert found["weights"]["origin"].startswith("seeded random numbers (sha256 ") != known
    for said in (result["message"], (out / "roc.svg").read_text()):
        assert found["weights"]["label"].split("(")[0] in said
        assert ("UNTRAINED" in said) != known
    assert found["fingerprint"] == find_model(load_settings(folder / "settings.yaml")).fingerprint
    assert found["lawful_basis"] == "invented people"

    # Everything is counted once.
    good, same = len(pictures) - 2, sum(row["same"] for row in rows)
    assert found["pairs"]["pairs"] == len(rows)
    assert found["pictures"]["embedded"] == good
    assert found["pictures"]["failed"].pop("no_face: NO_FACE") == 1
    assert sum(found["pictures"]["failed"].values()) == 1
    assert found["excluded"] == {"same": 1, "different": 1}
    assert found["compared"] == {"same": same - 1, "different": IMPOSTORS}
    assert found["accuracy"]["pooled"]["of"] == len(rows) - 2
    assert found["accuracy_failures_wrong"]["pooled"]["of"] == len(rows)
    assert [row["stated"] for row in found["tar_at_far"]] == [True, False, False]
    assert found["intervals"]["bootstrap_by"] == "subject"
    large, small = found["groups"]["large"], found["groups"]["small"]
    assert large["stated"]
    assert small["stated"] is False
    assert large["same"] + small["same"] == same - 1

    # Nobody's name, picture or score, and no table.
    printed = text + json.dumps(result) + (out / "roc.svg").read_text()
    assert "Person" not in printed
    assert not any(picture.name in printed for picture in pictures)
    cache = set() if known else {"weights"}
    assert {path.name for path in folder.iterdir()} == {"out", "pairs.csv", "pictures", "settings.yaml", *cache}


def test_pictures_are_embedded_as_in_the_line(spark: Any, home: tuple[Path, list[Picture]]) -> None:
    """One vector a picture: the pipeline's, of the most central face, whoever else is in it."""
    folder, pictures = home
    settings = load_settings(folder / "settings.yaml")
    model = find_model(settings)
    chosen = [next(p for p in pictures if p.kind == kind) for kind in ("greyscale", "several_faces", "no_face")]
    chosen.append(next(p for p in pictures if p.kind == "several_faces" and p.persons > 2))
    names = tuple(p.path for p in chosen)
    found = embed_pictures(spark, str(folder / "pictures"), names, model, settings)
    assert found.found.tolist() == [True, True, False, True]
    crowd = tuple(CoveredPrincipal(f"r{n}", f"p{n}") for n in range(9))
    inputs = [ImageInput(name, uri=str(folder / "pictures" / name), covered=crowd) for name in names]
    beside = 0
    for number, result in enumerate(Pipeline(model.path, model.params, roots=(str(folder / "pictures"),)).run(inputs)):
        if result.status != "embedded":
            continue
        middle = np.array([result.width, result.height]) / 2
        away = [float((((f.box[:2] + f.box[2:]) / 2 - middle) ** 2).sum()) for f in result.faces]
        area = [float((f.box[2] - f.box[0]) * (f.box[3] - f.box[1])) for f in result.faces]
        central = result.faces[int(np.argmax(np.array(area) - 2 * np.array(away)))]
        assert float(found.vectors[number] @ central.embedding) > 1 - 1e-5
        beside += len(result.faces) - 1
    assert found.beside == beside >= 3


def test_what_stops_it(evaluate: Callable[..., tuple[int, dict[str, Any]]], home: tuple[Path, list[Picture]]) -> None:
    folder, pictures = home
    rows = write_pairs(folder / "pairs.csv", pictures)
    arguments = ("--pairs", str(folder / "pairs.csv"), "--out", str(folder / "none"))
    code, result = evaluate(*arguments, "--dry-run")
    assert (code, result["pairs"]["pairs"]) == (0, len(rows))
    code, result = evaluate(*arguments)
    assert (code, result["error"]) == (3, "GovernanceError")
    assert "--lawful-basis" in result["message"]
    code, result = evaluate(*arguments, "--lawful-basis", "  ")
    assert code == 3
    assert not (folder / "none").exists()
    shutil.move(folder / "pictures", folder / "elsewhere")
    try:
        code, result = evaluate(*arguments, "--lawful-basis", "invented people")
    finally:
        shutil.move(folder / "elsewhere", folder / "pictures")
    assert (code, result["error"]) == (1, "BadInput")
    assert (
        f"{len(pictures)} of {len(pictures)} pictures cannot be read (NOT_FOUND: {len(pictures)})" in result["message"]
    )
    assert list((folder / "none").iterdir()) == []
    code, result = evaluate("--pairs", str(folder / "pairs.csv"))
    assert (code, result["error"]) == (2, "SettingsError")
