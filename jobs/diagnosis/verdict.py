"""What a server was found to be, and which of our ways were never run against such a one by this project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from jobs.index.protocol import Features, parse_version
from jobs.settings import Settings

#: The versions that this project's tests run against. A test holds them to requirements.lock.txt and to the README.
MILVUS: Final = "2.3.5"
MILVUS_LITE: Final = "3.2.2"
# Indexes that no server here could build.
_UNBUILT: Final = ("DISKANN", "GPU_CAGRA")


@dataclass(frozen=True)
class _Way:
    """Something that we do with servers of some kind; ``source``: where it was read what they do then."""

    what: str
    used: Callable[[Features, Settings], bool]
    source: str


def _since(*version: int) -> Callable[[Features, Settings], bool]:
    return lambda features, _: parse_version(features.version) >= version


_WAYS: Final = (
    _Way("bulk import of many files by a job over REST", lambda f, _: f.files_per_job > 1, "Milvus 2.4 to 3.0"),
    _Way("a repeated import under one key", lambda f, _: f.idempotent_import, "Milvus 2.6.24 and 3.0.2"),
    _Way("imports that show their rows when they are committed", lambda f, _: f.two_phase_import, "Milvus 3.0.2"),
    _Way(
        "REST beside TLS",
        lambda f, s: f.files_per_job > 1 and s.milvus.uri.startswith("https://"),
        "Milvus 2.4 to 3.0",
    ),
    _Way("vectors of 16-bit numbers", lambda _, s: s.milvus.vector_type != "float32", "Milvus 2.4 to 3.0"),
    _Way("compaction where deletes lie in segments of their own (L0)", _since(2, 4, 0), "Milvus 2.4 to 3.0"),
    _Way("the two roles' privileges", _since(2, 4, 0), "Milvus 2.4 to 3.0"),
    _Way("restarts and lost nodes in the middle of a load", _since(2, 4, 0), "Milvus 2.4 to 3.0"),
)


@dataclass(frozen=True)
class Verdict:
    """``kind``: ``embedded`` or ``server``; ``never_run``: each way, and the source that it is known from."""

    kind: str
    version: str
    run_with: str
    never_run: tuple[str, ...]

    @property
    def is_run_with(self) -> bool:
        """Whether it is the very version that the tests run against."""
        return parse_version(self.version) == parse_version(self.run_with)

    def lines(self) -> list[str]:
        """In words."""
        what = f"milvus-lite ({self.version})" if self.kind == "embedded" else f"a Milvus server {self.version}"
        tried = "the one that" if self.is_run_with else f"{self.run_with} is the one that"
        lines = [f"It is {what}; {tried} this project's tests run against."]
        if self.never_run:
            lines.append("Never run by this project against such a one, but for what stands above:")
            lines += [f"  {way}" for way in self.never_run]
        return lines

    def record(self) -> dict[str, Any]:
        """For `--json`."""
        return {"kind": self.kind, "version": self.version, "never_run": list(self.never_run)}


def verdict(features: Features, version: str, settings: Settings) -> Verdict:
    """What is known of such a server, and from where."""
    if settings.embedded:
        return Verdict("embedded", version, MILVUS_LITE, ())
    never = [f"{way.what} (read in the source of {way.source})" for way in _WAYS if way.used(features, settings)]
    if settings.milvus.index_type in _UNBUILT:
        never.append(f"an index of type {settings.milvus.index_type} (read in its documentation)")
    return Verdict("server", version, MILVUS, tuple(never))
