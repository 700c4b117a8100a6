from __future__ import annotations

import hashlib
import http.server
import io
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from tests.golden.support import encoded, model, nets, noise, portrait, random_weights
from udfs import weights as module
from udfs.embed import Embedder
from udfs.fingerprint import model_fingerprint
from udfs.nets import (
    MODEL_FILE_FORMAT,
    NET_NAMES,
    ModelFileError,
    build_nets,
    check_state_dict,
    empty_net,
    read_model_file,
    save_tensors,
)
from udfs.params import PipelineParams
from udfs.random_weights import random_state_dict
from udfs.weights import WeightsError, build_model_file, resolve_weights
from udfs.weights_files import load_state_dict

pytestmark = pytest.mark.unit


class Release(http.server.BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        data = self.files.get(self.path)
        if self.path == "/slow.pt":
            time.sleep(2)
        self.send_response(200 if data is not None else 404)
        length = len(data or b"") + (1000 if self.path == "/short.pt" else 0)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    good = random_weights().path.read_bytes()
    page = b"<html>Please log in</html>"
    monkeypatch.setattr(Release, "files", {"/good.pt": good, "/short.pt": good, "/page.pt": page, "/slow.pt": page})
    monkeypatch.setattr(Release, "asked", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Release)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def published(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(module.PUBLISHED_URLS, "vggface2", url)


def failure(*args: object, **options: object) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        resolve_weights(*args, **options)  # type: ignore[arg-type]
    return caught.value


def test_download_is_recorded_once_and_checked_ever_after(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(monkeypatch, f"{release}/good.pt")
    first = resolve_weights("vggface2", cache_dir=tmp_path)
    assert (first.label, first.trained, first.sha256) == ("vggface2", True, random_weights().sha256)
    assert first == resolve_weights("vggface2", cache_dir=tmp_path, sha256=first.sha256.upper())
    assert Release.asked == ["/good.pt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.pt", "good.pt.sha256"]
    (tmp_path / "good.pt.sha256").write_text("0" * 64)
    error = failure("vggface2", cache_dir=tmp_path)
    assert error.kind == "mismatch"
    assert first.sha256 in str(error)
    assert "0" * 64 in str(error)
    assert "remove" in str(error)


def test_changed_file_in_the_cache(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(monkeypatch, f"{release}/good.pt")
    path = resolve_weights("vggface2", cache_dir=tmp_path).path
    with path.open("ab") as stream:
        stream.write(b"x")
    assert failure("vggface2", cache_dir=tmp_path).kind == "mismatch"


def test_hash_of_the_setting(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(monkeypatch, f"{release}/good.pt")
    error = failure("vggface2", cache_dir=tmp_path, sha256="f" * 64)
    assert (error.kind, error.retryable) == ("mismatch", False)


@pytest.mark.parametrize(
    ("path", "kind"), [("/none.pt", "unavailable"), ("/short.pt", "unavailable"), ("/page.pt", "invalid"),
                       ("/slow.pt", "unavailable")]
)  # fmt: skip
def test_bad_download_leaves_nothing(
    path: str, kind: str, release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(monkeypatch, release + path)
    error = failure("vggface2", cache_dir=tmp_path, timeout_s=0.5)
    assert error.kind == kind
    assert error.retryable == (kind == "unavailable")
    assert list(tmp_path.iterdir()) == []


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(monkeypatch, "http://127.0.0.1:1/x.pt")
    assert failure("vggface2", cache_dir=tmp_path).kind == "unavailable"


def test_random_is_the_same_everywhere(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    again = resolve_weights("random", cache_dir=tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (again.label, again.trained) == ("random(seed=0), UNTRAINED", False)
    # The file of another process on another machine has these tensors, bit for bit.
    assert tensors_digest(again.path) == tensors_digest(random_weights().path) == "3649f3a810cd6f29"


def tensors_digest(path: Path) -> str:
    tensors = load_state_dict(path)
    return hashlib.sha256(b"".join(t.numpy().tobytes() for _, t in sorted(tensors.items()))).hexdigest()[:16]


def test_random_weights_tell_pictures_apart() -> None:
    head = portrait()
    saved = np.array(Image.open(io.BytesIO(encoded(head, "JPEG", quality=70))))
    pictures = np.stack([head, saved, head[::-1], 255 - head, head.transpose(1, 0, 2), noise(160, 160)])
    vectors = Embedder(nets(), PipelineParams()).embed(pictures)
    cosine = (vectors @ vectors.T)[0]
    assert cosine[1] > 0.97
    assert cosine[2:].max() < 0.96
    assert not torch.equal(
        random_state_dict(1)["last_linear.weight"], model().state_dicts["resnet"]["last_linear.weight"]
    )


def test_local_file_with_a_classifier(tmp_path: Path) -> None:
    state = {**model().state_dicts["resnet"], "logits.weight": torch.zeros(7, 512), "logits.bias": torch.zeros(7)}
    path = tmp_path / "my weights.pt"
    torch.save(state, path)
    for source in (str(path), f"file://{str(path).replace(' ', '%20')}"):
        found = resolve_weights(source, cache_dir=tmp_path / "cache")
        assert (found.path, found.label, found.trained) == (path, "file my weights.pt", True)
    built = build_model_file(found, tmp_path / "m.pt")
    assert read_model_file(built).state_dicts["resnet"].keys() == model().state_dicts["resnet"].keys()


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("/tmp/face-reindex-bomb"),))  # noqa: S108 - must never be made


def test_files_that_are_not_weights(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    missing = dict(model().state_dicts["resnet"])
    del missing["last_linear.weight"]
    wrong = {**model().state_dicts["resnet"], "last_linear.weight": torch.zeros(3, 3)}
    unknown = {**model().state_dicts["resnet"], "extra": torch.zeros(1)}
    infinite = {**model().state_dicts["resnet"], "last_linear.weight": torch.full((512, 1792), float("inf"))}
    for content in (missing, wrong, unknown, infinite, torch.zeros(3), {}):
        torch.save(content, path)
        assert failure(str(path), cache_dir=tmp_path / "cache").kind == "invalid"
    for data in (b"", b"text", pickle.dumps(Bomb())):
        path.write_bytes(data)
        assert failure(str(path), cache_dir=tmp_path / "cache").kind == "invalid"
    torch.save({"a": Bomb()}, path)
    assert failure(str(path), cache_dir=tmp_path / "cache").kind == "invalid"
    assert not Path("/tmp/face-reindex-bomb").exists()  # noqa: S108


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    for source in (str(tmp_path / "none.pt"), "https://example.org/w.pt", "vggface3"):
        assert failure(source, cache_dir=tmp_path).kind == "invalid"


def test_model_file_carries_all_nets_and_their_origin(tmp_path: Path) -> None:
    content = model()
    assert content.state_dicts.keys() == {"pnet", "rnet", "onet", "resnet"}
    assert content.meta.label == "random(seed=0), UNTRAINED"
    assert content.meta.trained is False
    assert content.meta.sha256 == random_weights().sha256
    (tmp_path / "bad.pt").write_bytes(random_weights().path.read_bytes())
    with pytest.raises(ModelFileError, match="build_model_file"):
        read_model_file(tmp_path / "bad.pt")


def test_weights_that_change_after_the_check(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(random_weights().path.read_bytes())
    found = resolve_weights(str(path), cache_dir=tmp_path / "cache")
    path.write_bytes(b"other")
    with pytest.raises(WeightsError, match="changed"):
        build_model_file(found, tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()


def test_building_nets_leaves_the_state_dicts_alone() -> None:
    before = model_fingerprint(model().state_dicts, PipelineParams())
    built = build_nets(model(), dtype="bfloat16")
    assert next(built.resnet.parameters()).dtype is torch.bfloat16
    assert built.pnet.weight.dtype is torch.float32
    assert not any(p.requires_grad for p in built.resnet.parameters())
    assert model_fingerprint(model().state_dicts, PipelineParams()) == before


def test_guarantee_14_weights_of_another_kind_are_refused_by_name() -> None:
    good = {key: torch.zeros(tensor.shape) for key, tensor in empty_net("pnet").state_dict().items()}
    shape = good["conv1.bias"].shape
    others: dict[object, object] = {
        0: torch.zeros(1),
        "conv1.bias": torch.zeros(shape).to_sparse(),
        "conv2.bias": torch.zeros(good["conv2.bias"].shape, dtype=torch.bool),
        "conv3.bias": torch.zeros(good["conv3.bias"].shape, dtype=torch.complex64),
        "conv1.weight": torch.zeros(good["conv1.weight"].shape, device="meta"),
        "conv2.weight": "text",
    }
    for key, value in others.items():
        with pytest.raises(ModelFileError, match="pnet"):
            check_state_dict("pnet", {**good, key: value})  # type: ignore[dict-item]
    halves = check_state_dict("pnet", {key: tensor.half() for key, tensor in good.items()})
    assert halves["conv1.bias"].dtype is torch.float16


def test_guarantee_14_a_model_file_that_lacks_something_is_refused_by_name(tmp_path: Path) -> None:
    few = {name: {"x": torch.zeros(1)} for name in NET_NAMES}
    meta = {"label": "l", "trained": True, "source": "s", "sha256": "0"}
    whole = {"format": MODEL_FILE_FORMAT, "nets": few, "meta": meta}
    torch.save(whole, tmp_path / "m.pt")
    assert read_model_file(tmp_path / "m.pt").meta.label == "l"
    for key, value in (
        ("nets", None), ("nets", []), ("nets", {**few, "pnet": None}), ("nets", {**few, "pnet": {0: torch.zeros(1)}}),
        ("nets", {**few, "pnet": {"x": 1}}), ("nets", {**few, "pnet": {"x": torch.zeros(1).to_sparse()}}),
        ("meta", None), ("meta", {"x": 1}), ("meta", {**meta, "trained": "no"}),
    ):  # fmt: skip
        torch.save({**whole, key: value}, tmp_path / "m.pt")
        with pytest.raises(ModelFileError, match="build_model_file"):
            read_model_file(tmp_path / "m.pt")
    torch.save({"format": MODEL_FILE_FORMAT}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="pnet"):
        read_model_file(tmp_path / "m.pt")


def test_a_model_file_has_the_same_bytes_each_time_it_is_built(tmp_path: Path) -> None:
    """Spark refuses another file under a name that an executor has, and a second run of a session has that name."""
    content = {"tensor": torch.arange(4.0)}
    for name in ("one.pt", ".a0b1.other.pt"):
        save_tensors(tmp_path / name, content)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / ".a0b1.other.pt").read_bytes()
