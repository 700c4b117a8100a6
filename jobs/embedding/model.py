"""The networks of a run: weights found and checked, one model file shipped to the executors, one fingerprint."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import DependencyUnavailable, SettingsError
from jobs.private import private_folder
from jobs.settings import Settings
from udfs.fingerprint import model_fingerprint
from udfs.nets import read_model_file
from udfs.params import PipelineParams, long_side_for
from udfs.spark import EmbedSpec
from udfs.weights import Weights, WeightsError, build_model_file, resolve_weights

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Model:
    """The configured networks in one file, and what they are."""

    path: Path
    weights: Weights
    params: PipelineParams
    fingerprint: str

    def described(self) -> dict[str, str]:
        """For people: the fingerprint, the way the weights came, and what is known of their licence."""
        known = {"fingerprint": self.fingerprint[:12], "origin": self.weights.origin, "licence": self.weights.licence}
        return {name: text for name, text in known.items() if text}


def pipeline_params(settings: Settings) -> PipelineParams:
    """The settings that move a result."""
    detection = settings.detection
    long_side = detection.long_side_px
    return PipelineParams(
        min_face_px=detection.min_face_px,
        thresholds=detection.thresholds,
        pyramid_factor=detection.pyramid_factor,
        detection_long_side=long_side_for(detection.smallest_face) if long_side is None else long_side,
        min_confidence=detection.min_confidence,
        max_faces=detection.max_faces,
        crop_margin_px=detection.crop_margin_px,
        dtype=settings.model.dtype,
        decoder=detection.decoder,
        max_pixels=detection.max_pixels,
        max_bytes=detection.max_bytes,
        max_decode_bytes=detection.max_decode_bytes,
        max_scans=detection.max_scans,
    )


def find_model(settings: Settings) -> Model:
    """Resolve the configured weights and build the model file.

    Raises:
        DependencyUnavailable: the weights could not be downloaded.
        SettingsError: they are not what `model.sha256` or the cache's record says, or no weights at all.
    """
    model = settings.model
    try:
        weights = resolve_weights(
            model.weights,
            cache_dir=Path(model.cache_dir).expanduser(),
            sha256=model.sha256,
            seed=model.seed,
            timeout_s=model.download_timeout_s,
        )
        # 90 MB, which executors fetch from here for as long as this process lives.
        folder = Path(tempfile.mkdtemp(prefix="model-", dir=private_folder()))
        path = build_model_file(weights, folder / f"face-reindex-{weights.sha256[:16]}.pt")
    except WeightsError as error:
        kind = DependencyUnavailable if error.kind == "unavailable" else SettingsError
        raise kind(f"model.weights: {error}") from None
    params = pipeline_params(settings)
    return Model(path, weights, params, model_fingerprint(read_model_file(path).state_dicts, params))


def ship_model(spark: SparkSession, model: Model, settings: Settings) -> EmbedSpec:
    """Ship the model file with the application; returns what a Python worker needs to know."""
    spark.sparkContext.addFile(str(model.path))
    executor = settings.executor
    return EmbedSpec(
        model_name=model.path.name,
        fingerprint=model.fingerprint,
        params=model.params,
        embed_batch=executor.embed_batch,
        detect_batch=executor.detect_batch,
        decode_threads=executor.decode_threads,
        read_timeout_s=executor.read_timeout_s,
        read_retries=executor.read_retries,
        store_patience_s=executor.store_patience_s,
        compiled=executor.compile,
        roots=settings.sources.roots,
        boxes_only=settings.governance.coverage == "box",
        gpu_share=executor.gpus_per_task,
        without_gpu=executor.without_gpu,
    )
