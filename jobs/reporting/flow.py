"""What came in and where it went, from a run's own records, and whether the sums agree. Pure: no Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from jobs.embedding import status
from jobs.reporting.timings import Computed, ImportTotals
from jobs.runs.results import Imported, Indexed, Promoted, Reconciled, Screened, Verified
from udfs.statuses import Status

#: Reasons that the diagram shows on their own; the rest stand together.
_SHOWN: Final = 8
REFUSED: Final = status.REFUSED
NOW, REUSED, LEFT, PENDING = "computed", "reused", "left over", "not reached"


@dataclass(frozen=True)
class Recorded:
    """What the steps of a run recorded; None: it did not get there, or an earlier release did not record it.

    ``planned``: images that were to be computed; ``staged``: faces. ``removed``: staged faces taken out before the
    proof.
    """

    screened: Screened | None = None
    planned: int | None = None
    staged: int | None = None
    imported: Imported | None = None
    indexed: Indexed | None = None
    verified: Verified | None = None
    promoted: Promoted | None = None
    computed: Computed = field(default_factory=Computed)
    imports: ImportTotals | None = None
    removed: int = 0

    @property
    def counts(self) -> Reconciled | None:
        """Every image's outcome, as the proof found it."""
        return None if self.verified is None else self.verified.counts


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
    found = _links_so_far(recorded) if recorded.counts is None else _proven_links(recorded, recorded.counts)
    return [link for link in found if link.images > 0]


def _proven_links(recorded: Recorded, counts: Reconciled) -> list[Link]:
    statuses, computed = counts.statuses, recorded.computed.statuses
    outcomes = {s: n for s, n in statuses.items() if s not in (REFUSED, status.LEFT_FOR_NEXT_RUN)}
    # What was computed and removed again before the proof is among the refused.
    now = {s: min(n, computed.get(s, 0)) for s, n in outcomes.items()}
    return [
        *(Link(NOW, s, n) for s, n in _largest(now)),
        *(Link(REUSED, s, outcomes[s] - now[s]) for s, _ in _largest(outcomes)),
        Link(LEFT, "", statuses.get(status.LEFT_FOR_NEXT_RUN, 0)),
        *(Link(REFUSED, reason, n) for reason, n in _grouped(refusals(recorded))),
    ]


def _links_so_far(recorded: Recorded) -> list[Link]:
    gate, computed = recorded.screened or Screened(), recorded.computed
    accepted, planned = gate.accepted or 0, recorded.planned
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
    if recorded.counts is None:
        return dict(_largest(recorded.screened.reasons if recorded.screened is not None else {}))
    prefix, reasons = f"{REFUSED}:", recorded.counts.reasons
    return dict(_largest({name[len(prefix) :]: n for name, n in reasons.items() if name.startswith(prefix)}))


def statuses(recorded: Recorded) -> dict[str, int]:
    """Images by status, most first: as the proof found them, else those that this run computed or refused."""
    if recorded.counts is not None:
        return dict(_largest(recorded.counts.statuses))
    refused = recorded.screened.refused if recorded.screened is not None else 0
    return dict(_largest({**recorded.computed.statuses, **({REFUSED: refused} if refused else {})}))


def other_reasons(recorded: Recorded) -> dict[str, int]:
    """Why images ended without a face, or could not be read: `status:REASON`, most first."""
    reasons = {} if recorded.counts is None else recorded.counts.reasons
    return dict(_largest({name: n for name, n in reasons.items() if not name.startswith(f"{REFUSED}:")}))


def checks(recorded: Recorded) -> list[Check]:
    """All sums that the run's records must satisfy, as far as it got."""
    return [*_image_checks(recorded), *_face_checks(recorded)]


def _image_checks(recorded: Recorded) -> list[Check]:
    gate, counts, computed = recorded.screened, recorded.counts, recorded.computed
    found = []
    # A gate without images is of a run that was given its embeddings.
    came_in = None if gate is None else gate.images
    if gate is not None and came_in is not None:
        accepted, refused = gate.accepted or 0, gate.refused or 0
        found.append(Check("Refused at the gate", refused, tuple(_largest(gate.reasons)), "every refusal has a reason"))
        if recorded.planned is not None:
            embedded = computed.statuses.get(Status.EMBEDDED, 0)
            parts = [
                ("embedded now", embedded),
                ("other statuses now", computed.images - embedded),
                (REUSED, accepted - recorded.planned),
                (REFUSED, refused),
            ]
            if recorded.staged is None:
                parts.append((PENDING, recorded.planned - computed.images))
            found.append(Check("Images in", came_in, tuple(parts), "every image that came in is accounted for"))
    if counts is not None:
        parts = [(name.replace("_", " "), n) for name, n in _largest(counts.statuses)]
        found.append(Check("Images at the proof", counts.images, tuple(parts), "every image has one outcome"))
        if came_in is not None:
            same = (("at the proof", counts.images),)
            found.append(Check("Images at the gate", came_in, same, "none came or went in between"))
    return found


def _face_checks(recorded: Recorded) -> list[Check]:
    verified, imports = recorded.verified, recorded.imports
    found = []
    if imports and recorded.imported is not None:
        staged = (("in all staged files", imports.rows),)
        found.append(Check("Faces imported", imports.loaded_rows, staged, "every staged file was loaded once"))
    if verified is None:
        return found
    rows, faces = verified.proof.rows_found, verified.counts.faces
    if imports:
        parts = (("in the collection", rows), ("removed since staging", recorded.removed))
        found.append(Check("Faces staged", imports.rows, parts, "nothing else came into the collection"))
    found.append(Check("Faces of all images", faces, (("rows in the collection", rows),), "one row a face"))
    permitted = (("rows in the collection", rows),)
    expected = verified.proof.rows_expected
    return [*found, Check("Faces permitted", expected, permitted, "the index holds them and no others")]


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _grouped(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    rows = _largest(counts)
    if len(rows) <= _SHOWN:
        return rows
    return [*rows[: _SHOWN - 1], ("other reasons", sum(n for _, n in rows[_SHOWN - 1 :]))]
