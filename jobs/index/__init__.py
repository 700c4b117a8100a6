"""From embeddings to a promoted Milvus collection."""

import os

# gRPC writes its own keep-alive notes to stderr, past every logger; failures reach us as exceptions anyway.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
