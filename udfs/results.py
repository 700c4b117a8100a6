"""What goes into the pipeline and what comes out: one image, one result."""

from __future__ import annotations

from dataclasses import dataclass, field

from udfs.arrays import Float32
from udfs.coverage import CoveredPrincipal
from udfs.statuses import STATUSES

__all__ = ["STATUSES", "Dropped", "Face", "ImageInput", "ImageResult"]


@dataclass(frozen=True)
class ImageInput:
    """One image to embed: its bytes or where they are (below ``root``), and the basis records that permit it."""

    image_id: str
    content: bytes | None = None
    uri: str | None = None
    content_sha256: str | None = None
    covered: tuple[CoveredPrincipal, ...] = ()
    root: str | None = None


@dataclass(frozen=True)
class Face:
    """One embedded face. ``box`` and ``landmarks`` are pixels of the stored upright image.

    ``box``: float32 [4], left, top, right, bottom; may reach beyond the image. ``landmarks``: float32 [10], x and y
    of left eye, right eye, nose, left and right corner of the mouth, as seen. ``embedding``: float32 [512], unit
    length.
    """

    face_index: int
    box: Float32
    landmarks: Float32
    confidence: float
    basis_record_ids: tuple[str, ...]
    embedding: Float32


@dataclass(frozen=True)
class Dropped:
    """Detected faces that were not embedded, each counted once, by reason."""

    too_small: int = 0
    low_confidence: int = 0
    over_limit: int = 0
    uncovered: int = 0


@dataclass(frozen=True)
class ImageResult:
    """How one image ended. ``reason`` is a stable code, empty for ``embedded``; sizes in pixels are None if
    unknown. ``byte_size``: bytes that were read for it.

    ``network_s`` is its share of the seconds that the networks computed, ``elapsed_s`` what passed since the result
    before it: over many images their quotient is the part of the time that the device was in use.
    """

    image_id: str
    status: str
    reason: str = ""
    width: int | None = None
    height: int | None = None
    faces: tuple[Face, ...] = ()
    dropped: Dropped = field(default_factory=Dropped)
    device: str = ""
    byte_size: int = 0
    network_s: float = 0.0
    elapsed_s: float = 0.0
