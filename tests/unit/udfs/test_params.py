from __future__ import annotations

import pickle

import pytest

from udfs.params import PipelineParams, check_sight

pytestmark = pytest.mark.unit


def test_round_trip_through_json_values() -> None:
    params = PipelineParams(thresholds=(0.5, 0.6, 0.7), detection_long_side=0)
    assert PipelineParams(**params.to_dict()) == params
    assert pickle.loads(pickle.dumps(params)) == params  # noqa: S301 - our own bytes
    assert hash(PipelineParams(thresholds=[0.6, 0.7, 0.7])) == hash(PipelineParams())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_face_px", 0),
        ("min_face_px", 20.5),
        ("min_face_px", True),
        ("detector_min_face_px", 3),
        ("thresholds", (0.6, 0.7)),
        ("thresholds", (0.6, 0.7, 1.0)),
        ("pyramid_factor", 1.0),
        ("pyramid_factor", float("nan")),
        ("detection_long_side", -1),
        ("detection_long_side", 32),
        ("decode_long_side", 10),
        ("min_confidence", 1.1),
        ("max_faces", 0),
        ("crop_size", 79),
        ("crop_margin_px", 160),
        ("crop_margin_px", -1),
        ("dtype", "float16"),
        ("decoder", "turbojpeg"),
        ("max_pixels", 0),
        ("max_bytes", -5),
        ("cover_iou", 0.0),
    ],
)
def test_bad_value_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        PipelineParams(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("thresholds", (0.61, 0.7, 0.7)),
        ("thresholds", (0.6, 0.71, 0.7)),
        ("thresholds", (0.6, 0.7, 0.71)),
        ("pyramid_factor", 0.7),
        ("detector_min_face_px", 21),
        ("detection_long_side", 639),
    ],
)
def test_guarantee_16_a_detector_that_sees_less_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{name}=.*bystander"):
        check_sight(PipelineParams(**{name: value}))  # type: ignore[arg-type]


def test_guarantee_16_a_detector_that_sees_more_is_none_of_them() -> None:
    check_sight(PipelineParams())
    check_sight(
        PipelineParams(
            thresholds=(0.5, 0.6, 0.6),
            pyramid_factor=0.8,
            detector_min_face_px=12,
            detection_long_side=0,
            min_confidence=1.0,
            min_face_px=500,
            max_faces=1,
        )
    )
