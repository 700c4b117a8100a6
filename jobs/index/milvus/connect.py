"""Opening the index that the settings name: milvus-lite or a server, behind one protocol.

>>> index = connect(settings)                                                            # doctest: +SKIP
>>> index.create("faces_r1", dim=512, shards=4, properties=info)                         # doctest: +SKIP
"""

from __future__ import annotations

from jobs.index.milvus.embedded import EmbeddedIndex
from jobs.index.milvus.server import ServerIndex
from jobs.index.protocol import VectorIndex
from jobs.settings import Settings


def connect(settings: Settings) -> VectorIndex:
    """Open the index of ``milvus.uri``: a file ending in .db is embedded, http(s)://host:port is a server.

    Raises:
        DependencyUnavailable: the server is out of reach, or another process has the file open.
        SettingsError: the path cannot be an embedded index.
    """
    return EmbeddedIndex.open(settings) if settings.embedded else ServerIndex.open(settings)
