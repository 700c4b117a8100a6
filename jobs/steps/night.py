"""A night: from gated images to a proven collection behind the alias, and the erasures that are open meanwhile."""

from __future__ import annotations

from jobs.erasure.run import Outcome, erase_pending
from jobs.errors import StoreMissing
from jobs.index.load_plan import check_load
from jobs.index.protocol import VectorIndex
from jobs.runs.aliases import has_switched
from jobs.runs.record import Run
from jobs.runs.results import BroughtBack, Promoted
from jobs.runs.staging_paths import clear_staging
from jobs.steps.embed import embed_steps
from jobs.steps.load import load_steps
from jobs.steps.promote import promote_steps
from jobs.steps.sync import add_small, permitted_in
from jobs.steps.verify import verify_steps


def night_steps(run: Run, index: VectorIndex, *, recompute: bool) -> None:
    """From gated images to a proven collection behind the alias.

    A run that is resumed behind its switch did all of it, but for the watch that it may have been killed in: its staged
    files are gone, and another import would bring every row into the live collection twice.

    Raises:
        SettingsError: `milvus.load_by`, `milvus.vector_type` or `milvus.index_type` asks for what this Milvus cannot
            do; or its REST interface is not where the settings say.
    """
    if has_switched(run, index):
        if run.result(Promoted) is None:
            promote_steps(run, index)
        clear_staging(run)
        return
    # Before the first image is embedded: that may take hours, and what the settings ask for be what Milvus cannot do.
    check_load(run.settings, index)
    embed_steps(run, recompute=recompute)
    load_steps(run, index)
    verify_steps(run, index)
    promote_steps(run, index)


def erase_open(run: Run, index: VectorIndex) -> Outcome | None:
    """Carry out the erasures that are open; None: they stay so, for a collection on record is not in this index.

    That ends no night: what was asked to be erased is refused by its gate, and leaves the collections that are here. An
    index that was lost, or is another one now, is built anew by it.
    """
    try:
        return erase_pending(run, index)
    except StoreMissing as missing:
        run.job.console.note(str(missing))
        return None


def erase_meanwhile(run: Run, index: VectorIndex, live: str) -> str:
    """Carry out the erasures that were asked for during the night; what is to be said of it, where they stay open.

    A picture that an erased person shares with others was refused whole while it was unsettled, so the others' faces
    may be missing from the new collection: they come back now.
    """
    outcome = erase_open(run, index)
    if outcome is None:
        return "; erasures stay open, for a collection on record is not in this index"
    if outcome.shared:
        with run.step(BroughtBack) as step:
            added = add_small(run, index, live, permitted_in(run, index, live))
            step.result = BroughtBack(added=added.added, left=added.left)
    return ""
