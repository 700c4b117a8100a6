"""One way to call pymilvus: bounded time, bounded retries, errors of our own tree, and no data in any message."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
import tenacity

from jobs.environment import keep_loopback_direct
from jobs.errors import DependencyUnavailable, FaceReindexError, NotPermitted, SettingsError

T = TypeVar("T")

CALL_TIMEOUT_S = 60.0

# merr codes of Milvus that say "not now": service not ready, unavailable, internal hiccup, rate limit, collection not
# (fully) loaded or recovering, replica, channel, segment and node that are about to come back.
TRANSIENT_CODES = frozenset({1, 2, 4, 5, 8, 103, 106, 400, 401, 500, 501, 503, 600, 601, 602, 901, 902})
NO_DATABASE = 800  # merr's ErrDatabaseNotFound
#: The next step where credentials are refused.
CREDENTIALS = "set FACE_REINDEX_MILVUS_TOKEN, or …_USER and …_PASSWORD, of an account with the loader's role."
TRANSIENT_WORDS = (
    "not ready",
    "unavailable",
    "recovering",
    "no available",
    "not healthy",
    "is not online",
    "connection refused",
    "failed to connect",
    "fail connecting",
    "channel not available",
    "channel distribution",
    "node not found",
    "not fully loaded",
    "rate limit",
    "retry run out",
    "retry timeout",
    # What one component of Milvus says of another that died while it was asked (a query node, during a load): its own
    # retries are over, ours are not.
    "unrecoverable error",
)
_OUT_OF_REACH = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


def prepare_pymilvus() -> None:
    """Set right what pymilvus and gRPC read from the environment, and silence what they print there.

    Whole requests and tracebacks could hold keys, vectors or tokens. ``milvus.uri`` says where Milvus is: of an address
    in the environment pymilvus makes an error as it is imported, where it is none.
    """
    keep_loopback_direct()
    for name in ("MILVUS_URI", "MILVUS_DEFAULT_CONNECTION", "MILVUS_CONN_ALIAS", "MILVUS_CONN_TIMEOUT"):
        os.environ.pop(name, None)
    import pymilvus  # noqa: F401 -- its import configures the loggers, so it comes first

    for name in ("pymilvus", "pymilvus.milvus_client", "pymilvus.bulk_writer", "milvus_lite"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False


_NUMBERS = re.compile(r"[\[{(][^\[\](){}]*\d[^\[\](){}]*[\])}]")
_PRIVILEGE = re.compile(r"Privilege([A-Z]\w+)")
_LONG_NUMBER = re.compile(r"-?\d[\d.eE+-]{7,}")


def safe_text(error: BaseException, limit: int = 240) -> str:
    """The first words of an error, without lists of numbers, long numbers (keys) or anything after a line break.

    >>> safe_text(ValueError("bad vector [0.1, 0.2] for 1234567890123"))
    'bad vector … for …'
    """
    text = str(getattr(error, "message", "") or error).split("\n", 1)[0]
    text = _NUMBERS.sub(lambda m: m[0] if "=" in m[0] and "," not in m[0] else "…", text)
    return _LONG_NUMBER.sub("…", text)[:limit].strip()


def privilege_in(text: str) -> str:
    """The privilege that a server's refusal says is missing; empty where it names none.

    >>> privilege_in("PrivilegeImport: permission deny to loader")
    'Import'
    """
    named = _PRIVILEGE.search(text)
    return named[1] if named else ""


def _grpc_code(error: BaseException) -> Any:
    code = getattr(error, "code", None)
    return code() if callable(code) else code


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    code = _grpc_code(error)
    if code in _OUT_OF_REACH:
        return True
    if isinstance(error, grpc.RpcError):
        return False
    if getattr(error, "retriable", False) or code in TRANSIENT_CODES - {1}:
        return True
    # Code 1 is both "service not ready" and, to pymilvus, "anything unexpected": the words decide.
    text = str(getattr(error, "message", "") or error).lower()
    return any(word in text for word in TRANSIENT_WORDS)


def translate(error: BaseException, action: str, where: str) -> FaceReindexError:
    """The error of our tree that says what ``error`` means."""
    code = _grpc_code(error)
    text = safe_text(error)
    if code == grpc.StatusCode.PERMISSION_DENIED or "permission deny" in text.lower():
        return NotPermitted(
            f"Milvus does not permit this account to {action} ({where}).",
            hint="give it the loader's role with `python -m jobs.index.roles` (docs/operations.md).",
            # gRPC's own errors have it behind their first line.
            privilege=privilege_in(str(error)),
        )
    if code in (grpc.StatusCode.UNAUTHENTICATED, 1800) or "auth check failure" in text.lower():
        return FaceReindexError(
            f"Milvus refused the credentials ({action}, {where}).",
            hint=CREDENTIALS,
        )
    if code == NO_DATABASE or "database not found" in text.lower():
        return SettingsError(
            f"Milvus has no database of the name that milvus.database gives ({action}, {where}).",
            hint="have an administrator create it, or correct the setting.",
        )
    if is_transient(error):
        # pymilvus's own words for an address where nobody is say no more than ``where``.
        why = "" if text.lower().startswith("fail connecting") else f": {text}"
        return DependencyUnavailable(
            f"Milvus did not {action} ({where}){why}.",
            hint="check that the server is up and reachable, then run the same command again.",
        )
    return FaceReindexError(f"Milvus could not {action} ({where}): {text}.")


class Patience:
    """Ends a wait when there was no progress for ``seconds``: one that goes on may take as long as it needs."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._done: int | None = None
        self._since = time.monotonic()

    def look(self, done: int, what: str) -> None:
        """Note how far ``what`` is.

        Raises:
            DependencyUnavailable: it has not moved for too long.
        """
        if done != self._done:
            self._done, self._since = done, time.monotonic()
        elif time.monotonic() - self._since > self._seconds:
            raise DependencyUnavailable(
                f"{what} has made no progress for {self._seconds:g} s.",
                hint="see Milvus's index and query nodes, or raise milvus.index_timeout_s; then run the same command "
                "again.",
            )


def call(
    action: str,
    where: str,
    function: Callable[[], T],
    *,
    attempts: int = 3,
    patience_s: float | None = None,
) -> T:
    """Run ``function``; try transient failures again, ``attempts`` times or for ``patience_s`` seconds.

    ``function`` must be safe to repeat (or ``attempts`` be 1) and set its own time-out.
    """
    from pymilvus.exceptions import MilvusException

    stop = tenacity.stop_after_attempt(attempts) if patience_s is None else tenacity.stop_after_delay(patience_s)
    retrying = tenacity.Retrying(
        stop=stop,
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=3.0),
        retry=tenacity.retry_if_exception(is_transient),
        reraise=True,
    )
    try:
        return retrying(function)
    except FaceReindexError:
        raise
    except (MilvusException, grpc.RpcError, OSError, TimeoutError, ValueError, TypeError) as error:
        raise translate(error, action, where) from None
