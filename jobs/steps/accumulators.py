"""Spark accumulators of the embedding stage, for those who watch a run.

They grow when a task ends. A task that was done twice counts twice (Spark sees to it once only for results that reach
the driver), so nothing is decided by them: what became of an image is told by `image_status` and the steps' results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import SparkContext


class Counters:
    """Images that are done, those of them that were decoded, faces embedded, bytes read."""

    def __init__(self, context: SparkContext) -> None:
        self.images = context.accumulator(0)
        self.decoded = context.accumulator(0)
        self.faces = context.accumulator(0)
        self.bytes_read = context.accumulator(0)

    def add(self, images: int, decoded: int, faces: int, bytes_read: int) -> None:
        """On an executor: a batch is done."""
        self.images.add(images)
        self.decoded.add(decoded)
        self.faces.add(faces)
        self.bytes_read.add(bytes_read)

    def totals(self) -> Mapping[str, Callable[[], int]]:
        """How to read each of them, on the driver."""
        return {
            "images_processed": lambda: self.images.value,
            "images_decoded": lambda: self.decoded.value,
            "faces_embedded": lambda: self.faces.value,
            "image_read_bytes": lambda: self.bytes_read.value,
        }
