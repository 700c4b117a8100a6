"""What a job leaves on a machine is for its user alone: file modes, and folders for what is temporary.

One property says who may read: Hadoop's `fs.permissions.umask-mode`, which Spark's JVM heeds for tables. Python's files
and those of the processes that a job starts follow it by the process's own umask.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import resource
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Final

from jobs.errors import SettingsError

UMASK_PROPERTY: Final = "spark.hadoop.fs.permissions.umask-mode"
UMASK: Final = "077"
_PREFIX: Final = "face-reindex-"
_LOCK: Final = "in-use"
# A folder is made before it is locked; and a JVM whose Python was killed may write for a moment.
_YOUNG_S: Final = 600.0


def keep_private(umask: str = UMASK) -> None:
    """Keep ``umask`` (octal) from all that this process and those it starts will write; no memory image at a crash.

    Raises:
        SettingsError: it is no umask.
    """
    if not re.fullmatch(r"0?[0-7]{3}", umask):
        raise SettingsError(f"{UMASK_PROPERTY}: '{umask}' is no umask.", hint="write it in octal: 077, 027 or 022.")
    os.umask(int(umask, 8))
    # A core file would hold keys, pictures and vectors.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@contextmanager
def new_file(path: str, option: str) -> Iterator[IO[bytes]]:
    """A file that only its owner may read, at a place where there was none; gone again if it is not finished.

    Raises:
        SettingsError: something is there, or it cannot be written; ``option`` is where the user named it.
    """
    try:
        # Also no link is followed, wherever it leads.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SettingsError(f"{option} {path}: is there already.", hint="name a new file.") from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "no name of a file"
        raise SettingsError(f"{option} {path}: cannot be written ({said}).") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise


@cache
def private_folder(root: str | None = None) -> Path:
    """This process's folder below ``root`` (the system's place for temporary files): mode 0700, removed at exit.

    What a killed process left there is removed first, where it is this user's and no process holds it.

    Raises:
        SettingsError: no folder can be made there.
    """
    place = Path(root or tempfile.gettempdir())
    try:
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise SettingsError(
            f"{place}: temporary files cannot be written there ({error.strerror}).",
            hint="set spark.local.dir (or SPARK_LOCAL_DIRS) or TMPDIR to a folder of this user.",
        ) from None
    # Held for as long as this process lives, however it ends; children do not inherit it.
    fcntl.flock(lock, fcntl.LOCK_EX)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _sweep(place)
    return folder


def _sweep(place: Path) -> None:
    with suppress(OSError), os.scandir(place) as entries:
        left = [Path(e.path) for e in entries if e.name.startswith(_PREFIX) and _is_ours(e.stat(follow_symlinks=False))]
        for folder in left:
            if not _is_locked(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_ours(found: os.stat_result) -> bool:
    """Whether it is a folder (and no link to one) of this user, and not just made."""
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and time.time() - found.st_mtime > _YOUNG_S


def _is_locked(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        # Nothing of ours has that form: before there were locks, or it is going away right now.
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
