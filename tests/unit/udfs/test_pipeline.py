from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.golden.support import encoded, group, model_path, nets, noise, portrait, small_astronaut
from udfs.coverage import CoveredPrincipal
from udfs.cuda import CudaError
from udfs.decode import DecodeFailure, decode, detection_view, factor_for
from udfs.device import DeviceMemoryError, HostMemoryError, Placement, ReducedPrecision, device_failed, memory_short
from udfs.embed import Embedder
from udfs.fingerprint import FingerprintMismatch
from udfs.params import PipelineParams
from udfs.pipeline import Pipeline
from udfs.results import STATUSES, Dropped, ImageInput, ImageResult

pytestmark = pytest.mark.unit

ANYONE = (CoveredPrincipal("r1", "p1"),)
ONE = encoded(small_astronaut(200), "JPEG", quality=95)


def three() -> tuple[CoveredPrincipal, ...]:
    return tuple(CoveredPrincipal(f"r{i}", f"p{i}") for i in (3, 1, 2))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(model_path(), detect_batch=4, embed_batch=8)


def run(pipeline: Pipeline, *images: bytes | None, covered: tuple[CoveredPrincipal, ...] = ANYONE) -> list[ImageResult]:
    return list(pipeline.run(ImageInput(str(i), data, covered=covered) for i, data in enumerate(images)))


def test_one_face(pipeline: Pipeline) -> None:
    (result,) = run(pipeline, ONE)
    assert (result.status, result.reason, result.width, result.height) == ("embedded", "", 200, 200)
    assert (result.dropped, result.device) == (Dropped(), "cpu")
    (face,) = result.faces
    assert (face.face_index, face.basis_record_ids) == (0, ("r1",))
    assert face.confidence >= 0.9
    left, top, right, bottom = face.box
    assert 60 < left < right < 130
    assert 20 < top < bottom < 90
    assert face.landmarks.shape == (10,)
    assert face.embedding.shape == (512,)
    assert abs(float(np.linalg.norm(face.embedding)) - 1) < 1e-6


def test_boxes_are_pixels_of_the_stored_image() -> None:
    # 2,600 pixels: decoded at one half, detected at a quarter.
    big = Image.fromarray(small_astronaut(256)).resize((2600, 2600), Image.Resampling.BICUBIC)
    data = encoded(big, "JPEG")
    view = detection_view(decode(data, PipelineParams()), PipelineParams())
    assert (view.pixels.shape, view.scale_x) == ((640, 640, 3), 640 / 2600)
    large, small = run(Pipeline(model_path()), data, encoded(view.pixels))
    assert (large.width, small.width) == (2600, 640)
    assert np.abs(large.faces[0].box * view.scale_x - small.faces[0].box).max() < 0.01
    assert np.abs(large.faces[0].landmarks * view.scale_x - small.faces[0].landmarks).max() < 0.01


def test_small_faces_of_a_large_picture_are_cut_from_finer_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    # Decoded at one half, where the face has fewer pixels than its crop; the file has more.
    small = Image.fromarray(small_astronaut(512)).resize((600, 600), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (2600, 2600), (90, 120, 150))
    picture.paste(small, (1000, 1000))
    pipe, data = Pipeline(model_path()), encoded(picture, "JPEG", quality=95)
    ((finer,),) = (result.faces for result in run(pipe, data))
    side = float((finer.box[2:] - finer.box[:2]).min())
    assert side / 2 < PipelineParams().crop_size
    full = Embedder(nets(), PipelineParams())
    (expected,) = full.embed(full.crops(decode(data, PipelineParams(), factor=1).pixels, finer.box[None]))
    monkeypatch.setattr("udfs.pipeline.factor_for", lambda *_: 8)
    ((coarse,),) = (result.faces for result in run(pipe, data))
    assert float(finer.embedding @ expected) > 1 - 1e-5 > float(coarse.embedding @ expected)


@pytest.mark.parametrize(("side", "factor"), [(10, 1), (319, 1), (320, 2), (640, 4), (1280, 8), (9999, 8)])
def test_factor_leaves_a_face_as_many_pixels_as_its_crop(side: int, factor: int) -> None:
    assert factor_for(side, PipelineParams()) == factor


