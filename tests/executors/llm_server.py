"""A real model server for the tests: llama.cpp's own, serving a GGUF file. Usage: llm_server.py FILE PORT"""

import os
import signal
import sys
import threading

import xllamacpp as x

params = x.CommonParams()
params.model.path = sys.argv[1]
params.port = int(sys.argv[2])
params.hostnames = ["127.0.0.1"]
params.model_alias = {"smollm2-135m-instruct"}
params.n_ctx = 4096
params.n_parallel = 2
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.n_gpu_layers = 0
params.fit_params = False
params.ui = False
params.endpoint_metrics = True
params.embedding = True
params.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
params.verbosity = 1
server = x.Server(params)
print("listening", server.listening_address, flush=True)
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
ended.wait()
os._exit(0)
