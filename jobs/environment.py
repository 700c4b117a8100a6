"""What a process inherits from its environment and would not work with, set right for it and for those it starts.

Shells, notebooks and other versions of Spark leave variables behind. What is changed is told in a line where somebody
may have meant it. The functions take the environment, so that each can be asked about one.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Final

from jobs.errors import DependencyUnavailable, SettingsError
from jobs.private import private_folder

Say = Callable[[str], None]
Environ = MutableMapping[str, str]

LEAST_JAVA: Final = 17
#: Variables that any Java takes options from.
JAVA_OPTIONS: Final = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
#: Where libraries of Spark unpack their native part, to load it from there. All fall back to java.io.tmpdir.
NATIVE_FOLDERS: Final = (
    "org.xerial.snappy.tempdir",
    "ZstdTempFolder",
    "io.netty.native.workdir",
    "commons.crypto.lib.tempdir",
)
_INSTALL: Final = (
    f"install Java {LEAST_JAVA} (Debian, Ubuntu: apt-get install openjdk-{LEAST_JAVA}-jre-headless), "
    "and set JAVA_HOME where it is not on the PATH."
)
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_CONNECT: Final = ("SPARK_REMOTE", "SPARK_LOCAL_REMOTE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_API_MODE")
_SHELL: Final = "pyspark-shell"
# A JVM looks there on Linux, whatever TMPDIR says.
_JAVA_TEMPORARY: Final = "/tmp"  # noqa: S108


# --- Proxies ---------------------------------------------------------------------------------------------------------


def keep_loopback_direct(environ: Environ = os.environ) -> None:
    """Let no proxy stand between this machine and itself: milvus-lite is reached over loopback.

    gRPC reads no_grpc_proxy and then no_proxy, Python's libraries no_proxy and then NO_PROXY: the first that is set
    counts alone. For Python a ``*`` means all only where nothing stands beside it.
    """
    if not any(value and re.fullmatch(r"(?i)(grpc|https?|all)_proxy", name) for name, value in environ.items()):
        return
    for_all = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    for name, listed in (("no_grpc_proxy", environ.get("no_grpc_proxy") or for_all), ("no_proxy", for_all)):
        hosts = [host.strip() for host in listed.split(",") if host.strip()]
        if name == "no_proxy" and hosts == ["*"]:
            continue
        environ[name] = ",".join([*hosts, *(host for host in _LOOPBACK if host not in hosts)])


def proxy_before(host: str, environ: Mapping[str, str] = os.environ) -> str:
    """The variable by which gRPC goes to ``host`` over a proxy; empty where it goes directly."""
    listed = environ.get("no_grpc_proxy") or environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    for entry in listed.split(","):
        domain = entry.strip().lstrip(".")
        if domain and (domain in ("*", host) or host.endswith(f".{domain}")):
            return ""
    return next((name for name in ("grpc_proxy", "https_proxy", "http_proxy") if environ.get(name)), "")


# --- Java ------------------------------------------------------------------------------------------------------------


def choose_java(say: Say, environ: Environ = os.environ) -> None:
    """Have Spark's scripts find a Java that it runs on: JAVA_HOME's, else the one on the PATH.

    Raises:
        DependencyUnavailable: neither is one.
        SettingsError: it does not start with the options that the environment gives it.
    """
    home = environ.get("JAVA_HOME")
    on_path = shutil.which("java", path=environ.get("PATH", os.defpath))
    if not home:
        environ.pop("JAVA_HOME", None)
        wrong = _wrong_with(on_path, "PATH", environ)
    else:
        wrong = _wrong_with(shutil.which("java", path=str(Path(home, "bin"))), f"JAVA_HOME ({home})", environ)
        if wrong and on_path and not _wrong_with(on_path, "PATH", environ):
            del environ["JAVA_HOME"]
            say(f"{wrong} The Java on the PATH is used, {on_path}.")
            return
    if wrong:
        raise DependencyUnavailable(wrong, hint=_INSTALL)


def _wrong_with(java: str | None, place: str, environ: Environ) -> str:
    """Why Spark does not run on this Java; empty where it does."""
    if java is None:
        return f"No Java: {place} has none."
    try:
        done = subprocess.run(  # noqa: S603
            [java, "-version"], env=dict(environ), capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        return f"{java} cannot be run ({error.strerror})."
    version = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    if version is not None and int(version[1]) < LEAST_JAVA:
        return f"{java} is Java {version[1]}; Spark needs {LEAST_JAVA} or later."
    if done.returncode == 0:
        return ""
    if given := [name for name in JAVA_OPTIONS if environ.get(name)]:
        raise SettingsError(
            f"{java} does not start with the options that {' and '.join(given)} give to every Java.",
            hint=f"see what `java -version` says of them, and unset {' and '.join(given)} or correct them.",
        )
    return f"{java} does not start."


# --- Spark -----------------------------------------------------------------------------------------------------------


def check_pyspark(needed: str) -> None:
    """Make sure that the PySpark which is imported is the one that this project needs (``4.2``).

    Raises:
        SettingsError: another stands before it on Python's path.
    """
    import pyspark

    if not f"{pyspark.__version__}.".startswith(f"{needed}."):
        folder = Path(pyspark.__file__).parent.parent
        raise SettingsError(
            f"Python finds PySpark {pyspark.__version__} (in {folder}), and PySpark {needed} is needed.",
            hint="take that folder out of PYTHONPATH, or install setup.py's dependencies in this environment.",
        )


def leave_spark_connect(say: Say, environ: Environ = os.environ) -> None:
    """Have a session of this process's own, where a shell or notebook is a client of Spark Connect."""
    for name in _CONNECT:
        if environ.pop(name, "") and name == "SPARK_REMOTE":
            say("SPARK_REMOTE is left aside: a job starts Spark itself, and is no client of Spark Connect.")


