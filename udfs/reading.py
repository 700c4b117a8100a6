"""Bytes of one image, from the row itself or from where it is kept.

An address that stands in a table was written by somebody else. It is followed only where the operator said that images
lie (the roots), and there only to regular files, after links are resolved.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import IO, TypeVar
from urllib.parse import unquote, urlsplit

from pyarrow import fs as arrow_fs
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from udfs.names import raw, text
from udfs.patience import Patience

T = TypeVar("T")

#: Between two tries is a random part of what grows from the first to the second value, in seconds: many executors that
#: a store has slowed down would else come again at once.
BACKOFF_S = (0.2, 20.0)
_RETRYABLE = frozenset({"TIMEOUT", "IO_ERROR", "THROTTLED"})
_PATIENCE = Patience()
# Before the stand-in for a digest of bytes that could not be read: no hash of content, and not compared with one.
UNREAD_PREFIX = "unread:"
_S3 = ("s3", "s3a")
_IN_STORE = ("s3://", "s3a://")
# Amazon's and others' words for it; a HEAD request has no body, and so its status alone.
_BUSY = (
    "SLOW_DOWN",
    "SLOWDOWN",
    "THROTTL",
    "REQUEST_LIMIT",
    "SERVICE_UNAVAILABLE",
    "HTTP_STATUS_503",
    "HTTP_STATUS_429",
)
# An address that is longer, or holds what no name of a file is made of, was made to break something.
_LONGEST = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
# Files there are the system's own: its memory, its devices, this process's environment.
_SYSTEM = ("/proc", "/sys", "/dev")


class ReadFailure(Exception):
    """The bytes of an image can't be had; ``reason`` is a stable code.

    NO_SOURCE, EMPTY, NOT_FOUND, ACCESS_DENIED, TIMEOUT, THROTTLED (the store has too much to do), IO_ERROR,
    TOO_LARGE_BYTES, UNSUPPORTED_SCHEME, CONTENT_CHANGED, OUTSIDE_ROOTS (no place that images may be read from),
    BAD_ADDRESS (`..`, a control character, credentials, too long), NOT_A_FILE (a folder, device, pipe or socket). The
    text is the code alone: an address may hold a name, or a secret.
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
    patience_s: float = 0.0,
    max_bytes: int = 64 * 1024 * 1024,
    content_sha256: str | None = None,
    roots: Sequence[str] | None = None,
) -> bytes:
    """Return the image's bytes: ``content`` where it's given, else what ``uri`` points at.

    ``uri`` is a local path, ``file://``, ``s3://`` or ``s3a://`` (endpoint and credentials from the usual
    ``AWS_*`` environment). Other schemes are refused: an indexer that fetches from the web would be a scraper.
    Each try may take ``timeout_s`` seconds; time-outs and I/O errors are tried ``retries`` times more, and an object
    store that is busy or gives no answer to anybody for ``patience_s`` seconds (`Patience`).
    Bytes read from ``uri`` must have the digest ``content_sha256`` (hex) where one is recorded.
    ``roots``: folders and ``s3://bucket/prefix`` that ``uri`` must lie below; None: it may be anywhere, for an address
    that the operator wrote.

    Raises `ReadFailure`.
    """
    if content is not None:
        return _sized(content, max_bytes)
    if not uri:
        raise ReadFailure("NO_SOURCE")
    # One byte more than allowed is enough to know; the rest of a huge file is never read.
    data = read_head(uri, max_bytes + 1, timeout_s=timeout_s, retries=retries, patience_s=patience_s, roots=roots)
    _sized(data, max_bytes)
    if content_sha256 and hashlib.sha256(data).hexdigest() != content_sha256.lower():
        raise ReadFailure("CONTENT_CHANGED")
    return data


def read_head(
    uri: str, size: int, *, timeout_s: float, retries: int, patience_s: float, roots: Sequence[str] | None
) -> bytes:
    """The first ``size`` bytes of what ``uri`` points at, or all there are; at least one. As `read_bytes`.

    Raises `ReadFailure`.
    """
    opener = _opener(uri, timeout_s, roots)
    in_store = uri.startswith(_IN_STORE)

    def is_enough(state: RetryCallState) -> bool:
        failure = state.outcome.exception() if state.outcome else None
        busy = isinstance(failure, ReadFailure) and failure.reason == "THROTTLED"
        over = not in_store or _PATIENCE.is_over(state.start_time, patience_s, busy=busy)
        return over and state.attempt_number > retries

    def is_worth_it(error: BaseException) -> bool:
        again = isinstance(error, ReadFailure) and error.reason in _RETRYABLE
        if in_store and not again:
            _PATIENCE.answered()
        return again

    attempts = Retrying(
        stop=is_enough,
        wait=wait_random_exponential(multiplier=BACKOFF_S[0], max=BACKOFF_S[1]),
        retry=retry_if_exception(is_worth_it),
        reraise=True,
    )
    data = attempts(_read_once, opener, timeout_s, size)
    if in_store:
        _PATIENCE.answered()
    return data


def unread_reason(content_sha256: str | None) -> str | None:
    """Why ingestion could not read an image, by what stands in place of its digest; None: it has one.

    >>> unread_reason("unread:NOT_FOUND:0123"), unread_reason("0123")
    ('NOT_FOUND', None)
    """
    if not content_sha256 or not content_sha256.startswith(UNREAD_PREFIX):
        return None
    reason, separator, _ = content_sha256.removeprefix(UNREAD_PREFIX).partition(":")
    return reason if separator else "NOT_READ"  # former releases kept no reason


