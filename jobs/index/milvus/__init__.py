"""The Milvus driver: milvus-lite or a server, behind the protocol of `jobs.index.protocol`."""
