from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from udfs import reading
from udfs.patience import Patience
from udfs.reading import ReadFailure, read_bytes

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BACKOFF_S", (0.0, 0.0))


def reason(*args: object, **options: object) -> str:
    with pytest.raises(ReadFailure) as caught:
        read_bytes(*args, **options)  # type: ignore[arg-type]
    return caught.value.reason


def test_content_comes_first() -> None:
    assert read_bytes(b"abc", "file:///nowhere") == b"abc"


def test_local_paths_in_every_spelling(tmp_path: Path) -> None:
    path = tmp_path / "a b.bin"
    path.write_bytes(b"abc")
    quoted = str(path).replace(" ", "%20")
    for uri in (str(path), f"file://{quoted}", f"file:{quoted}"):
        assert read_bytes(None, uri) == b"abc"


@pytest.mark.parametrize(("content", "uri", "expected"), [
    (None, None, "NO_SOURCE"), (None, "", "NO_SOURCE"), (b"", None, "EMPTY"), (None, "/nowhere/at/all", "NOT_FOUND"),
    (None, "http://127.0.0.1/x", "UNSUPPORTED_SCHEME"), (None, "https://example.org/x.jpg", "UNSUPPORTED_SCHEME"),
    (None, "ftp://x/y", "UNSUPPORTED_SCHEME"), (None, "/", "IO_ERROR"),
])  # fmt: skip
def test_reasons(content: bytes | None, uri: str | None, expected: str) -> None:
    assert reason(content, uri) == expected


def test_empty_and_too_large_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    assert reason(None, str(path)) == "EMPTY"
    path.write_bytes(b"x" * 11)
    assert reason(None, str(path), max_bytes=10) == "TOO_LARGE_BYTES"
    assert len(read_bytes(None, str(path), max_bytes=11)) == 11
    assert reason(b"x" * 11, None, max_bytes=10) == "TOO_LARGE_BYTES"


def test_digest_of_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert read_bytes(None, str(path), content_sha256=digest.upper()) == b"abc"
    path.write_bytes(b"abd")
    assert reason(None, str(path), content_sha256=digest) == "CONTENT_CHANGED"


class Fails:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, uri: str, timeout_s: float, roots: object) -> object:
        assert timeout_s > 0
        assert roots is None

        def opened() -> object:
            self.calls += 1
            if self.errors:
                raise self.errors.pop(0)
            return Path(uri).open("rb")

        return opened


@pytest.mark.parametrize(("error", "expected", "calls"), [
    (OSError("disk"), "IO_ERROR", 3), (TimeoutError(), "TIMEOUT", 3), (FileNotFoundError(), "NOT_FOUND", 1),
    (PermissionError(), "ACCESS_DENIED", 1), (OSError("AWS Error ACCESS_DENIED during HeadObject"), "ACCESS_DENIED", 1),
    (OSError("AWS Error NO_SUCH_BUCKET"), "NOT_FOUND", 1), (OSError("curlCode: 28, Timeout was reached"), "TIMEOUT", 3),
])  # fmt: skip
def test_only_what_may_pass_is_tried_again(
    error: Exception, expected: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Fails(*[error] * 9)
    monkeypatch.setattr(reading, "_opener", opener)
    assert reason(None, "secret-name.jpg", retries=2) == expected
    assert opener.calls == calls


def test_recovers_within_its_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    opener = Fails(OSError(), OSError())
    monkeypatch.setattr(reading, "_opener", opener)
    assert read_bytes(None, str(tmp_path / "x"), retries=2) == b"abc"
    assert opener.calls == 3


def test_hanging_read_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang() -> object:
        release.wait(30)
        raise OSError

    monkeypatch.setattr(reading, "_opener", lambda *_: hang)
    began = time.monotonic()
    assert reason(None, "x", timeout_s=0.05, retries=1) == "TIMEOUT"
    assert time.monotonic() - began < 20
    release.set()


def test_failure_text_is_the_code_alone(tmp_path: Path) -> None:
    with pytest.raises(ReadFailure) as caught:
        read_bytes(None, str(tmp_path / "jane-doe.jpg"))
    assert str(caught.value) == "NOT_FOUND"
    assert caught.value.__suppress_context__


class Store(BaseHTTPRequestHandler):
    """Enough of S3 to read an object."""

    objects: ClassVar[dict[str, bytes]] = {"/bucket/folder/a.jpg": b"picture bytes"}
    asked: ClassVar[int] = 0
    busy_until: ClassVar[int] = 0

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        Store.asked += 1
        if Store.asked <= Store.busy_until:
            self.send_response(503, "Slow Down")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = self.objects.get(self.path, b"")
        status = 403 if "denied" in self.path else (200 if self.path in self.objects else 404)
        if status == 200 and self.headers.get("Range"):
            status = 206
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if status < 300 else 0))
        if status == 206:
            self.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body and status < 300:
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(reading, "_PATIENCE", Patience())
    Store.asked = Store.busy_until = 0
    reading._s3.cache_clear()
    yield
    reading._s3.cache_clear()
    server.shutdown()
    server.server_close()


