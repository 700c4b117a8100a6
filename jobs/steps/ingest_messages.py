"""What `ingest` says when it is done: counts by reason, and what to do about them. No name of a picture or a person."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.formatting import counted
from jobs.governance.basis import BasisImported
from jobs.governance.expansion import Expanded
from jobs.tables.images import DUPLICATE_ID, OTHER_BATCH, Ingested
from udfs.names import NO_SUFFIX, OTHER_SUFFIX


def said_of_batch(batch_id: str, state: str, *, changed: bool, void: bool) -> str:
    """What was recorded of a batch; ``void``: that it was assessed before it was revoked."""
    if void:
        return (
            f"batch {batch_id} STAYS REVOKED: it was assessed no later than it was revoked or erased "
            "(assess it anew, and give `assessed_at` that time)"
        )
    return f"batch {batch_id} {state}{'' if changed else ' (as before)'}"


def said_of_expansion(done: Expanded) -> str:
    """What the lines of a short file came to."""
    return (
        f"{counted(done.lines, 'line')} with these terms: {counted(done.records, 'basis record')} of "
        f"{counted(done.people, 'person')} for {counted(done.images, 'image')}, {done.shared} of them of several "
        f"persons; {counted(done.others, 'image')} of the source in no line"
    )


def said_of_template(rows: int, left: int, files: str) -> list[str]:
    """For how many images a template has a row, and for how many it has none."""
    parts = [f"template for {counted(rows, 'image')} written to {files}"]
    if left:
        parts.append(f"{counted(left, 'image')} more than a spreadsheet holds: give records for them as JSON lines")
    return parts


def said_of_records(done: BasisImported, taken_for: str | None = None) -> list[str]:
    """What an import of basis records did, in parts of a sentence; ``taken_for``: what names without a source were."""
    links = counted(done.new_links, "new link")
    parts = [f"{counted(done.records, 'basis record')}: {done.new_versions} new, {links} to images"]
    if done.absent_links:
        parts.append(
            f"{done.absent_links} of the new links {'is' if done.absent_links == 1 else 'are'} for images that are not "
            "here yet"
        )
    if done.held_absent:
        parts.append(
            f"a legal hold names images that are not here ({counted(done.held_absent, 'link')}): under another name "
            "nothing keeps them"
        )
    if done.held_idle:
        parts.append(
            f"{counted(done.held_idle, 'legal hold')} KEEPING NOTHING: no image is named, or its person was erased: "
            "name the images, by a record of somebody who is in them"
        )
    if taken_for and (done.absent_links or done.held_absent):
        parts.append(f"names were taken for {taken_for}: --ids-of and --batch say otherwise")
    if done.barred:
        parts.append(f"{done.barred} not taken: the persons, or the batches, were erased")
    if done.barred_links:
        parts.append(f"{counted(done.barred_links, 'link')} not taken: the images were erased")
    if done.left_links:
        parts.append(
            f"{counted(done.left_links, 'link')} PERMIT NOTHING: their pictures were left as they were (not taken, or "
            "out of reach), and what is given beside a source is given for what it has: ingest both again"
        )
    if done.quarantined:
        parts.append(
            f"{counted(done.quarantined, 'line')} could not be read (table basis_quarantine): records they name "
            f"are refused until mended; {done.nameless} name none for sure that is known here: what they say is not in "
            "effect"
        )
    return parts


def said_of_images(images: Ingested, *, with_basis: bool) -> list[str]:
    """What an ingestion of images did and did not do, with what to do about it."""
    parts = [
        f"{counted(images.images, 'image')}: {images.new} new, {images.changed} changed, {images.unchanged} unchanged"
        + (f", {images.barred} not taken: they were erased" if images.barred else "")
    ]
    parts += said_of_others(images.refused, images.suffixes)
    if images.batches:
        owners = ", ".join(images.batches)
        parts.append(f"ids of {OTHER_BATCH} belong to {owners}: erase them there, or rename them here")
    if images.twice:
        places = ", one at ".join(f"{one} and {other}" for one, other in images.twice)
        parts.append(f"one key stands at {places} (the shard's name, and a member's up to the first dot): rename them")
    elif DUPLICATE_ID in images.refused:
        parts.append("group the source by image_id to see which ids of it stand more than once")
    if images.broken:
        parts.append(f"what follows the break in {', '.join(images.broken)} is unknown: replace them and ingest again")
    if images.unread:
        parts.append(
            f"{sum(images.unread.values())} without a readable picture: {_counted(images.unread, images.suffixes)}"
        )
    if images.out_of_reach:
        kept = sum(images.out_of_reach.values())
        parts.append(f"{kept} could not be read this time and stay as they were: {_counted(images.out_of_reach)}")
    if images.unbound:
        parts.append(
            f"{counted(images.unbound, 'link')} PERMIT NOTHING: given for pictures to come, and those came in place of "
            "others: give their records again"
        )
    if "OUTSIDE_ROOTS" in {*images.unread, *images.out_of_reach}:
        parts.append("`sources.roots` in the settings names the places beside the source's own that may be read")
    if images.changed and not with_basis:
        parts.append("what was permitted of a changed picture holds for its former bytes: give --basis anew")
    if not with_basis:
        parts.append("no --basis given: images without a basis record are refused")
    return parts


def said_of_others(refused: Mapping[str, int], suffixes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What of a source was met and not taken: by reason, and of files by suffix."""
    return [f"{sum(refused.values())} not taken: {_counted(refused, suffixes)}"] if refused else []


def _counted(reasons: Mapping[str, int], suffixes: Mapping[str, Mapping[str, int]] | None = None) -> str:
    def by_suffix(reason: str) -> str:
        found = (suffixes or {}).get(reason, {})
        return f" ({', '.join(f'{count} {_words(suffix)}' for suffix, count in found.items())})" if found else ""

    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {reason}{by_suffix(reason)}" for reason, count in ordered)


def _words(suffix: str) -> str:
    return {NO_SUFFIX: "without a suffix", OTHER_SUFFIX: "with other suffixes"}.get(suffix, suffix)