def test_exif_turns_boxes_with_the_picture(pipeline: Pipeline) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(group(2, side=150))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    plain, rotated = run(pipeline, encoded(upright), encoded(turned, "PNG", exif=exif), covered=three())
    assert (rotated.width, rotated.height) == (plain.width, plain.height) == (300, 150)
    assert [f.box.tolist() for f in rotated.faces] == [f.box.tolist() for f in plain.faces]
    assert len(plain.faces) == 2


def test_every_broken_image_is_a_row_in_its_place(pipeline: Pipeline, tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    good.write_bytes(ONE)
    digest, root = hashlib.sha256(ONE).hexdigest(), str(tmp_path)
    cases: list[tuple[ImageInput, str, str]] = [
        (ImageInput("", ONE, covered=ANYONE), "embedded", ""),
        (ImageInput("", ONE[: len(ONE) // 2], covered=ANYONE), "broken", "TRUNCATED"),
        (ImageInput("", b"not a picture", covered=ANYONE), "broken", "NOT_AN_IMAGE"),
        (ImageInput("", b"", covered=ANYONE), "unreadable", "EMPTY"),
        (ImageInput("", None, covered=ANYONE), "unreadable", "NO_SOURCE"),
        (ImageInput("", None, str(good), digest, ANYONE, root), "embedded", ""),
        (ImageInput("", None, str(good), "0" * 64, ANYONE, root), "unreadable", "CONTENT_CHANGED"),
        (ImageInput("", None, str(tmp_path / "none.jpg"), covered=ANYONE, root=root), "unreadable", "NOT_FOUND"),
        (ImageInput("", None, str(good), digest, ANYONE), "unreadable", "OUTSIDE_ROOTS"),
        (ImageInput("", None, str(good), digest, ANYONE, f"{root}/other"), "unreadable", "OUTSIDE_ROOTS"),
        # What ingestion could not read has no content that a permission could have been given for.
        (ImageInput("", None, str(good), "unread:TIMEOUT:0", ANYONE, root), "unreadable", "TIMEOUT"),
        (ImageInput("", None, str(good), "unread:NOT_AN_IMAGE:0", ANYONE, root), "broken", "NOT_AN_IMAGE"),
        (ImageInput("", None, str(good), "unread:" + "0" * 64, ANYONE, root), "unreadable", "NOT_READ"),
        (ImageInput("", None, "https://example.org/a.jpg", covered=ANYONE), "unreadable", "UNSUPPORTED_SCHEME"),
        (ImageInput("", encoded(noise(4, 4)), covered=ANYONE), "no_face", "NO_FACE"),
        (ImageInput("", encoded(noise(100, 100)), covered=ANYONE), "no_face", "NO_FACE"),
        (ImageInput("", encoded(group(2)), covered=ANYONE), "uncovered_faces", "UNCOVERED_FACES"),
        (ImageInput("", ONE, covered=()), "uncovered_faces", "NO_COVERED_RECORD"),
        (ImageInput("", encoded(portrait()), covered=ANYONE), "embedded", ""),
    ]
    items = [replace(case, image_id=str(i)) for i, (case, _, _) in enumerate(cases * 3)]
    results = list(pipeline.run(items))
    assert [r.image_id for r in results] == [item.image_id for item in items]
    assert [(r.status, r.reason) for r in results] == [(status, reason) for _, status, reason in cases * 3]
    assert all((r.status == "embedded") == bool(r.faces) for r in results)
    assert {r.status for r in results} <= set(STATUSES)


def test_limits_end_as_too_large() -> None:
    pipe = Pipeline(model_path(), PipelineParams(max_pixels=10_000, max_bytes=20_000))
    big, many, fits = run(pipe, encoded(noise(100, 100)), encoded(Image.new("RGB", (200, 200))), encoded(noise(20, 20)))
    assert (big.status, big.reason) == ("too_large", "TOO_LARGE_BYTES")
    assert (many.status, many.reason) == ("too_large", "TOO_MANY_PIXELS")
    assert fits.status == "no_face"


def test_guarantee_2_a_refused_image_is_not_opened(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr("udfs.pipeline.read_bytes", lambda *args, **options: opened.append((args, options)))
    (result,) = run(pipeline, ONE, covered=())
    assert (result.status, result.width, opened) == ("uncovered_faces", None, [])


def test_bystanders_and_boxes(pipeline: Pipeline) -> None:
    picture = encoded(group(3))
    all_three, nobody = (run(pipeline, picture, covered=c)[0] for c in (three(), three()[:2]))
    assert [f.face_index for f in all_three.faces] == [0, 1, 2]
    assert all(f.basis_record_ids == ("r1", "r2", "r3") for f in all_three.faces)
    assert np.diff([f.box[0] for f in all_three.faces]).min() > 0
    assert (nobody.status, nobody.dropped, nobody.faces) == ("uncovered_faces", Dropped(uncovered=3), ())
    middle = tuple(float(v) for v in all_three.faces[1].box)
    (only,) = run(pipeline, picture, covered=(CoveredPrincipal("mine", "me", middle), CoveredPrincipal("x", "y")))
    assert only.dropped == Dropped(uncovered=2)
    assert [(f.face_index, f.basis_record_ids) for f in only.faces] == [(0, ("mine",))]
    assert only.faces[0].box.tolist() == all_three.faces[1].box.tolist()
    assert float(only.faces[0].embedding @ all_three.faces[1].embedding) > 1 - 1e-5


def test_guarantee_16_where_boxes_are_required_a_record_without_covers_nobody(pipeline: Pipeline) -> None:
    strict = Pipeline(model_path(), boxes_only=True)
    assert strict.fingerprint == pipeline.fingerprint
    (face,) = run(pipeline, ONE)[0].faces
    box = tuple(float(v) for v in face.box)
    (without,) = run(strict, ONE)
    assert (without.status, without.reason, without.width) == ("uncovered_faces", "NO_COVERED_RECORD", None)
    (found,) = run(strict, ONE, covered=(*ANYONE, CoveredPrincipal("boxed", "p2", box)))[0].faces
    assert found.basis_record_ids == ("boxed",)


def test_guarantee_16_a_pipeline_that_sees_less_does_not_start() -> None:
    with pytest.raises(ValueError, match="bystander"):
        Pipeline(model_path(), PipelineParams(thresholds=(0.6, 0.7, 0.9)))


def noting(seen: list[int], what: Callable[[Any], int], function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function, which notes ``what`` it is called with."""

    def noted(argument: Any) -> Any:
        seen.append(what(argument))
        return function(argument)

    return noted


def test_guarantee_16_only_covered_faces_reach_the_network(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    embed = pipeline._embedder.embed
    monkeypatch.setattr(pipeline._embedder, "embed", noting(seen, len, embed))
    box = tuple(float(v) for v in run(pipeline, encoded(group(3)), covered=three())[0].faces[0].box)
    seen.clear()
    run(pipeline, encoded(group(3)), covered=(CoveredPrincipal("mine", "me", box),))
    run(pipeline, encoded(group(3)), covered=ANYONE)
    assert sum(seen) == 1


def test_guarantee_16_the_central_person_alone_reaches_the_network(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For evaluation, where a picture is labelled by the person in the middle."""
    central = Pipeline(model_path(), central_only=True)
    assert central.fingerprint == pipeline.fingerprint
    seen: list[int] = []
    embed = central._embedder.embed
    monkeypatch.setattr(central._embedder, "embed", noting(seen, len, embed))
    every = run(pipeline, encoded(group(3)), covered=three())[0].faces
    of_three, alone, refused = run(central, encoded(group(3)), ONE, encoded(group(2)))
    assert (of_three.status, of_three.dropped) == ("embedded", Dropped(uncovered=2))
    assert of_three.faces[0].box.tolist() == every[1].box.tolist()
    assert float(of_three.faces[0].embedding @ every[1].embedding) > 1 - 1e-5
    assert (len(alone.faces), alone.dropped, len(refused.faces)) == (1, Dropped(), 1)
    assert sum(seen) == 3
    (unasked,) = run(central, encoded(group(3)), covered=())
    assert (unasked.status, unasked.reason) == ("uncovered_faces", "NO_COVERED_RECORD")


def test_embedding_does_not_depend_on_its_company(pipeline: Pipeline) -> None:
    pictures = [ONE, encoded(noise(60, 60)), encoded(group(3)), encoded(portrait()), b"junk", encoded(group(2))]
    alone = [run(pipeline, p, covered=three())[0] for p in pictures]
    other = Pipeline(model_path(), detect_batch=3, embed_batch=5, decode_threads=1)
    for together in (run(pipeline, *pictures, covered=three()), run(other, *pictures[::-1], covered=three())[::-1]):
        for one, many in zip(alone, together, strict=True):
            assert (one.status, len(one.faces)) == (many.status, len(many.faces))
            for a, b in zip(one.faces, many.faces, strict=True):
                assert a.box.tolist() == b.box.tolist()
                assert float(a.embedding @ b.embedding) > 1 - 1e-5


class Fails:
    """Stands before a function and fails as told, else lets through."""

    def __init__(self, function: Any, error: BaseException, when: Any) -> None:
        self.function, self.error, self.when = function, error, when
        self.sizes: list[int] = []

    def __call__(self, batch: Sequence[Any]) -> Any:
        self.sizes.append(len(batch))
        if self.when(batch):
            raise self.error
        return self.function(batch)


SHORT = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has …"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    torch.AcceleratorError("CUDA error: out of memory"),
    MemoryError(),
    CudaError("CUDA answered CUDA_ERROR_OUT_OF_MEMORY. Next step: …"),
)


def fresh(**options: Any) -> Pipeline:
    """A pipeline whose passes a test may halve."""
    return Pipeline(model_path(), **options)


@pytest.mark.parametrize("error", SHORT)
def test_where_memory_is_short_fewer_images_are_detected_at_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = fresh(detect_batch=4)
    fails = Fails(pipe._detector.detect, error, lambda b: len(b) > 1)
    monkeypatch.setattr(pipe._detector, "detect", fails)
    pictures = [encoded(noise(30, 30))] * 4
    with caplog.at_level(logging.WARNING):
        assert [r.status for r in run(pipe, *pictures)] == ["no_face"] * 4
    # Each size twice: the second time with nothing else on the device.
    assert fails.sizes == [4, 4, 2, 2, 1, 1, 1, 1]
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "memory was short for detection in 4 images: from now on at most 2 in a call, of 819200 pixels",
        "memory was short for detection in 2 images: from now on at most 1 in a call, of 409600 pixels",
    ]
    # The full pass is not tried again.
    fails.sizes.clear()
    run(pipe, *pictures)
    assert fails.sizes == [1, 1, 1, 1]


def test_large_images_halve_what_a_call_may_hold_and_small_ones_still_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = fresh(params=PipelineParams(detection_long_side=0), detect_batch=8)
    fails = Fails(pipe._detector.detect, SHORT[0], lambda b: sum(i.shape[0] * i.shape[1] for i in b) > 2_000_000)
    monkeypatch.setattr(pipe._detector, "detect", fails)
    large, small = encoded(Image.new("RGB", (1200, 1200))), encoded(noise(30, 30))
    assert {r.status for r in run(pipe, large, large, *[small] * 6)} == {"no_face"}
    assert fails.sizes == [8, 8, 1, 4, 3]


def test_what_fits_with_nothing_beside_it_halves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = fresh(detect_batch=4)
    fails = Fails(pipe._detector.detect, SHORT[0], lambda _: not pipe._turns._alone)
    monkeypatch.setattr(pipe._detector, "detect", fails)
    assert [r.status for r in run(pipe, *[encoded(noise(30, 30))] * 4)] == ["no_face"] * 4
    assert fails.sizes == [4, 4]
    assert pipe._detect_batch == 4


def test_what_a_gpus_libraries_say_is_never_an_images_status() -> None:
    for text in ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
                 "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"):  # fmt: skip
        assert isinstance(memory_short(RuntimeError(text), "cuda:0"), DeviceMemoryError)
    for error in (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), CudaError("CUDA answered …"),
                  torch.AcceleratorError("CUDA error: unspecified launch failure")):  # fmt: skip
        assert memory_short(error, "cuda:0") is None
        assert device_failed(error, "cuda:0")
    assert not device_failed(ValueError("a box"), "cuda:0")


@pytest.mark.parametrize("error", SHORT[::3])
def test_a_single_image_that_does_not_fit_ends_the_task_and_has_no_status(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = fresh(detect_batch=2)
    monkeypatch.setattr(pipe._detector, "detect", Fails(pipe._detector.detect, error, bool))
    kind = HostMemoryError if isinstance(error, MemoryError) else DeviceMemoryError
    with pytest.raises(kind, match=r"not enough for a single image.*Next step: "):
        run(pipe, ONE, ONE)


@pytest.mark.parametrize("error", SHORT[::3])
def test_where_memory_is_short_fewer_faces_are_embedded_at_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = [ONE, encoded(group(2)), encoded(portrait())]
    expected = [face.embedding for r in run(fresh(), *pictures, covered=three()) for face in r.faces]
    pipe = fresh(embed_batch=8)
    # Filled up, as on a GPU: what counts is the size of the pass, and not how many faces are in it.
    pipe._embedder._nets = replace(pipe._embedder._nets, one_shape=True)
    fails = Fails(pipe._embedder._nets.resnet.forward, error, lambda b: len(b) > 2)
    monkeypatch.setattr(pipe._embedder._nets.resnet, "forward", fails)
    with caplog.at_level(logging.WARNING):
        results = run(pipe, *pictures, covered=three())
    found = [face.embedding for r in results for face in r.faces]
    assert {r.status for r in results} == {"embedded"}
    assert all(float(a @ b) > 1 - 1e-5 for a, b in zip(found, expected, strict=True))
    assert fails.sizes == [8, 8, 4, 4, 2, 2]
    assert [r.getMessage().split(" (")[0].split("a pass of ")[1] for r in caplog.records] == [
        "8 faces: from now on 4", "4 faces: from now on 2"
    ]  # fmt: skip
    fails.sizes.clear()
    run(pipe, ONE)
    assert fails.sizes == [2]


def test_a_single_face_that_does_not_fit_ends_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = fresh(embed_batch=4)
    monkeypatch.setattr(pipe._embedder, "embed", Fails(pipe._embedder.embed, SHORT[0], bool))
    with pytest.raises(DeviceMemoryError, match=r"of cpu is not enough.*3.00 GiB were asked for.*gpus_per_task"):
        run(pipe, ONE, encoded(portrait()))
    assert pipe._embedder.batch == 1


def test_unforeseen_errors_name_their_class_only(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fails = Fails(pipeline._detector.detect, ZeroDivisionError("Jane Doe"), lambda b: any(i.shape[0] == 150 for i in b))
    monkeypatch.setattr(pipeline._detector, "detect", fails)
    with caplog.at_level(logging.DEBUG):
        good, bad = run(pipeline, ONE, encoded(group(1, side=150)))
    assert good.status == "embedded"
    assert (bad.status, bad.reason) == ("broken", "INTERNAL_ZeroDivisionError")
    assert "Jane" not in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_an_image_whose_decoding_lacks_memory_is_decoded_again_alone(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    def short_once(data: bytes, params: PipelineParams, *, room: Any = None, **options: Any) -> Any:
        tries.append((room, pipeline._room._used))
        if len(tries) == 1:
            raise MemoryError
        return decode(data, params, room=room, **options)

    monkeypatch.setattr("udfs.pipeline.decode", short_once)
    (result,) = run(pipeline, ONE)
    assert result.status == "embedded"
    # The second time it has all the room there is, and waits for none.
    assert tries == [(pipeline._room, 0), (None, PipelineParams().max_decode_bytes)]
    assert pipeline._room._used == 0


@pytest.mark.parametrize("where", ["udfs.pipeline.decode", "udfs.pipeline.read_bytes", "udfs.pipeline.detection_view"])
def test_an_image_that_does_not_fit_into_memory_ends_the_task(
    where: str, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(where, short)
    with pytest.raises(HostMemoryError, match=r"Next step: .*spark\.executor\.memoryOverhead"):
        run(pipeline, ONE)


def test_crops_that_do_not_fit_into_memory_end_the_task(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline._embedder, "crops", lambda *_: np.zeros(10**15, np.uint8))
    with pytest.raises(HostMemoryError, match="a single image"):
        run(pipeline, ONE)


def test_errors_on_the_decode_threads(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("udfs.pipeline.decode", fail)
    (result,) = run(pipeline, ONE)
    assert (result.status, result.reason) == ("broken", "INTERNAL_KeyError")


@pytest.mark.parametrize("lost", [torch.AcceleratorError("lost"), CudaError("CUDA answered CUDA_ERROR_ECC")])
def test_a_lost_device_ends_the_run(lost: Exception, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udfs.pipeline.device_failed", lambda error, _: device_failed(error, "cuda:0"))
    fails = Fails(pipeline._detector.detect, lost, bool)
    monkeypatch.setattr(pipeline._detector, "detect", fails)
    with pytest.raises(type(lost)):
        run(pipeline, ONE)


def on_a_gpu_that_is_not_there(**options: Any) -> Pipeline:
    return Pipeline(model_path(), placement=Placement("cuda:0"), **options)


def test_on_a_gpu_without_a_compiler_a_compiled_network_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("udfs.pipeline.read_model_file", lambda _: pytest.fail("read"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ValueError, match=r"no gcc and no clang.*leave executor.compile out"):
        on_a_gpu_that_is_not_there(compiled=True)


def test_a_gpu_whose_float32_has_fewer_bits_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udfs.pipeline.float32_losses", lambda _: {"convolution": 0.0, "linear layer": 2**-12})
    with pytest.raises(ReducedPrecision, match="linear layer"):
        on_a_gpu_that_is_not_there()


def test_vectors_that_are_not_finite_never_leave(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline._embedder, "embed", lambda crops: np.full((len(crops), 512), np.nan, np.float32))
    monkeypatch.setattr(pipeline._embedder, "_batch", 2)
    # Four faces in two passes: the second has none left to embed.
    (result,) = run(pipeline, encoded(group(4)), covered=(*three(), CoveredPrincipal("r4", "p4")))
    assert (result.status, result.reason, result.faces) == ("broken", "EMBEDDING_NOT_FINITE", ())
    (result,) = run(pipeline, ONE)
    assert (result.status, result.reason, result.faces) == ("broken", "EMBEDDING_NOT_FINITE", ())


def test_results_flow_before_the_input_ends(pipeline: Pipeline) -> None:
    taken = 0

    def items() -> Any:
        nonlocal taken
        for i in range(200):
            taken += 1
            yield ImageInput(str(i), b"junk" if i % 2 else encoded(noise(30, 30)), covered=ANYONE)

    results = pipeline.run(items())
    next(results)
    assert taken < 60
    assert len(list(results)) == 199


def test_wrong_model_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(FingerprintMismatch, match=pipeline.fingerprint):
        Pipeline(model_path(), expected_fingerprint="0" * 64)
    with pytest.raises(FingerprintMismatch):
        Pipeline(model_path(), PipelineParams(min_face_px=30), expected_fingerprint=pipeline.fingerprint)


def test_no_input_and_notes_on_the_device(pipeline: Pipeline) -> None:
    assert list(pipeline.run([])) == []
    noted = Pipeline(model_path(), placement=Placement("cpu", ("0",), "GPU 0 assigned but CUDA is not available"))
    assert run(noted, b"junk")[0].device == "cpu (GPU 0 assigned but CUDA is not available)"
    assert noted.meta.label == "random(seed=0), UNTRAINED"


def test_pictures_too_large_to_keep_are_decoded_again_for_their_crops(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = run(pipeline, ONE)
    decoded: list[int | None] = []
    monkeypatch.setattr("udfs.pipeline._MOST_KEPT", 10_000)

    def noted(data: bytes, params: PipelineParams, **options: Any) -> Any:
        decoded.append(options.get("factor"))
        return decode(data, params, **options)

    monkeypatch.setattr("udfs.pipeline.decode", noted)
    after, nobody = run(pipeline, ONE, encoded(noise(100, 100)))
    assert (sorted(decoded, key=str), nobody.reason) == ([1, None, None], "NO_FACE")
    assert after.faces[0].box.tolist() == before.faces[0].box.tolist()
    assert float(after.faces[0].embedding @ before.faces[0].embedding) > 1 - 1e-6


def test_what_a_second_decoding_refuses_ends_with_its_reason(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udfs.pipeline._MOST_KEPT", 10_000)

    def refuse(*_: object, **__: object) -> None:
        raise DecodeFailure("too_large", "TOO_MUCH_MEMORY")

    monkeypatch.setattr("udfs.pipeline.decode", refuse)
    (result,) = run(pipeline, ONE)
    assert (result.status, result.reason, result.faces) == ("too_large", "TOO_MUCH_MEMORY", ())


def test_a_batch_ends_where_its_pictures_fill_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipeline(model_path(), detect_batch=4, queue_bytes=100_000)
    sizes: list[int] = []
    detect = pipe._detector.detect
    monkeypatch.setattr(pipe._detector, "detect", noting(sizes, len, detect))
    assert [r.reason for r in run(pipe, *[encoded(noise(150, 150))] * 4)] == ["NO_FACE"] * 4
    assert sizes == [2, 2]
