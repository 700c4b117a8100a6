"""Addresses of places that hold a secret: no setting and no option takes one, for logs and tables would keep it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

# Also behind a kind of source: `delta:s3a://…`.
_ADDRESS: Final = re.compile(r"(?:[^/]*:)?(?P<scheme>[^:/]*)://+(?P<rest>.*)", re.DOTALL)
#: `container@account` is how these name a place; before any other's `@` stands who asks.
_AZURE: Final = ("abfs", "abfss", "wasb", "wasbs")
_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]@:?#]*)(?::\d{0,5})?"
_BUCKET: Final = r"[^@:?#]*"
# What signed and shared links carry.
_SIGNED: Final = re.compile(
    r"[?&;#](?:[\w.-]*(?:signature|token|passw(?:or)?d|pwd|secret|credential|api-?_?key)|sig|sas|key)=", re.IGNORECASE
)


def holds_credentials(text: str) -> bool:
    """Whether ``text`` is an address with a name and a password, a key or a signature in it.

    A secret may itself have a slash: what stands before the first one has to be a host (and port) or a bucket, and in
    an address of the web, where no path needs it, there is no `@` at all.

    >>> holds_credentials("s3a://KEY:SEC/RET@bucket/x"), holds_credentials("s3a://bucket/mail@host/x")
    (True, False)
    """
    if not (address := _ADDRESS.fullmatch(text)):
        return False
    scheme, rest = address["scheme"].lower(), address["rest"]
    if scheme == "file":
        return False
    authority = rest.split("/", 1)[0]
    if scheme in _AZURE and re.fullmatch(r"[^@:]*@[^@]*", authority):
        authority = authority.partition("@")[2]
    if scheme.startswith("http") and "@" in rest:
        return True
    host = authority.split("?")[0]
    if not re.fullmatch(_BUCKET if scheme.startswith("s3") else _HOST, host):
        return True
    return _SIGNED.search(rest) is not None


def without_credentials(text: str) -> str:
    """``text``, for a field of the settings.

    Raises:
        ValueError: there are credentials in it; they are not repeated.
    """
    if holds_credentials(text):
        raise ValueError("there are credentials in the address; they belong into the environment")
    return text


def with_port(uri: str) -> str:
    """A Milvus server's address with the port at which pymilvus asks it where none is named, and without a path.

    >>> with_port("http://milvus/"), with_port("https://milvus"), with_port("http://milvus:80")
    ('http://milvus:19530', 'https://milvus:443', 'http://milvus:80')
    """
    parts = urlsplit(uri)
    default = "" if parts.port else (":443" if parts.scheme == "https" else ":19530")
    return f"{parts.scheme}://{parts.netloc}{default}"
