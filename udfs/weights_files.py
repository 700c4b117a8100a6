"""Files of weights: fetched, read and checked. No code out of them is run."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from uuid import uuid4

from udfs.facenet_graph import facenet_state_dict
from udfs.graphdef import MAX_GRAPH_BYTES, GraphError, read_graph
from udfs.nets import ModelFileError, StateDict, check_state_dict, load_tensors
from udfs.reading import ReadFailure, read_bytes

MAX_WEIGHTS_BYTES = 2 * 1024**3

Kind = Literal["unavailable", "mismatch", "invalid"]


class WeightsError(Exception):
    """Weights can't be used. ``kind``: ``unavailable`` (a retry may help), ``mismatch`` or ``invalid``."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.retryable = kind == "unavailable"


def is_graph(name: str) -> bool:
    """Whether a file of this name is taken for a TensorFlow graph."""
    return name.lower().endswith(".pb")


def load_state_dict(path: Path, what: str | None = None) -> StateDict:
    """The embedding network's tensors from a ``state_dict`` file or a frozen graph of facenet (``.pb``).

    ``what``: how messages name the file, where its own name is a temporary one.

    Raises `WeightsError` (``invalid``).
    """
    what = what or path.name
    if is_graph(path.name):
        return _load_graph(path, what)
    try:
        content = load_tensors(path.read_bytes(), what=what)
        if not isinstance(content, dict):
            raise ModelFileError(f"{what} is not a state_dict")
        return check_state_dict("resnet", content)
    except ModelFileError as error:
        raise WeightsError("invalid", f"weights {what}: {error}") from None


def download(url: str, target: Path, timeout_s: float) -> None:
    """Write what ``url`` answers to ``target``. Raises `WeightsError` (``unavailable``)."""
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


def copy_from_store(uri: str, target: Path, timeout_s: float) -> None:
    """Write the object at ``uri`` to ``target``. Raises `WeightsError`."""
    try:
        # The whole file has to come within the limit, so it is wider than that for one answer.
        target.write_bytes(read_bytes(None, uri, timeout_s=timeout_s * 30, max_bytes=MAX_WEIGHTS_BYTES))
    except ReadFailure as failure:
        kind: Kind = "unavailable" if failure.reason in ("TIMEOUT", "THROTTLED", "IO_ERROR") else "invalid"
        raise WeightsError(kind, f"weights can't be read from the object store: {failure.reason}") from None


def write_atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: readers see all of it or nothing."""
    # With the mode that this process gives its files: who shares a cache among users widens the umask.
    # Its name ends as the file's does, for that says how it is read.
    temporary = path.with_name(f".{uuid4().hex}.{path.name}")
    temporary.touch(exist_ok=False)
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_line(path: Path, line: str) -> None:
    """Let ``line`` be the whole of the file ``path``: see `write_atomically`."""
    write_atomically(path, lambda target: _write(target, line + "\n"))


def _write(target: Path, text: str) -> None:
    target.write_text(text, encoding="utf-8")


def _load_graph(path: Path, what: str) -> StateDict:
    try:
        with path.open("rb") as stream:
            # One byte more than is read of a graph: no more memory is taken for a file that grows, or that never ends.
            data = stream.read(MAX_GRAPH_BYTES + 1)
        return facenet_state_dict(read_graph(data))
    except (GraphError, ModelFileError) as error:
        raise WeightsError(
            "invalid", f"weights {what}: {error} (a frozen graph of davidsandberg/facenet's InceptionResnetV1)"
        ) from None
