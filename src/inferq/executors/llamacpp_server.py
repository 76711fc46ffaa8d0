"""The child process of the llamacpp executor: serves one GGUF file on loopback until its standard input ends.

Run by file, not as part of the program: it needs xllamacpp only. The first line of standard input is its configuration
(JSON), the only line of standard output says when it is ready and where. The parent holds the other end of the input open
for as long as it lives, so that its end, by whatever cause, is this process's end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from typing import Any


def main() -> None:
    """Serve; exits with 3 when xllamacpp is missing and 4 when the model cannot be served."""
    config: dict[str, Any] = json.loads(sys.stdin.readline())
    report = os.dup(1)
    os.dup2(2, 1)  # whatever the library prints must not be taken for the report
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        import xllamacpp
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(3)
    try:
        server = xllamacpp.Server(_parameters(xllamacpp, config))
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(4)
    _wait_until_healthy(server.listening_address)
    os.write(report, json.dumps({"url": server.listening_address}).encode() + b"\n")
    threading.Event().wait()


def _die_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _parameters(xllamacpp: Any, config: dict[str, Any]) -> Any:
    made = xllamacpp.CommonParams()
    made.model.path = config["model"]
    made.model_alias = {config["alias"]}
    made.hostnames = ["127.0.0.1"]
    made.port = 0
    made.api_keys = [config["api_key"]]
    made.n_parallel = config["slots"]
    made.n_ctx = config["context"] * config["slots"]  # llama.cpp divides it among the slots
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = config["threads"]
    made.n_gpu_layers = config["gpu_layers"]
    made.fit_params = False
    made.ui = False
    made.embedding = True
    # With a pooling of its own one server does both: chat and embeddings.
    made.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    made.verbosity = 1
    return made


def _wait_until_healthy(address: str) -> None:
    """Until /health answers 200; while it loads it answers 503. The parent's patience is the limit."""
    pause = threading.Event()
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:  # noqa: S310 - our own loopback address
                if reply.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pause.wait(0.02)


if __name__ == "__main__":
    main()