def test_object_store(store: None) -> None:
    for scheme in ("s3", "s3a"):
        assert read_bytes(None, f"{scheme}://bucket/folder/a.jpg", timeout_s=10) == b"picture bytes"
    assert reason(None, "s3a://bucket/none.jpg", timeout_s=10, retries=0) == "NOT_FOUND"
    assert reason(None, "s3a://bucket/denied.jpg", timeout_s=10, retries=0) == "ACCESS_DENIED"


def test_a_store_that_is_busy_for_a_while_costs_no_picture(store: None) -> None:
    Store.busy_until = 12
    picture = "s3://bucket/folder/a.jpg"
    assert read_bytes(None, picture, timeout_s=10, retries=1, patience_s=60) == b"picture bytes"
    assert Store.asked > Store.busy_until
    # Without patience it is out of reach after its retries.
    Store.busy_until, before = 10**9, Store.asked
    assert reason(None, picture, timeout_s=10, retries=1) == "THROTTLED"
    assert Store.asked - before == 2


def test_a_store_that_stays_silent_is_waited_for_once() -> None:
    clock = [0.0]
    patience = Patience(lambda: clock[0])
    # An hour of work, then it is silent: whoever asks waits for as long as is allowed, and no longer.
    patience.answered()
    clock[0] = 3_600.0
    assert not patience.is_over(3_599.0, 300.0, busy=False)
    clock[0] = 3_898.0
    assert not patience.is_over(3_599.0, 300.0, busy=False)
    clock[0] = 3_900.0
    assert patience.is_over(3_599.0, 300.0, busy=False)
    # Who comes now finds a store that has been silent for long enough.
    assert patience.is_over(3_900.0, 300.0, busy=False)
    patience.answered()
    clock[0] = 4_000.0
    assert not patience.is_over(3_999.0, 300.0, busy=False)


def test_an_object_that_alone_cannot_be_read_is_not_waited_for_but_a_busy_store_is() -> None:
    clock = [10.0]
    patience = Patience(lambda: clock[0])
    assert not patience.is_over(9.0, 300.0, busy=False)
    patience.answered()
    clock[0] = 11.0
    assert patience.is_over(9.0, 300.0, busy=False)
    assert not patience.is_over(9.0, 300.0, busy=True)
    # While others are served, it is asked again for as long as is allowed since it was first.
    clock[0] = 308.0
    patience.answered()
    assert not patience.is_over(9.0, 300.0, busy=True)
    clock[0] = 309.0
    assert patience.is_over(9.0, 300.0, busy=True)


def test_a_local_file_has_its_retries_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def broken(*_: object) -> bytes:
        tried.append(1)
        raise ReadFailure("IO_ERROR")

    monkeypatch.setattr(reading, "_read_once", broken)
    assert reason(None, str(tmp_path / "a.jpg"), retries=2, patience_s=10**6) == "IO_ERROR"
    assert len(tried) == 3
