"""What came in and where it went, from a run's own records, and whether the sums agree. Pure: no Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.reporting.timings import Computed, Imports

#: Reasons that the diagram shows on their own; the rest stand together.
_SHOWN: Final = 8
REFUSED, NOW, REUSED, LEFT, PENDING = "refused", "computed", "reused", "left over", "not reached"


@dataclass(frozen=True)
class Recorded:
    """What the steps of a run recorded. ``withdrawn``: staged faces taken out before the proof."""

    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    computed: Computed = field(default_factory=Computed)
    imports: Imports | None = None
    withdrawn: int = 0

    def of(self, step: str) -> Mapping[str, Any]:
        """One step's result; empty where the run did not get there."""
        return self.results.get(step, {})

    @property
    def counts(self) -> Mapping[str, Any]:
        """Every image's outcome, as the proof found it; empty without one."""
        counts: Mapping[str, Any] = self.of("verify").get("counts", {})
        return counts

    @property
    def planned(self) -> int | None:
        """Images that were to be computed; None where that is not on record."""
        images = self.of("plan").get("images")
        return None if images is None else int(images)


@dataclass(frozen=True)
class Link:
    """Images that went one way: ``group`` says how they were dealt with, ``outcome`` how they ended."""

    group: str
    outcome: str
    images: int


@dataclass(frozen=True)
class Check:
    """A sum that must agree: ``total`` against the sum of ``parts``."""

    name: str
    total: int
    parts: tuple[tuple[str, int], ...]
    means: str

    @property
    def difference(self) -> int:
        """What is missing (or, negative, too much) on the right side."""
        return self.total - sum(count for _, count in self.parts)

    @property
    def agrees(self) -> bool:
        """Whether there is no difference."""
        return self.difference == 0


def links(recorded: Recorded) -> list[Link]:
    """Every image once: how it was dealt with and how it ended; as the proof found it, else as far as the run got."""
    found = _proven_links(recorded) if recorded.counts else _links_so_far(recorded)
    return [link for link in found if link.images > 0]


def _proven_links(recorded: Recorded) -> list[Link]:
    statuses, computed = recorded.counts["statuses"], recorded.computed.statuses
    outcomes = {s: n for s, n in statuses.items() if s not in (REFUSED, "left_for_next_run")}
    # What was computed and withdrawn again before the proof is among the refused.
    now = {s: min(n, computed.get(s, 0)) for s, n in outcomes.items()}
    return [
        *(Link(NOW, s, n) for s, n in _largest(now)),
        *(Link(REUSED, s, outcomes[s] - now[s]) for s, _ in _largest(outcomes)),
        Link(LEFT, "", statuses.get("left_for_next_run", 0)),
        *(Link(REFUSED, reason, n) for reason, n in _grouped(refusals(recorded))),
    ]


def _links_so_far(recorded: Recorded) -> list[Link]:
    gate, computed = recorded.of("gate"), recorded.computed
    accepted, planned = int(gate.get("accepted", 0)), recorded.planned
    waiting = accepted - computed.images if planned is None else planned - computed.images
    return [
        *(Link(NOW, s, n) for s, n in _largest(computed.statuses)),
        Link(NOW, "", computed.images - sum(computed.statuses.values())),
        Link(REUSED, "", 0 if planned is None else accepted - planned),
        Link(PENDING, "", waiting),
        *(Link(REFUSED, reason, n) for reason, n in _grouped(refusals(recorded))),
    ]


def refusals(recorded: Recorded) -> dict[str, int]:
    """Refused images by reason, most first: as the proof found them, else as the gate did."""
    reasons = recorded.counts.get("reasons")
    if reasons is None:
        return dict(_largest(recorded.of("gate").get("reasons", {})))
    prefix = f"{REFUSED}:"
    return dict(_largest({name[len(prefix) :]: n for name, n in reasons.items() if name.startswith(prefix)}))


def statuses(recorded: Recorded) -> dict[str, int]:
    """Images by status, most first: as the proof found them, else those that this run computed or refused."""
    if recorded.counts:
        return dict(_largest(recorded.counts["statuses"]))
    refused = recorded.of("gate").get("refused", 0)
    return dict(_largest({**recorded.computed.statuses, **({REFUSED: refused} if refused else {})}))


def other_reasons(recorded: Recorded) -> dict[str, int]:
    """Why images ended without a face, or could not be read: `status:REASON`, most first."""
    reasons = recorded.counts.get("reasons", {})
    return dict(_largest({name: n for name, n in reasons.items() if not name.startswith(f"{REFUSED}:")}))


def checks(recorded: Recorded) -> list[Check]:
    """All sums that the run's records must satisfy, as far as it got."""
    return [*_image_checks(recorded), *_face_checks(recorded)]


def _image_checks(recorded: Recorded) -> list[Check]:
    gate, counts, computed = recorded.of("gate"), recorded.counts, recorded.computed
    found = []
    if "images" in gate:
        reasons = tuple(_largest(gate.get("reasons", {})))
        found.append(Check("Refused at the gate", gate["refused"], reasons, "every refusal has a reason"))
    if "images" in gate and recorded.planned is not None:
        embedded = computed.statuses.get("embedded", 0)
        parts = [
            ("embedded now", embedded),
            ("other statuses now", computed.images - embedded),
            (REUSED, gate["accepted"] - recorded.planned),
            (REFUSED, gate["refused"]),
        ]
        if "stage" not in recorded.results:
            parts.append((PENDING, recorded.planned - computed.images))
        found.append(Check("Images in", gate["images"], tuple(parts), "every image that came in is accounted for"))
    if counts:
        parts = [(name.replace("_", " "), n) for name, n in _largest(counts["statuses"])]
        found.append(Check("Images at the proof", counts["images"], tuple(parts), "every image has one outcome"))
        if "images" in gate:
            same = (("at the proof", int(counts["images"])),)
            found.append(Check("Images at the gate", gate["images"], same, "none came or went in between"))
    return found


def _face_checks(recorded: Recorded) -> list[Check]:
    proof, counts, imports = recorded.of("verify"), recorded.counts, recorded.imports
    found = []
    if imports and recorded.of("import"):
        staged = (("in all staged files", imports.rows),)
        found.append(Check("Faces imported", imports.loaded_rows, staged, "every staged file was loaded once"))
    if not proof:
        return found
    rows = proof["rows_found"]
    if imports:
        parts = (("in the collection", rows), ("withdrawn since staging", recorded.withdrawn))
        found.append(Check("Faces staged", imports.rows, parts, "nothing else came into the collection"))
    found.append(Check("Faces of all images", counts["faces"], (("rows in the collection", rows),), "one row a face"))
    permitted = (("rows in the collection", rows),)
    return [*found, Check("Faces permitted", proof["rows_expected"], permitted, "the index holds them and no others")]


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _grouped(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    rows = _largest(counts)
    if len(rows) <= _SHOWN:
        return rows
    return [*rows[: _SHOWN - 1], ("other reasons", sum(n for _, n in rows[_SHOWN - 1 :]))]
