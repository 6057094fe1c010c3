"""fastsafetensors on the CPU, as its documentation shows it: nogds, as there is no GPU to read into.

open      fastsafe_open: all files at once; tensors stay valid
parallel  ParallelLoader: file by file, each tensor cloned by the library
"""

from fastsafetensors import ParallelLoader, fastsafe_open

from common import arguments, run

method, files = arguments()


def load_open():
    with fastsafe_open(filenames=files, framework="pt", device="cpu", nogds=True) as file:
        return [file.get_tensor(name) for name in file.keys()]


def load_parallel():
    loader = ParallelLoader(None, files, device="cpu", nogds=True, use_tqdm_on_load=False)
    try:
        return [tensor for _, tensor in loader.iterate_weights()]
    finally:
        loader.close()


run(load_open if method == "open" else load_parallel)
