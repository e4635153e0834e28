"""llama.cpp's own HTTP server, as `xllamacpp` carries it: two slots on one port, its embeddings on another.

python llama_server.py MODEL.gguf PORT EMBEDDINGS_PORT
"""

from __future__ import annotations

import signal
import sys

import xllamacpp

SLOTS = 2
CONTEXT = 65536


def parameters(model: str, port: int, embedding: bool) -> xllamacpp.CommonParams:
    found = xllamacpp.CommonParams()
    found.model.path = model
    found.model_alias = {"tiny"}
    found.hostnames = ["127.0.0.1"]
    found.port = port
    found.n_ctx = CONTEXT
    found.n_parallel = SLOTS
    found.endpoint_slots = True
    if embedding:
        found.embedding = True
        found.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return found


servers = [xllamacpp.Server(parameters(sys.argv[1], int(port), bool(at))) for at, port in enumerate(sys.argv[2:4])]
sys.stdout.write("listening\n")
sys.stdout.flush()
signal.pause()
