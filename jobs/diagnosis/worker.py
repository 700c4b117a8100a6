"""What a Python process says of itself: the driver, and the workers of the executors."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Final

#: What runs in a worker; another version may decode, compute or talk to Milvus otherwise.
PACKAGES: Final = (
    "torch", "torchvision", "facenet-pytorch", "numpy", "numba", "pillow", "simplejpeg", "pyarrow", "pandas", "pyspark",
    "pymilvus", "pydantic", "tenacity",
)  # fmt: skip


@dataclass(frozen=True)
class Worker:
    """What a worker says of itself; of what a check does not ask, nothing."""

    python: str = ""
    packages: Mapping[str, str | None] = field(default_factory=dict)
    clock: float = 0.0
    device: str = ""
    fault: str = ""

    @classmethod
    def here(cls) -> Worker:
        """This process."""
        return cls(platform.python_version(), {name: version_of(name) for name in PACKAGES}, time.time())


def version_of(package: str) -> str | None:
    """The version of an installed package; None where it is not there."""
    if package == "pyspark":
        # It may be Spark's own copy, which no installer knows.
        import pyspark

        return pyspark.__version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
