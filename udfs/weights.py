"""Where embedding weights come from: a published file, a file of one's own, or seeded random numbers.

The published weights were trained on VGGFace2 and CASIA-WebFace, collections of pictures from the web whose
licences have to be read before use. Weights of one's own are first-class.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from udfs import casia
from udfs.nets import ModelFile, ModelMeta, file_sha256, mtcnn_state_dicts, save_model_file
from udfs.random_weights import write_random_weights
from udfs.weights_files import (
    WeightsError,
    copy_from_store,
    download,
    is_graph,
    load_state_dict,
    write_atomically,
    write_line,
)

__all__ = ["PUBLISHED_URLS", "Weights", "WeightsError", "build_model_file", "resolve_weights"]

_RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
PUBLISHED_URLS = {
    "vggface2": _RELEASE + "20180402-114759-vggface2.pt",
    casia.NAME: _RELEASE + "20180408-102900-casia-webface.pt",
}
_VGGFACE2_LICENCE = "MIT; but trained on VGGFace2, pictures from the web with terms of their own (docs/weights.md)"


@dataclass(frozen=True)
class Weights:
    """Checked weights of the embedding network: a local file and what it is.

    ``sha256`` is the file's; of `casia-webface` the tensors', for that file is written here. ``origin``: for people,
    the way the weights came. ``licence``: what is known of it, of published ones.
    """

    path: Path
    sha256: str
    label: str
    trained: bool
    source: str
    origin: str = ""
    licence: str = ""


def resolve_weights(
    source: str, *, cache_dir: str | Path, sha256: str | None = None, seed: int = 0, timeout_s: float = 20.0
) -> Weights:
    """Return checked weights for ``source``, downloading into ``cache_dir`` where needed.

    ``source``: ``vggface2``, ``casia-webface``, ``random`` (from ``seed``; untrained), a local path,
    ``file://``, ``s3://`` or ``s3a://``. A file is a ``state_dict`` or, by the name ``.pb``, a frozen graph of facenet.
    ``sha256``: the digest that `Weights` must have. A download's digest is recorded beside it on first use and must be
    the same ever after; that of `casia-webface` is known. ``timeout_s`` holds for each wait on the network.

    Raises `WeightsError`.
    """
    cache = Path(cache_dir).expanduser()
    if source == casia.NAME:
        return _casia(cache, sha256, timeout_s)
    licence = ""
    if source == "random":
        label, origin = f"random(seed={seed}), UNTRAINED", "seeded random numbers"
        path = _cached(cache / f"random-v1-seed{seed}.pt", label, lambda target: write_random_weights(target, seed))
    elif source in PUBLISHED_URLS:
        url = PUBLISHED_URLS[source]
        name = url.rsplit("/", 1)[1]
        label, origin, licence = source, f"facenet-pytorch's release {name}", _VGGFACE2_LICENCE
        path = _cached(cache / name, name, lambda target: download(url, target, timeout_s))
    elif source.startswith(("s3://", "s3a://")):
        label = origin = f"file {source.rsplit('/', 1)[1]}"
        name = hashlib.sha256(source.encode()).hexdigest()[:16] + (".pb" if is_graph(source) else ".pt")
        path = _cached(cache / name, label, lambda target: copy_from_store(source, target, timeout_s))
    else:
        path = _local(source)
        label = origin = f"file {path.name}"
    actual = _verified(path, sha256, cached=path.is_relative_to(cache))
    load_state_dict(path)
    if is_graph(path.name):
        origin += ", a TensorFlow graph"
    return Weights(path, actual, label, source != "random", source, f"{origin} (sha256 {actual})", licence)


def build_model_file(weights: Weights, out_path: str | Path) -> Path:
    """Write one file with the state dicts of all four networks and the weights' origin; return its path.

    Raises `WeightsError` (``mismatch``) where the weights changed since they were resolved.
    """
    out = Path(out_path)
    if _identity(weights.source, weights.path) != weights.sha256:
        raise WeightsError("mismatch", f"{weights.path.name} changed since it was checked; resolve it again")
    meta = ModelMeta(weights.label, weights.trained, weights.source, weights.sha256, weights.origin, weights.licence)
    nets = {**mtcnn_state_dicts(), "resnet": load_state_dict(weights.path)}
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(out, lambda target: save_model_file(target, ModelFile(nets, meta)))


def _casia(cache: Path, expected: str | None, timeout_s: float) -> Weights:
    path = casia.fetch(cache, PUBLISHED_URLS[casia.NAME], timeout_s)
    actual = casia.check(path)
    if expected is not None and expected.lower() != actual:
        raise WeightsError(
            "mismatch",
            f"{casia.NAME}: SHA-256 of the tensors is {actual}, the setting says {expected.lower()}; correct it",
        )
    return Weights(path, actual, casia.NAME, True, casia.NAME, casia.origin_of(path), casia.LICENCE)


def _identity(source: str, path: Path) -> str:
    return casia.check(path) if source == casia.NAME else file_sha256(path)


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


def _cached(path: Path, label: str, fetch: Callable[[Path], None]) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)

        def fetch_and_check(target: Path) -> None:
            fetch(target)
            # A proxy's error page must not become the trusted first use.
            load_state_dict(target, label)
            # The record goes first: a kill in between leaves a record without a file, which the next run renews.
            write_line(_sidecar(path), file_sha256(target))

        return write_atomically(path, fetch_and_check)
    if not _sidecar(path).exists():
        load_state_dict(path, label)
        write_line(_sidecar(path), file_sha256(path))
    return path
