"""Where embedding weights come from: a published file, a file of one's own, or seeded random numbers.

The published weights were trained on VGGFace2 and CASIA-WebFace, collections of pictures from the web whose
licences have to be read before use. Weights of one's own are first-class.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from udfs.nets import (
    ModelFile,
    ModelFileError,
    ModelMeta,
    StateDict,
    check_state_dict,
    file_sha256,
    load_tensors,
    mtcnn_state_dicts,
    save_model_file,
)
from udfs.random_weights import write_random_weights
from udfs.reading import ReadFailure, read_bytes

_RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
PUBLISHED_URLS = {
    "vggface2": _RELEASE + "20180402-114759-vggface2.pt",
    "casia-webface": _RELEASE + "20180408-102900-casia-webface.pt",
}
MAX_WEIGHTS_BYTES = 2 * 1024**3

Kind = Literal["unavailable", "mismatch", "invalid"]


class WeightsError(Exception):
    """Weights can't be used. ``kind``: ``unavailable`` (a retry may help), ``mismatch`` or ``invalid``."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.retryable = kind == "unavailable"


@dataclass(frozen=True)
class Weights:
    """Checked weights of the embedding network: a local ``state_dict`` file and what it is."""

    path: Path
    sha256: str
    label: str
    trained: bool
    source: str


def resolve_weights(
    source: str, *, cache_dir: str | Path, sha256: str | None = None, seed: int = 0, timeout_s: float = 20.0
) -> Weights:
    """Return checked weights for ``source``, downloading into ``cache_dir`` where needed.

    ``source``: ``vggface2``, ``casia-webface``, ``random`` (from ``seed``; untrained), a local path,
    ``file://``, ``s3://`` or ``s3a://``. ``sha256``: the digest the file must have. A download's digest is
    recorded beside it on first use and must be the same ever after. ``timeout_s`` holds for each wait on the
    network.

    Raises `WeightsError`.
    """
    cache = Path(cache_dir).expanduser()
    if source == "random":
        label, trained = f"random(seed={seed}), UNTRAINED", False
        path = _cached(cache / f"random-v1-seed{seed}.pt", lambda target: write_random_weights(target, seed))
    elif source in PUBLISHED_URLS:
        label, trained = source, True
        url = PUBLISHED_URLS[source]
        path = _cached(cache / url.rsplit("/", 1)[1], lambda target: _download(url, target, timeout_s))
    elif source.startswith(("s3://", "s3a://")):
        label, trained = f"file {source.rsplit('/', 1)[1]}", True
        name = hashlib.sha256(source.encode()).hexdigest()[:16] + ".pt"
        path = _cached(cache / name, lambda target: _copy_from_store(source, target, timeout_s))
    else:
        path = _local(source)
        label, trained = f"file {path.name}", True
    actual = _verified(path, sha256, cached=path.is_relative_to(cache))
    load_state_dict(path)
    return Weights(path, actual, label, trained, source)


def build_model_file(weights: Weights, out_path: str | Path) -> Path:
    """Write one file with the state dicts of all four networks and the weights' origin; return its path.

    Raises `WeightsError` (``mismatch``) where the weights changed since they were resolved.
    """
    out = Path(out_path)
    if file_sha256(weights.path) != weights.sha256:
        raise WeightsError("mismatch", f"{weights.path.name} changed since it was checked; resolve it again")
    meta = ModelMeta(weights.label, weights.trained, weights.source, weights.sha256)
    nets = {**mtcnn_state_dicts(), "resnet": load_state_dict(weights.path)}
    out.parent.mkdir(parents=True, exist_ok=True)
    return _atomically(out, lambda target: save_model_file(target, ModelFile(nets, meta)))


def load_state_dict(path: Path) -> StateDict:
    """The embedding network's tensors from a ``state_dict`` file. Raises `WeightsError` (``invalid``)."""
    try:
        content = load_tensors(path.read_bytes(), what=path.name)
        if not isinstance(content, dict):
            raise ModelFileError(f"{path.name} is not a state_dict")
        return check_state_dict("resnet", content)
    except ModelFileError as error:
        raise WeightsError("invalid", f"weights {path.name}: {error}") from None


def _local(source: str) -> Path:
    scheme = source.split("://", 1)[0] if "://" in source else ""
    if scheme not in ("", "file"):
        hint = f"{', '.join(PUBLISHED_URLS)}, random, a path, file:// or s3a://"
        raise WeightsError("invalid", f"weights: scheme {scheme!r} is not supported; use {hint}")
    path = Path(unquote(urlsplit(source).path)) if scheme else Path(source).expanduser()
    if not path.is_file():
        raise WeightsError("invalid", f"weights: no file {path.name!r} at the given path; check the setting")
    if not os.access(path, os.R_OK):
        raise WeightsError("invalid", f"weights: {path.name!r} may not be read by this user; check its mode")
    return path.resolve()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _verified(path: Path, expected: str | None, *, cached: bool) -> str:
    actual = file_sha256(path)
    # A published file carries no digest of its own: the first one seen is trusted and kept (trust on first use).
    recorded = _sidecar(path).read_text().strip() if cached and _sidecar(path).exists() else None
    for origin, wanted in (("the setting", expected), ("the record beside the cached file", recorded)):
        if wanted is not None and wanted.lower() != actual:
            raise WeightsError(
                "mismatch",
                f"weights {path.name}: SHA-256 is {actual}, {origin} says {wanted.lower()}; "
                f"if the file is wrong remove it and {_sidecar(path).name} and run again, else correct {origin}",
            )
    return actual


def _cached(path: Path, fetch: Callable[[Path], None]) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)

        def fetch_and_check(target: Path) -> None:
            fetch(target)
            # A proxy's error page must not become the trusted first use.
            load_state_dict(target)
            # The record goes first: a kill in between leaves a record without a file, which the next run renews.
            _record(path, file_sha256(target))

        return _atomically(path, fetch_and_check)
    if not _sidecar(path).exists():
        load_state_dict(path)
        _record(path, file_sha256(path))
    return path


def _record(path: Path, digest: str) -> None:
    _atomically(_sidecar(path), lambda target: _write(target, digest + "\n"))


def _write(target: Path, text: str) -> None:
    target.write_text(text)


def _atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: readers see all of it or nothing."""
    # With the mode that this process gives its files: who shares a cache among users widens the umask.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.touch(exist_ok=False)
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _download(url: str, target: Path, timeout_s: float) -> None:
    name = url.rsplit("/", 1)[1]
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer, target.open("wb") as out:  # noqa: S310 - our table
            shutil.copyfileobj(answer, out, 1 << 20)
            expected = answer.headers.get("Content-Length")
    except (OSError, HTTPException) as error:
        raise WeightsError(
            "unavailable",
            f"weights {name} can't be downloaded ({type(error).__name__}); check the network, "
            "or give a local file, or use `random` for a trial",
        ) from None
    if expected is not None and target.stat().st_size != int(expected):
        raise WeightsError("unavailable", f"weights {name}: the download ended early; run again")


def _copy_from_store(uri: str, target: Path, timeout_s: float) -> None:
    try:
        # The whole file has to come within the limit, so it is wider than that for one answer.
        target.write_bytes(read_bytes(None, uri, timeout_s=timeout_s * 30, max_bytes=MAX_WEIGHTS_BYTES))
    except ReadFailure as failure:
        kind: Kind = "unavailable" if failure.reason in ("TIMEOUT", "IO_ERROR") else "invalid"
        raise WeightsError(kind, f"weights can't be read from the object store: {failure.reason}") from None
