"""The versions that the double stands for, each as the facts that hold for it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.milvus.servers.facts import FACTS, Fact


@dataclass(frozen=True)
class Profile:
    """A server's version."""

    version: str

    def has(self, fact: str) -> bool:
        """Whether a fact holds for this version; one that is not on record is an error."""
        return FACTS[fact].holds(self.version)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """All facts that hold."""
        return tuple(fact for fact in FACTS.values() if fact.holds(self.version))

    @property
    def retention_s(self) -> float:
        """Seconds after its end until a job is forgotten."""
        return 86_400.0 if self.has("forgotten-after-24h") or self.has("tasks-forgotten") else 10_800.0

    @property
    def unknown_job(self) -> int:
        """The code for a job that is not known."""
        return 2101 if self.has("unknown-job-2101") else 2100


# 2.5 is 2.5.27, the last one that was read.
PROFILES = {
    name: Profile("2.5.27" if name == "2.5" else name)
    for name in ("2.4.13", "2.5", "2.6.0", "2.6.7", "2.6.24", "3.0.0", "3.0.2")
}

# What this project's real server is (tests/milvus/server.py). The double has its imports alone, for the faults that a
# real one does not show when it is asked to.
TASKS = Profile("2.3.5")
