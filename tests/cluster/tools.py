"""The programs that a real cluster is made of, fetched or built once and kept: etcd, an S3 gateway, Kafka.

They lie in ``FACE_REINDEX_CLUSTER_CACHE``, by default ~/.cache/face-reindex/cluster. Needed to make them: apt's
download (Debian, Ubuntu), Go, Maven. Milvus itself is the binary of the `milvus` wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
KAFKA = (("org.apache.kafka", "kafka_2.13", "3.6.2"), ("org.slf4j", "slf4j-reload4j", "1.7.36"))


def cache() -> Path:
    named = os.environ.get("FACE_REINDEX_CLUSTER_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "face-reindex" / "cluster"


def etcd() -> Path:
    """The etcd binary of the distribution, unpacked without being installed."""
    there = shutil.which("etcd")
    return Path(there) if there else _made("etcd", "usr/bin/etcd", _unpack_etcd)


def s3_gateway() -> Path:
    """versitygw: an S3 gateway over a folder, whose objects are plain files."""
    return _made("versitygw", "versitygw", lambda folder: _run("go", "install", VERSITYGW, GOBIN=str(folder)))


def kafka() -> Path:
    """A folder of JARs."""
    return _made("kafka", "lib", _copy_kafka)


def _made(name: str, result: str, make: Callable[[Path], None]) -> Path:
    done = cache() / name
    if not (done / result).exists():
        # Made beside and moved, so that one that was cut off is never taken for whole.
        half = cache() / f"{name}.half"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        print(f"cluster tests: making {name} in {cache()}", flush=True)
        make(half)
        shutil.rmtree(done, ignore_errors=True)
        half.rename(done)
    return done / result


def _unpack_etcd(folder: Path) -> None:
    _run("apt-get", "download", "etcd-server", cwd=folder)
    (package,) = folder.glob("*.deb")
    _run("dpkg-deb", "-x", str(package), str(folder))


def _copy_kafka(folder: Path) -> None:
    wanted = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in KAFKA
    )
    (folder / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>x</groupId>'
        f"<artifactId>x</artifactId><version>1</version><dependencies>{wanted}</dependencies></project>"
    )
    _run("mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib", cwd=folder)


def _run(*command: str, cwd: Path | None = None, **env: str) -> None:
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"cluster tests need `{command[0]}` to make what they run on (tests/cluster/tools.py)")
    subprocess.run(command, cwd=cwd, env=os.environ | env, check=True)
