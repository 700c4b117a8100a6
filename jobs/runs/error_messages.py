"""What exceptions of Spark, Hadoop and the system mean to the person who runs a job: one sentence and the next step.

Only what is certain is told: where a text names a file or a row, it may name a person, so places are named from the
settings and never from the exception.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from jobs.errors import BadInput, DependencyUnavailable, FaceReindexError, SettingsError
from jobs.schemas import ALL_TABLES
from jobs.settings import Settings

_CAUSES: Final = 8
_BROKEN_FILE: Final = (
    r"FAILED_READ_FILE|FileNotFoundException|FILE_NOT_EXIST|is not a Parquet file|DELTA_LOG_FILE_NOT_FOUND|"
    r"DELTA_TRUNCATED_TRANSACTION_LOG|DELTA_STATE_RECOVER_ERROR|MALFORMED_RECORD|JsonParseException|"
    r"DELTA_VERSIONS_NOT_CONTIGUOUS"
)


@dataclass(frozen=True)
class _Known:
    pattern: str
    kind: type[FaceReindexError]
    message: str
    hint: str


# The first that fits; ``{place}`` is one of the places that the settings name. A traceback in a text is a worker's.
_KNOWN: Final = (
    _Known(
        r"PYTHON_VERSION_MISMATCH|Python in worker has different version",
        SettingsError,
        "The workers run another Python than the driver.",
        "set spark.pyspark.python (or PYSPARK_PYTHON) to a Python of the driver's version and libraries.",
    ),
    _Known(
        r"Cannot run program \"[^\"]*\"",
        SettingsError,
        "The workers' Python is not there.",
        "set spark.pyspark.python (or PYSPARK_PYTHON) to a path that exists on every worker.",
    ),
    _Known(
        r"(?s)Traceback.*No module named '(?:jobs|udfs)",
        SettingsError,
        "The workers do not have this project's code.",
        "give spark-submit --py-files dist/face_reindex-VERSION.zip (made by `make zip`).",
    ),
    _Known(
        r"(?s)Traceback.*No module named",
        SettingsError,
        "The workers' Python lacks a library.",
        "install setup.py's dependencies where spark.pyspark.python points, on every worker.",
    ),
    _Known(
        r"No FileSystem for scheme|S3AFileSystem not found|UnsupportedFileSystemException",
        SettingsError,
        "Spark has no client for the object store of {place}.",
        "add it to spark.jars.packages in the properties file, for s3a:// org.apache.hadoop:hadoop-aws:3.5.0.",
    ),
    _Known(
        r"NoAuthWithAWSException|Unable to load credentials|No AWS Credentials",
        FaceReindexError,
        "There are no credentials for the object store of {place}.",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role.",
    ),
    _Known(
        r"NoSuchBucket|UnknownStoreException|[Bb]ucket does not exist",
        SettingsError,
        "The bucket of {place} does not exist.",
        "make it, or correct the setting.",
    ),
    _Known(
        r"ParentNotDirectoryException|NotDirectoryException|Not a directory|is not a directory",
        SettingsError,
        "{place} is a file, or lies below one.",
        "remove the file, or set another folder.",
    ),
    _Known(
        r"AccessDenied|AccessControlException|Permission denied|Mkdirs failed to create|DELTA_CANNOT_CREATE_LOG_PATH|"
        r"403 Forbidden|Status Code: 403|Read-only file system",
        FaceReindexError,
        "This user may not read or write {place}.",
        "give the user that runs the job rights on it (for s3a:// get, put, list and delete), or set another place.",
    ),
    _Known(
        r"No space left on device|Disk quota exceeded",
        FaceReindexError,
        "A disk is full.",
        "make room where the warehouse, the staging path and spark.local.dir lie; the same --run-id resumes.",
    ),
    _Known(
        r"UnsatisfiedLinkError|failed to map segment from shared object|Could not initialize class org\.xerial\.snappy",
        SettingsError,
        "A native library cannot be loaded: the folder for temporary files of a machine is mounted noexec, or full.",
        "add -Djava.io.tmpdir=FOLDER to spark.executor.extraJavaOptions (and set TMPDIR for Python): a folder that "
        "each worker has, on a file system without noexec.",
    ),
    _Known(
        r"java\.lang\.OutOfMemoryError",
        FaceReindexError,
        "Spark's memory was not enough.",
        "raise spark.driver.memory or spark.executor.memory in the properties file; the same --run-id resumes.",
    ),
    _Known(
        r"udfs\.device\.DeviceUnavailable",
        FaceReindexError,
        "A task was to compute on a GPU and cannot (the worker's lines above say what it saw).",
        "mend that worker's driver, torch or container and run the same command again; or start a run with "
        "executor.without_gpu=processor, where such tasks compute on processors.",
    ),
    _Known(
        r"udfs\.device\.DeviceMemoryError|torch\.OutOfMemoryError|torch\.cuda\.OutOfMemoryError",
        FaceReindexError,
        "A GPU's memory was not enough for a worker.",
        "end what else holds it and run the same command again; or start a run with fewer tasks a GPU (a larger "
        "executor.gpus_per_task) or a smaller executor.detect_batch and executor.embed_batch.",
    ),
    _Known(
        r"udfs\.device\.HostMemoryError",
        FaceReindexError,
        "A worker's memory was not enough for a single image.",
        "raise spark.executor.memoryOverhead, or lower spark.executor.cores, in the properties file; the same --run-id "
        "resumes.",
    ),
    _Known(
        r"udfs\.device\.ReducedPrecision",
        FaceReindexError,
        "A worker's GPU computes float32 with fewer bits than float32 has.",
        "unset NVIDIA_TF32_OVERRIDE and TORCH_ALLOW_TF32_CUBLAS_OVERRIDE on the executors; the same --run-id resumes.",
    ),
    _Known(
        r"udfs\.cuda\.CudaError",
        FaceReindexError,
        "A worker's GPU cannot compile or run detection's kernels.",
        "read the executor's log for what CUDA answered; the driver must be one for torch's CUDA (nvidia-smi tells); "
        "the same --run-id resumes.",
    ),
    _Known(
        r"UnknownHostException|ConnectException|NoRouteToHostException|ConnectTimeoutException|"
        r"Unable to execute HTTP request|SdkClientException",
        DependencyUnavailable,
        "{place} cannot be reached.",
        "check the address and the network, then run the same command again.",
    ),
    _Known(
        r"Py4JNetworkError|\AConnectionRefusedError|Answer from Java side is empty|SparkContext was shut down",
        DependencyUnavailable,
        "Spark's Java process ended while the job ran.",
        "see its log for the reason (the system may have ended it for want of memory); the same --run-id resumes.",
    ),
)


# What people brought, read as what it was said to be, and is not; ``{what}`` names it.
_BROUGHT: Final = (
    _Known(
        r"(?i:not in gzip format|not a gzip file)|incorrect (?:header|data) check|unknown compression method|"
        r"stored gzip |Unexpected end of (?:ZLIB )?input stream|ZipException|DataFormatException|not BZip2 formatted|"
        r"bad block header|Unknown frame descriptor",
        BadInput,
        "{what} was cut off, or is not packed as its name says.",
        "bring that file anew (`gzip -t FILE` looks at one), or unpack it and give it without .gz.",
    ),
    _Known(
        r"CONFLICTING_(?:PARTITION_COLUMN_NAMES|DIRECTORY_STRUCTURES)|Conflicting (?:partition column names|directory "
        r"structures)|Empty partition column",
        BadInput,
        "{what} lies in a folder (name=value) of other partitions than the others.",
        "give each folder by itself, but for those of partitions, all of the same names.",
    ),
    _Known(
        r"CANNOT_READ_FILE_FOOTER|is not a Parquet file|FAILED_READ_FILE|ParquetDecodingException|PARQUET_TYPE_ILLEGAL|"
        r"Illegal Parquet type|PARQUET_COLUMN_DATA_TYPE_MISMATCH|Parquet column cannot be converted",
        BadInput,
        "{what} cannot be read: it is of another form, was cut off, is gone, or has columns of other types.",
        "look at that file: bring it anew, or move it out of the folder.",
    ),
)
_UNNAMED: Final = "A file (Spark's own lines above name it)"


def explained(error: BaseException, settings: Settings | None) -> FaceReindexError | None:
    """The error of our tree that says what a foreign one means; None where it is none of those that are known."""
    text = "\n".join(_texts(error))
    for known in _KNOWN:
        if re.search(known.pattern, text):
            return known.kind(known.message.format(place=_place(text, settings)), hint=known.hint)
    return _damaged(text, settings) or _of_brought(text, _UNNAMED)


@contextmanager
def told_of(settings: Settings, brought: Mapping[str, str | None]) -> Iterator[None]:
    """What is wrong with files that people ``brought`` (by option) is told with the option, the place and the file."""
    try:
        yield
    except FaceReindexError:
        raise
    except Exception as error:
        if os.environ.get("FACE_REINDEX_TRACEBACK"):
            raise
        text = "\n".join(_texts(error))
        known = any(re.search(known.pattern, text) for known in _KNOWN) or _damaged(text, settings)
        told = None if known else _of_brought(text, _what(text, brought))
        if told is None:
            raise
        raise told from error


def _of_brought(text: str, what: str) -> FaceReindexError | None:
    for known in _BROUGHT:
        if re.search(known.pattern, text):
            return known.kind(known.message.format(what=what), hint=known.hint)
    return None


def _what(text: str, brought: Mapping[str, str | None]) -> str:
    """What of it a text names, as far as it does."""
    given = {option: place for option, place in brought.items() if place}
    for option, place in given.items():
        location = re.sub(r"^(?:folder|parquet|webdataset|delta):", "", place).rstrip("/")
        whole = str(Path(location).absolute()) if "://" not in location else location
        for name in (whole, quote(whole, safe="/:=@+,;~!$&'()*")):
            if found := re.search(re.escape(name) + r"(?:/([^\s'\"]*[^\s'\".,:;]))?(?![\w-])", text):
                return f"{option} {place}: {unquote(found[1])}" if found[1] else f"{option} {place}"
    return f"A file of {' or '.join(f'{option} {place}' for option, place in given.items())}" if given else _UNNAMED


def _damaged(text: str, settings: Settings | None) -> FaceReindexError | None:
    """A file of one of our tables that its log names and that is gone, or that cannot be read."""
    if settings is None or not re.search(_BROKEN_FILE, text):
        return None
    tables = "|".join(spec.name for spec in ALL_TABLES)
    found = re.search(rf"/({tables})/(_delta_log/)?(?:[^/\s]+/)*[^/\s]+\.(?:parquet|json|bin)", text)
    if found is None or (settings.warehouse_is_path and not _names(text, settings.warehouse)):
        return None
    what = "its log cannot be read" if found[2] else "a file that its log names is gone or cannot be read"
    return FaceReindexError(
        f"Table {found[1]} is damaged: {what} (Spark's own lines above name the file).",
        hint="see 'A damaged table' in docs/operations.md: what can be made again, and what only a backup has.",
    )


def _texts(error: BaseException) -> Iterator[str]:
    """Class and message of an exception and of its causes, in Python and in Java."""
    current: BaseException | None = error
    for _ in range(_CAUSES):
        if current is None:
            return
        yield f"{type(current).__name__}: {current}"
        java: Any = getattr(current, "java_exception", None) or getattr(current, "_origin", None)
        yield from _java_texts(java)
        current = current.__cause__ or current.__context__


def _java_texts(java: Any) -> Iterator[str]:
    for _ in range(_CAUSES):
        if java is None:
            return
        try:
            yield str(java.toString())
            java = java.getCause()
        except Exception:
            return


def _place(text: str, settings: Settings | None) -> str:
    """The setting whose place the text names; else all of them."""
    if settings is None:
        return "a place of the settings"
    places = {
        "staging.path": settings.staging.path,
        "erasure.evidence_path": settings.erasure.evidence_path,
        "milvus.uri": settings.milvus.uri if settings.embedded else None,
        "model.cache_dir": settings.model.cache_dir,
        "warehouse": settings.warehouse if settings.warehouse_is_path else None,
    }
    for key, place in places.items():
        if place and _names(text, place):
            return f"{key} ({place})"
    return f"the warehouse ({settings.warehouse}), the staging path or the source"


def _names(text: str, place: str) -> bool:
    """Whether a text names a place, as it is written or as an absolute path."""
    if "://" in place:
        bucket = place.split("://", 1)[1].split("/", 1)[0]
        return place in text or bucket in text
    return place in text or str(Path(place).expanduser().absolute()) in text
