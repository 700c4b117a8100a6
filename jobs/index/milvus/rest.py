"""Milvus's REST interface: one way to call it. What an answer means, and the next step, is told here.

Read in the server's source: 401 and 403 (handler_v2.go, checkAuthorizationV2; service.go, authenticate), 404 with text
(no such route), 408 after 30 s, while the work may go on (timeout_middleware.go), and all other errors as HTTP 200 with
a code (wrapperProxyWithLimit). With TLS REST needs a port of its own (listener_manager.go, newHTTPListner).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import urlsplit

import tenacity

from jobs.addresses import with_port
from jobs.errors import DependencyUnavailable, FaceReindexError, NotPermitted, SettingsError
from jobs.index.milvus.calls import CALL_TIMEOUT_S, CREDENTIALS, privilege_in, safe_text
from jobs.settings import Settings

if TYPE_CHECKING:
    import requests

PREFIX: Final = "/v2/vectordb/"
NOT_NOW: Final = frozenset({1, 2, 8})
"""Not ready, unavailable, rate limit: looked at before anything is begun (pkg/util/merr: CheckHealthy, errors.go)."""
_ATTEMPTS: Final = 3
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TIMED_OUT, _TOO_MANY, _BROKEN = 401, 403, 404, 408, 429, 500
_ROLE: Final = "give it the loader's role in this database with `python -m jobs.index.roles` (docs/operations.md)."
_REACHABLE: Final = "check that the server is up and reachable, then run the same command again."
# What a server's words of refusal mean for the operator: 2.6.20, 3.0.0 internal/datacoord/ddl_callbacks_import.go
# validateImportReplication; milvus #51894 ValidateImportFilePaths; 2.5.27 services.go ImportV2; quotas of a job.
_STEPS: Final = (
    (
        "replicating cluster",
        "this Milvus replicates (CDC), where imports are off: set dataCoord.import.enableInReplicatingCluster on every "
        "cluster (Milvus 3.0), or milvus.load_by=insert.",
    ),
    ("internal storage directory", "set staging.path to a place outside of Milvus's own folders."),
    ("reached the limit", "wait until other import jobs of this Milvus have ended, then run the same command again."),
    ("quota", "see the quotas of this Milvus (disk, memory), then run the same command again."),
)


class Refused(FaceReindexError):
    """The server has answered, and said no; ``code`` is its own."""

    def __init__(self, message: str, code: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class NotNow(DependencyUnavailable):
    """The server has answered that it cannot at this moment, before it began anything."""


class RestClient:
    """Posts to ``milvus.rest_uri`` (without it: ``milvus.uri``)."""

    def __init__(self, settings: Settings, token: str, *, on_403: str | None = None) -> None:
        milvus = settings.milvus
        self._on_403 = on_403 or _ROLE
        self._milvus = milvus
        self._headers = {
            # The bodies of describe, commit and abort have no database: of them only the header counts, and without it
            # the default one (2.5.27 request_v2.go JobIDReq, handler_v2.go wrapperPost).
            "DB-Name": milvus.database,
            # Longer than its 30 s, and shorter than our own wait.
            "Request-Timeout": str(max(1, int(CALL_TIMEOUT_S) - 5)),
        }
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        # requests' names: what the server's certificate is checked against, and the client's own.
        self._tls: dict[str, Any] = {"verify": milvus.ca_file or True}
        if milvus.client_cert_file and milvus.client_key_file:
            self._tls["cert"] = (milvus.client_cert_file, milvus.client_key_file)

    @property
    def base(self) -> str:
        """The address, without a slash at its end.

        Raises:
            SettingsError: there is none.
        """
        milvus = self._milvus
        if milvus.rest_uri:
            return milvus.rest_uri.rstrip("/")
        if milvus.uri.startswith("https://"):
            raise SettingsError(
                "milvus.rest_uri is not set, and Milvus has no REST interface on its gRPC port once that speaks TLS.",
                hint="set milvus.rest_uri to https://HOST:PORT, with its proxy.http.port; or milvus.load_by=insert.",
            )
        return with_port(milvus.uri)

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        action: str,
        headers: Mapping[str, str] | None = None,
        patience_s: float | None = None,
    ) -> dict[str, Any]:
        """What the server answers under ``data``. Where it cannot at this moment (`NotNow`) it is asked again, a few
        times or for ``patience_s`` seconds; a request whose answer was lost is not repeated.

        Raises:
            SettingsError: `base`; or what listens there is no Milvus.
            DependencyUnavailable: no answer, or none yet; the request may have been carried out.
            Refused: it said no.
            FaceReindexError: the credentials or their privileges are not enough.
        """
        stop: Any = tenacity.stop_after_attempt(_ATTEMPTS)
        if patience_s is not None:
            stop = tenacity.stop_after_delay(patience_s)
        retrying = tenacity.Retrying(
            stop=stop,
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=3.0),
            retry=tenacity.retry_if_exception_type(NotNow),
            reraise=True,
        )
        ask: Callable[[], dict[str, Any]] = lambda: self._once(path, body, action, headers or {})  # noqa: E731
        return retrying(ask)

    def _once(self, path: str, body: Mapping[str, Any], action: str, headers: Mapping[str, str]) -> dict[str, Any]:
        import requests

        base, where = self.base, f"REST, {self._shown}"
        try:
            answer = requests.post(
                base + PREFIX + path,
                json={**body, "dbName": self._milvus.database},
                headers={**self._headers, **headers},
                timeout=CALL_TIMEOUT_S,
                **self._tls,
            )
        except requests.exceptions.SSLError:
            raise DependencyUnavailable(
                f"No TLS with Milvus ({where}): its certificate is unknown here, it wants one of ours, or it has none.",
                hint="check milvus.rest_uri and its port, milvus.ca_file and, for mutual TLS, milvus.client_cert_file "
                "and milvus.client_key_file.",
            ) from None
        except requests.RequestException as error:
            raise DependencyUnavailable(
                f"Milvus did not {action} ({where}; {type(error).__name__}).", hint=_REACHABLE
            ) from None
        content = _content(answer)
        if answer.status_code != requests.codes.ok:
            self._refuse(answer.status_code, str(content.get("message") or ""), action, where)
        code = content.get("code")
        if code is None:
            self._no_milvus(where)
        if code != 0:
            _refuse_code(int(code), str(content.get("message") or ""), action, where)
        return content.get("data") or {}

    @property
    def _shown(self) -> str:
        parts = urlsplit(self.base)
        return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"

    def _refuse(self, status: int, message: str, action: str, where: str) -> NoReturn:
        if status == _UNAUTHORIZED:
            raise FaceReindexError(f"Milvus refused the credentials ({action}; {where}).", hint=CREDENTIALS)
        if status == _FORBIDDEN:
            privilege = privilege_in(message)
            of = f" It lacks {privilege}." if privilege else ""
            raise NotPermitted(
                f"Milvus does not permit this account to {action} in database '{self._milvus.database}' ({where}).{of}",
                hint=self._on_403,
                privilege=privilege,
            )
        if status == _NOT_FOUND:
            self._no_milvus(where)
        if status in (_TIMED_OUT, _TOO_MANY) or status >= _BROKEN:
            raise DependencyUnavailable(f"Milvus did not {action} in time ({where}; HTTP {status}).", hint=_REACHABLE)
        raise FaceReindexError(
            f"What listens at {where} refused to {action} (HTTP {status}).",
            hint="check milvus.rest_uri (or milvus.uri), and what stands between: a gateway may answer for Milvus.",
        )

    @staticmethod
    def _no_milvus(where: str) -> NoReturn:
        raise SettingsError(
            f"There is no REST interface of Milvus 2.4 or later at {where}.",
            hint="set milvus.rest_uri to its address with proxy.http.port (and proxy.http.enabled must be on), or "
            "milvus.load_by=insert.",
        )


def _content(answer: requests.Response) -> dict[str, Any]:
    """The answer's JSON object; empty where it is none (a 404 and, before 2.5, a 408 are text)."""
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_code(code: int, message: str, action: str, where: str) -> NoReturn:
    said = _said(message)
    if code in NOT_NOW:
        raise NotNow(f"Milvus could not {action} at this moment ({where}; code {code}{said}).", hint=_REACHABLE)
    step = next((step for words, step in _STEPS if words in message), None)
    raise Refused(f"Milvus refused to {action} ({where}; code {code}{said}).", code, hint=step)


def _said(message: str) -> str:
    """The server's own words, without a token that somebody's gateway may repeat."""
    text = safe_text(ValueError(re.sub(r"(?i)bearer\s+\S+", "…", message)))
    return f": {text}" if text else ""