def leave_notebooks(say: Say, environ: Environ = os.environ) -> None:
    """Have spark-submit run a script by Python, where a shell has it start notebooks."""
    given = environ.get("PYSPARK_DRIVER_PYTHON", "")
    if re.match(r"jupyter|ipython|notebook", Path(given).name):
        del environ["PYSPARK_DRIVER_PYTHON"]
        say(f"PYSPARK_DRIVER_PYTHON ({given}) is left aside: a job is no notebook.")


def leave_other_sparks(say: Say, environ: Environ = os.environ) -> None:
    """Start the Spark that PySpark brings, unless SPARK_HOME names another of its version.

    It is named to Spark's scripts: they would run PYSPARK_DRIVER_PYTHON to find it, which may be jupyter.

    Raises:
        SettingsError: PySpark brings none.
    """
    import pyspark

    version, own, home = pyspark.__version__, Path(pyspark.__file__).parent, environ.get("SPARK_HOME", "")
    if home and _is_spark(Path(home), version):
        return
    if _is_spark(own, version):
        environ["SPARK_HOME"] = str(own)
    elif home:
        raise SettingsError(
            f"SPARK_HOME ({home}) holds no Spark {version}, and neither does PySpark ({own}).",
            hint=f"install pyspark=={version}, or let SPARK_HOME name a Spark of this version.",
        )
    if home:
        # Its settings are for another Spark, too.
        if Path(environ.get("SPARK_CONF_DIR", own)).is_relative_to(home):
            del environ["SPARK_CONF_DIR"]
        say(f"SPARK_HOME ({home}) holds no Spark {version}; the one that PySpark brings is started.")


def _is_spark(home: Path, version: str) -> bool:
    return (home / "bin" / "spark-submit").is_file() and any((home / "jars").glob(f"spark-core_*-{version}*.jar"))


