"""What exceptions of Spark and the system are told as: the right exit code, the next step, and no foreign text."""

from __future__ import annotations

import pytest

from jobs.errors import DependencyUnavailable, FaceReindexError, SettingsError
from jobs.runs.error_messages import explained
from jobs.settings import load_settings

pytestmark = pytest.mark.unit

SETTINGS = load_settings(overrides=["warehouse=s3a://faces/w", "staging.path=/data/staged"], environ={})
NAME = "jane-doe.jpg"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            PermissionError(13, "Permission denied", f"/data/staged/{NAME}"),
            FaceReindexError,
            "staging.path (/data/staged)",
        ),
        (
            RuntimeError(f"AccessDenied 403 Forbidden on s3a://faces/w/{NAME}"),
            FaceReindexError,
            "warehouse (s3a://faces",
        ),
        (RuntimeError("java.net.UnknownHostException: faces.s3.example"), DependencyUnavailable, "cannot be reached"),
        (RuntimeError("[PYTHON_VERSION_MISMATCH] Python in worker…"), SettingsError, "another Python"),
        (RuntimeError('java.io.IOException: Cannot run program "py"'), SettingsError, "Python is not there"),
        (RuntimeError("Traceback …\nModuleNotFoundError: No module named 'udfs'"), SettingsError, "--py-files"),
        (RuntimeError("Traceback …\nModuleNotFoundError: No module named 'torch'"), SettingsError, "lacks a library"),
        (RuntimeError("Class org.apache.hadoop.fs.s3a.S3AFileSystem not found"), SettingsError, "hadoop-aws"),
        (NotADirectoryError(20, "Not a directory", "/data/staged"), SettingsError, "is a file, or lies below one"),
        (OSError(28, "No space left on device"), FaceReindexError, "disk is full"),
        (
            RuntimeError("java.lang.UnsatisfiedLinkError: /tmp/libzstd.so: failed to map segment from shared object"),
            SettingsError,
            "mounted noexec",
        ),
        (ConnectionRefusedError(111, "Connection refused"), DependencyUnavailable, "Java process ended"),
        (RuntimeError("Traceback …\nudfs.device.DeviceUnavailable: This task …"), FaceReindexError, "GPU and cannot"),
        (RuntimeError("Traceback …\nudfs.device.DeviceMemoryError: The …"), FaceReindexError, "A GPU's memory"),
        (RuntimeError("Traceback …\ntorch.OutOfMemoryError: CUDA out of …"), FaceReindexError, "A GPU's memory"),
        (RuntimeError("Traceback …\nudfs.device.HostMemoryError: The …"), FaceReindexError, "for a single image"),
        (RuntimeError("Traceback …\nudfs.device.ReducedPrecision: This …"), FaceReindexError, "fewer bits"),
        (RuntimeError("Traceback …\nudfs.cuda.CudaError: CUDA …"), FaceReindexError, "detection's kernels"),
    ],
)
def test_a_known_cause_is_told_with_its_next_step(error: Exception, kind: type, message: str) -> None:
    told = explained(error, SETTINGS)
    assert type(told) is kind
    assert message in str(told)
    assert str(told).count("Next step: ") == 1
    assert NAME not in str(told)


def test_the_cause_is_found_behind_what_was_made_of_it() -> None:
    error = RuntimeError("the job failed")
    error.__cause__ = PermissionError(13, "Permission denied")
    assert "may not read or write" in str(explained(error, None))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            f"[FAILED_READ_FILE.NO_HINT] s3a://faces/w/images/_delta_log/0013.json {NAME}",
            "Table images is damaged: its log",
        ),
        (
            f"FileNotFoundException: s3a://faces/w/embeddings/model=f/part-0.snappy.parquet {NAME}",
            "Table embeddings is",
        ),
    ],
)
def test_a_damaged_table_is_named_and_what_to_do(text: str, told: str) -> None:
    error = explained(RuntimeError(text), SETTINGS)
    assert type(error) is FaceReindexError
    assert told in str(error)
    assert "'A damaged table'" in str(error)
    assert NAME not in str(error)


def test_what_is_not_known_is_not_guessed() -> None:
    # A file of the source, in a folder that is called like a table of ours.
    assert explained(RuntimeError("FileNotFoundException: /photos/images/a/part-0.parquet"), SETTINGS) is None
    assert explained(ValueError("something else"), SETTINGS) is None
    # The driver's own: nothing is wrong with the workers.
    assert explained(ModuleNotFoundError("No module named 'openlineage'"), SETTINGS) is None
