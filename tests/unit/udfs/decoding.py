"""What tests of decoding share."""

from __future__ import annotations

import struct
import zlib

import pytest

from udfs.decode import DecodeFailure, decode
from udfs.params import PipelineParams

PARAMS = PipelineParams()


def failure(data: bytes, params: PipelineParams = PARAMS) -> tuple[str, str]:
    with pytest.raises(DecodeFailure) as caught:
        decode(data, params)
    return caught.value.status, caught.value.reason


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