def submit_arguments(environ: Mapping[str, str] = os.environ) -> str:
    """PYSPARK_SUBMIT_ARGS with the word at its end without which Spark's script says how it is used, and ends.

    Raises:
        SettingsError: a quotation in it does not end.
    """
    given = environ.get("PYSPARK_SUBMIT_ARGS", "")
    try:
        words = shlex.split(given)
    except ValueError:
        raise SettingsError(
            "PYSPARK_SUBMIT_ARGS: a quotation does not end.", hint="correct the variable, or unset it."
        ) from None
    return given if _SHELL in words else f"{given} {_SHELL}".strip()


def listen_on_loopback(master: str, say: Say, environ: Environ = os.environ) -> None:
    """With Spark on one machine (``local[…]``) nobody else has to reach it: a name that does not resolve is no matter.

    An address that a former network gave this machine is left aside. On a cluster all stays as it is.
    """
    if not master.startswith("local"):
        return
    for name in ("SPARK_LOCAL_HOSTNAME", "SPARK_LOCAL_IP"):
        given = environ.get(name)
        if given is not None and not is_of_this_machine(given):
            del environ[name]
            if given:
                say(f"{name} ({given}) is no address of this machine; Spark listens on 127.0.0.1.")
    environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")


def is_of_this_machine(host: str) -> bool:
    """Whether a server could listen at this name or address."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(place)
    except (OSError, UnicodeError):
        return False
    return bool(host)


# --- Names of files, and places for temporary ones -------------------------------------------------------------------


def name_files_in_utf_8(environ: Environ = os.environ) -> None:
    """Have Java name files as this process does. In a locale of one byte it finds no `Müller`, and lists none."""
    given = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    if not re.search(r"(?i)utf-?8", given):
        environ["LC_ALL" if environ.get("LC_ALL") else "LC_CTYPE"] = "C.UTF-8"


def native_folders(options: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Java properties that have native libraries unpacked where they may be loaded; empty where they are anyway.

    ``options``: those that this Java will be given. A folder for temporary files is often mounted noexec.

    Raises:
        SettingsError: no folder will do.
    """
    told = " ".join([options, *(environ.get(name, "") for name in JAVA_OPTIONS)])
    named = {name: _given(told, name) for name in ("java.io.tmpdir", *NATIVE_FOLDERS)}
    place = named.pop("java.io.tmpdir") or _JAVA_TEMPORARY
    unsaid = [name for name, value in named.items() if value is None]
    if not unsaid or may_run(Path(place)):
        return {}
    looked = dict.fromkeys(_other_places(environ))
    for root in looked:
        if may_run(root):
            return dict.fromkeys(unsaid, str(private_folder(str(root))))
    raise SettingsError(
        "Spark's native libraries can be loaded from no folder: "
        f"{', '.join(map(str, [Path(place), *looked]))} are mounted noexec, or cannot be written.",
        hint="set TMPDIR to a folder of this user on a file system without noexec.",
    )


def may_run(folder: Path) -> bool:
    """Whether this user can write there, and programs can be loaded from there."""
    return os.access(folder, os.W_OK | os.X_OK) and not os.statvfs(folder).f_flag & os.ST_NOEXEC


def _other_places(environ: Mapping[str, str]) -> Iterator[Path]:
    yield Path(tempfile.gettempdir())
    yield Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "/nonexistent", ".cache"))
    yield Path(environ.get("HOME") or "/nonexistent")
    yield Path("/var/tmp")  # noqa: S108
    yield Path.cwd()


def _given(options: str, name: str) -> str | None:
    try:
        words = shlex.split(options)
    except ValueError:
        words = options.split()
    found = [word.partition("=")[2] for word in words if word.startswith(f"-D{name}=")]
    return found[-1] if found else None


def as_options(properties: Mapping[str, str]) -> str:
    """Java properties as ``spark.driver.extraJavaOptions`` takes them."""
    options = (f"-D{name}={value}" for name, value in properties.items())
    return " ".join(f'"{option}"' if " " in option else option for option in options)
