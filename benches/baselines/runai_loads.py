"""Run:ai model streamer, by its file system strategies: io_uring_direct (its default), libaio_direct, sync_buffered.

As its documentation shows it: stream_files, then get_tensors; owned=True gives tensors that stay valid.
"""

import os

from common import arguments, run

method, files = arguments()
os.environ["RUNAI_STREAMER_FS_STRATEGY"] = method
os.environ.setdefault("RUNAI_STREAMER_LOG_LEVEL", "ERROR")

from runai_model_streamer import SafetensorsStreamer  # noqa: E402


def load():
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(files, device="cpu", owned=True)
        return [tensor for _, tensor in streamer.get_tensors()]


run(load)
