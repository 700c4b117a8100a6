"""The Spark session, the same under `spark-submit` and `python -m`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.errors import DependencyUnavailable, FaceReindexError, SettingsError
from jobs.private import UMASK, UMASK_PROPERTY, keep_private, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from py4j.java_gateway import JavaGateway  # type: ignore[import-untyped]
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

_DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
_LEAST_JAVA: Final = 17
_PROPERTY: Final = re.compile(r"([^\s=:]+)(?:[ \t\f]*[=:][ \t\f]*|[ \t\f]+)(.*)", re.DOTALL)
_INSTALL: Final = (
    f"install Java {_LEAST_JAVA} (Debian, Ubuntu: apt-get install openjdk-{_LEAST_JAVA}-jre-headless), "
    "and set JAVA_HOME where it is not on the PATH."
)
# What Spark says where it does not start, and what that means.
_STARTS: Final = (
    (
        r"Could not parse Master URL",
        SettingsError,
        "spark.master is none that Spark knows.",
        "correct it in the properties file: local[*], spark://HOST:7077, yarn or k8s://….",
    ),
    (
        r"Cannot assign requested address|UnknownHostException|UnresolvedAddressException",
        SettingsError,
        "Spark's driver has no address that it can listen at.",
        "set spark.driver.bindAddress and spark.driver.host (or SPARK_LOCAL_IP) to an address of this machine.",
    ),
    (
        r"BindException|Address already in use|failed after \d+ retries",
        DependencyUnavailable,
        "A port that Spark's driver was told to use is taken.",
        "set spark.driver.port, spark.blockManager.port or spark.ui.port to a free one, or unset it; "
        "or raise spark.port.maxRetries.",
    ),
    (
        r"A secret key must be specified",
        SettingsError,
        "spark.authenticate is on, and this cluster needs a secret for it.",
        "set spark.authenticate.secret in a properties file that only you may read, and on master and workers "
        "(docs/security.md).",
    ),
    (
        r"All masters are unresponsive|Failed to connect to master|stopped SparkContext",
        DependencyUnavailable,
        "The cluster at spark.master does not answer.",
        "check the address and that the master runs, then run the same command again.",
    ),
)


def open_session(
    app_name: str, properties_file: str | None = None, say: Callable[[str], None] | None = None
) -> SparkSession:
    """Return a session that has Delta.

    Under `spark-submit` the properties come from there. Under `python -m` they come from ``properties_file``, or
    from the packaged `conf/spark-local.conf`; ``say`` is told then that the start takes a while.

    Raises:
        SettingsError: Delta is not configured, or Spark cannot start as it is configured.
        DependencyUnavailable: no Java, Delta's JARs cannot be fetched, or the cluster does not answer.
    """
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if submitted:
        # Without it SparkConf() knows nothing of the properties that spark-submit was given.
        SparkContext._ensure_initialized()
    _same_python_for_workers(submitted)
    try:
        if SparkContext._active_spark_context is None and not submitted:
            _need_java()
            if say is not None:
                say("Spark is starting; the first time it fetches Delta's JARs.")
            conf = SparkConf().setAll(list(read_properties(properties_file).items())).setAppName(app_name)
            _keep_private(conf)
            SparkContext(conf=conf, gateway=SparkContext._gateway or _launched(conf))
        builder = SparkSession.builder
        if submitted and SparkContext._active_spark_context is None:
            conf = SparkConf().setAppName(app_name)
            if not conf.contains(UMASK_PROPERTY):
                _forget_local_files()
            _keep_private(conf)
            _private_blocks(conf)
            builder = builder.config(conf=conf)
        session = builder.getOrCreate()
    except (PySparkException, Py4JError, OSError) as error:
        raise _not_started(str(error)) from None
    if _DELTA_EXTENSION not in (session.conf.get("spark.sql.extensions", "") or ""):
        raise SettingsError(
            "Delta Lake is not configured in this Spark session.",
            hint="add --properties-file conf/spark-local.conf (or the one of your cluster) to spark-submit.",
        )
    # Delta's VACUUM prints what it deleted; stdout belongs to the jobs' results.
    jvm: Any = session.sparkContext._jvm
    jvm.java.lang.System.setOut(jvm.java.lang.System.err)
    # Timestamps of records and events mean the same on every driver.
    session.conf.set("spark.sql.session.timeZone", "UTC")
    return session


def _keep_private(conf: SparkConf) -> None:
    conf.setIfMissing(UMASK_PROPERTY, UMASK)
    keep_private(conf.get(UMASK_PROPERTY, UMASK))


def _forget_local_files() -> None:
    """spark-submit has opened the local file system before; it would stay as it is, with the umask of then."""
    from pyspark import SparkContext

    jvm: Any = SparkContext._jvm
    jvm.org.apache.hadoop.fs.FileSystem.getLocal(jvm.org.apache.hadoop.conf.Configuration()).close()


def _private_blocks(conf: SparkConf) -> None:
    """Give the JVM of `spark-submit`, which runs already, a folder of its own for what it shuffles and keeps on disk.

    Not where the cluster's manager says where that is.
    """
    from pyspark import SparkContext

    if any(name in os.environ for name in ("SPARK_LOCAL_DIRS", "SPARK_EXECUTOR_DIRS", "LOCAL_DIRS")):
        return
    if roots := conf.get("spark.local.dir", None):
        conf.set("spark.local.dir", _private_roots(roots))
    else:
        # What `spark.local.dir` falls back to. The property itself would travel to the executors.
        jvm: Any = SparkContext._jvm
        jvm.java.lang.System.setProperty("java.io.tmpdir", str(private_folder()))


def _private_roots(roots: str) -> str:
    return ",".join(str(private_folder(root.strip())) for root in roots.split(",") if root.strip())


@contextmanager
def _submission(conf: SparkConf) -> Iterator[None]:
    """How the JVM is told its properties and its place on disk: not by its arguments, which other users can list."""
    given = private_folder() / "spark.properties"
    given.touch(mode=0o600)
    lines = (f"{_escaped(key, '=: ')}={_escaped(value)}\n" for key, value in conf.getAll())
    given.write_text("".join(lines), encoding="utf-8")
    roots = os.environ.get("SPARK_LOCAL_DIRS") or conf.get("spark.local.dir", None)
    asked = os.environ.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell")
    changes = {
        "PYSPARK_SUBMIT_ARGS": f"--load-spark-defaults --properties-file {shlex.quote(str(given))} {asked}",
        "SPARK_LOCAL_DIRS": _private_roots(roots) if roots else str(private_folder()),
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        given.unlink()


def _escaped(text: str, also: str = "") -> str:
    """As a Java properties file has it."""
    return re.sub(rf"[\\{also}]|^ ", r"\\\g<0>", text)


def _launched(conf: SparkConf) -> JavaGateway:
    """Start the JVM. What it prints before it is ready (two dozen lines about JARs) is shown only if it never is."""
    from pyspark import java_gateway

    launch: Any = java_gateway.launch_gateway
    ours, theirs = os.pipe()
    held, ready = list[bytes](), threading.Event()

    def pass_on() -> None:
        with os.fdopen(ours, "rb") as lines:
            for line in lines:
                if ready.is_set():
                    os.write(2, line)
                else:
                    held.append(line)

    reader = threading.Thread(target=pass_on, name="the JVM's stderr", daemon=True)
    reader.start()
    try:
        with _submission(conf):
            gateway: JavaGateway = launch(None, {"stderr": theirs})
    except BaseException:
        os.close(theirs)
        reader.join(timeout=5)
        os.write(2, b"".join(held))
        raise
    os.close(theirs)
    ready.set()
    return gateway


def _need_java() -> None:
    """Say that Java is missing, before Spark's own scripts say it in their words.

    Raises:
        DependencyUnavailable: there is none, or too old a one.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home, "bin"))) if home else shutil.which("java")
    if java is None:
        raise DependencyUnavailable(f"No Java: {f'JAVA_HOME ({home})' if home else 'PATH'} has none.", hint=_INSTALL)
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is not None and int(version[1]) < _LEAST_JAVA:
        raise DependencyUnavailable(f"{java} is Java {version[1]}; Spark needs {_LEAST_JAVA} or later.", hint=_INSTALL)