def open_stream(
    uri: str, *, timeout_s: float = 30.0, seekable: bool = False, roots: Sequence[str] | None = None
) -> IO[bytes]:
    """Open ``uri`` for reading: tar shards and staged files. As `read_bytes`; raises OSError."""
    if seekable and uri.startswith(_IN_STORE):
        return _s3(timeout_s, os.getpid()).open_input_file(uri.split("://", 1)[1])  # type: ignore[no-any-return]
    return _opener(uri, timeout_s, roots)()


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


def usable_address(uri: str) -> bool:
    """Whether an address holds nothing that was put there to break something."""
    return len(uri) <= _LONGEST and _CONTROL.search(uri) is None


def address_within(uri: str, roots: Sequence[str]) -> bool:
    """Whether an address may be kept: well-formed, and by its text below one of the roots. Nothing is opened."""
    try:
        scheme, rest = _parsed(uri)
    except ReadFailure:
        return False
    if {".", ".."} & set(rest.split("/")):
        return False
    if scheme in _S3:
        return any(_below(rest, root) for root in _object_roots(roots))
    return any(_below(rest, root) for root in roots if root.startswith("/"))


def _opener(uri: str, timeout_s: float, roots: Sequence[str] | None) -> Callable[[], IO[bytes]]:
    scheme, rest = _parsed(uri)
    if scheme in _S3:
        bucket, _, key = rest.partition("/")
        # In front of an `@` would stand credentials.
        if not _BUCKET.fullmatch(bucket) or {".", ".."} & set(key.split("/")):
            raise ReadFailure("BAD_ADDRESS")
        if roots is not None and not any(_below(rest, root) for root in _object_roots(roots)):
            raise ReadFailure("OUTSIDE_ROOTS")
        return lambda: _s3(timeout_s, os.getpid()).open_input_stream(rest)
    if roots is None:
        return lambda: open(raw(rest), "rb")  # noqa: PTH123 - `Path` takes no bytes; who asked closes it
    if not rest.startswith("/") or ".." in rest.split("/"):
        raise ReadFailure("BAD_ADDRESS")
    return lambda: _open_within(rest, roots)


def _parsed(uri: str) -> tuple[str, str]:
    """Scheme ("" for a local path) and the rest: a path, or bucket and key."""
    if not usable_address(uri):
        raise ReadFailure("BAD_ADDRESS")
    if uri.startswith("file:/"):
        # `file:/path` is how Hadoop prints local paths.
        path = uri.removeprefix("file:")
        if path.startswith("//"):
            host, slash, path = path[2:].partition("/")
            if host not in ("", "localhost"):
                raise ReadFailure("BAD_ADDRESS")
            path = slash + path
        path = unquote(path)
        if not usable_address(path):
            raise ReadFailure("BAD_ADDRESS")
        return "", path
    if uri.startswith("/") or "://" not in uri:
        return "", uri
    scheme, rest = uri.split("://", 1)
    if scheme not in _S3:
        raise ReadFailure("UNSUPPORTED_SCHEME")
    return scheme, rest


def _object_roots(roots: Sequence[str]) -> list[str]:
    return [root.split("://", 1)[1] for root in roots if root.split("://", 1)[0] in _S3]


def _below(place: str, root: str) -> bool:
    root = root.rstrip("/")
    return place == root or place.startswith(root + "/")


def _open_within(path: str, roots: Sequence[str]) -> IO[bytes]:
    """Open a regular file that lies, once all links are resolved, below one of the roots."""
    allowed = [text(os.path.realpath(raw(root))) for root in roots if root.startswith("/")]

    def inside(real: bytes) -> bool:
        place = text(real)
        return any(_below(place, root) for root in allowed) and not any(_below(place, s) for s in _SYSTEM)

    real = os.path.realpath(raw(path))
    if not inside(real):
        raise ReadFailure("OUTSIDE_ROOTS")
    if not stat.S_ISREG(os.stat(real).st_mode):  # noqa: PTH116 - by the same text that is opened below
        raise ReadFailure("NOT_A_FILE")
    # Not to wait for a writer, should it have become a pipe meanwhile.
    descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    stream = os.fdopen(descriptor, "rb")
    # What was opened is looked at once more: a folder on the way may have been replaced by a link.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise ReadFailure("NOT_A_FILE")
    if not inside(os.readlink(b"/proc/self/fd/%d" % descriptor)):  # noqa: PTH115 - no path, but the kernel's word
        stream.close()
        raise ReadFailure("OUTSIDE_ROOTS")
    return stream


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


def _read_once(opener: Callable[[], IO[bytes]], timeout_s: float, size: int) -> bytes:
    def read() -> bytes:
        with opener() as stream:
            return stream.read(size)

    try:
        return _sized(_within(read, timeout_s), size)
    except OSError as error:
        raise ReadFailure(reason_of(error)) from None
    except ValueError:
        # What the system's or the store's client says of an address that it cannot make sense of.
        raise ReadFailure("BAD_ADDRESS") from None


def reason_of(error: OSError) -> str:
    """The code of a `ReadFailure` for what the system, or a store's client, says."""
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
    if any(word in text for word in _BUSY):
        return "THROTTLED"
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
