"""Bytes of one image, from the row itself or from where it is kept."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import unquote, urlsplit

from pyarrow import fs as arrow_fs
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

T = TypeVar("T")

#: Waiting between two tries grows from the first to the second value, in seconds.
BACKOFF_S = (0.1, 5.0)
_RETRYABLE = frozenset({"TIMEOUT", "IO_ERROR"})


class ReadFailure(Exception):
    """The bytes of an image can't be had; ``reason`` is a stable code.

    NO_SOURCE, EMPTY, NOT_FOUND, ACCESS_DENIED, TIMEOUT, IO_ERROR, TOO_LARGE_BYTES, UNSUPPORTED_SCHEME,
    CONTENT_CHANGED. The text is the code alone: an address may hold a name.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_bytes(
    content: bytes | None,
    uri: str | None,
    *,
    timeout_s: float = 30.0,
    retries: int = 2,
    max_bytes: int = 64 * 1024 * 1024,
    content_sha256: str | None = None,
) -> bytes:
    """Return the image's bytes: ``content`` where it's given, else what ``uri`` points at.

    ``uri`` is a local path, ``file://``, ``s3://`` or ``s3a://`` (endpoint and credentials from the usual
    ``AWS_*`` environment). Other schemes are refused: an indexer that fetches from the web would be a scraper.
    Each try may take ``timeout_s`` seconds; time-outs and I/O errors are tried ``retries`` times more.
    Bytes read from ``uri`` must have the digest ``content_sha256`` (hex) where one is recorded.

    Raises `ReadFailure`.
    """
    if content is not None:
        return _sized(content, max_bytes)
    if not uri:
        raise ReadFailure("NO_SOURCE")
    opener = _opener(uri, timeout_s)
    attempts = Retrying(
        stop=stop_after_attempt(retries + 1),
        wait=wait_exponential(multiplier=BACKOFF_S[0], max=BACKOFF_S[1]),
        retry=retry_if_exception(lambda e: isinstance(e, ReadFailure) and e.reason in _RETRYABLE),
        reraise=True,
    )
    data = attempts(_read_once, opener, timeout_s, max_bytes)
    if content_sha256 and hashlib.sha256(data).hexdigest() != content_sha256.lower():
        raise ReadFailure("CONTENT_CHANGED")
    return data


def open_stream(uri: str, *, timeout_s: float = 30.0, seekable: bool = False) -> IO[bytes]:
    """Open ``uri`` for reading: tar shards and staged files. Same schemes as `read_bytes`; raises OSError."""
    if seekable and uri.startswith(("s3://", "s3a://")):
        return _s3(timeout_s, os.getpid()).open_input_file(uri.split("://", 1)[1])  # type: ignore[no-any-return]
    return _opener(uri, timeout_s)()


def file_system(uri: str, *, timeout_s: float = 30.0, attempts: int = 1) -> tuple[arrow_fs.FileSystem, str, str]:
    """The file system of ``uri``, the path in it, and what to put before a path to make it an address again.

    ``attempts``: requests that S3 is asked before one fails; more than one for who can't repeat the whole himself.
    """
    scheme, _, rest = uri.partition("://")
    if scheme in ("s3", "s3a") and rest:
        return _s3(timeout_s, os.getpid(), attempts), rest, f"{scheme}://"
    if "://" in uri and scheme != "file":
        raise ReadFailure("UNSUPPORTED_SCHEME")
    return arrow_fs.LocalFileSystem(), rest or uri.removeprefix("file:"), ""


def _sized(data: bytes, max_bytes: int) -> bytes:
    if not data:
        raise ReadFailure("EMPTY")
    if len(data) > max_bytes:
        raise ReadFailure("TOO_LARGE_BYTES")
    return data


def _opener(uri: str, timeout_s: float) -> Callable[[], IO[bytes]]:
    scheme, rest = uri.split("://", 1) if "://" in uri else ("", uri)
    if not scheme:
        # `file:/path` is how Hadoop prints local paths.
        path = unquote(rest.removeprefix("file:")) if rest.startswith("file:/") else rest
        return lambda: Path(path).open("rb")
    if scheme == "file":
        return lambda: Path(unquote(urlsplit(uri).path)).open("rb")
    if scheme in ("s3", "s3a"):
        return lambda: _s3(timeout_s, os.getpid()).open_input_stream(rest)
    raise ReadFailure("UNSUPPORTED_SCHEME")


@lru_cache(maxsize=4)
def _s3(timeout_s: float, _pid: int, attempts: int = 1) -> arrow_fs.FileSystem:
    # The process id is part of the key: Spark forks its Python workers, and a client must not cross a fork.
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    return arrow_fs.S3FileSystem(
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or None,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        connect_timeout=timeout_s,
        request_timeout=timeout_s,
        retry_strategy=arrow_fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
    )


def _read_once(opener: Callable[[], IO[bytes]], timeout_s: float, max_bytes: int) -> bytes:
    def read() -> bytes:
        with opener() as stream:
            # One byte more than allowed is enough to know; the rest of a huge file is never read.
            return stream.read(max_bytes + 1)

    try:
        return _sized(_within(read, timeout_s), max_bytes)
    except OSError as error:
        raise ReadFailure(_reason(error)) from None


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "NOT_FOUND"
    if isinstance(error, PermissionError):
        return "ACCESS_DENIED"
    if isinstance(error, TimeoutError):
        return "TIMEOUT"
    # Arrow's S3 client puts the service's answer into the text of a plain OSError.
    text = str(error).upper().replace(" ", "_")
    if "ACCESS_DENIED" in text or "ACCESSDENIED" in text or "HTTP_STATUS_403" in text:
        return "ACCESS_DENIED"
    if "NO_SUCH_KEY" in text or "NO_SUCH_BUCKET" in text or "HTTP_STATUS_404" in text:
        return "NOT_FOUND"
    return "TIMEOUT" if "TIMEOUT" in text or "TIMED_OUT" in text else "IO_ERROR"


def _within(action: Callable[[], T], timeout_s: float) -> T:
    """Run ``action`` on a thread of its own and give up after ``timeout_s``.

    A read that hangs in the kernel (a dead network mount) can't be interrupted from Python; the thread is
    left behind as a daemon, so that the task goes on.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(action())
        except BaseException as error:  # handed to the caller below, whatever it is
            failure.append(error)

    thread = threading.Thread(target=work, name="image-read", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError
    if failure:
        raise failure[0]
    return outcome[0]
