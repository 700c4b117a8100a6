"""Names for the array types that the modules exchange, and how long an embedding is."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
AnyArray = NDArray[Any]

#: Numbers of an embedding, as FaceNet (InceptionResnetV1) makes it.
EMBEDDING_DIM: Final = 512
