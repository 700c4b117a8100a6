"""What exceptions of Spark and the system are told as: the right exit code, the next step, and no foreign text."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import BadInput, DependencyUnavailable, FaceReindexError, SettingsError
from jobs.runs.error_messages import explained, told_of
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


# As Spark 4 and Hadoop say it; each of a file that people brought.
FOOTER = (
    "[FAILED_READ_FILE.CANNOT_READ_FILE_FOOTER] Encountered error while reading file {0}. Could not read footer. "
    "Please ensure that the file is in either ORC or Parquet format. SQLSTATE: KD001\n"
    "Caused by: java.lang.RuntimeException: {0} is not a Parquet file. Expected magic number at tail"
)
CUT_OFF = "[FAILED_READ_FILE.NO_HINT] Encountered error while reading file {0}. SQLSTATE: KD001\n"
END = "java.io.EOFException: Unexpected end of input stream"
PACKED, FORM = "was cut off, or is not packed as its name says", "cannot be read: it is of another form, was cut off"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FOOTER.format("file:///data/photos/README.md"), FORM),
        (CUT_OFF.format("file:///data/photos/a.parquet"), FORM),
        ("org.apache.spark.SparkException: Parquet column cannot be converted in file", FORM),
        ("[PARQUET_TYPE_ILLEGAL] Illegal Parquet type: FIXED_LEN_BYTE_ARRAY.", FORM),
        (f"{END}\n at org.apache.hadoop.io.compress.DecompressorStream", PACKED),
        ("java.util.zip.ZipException: Not in GZIP format", PACKED),
        ("java.io.IOException: not a gzip file", PACKED),
        ("java.util.zip.DataFormatException: invalid stored block lengths", PACKED),
        ("java.io.IOException: Stream is not BZip2 formatted", PACKED),
        ("[CONFLICTING_PARTITION_COLUMN_NAMES] Conflicting partition column names detected:", "of other partitions"),
    ],
)
def test_a_file_that_is_none_of_its_kind_is_bad_input(text: str, said: str) -> None:
    told = explained(RuntimeError(text), SETTINGS)
    assert type(told) is BadInput
    assert said in str(told)
    assert str(told).count("Next step: ") == 1
    assert "README" not in str(told)


@pytest.mark.parametrize(
    ("source", "basis", "text", "said"),
    [
        ("parquet:/data/my photos/", None, FOOTER.format("file:///data/my%20photos/README.md"),
         "--source parquet:/data/my photos/: README.md cannot be read"),
        ("/data/photos", "/data/b", FOOTER.format("file:/data/photos/day=1/a%20b.parquet"),
         "--source /data/photos: day=1/a b.parquet cannot be read"),
        ("s3a://k/photos", None, FOOTER.format("s3a://k/photos/x.parquet"), "--source s3a://k/photos: x.parquet can"),
        ("/data/photos", "/data/b.jsonl.gz", CUT_OFF.format("file:/data/b.jsonl.gz") + END,
         "--basis /data/b.jsonl.gz was cut off"),
        ("/data/photos", "/data/b", CUT_OFF.format("file:/data/b/w.jsonl.gz") + END,
         "--basis /data/b: w.jsonl.gz was cut off"),
        # No file of theirs: another place that begins alike, or none at all.
        ("/data/photos", None, FOOTER.format("file:/data/photos-2/a.parquet"), "A file of --source /data/photos can"),
        ("/data/photos", "/data/b.jsonl.gz", END, "A file of --source /data/photos or --basis /data/b.jsonl.gz was"),
    ],
)  # fmt: skip
def test_of_what_people_brought_the_file_is_named(source: str, basis: str | None, text: str, said: str) -> None:
    with pytest.raises(BadInput) as told, told_of(SETTINGS, {"--source": source, "--basis": basis}):
        raise RuntimeError(text)
    assert str(told.value).startswith(said)
    assert told.value.exit_code == 1


def test_a_place_below_the_folder_that_a_job_is_started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"^--basis b: w\.jsonl\.gz was cut off"), told_of(SETTINGS, {"--basis": "b"}):
        raise RuntimeError(CUT_OFF.format(f"{(tmp_path / 'b' / 'w.jsonl.gz').as_uri()}") + END)


@pytest.mark.parametrize(
    "error",
    [
        SettingsError("is ours already"),
        RuntimeError("something else"),
        RuntimeError("[FAILED_READ_FILE.NO_HINT] s3a://faces/w/images/part-0.snappy.parquet"),
        RuntimeError(FOOTER.format("file:/data/photos/a.parquet") + "\nAccessDenied"),
    ],
)
def test_what_has_another_cause_is_left_to_who_knows_it(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, told_of(SETTINGS, {"--source": "/data/photos"}):
        raise error
    assert raised.value is error