def _not_started(text: str) -> FaceReindexError:
    """Why there is no session, by what Spark says of it."""
    for pattern, kind, message, hint in _STARTS:
        if re.search(pattern, text):
            return kind(message, hint=hint)
    return DependencyUnavailable(
        "Spark did not start.",
        hint="read its own message above; the first start needs a Maven repository for Delta's JARs "
        "(or spark.jars in the properties file).",
    )


def _same_python_for_workers(submitted: bool) -> None:
    """On one machine the workers use the driver's Python; on a cluster its own settings say which."""
    from pyspark import SparkConf

    if "PYSPARK_PYTHON" in os.environ:
        return
    conf = SparkConf() if submitted else None
    if conf is None or (conf.get("spark.master", "").startswith("local") and not conf.contains("spark.pyspark.python")):
        os.environ["PYSPARK_PYTHON"] = sys.executable


def read_properties(path: str | None = None) -> dict[str, str]:
    """Read a Spark properties file as spark-submit does: `key value`, `key=value` or `key: value`, `#` comments.

    Raises:
        SettingsError: the file cannot be read, or a line says no value.
    """
    source = Path(path) if path else packaged_conf("spark-local.conf")
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{source}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{source}: is not UTF-8.", hint="save it as UTF-8.") from None
    properties = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith(("#", "!")):
            continue
        found = _PROPERTY.fullmatch(line)
        # spark-submit would take back-slashes for the start of something else, and this reader would not.
        if found is None or "\\" in line:
            raise SettingsError(
                f"{source}, line {number}: is no property.", hint="write `key value` in one line, without back-slashes."
            )
        properties[found[1]] = found[2]
    return properties


def packaged_conf(name: str) -> Path:
    """Path of a file of conf/, from a checkout or an installed wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "conf", here / "_conf"):
        if (folder / name).is_file():
            return folder / name
    raise SettingsError(f"conf/{name} is not on this machine.", hint="give its path with --properties-file.")
