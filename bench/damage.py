"""What each kind of picture does to an embedding: its cosine to the same portrait before it was made such a picture.

Both are of one invented person, alike in cut, tilt and light (bench/pictures.py), so what is left is the kind:
rotation, colours, size, a lossy format. The portraits are embedded here, in memory, by the pipeline and the settings of
the run whose vectors they are compared with. With untrained weights none of it says anything of faces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.pictures import Picture, _encode, reference_of

if TYPE_CHECKING:
    from rich.table import Table

    from udfs.params import PipelineParams

#: Of a kind so many at most: the portraits take as long to embed as the pictures did.
AT_MOST: Final = 8


@dataclass(frozen=True)
class Damage:
    """One kind: how many pictures were compared, and their cosines."""

    kind: str
    pictures: int
    median: float
    lowest: float


def damages(
    pictures: Iterable[Picture], vectors: Mapping[str, NDArray[np.float32]], model: Path, params: PipelineParams
) -> list[Damage]:
    """The kinds, the least damaged first.

    Args:
        pictures: those that were indexed.
        vectors: of a picture's one face, by its path; others are left out.
        model: the model file that the vectors were made with.
        params: and the parameters.
    """
    portraits, counts = {}, dict[str, int]()
    for picture in pictures:
        portrait = reference_of(picture) if picture.path in vectors else None
        if portrait is not None and counts.get(picture.kind, 0) < AT_MOST:
            counts[picture.kind] = counts.get(picture.kind, 0) + 1
            portraits[picture.path] = portrait
    kinds = {picture.path: picture.kind for picture in pictures}
    cosines: dict[str, list[float]] = {}
    for path, reference in embedded(portraits, model, params).items():
        cosines.setdefault(kinds[path], []).append(float(reference @ vectors[path]))
    return ordered(cosines)


def ordered(cosines: Mapping[str, list[float]]) -> list[Damage]:
    """Median and lowest of each kind, the highest median first."""
    rows = [Damage(kind, len(found), float(np.median(found)), min(found)) for kind, found in cosines.items() if found]
    return sorted(rows, key=lambda row: -row.median)


def embedded(
    portraits: Mapping[str, Image.Image], model: Path, params: PipelineParams
) -> dict[str, NDArray[np.float32]]:
    """The vector of each portrait's face, where one is found."""
    from udfs.coverage import CoveredPrincipal
    from udfs.device import pick_device
    from udfs.pipeline import Pipeline
    from udfs.results import ImageInput

    herself = (CoveredPrincipal("none", "the portrait's"),)
    items = [
        ImageInput(path, content=_encode(image, "PNG", compress_level=1), covered=herself)
        for path, image in portraits.items()
    ]
    # One thread: several wait for each other wherever something else is at work.
    results = Pipeline(model, params, placement=pick_device(cpu_threads=1)).run(items)
    return {result.image_id: result.faces[0].embedding for result in results if result.faces}


def table(rows: Iterable[Damage]) -> Table:
    """As the demo shows it."""
    from rich.table import Table

    title = "What a kind of picture does to an embedding: cosine to the portrait before"
    shown = Table(title=title, title_justify="left")
    for column in ("kind", "pictures", "median", "lowest"):
        shown.add_column(column, justify="left" if column == "kind" else "right")
    for row in rows:
        shown.add_row(row.kind, str(row.pictures), f"{row.median:.3f}", f"{row.lowest:.3f}")
    return shown
