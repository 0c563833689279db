"""llama.cpp's own server, from a wheel, for decode.py and streams.py: it speaks HTTP until it is stopped.

    llama_peer.py GGUF THREADS TEXTS_AT_ONCE CONTEXT [ADAPTER_GGUF …]

The wheel is built for processors with AVX2: a llama-server built for the machine may be faster, and the scripts take one.
"""

import sys
import threading

import xllamacpp


def main():
    model, threads, parallel, context, *adapters = sys.argv[1:]
    settings = xllamacpp.CommonParams()
    settings.model.path = model
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = int(threads)
    settings.n_parallel, settings.n_ctx = int(parallel), int(context)
    # The states of texts that are over are not copied away: every prompt is new.
    settings.cache_ram_mib = 0
    settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in adapters]
    settings.lora_init_without_apply = True
    server = xllamacpp.Server(settings)
    print(xllamacpp.get_system_info(), flush=True)
    print(f"listening on {server.listening_address}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
