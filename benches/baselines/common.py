"""How a load is timed: benches/src/bin/subjects/measure.rs does the same for Rust.

A script imports its library first, which is not timed, and calls `run` with a function that loads the files and returns all tensors.
The page cache and the memory are prepared last, by the command in BENCH_PREPARE.
"""

import json
import os
import subprocess
import sys
import time


def prepare():
    command = os.environ.get("BENCH_PREPARE")
    if command:
        done = subprocess.run(json.loads(command), stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            why = done.stderr.splitlines() or ["it told nothing"]
            sys.exit(f"preparing: {why[-1]}")


def status(key):
    """A figure of /proc/self/status, in bytes."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


def touch(tensor):
    """Looks at one byte of each page. Says how many bytes there are."""
    import torch

    flat = tensor.reshape(-1).view(torch.uint8)
    flat[::4096].sum(dtype=torch.int64).item()
    return flat.numel()


def run(load, extra=None):
    """Times `load` from its call to the last byte touched, and prints one line of JSON."""
    touch_once()
    prepare()
    try:
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")  # the peak that is told from now on is this load's
    except OSError:
        pass
    before, anonymous, processor = status("VmRSS:"), status("RssAnon:"), time.process_time()
    start = time.perf_counter()
    tensors = load()
    total = sum(touch(tensor) for tensor in tensors)
    report = {
        "seconds": time.perf_counter() - start,
        "bytes": total,
        "cpu_seconds": time.process_time() - processor,
        "peak_bytes": status("VmHWM:"),
        "before_bytes": before,
        "copied_bytes": max(status("RssAnon:") - anonymous, 0),
    }
    print(json.dumps(report))


def touch_once():
    """What a library does at its first use is done before the clock starts."""
    import torch

    touch(torch.zeros(8192, dtype=torch.bfloat16))


def arguments():
    """The method, and the files."""
    return sys.argv[1], sys.argv[2:]
