"""safetensors, the reference library.

mapped  safe_open and get_tensor: views of the mapped file
owned   the same, each tensor copied, so that it stays when the file changes
pread   safe_open(backend="pread"), of 0.9's pre-releases: each tensor is read into memory of its own
first   safe_open of the first file, and one tensor of it (FIRST_TENSOR)
"""

import os

import torch  # noqa: F401
from safetensors import safe_open

from common import arguments, run

method, files = arguments()


def load():
    options = {"backend": "pread"} if method == "pread" else {}
    tensors = []
    for path in files:
        with safe_open(path, framework="pt", device="cpu", **options) as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                tensors.append(tensor.clone() if method == "owned" else tensor)
    return tensors


def first():
    with safe_open(files[0], framework="pt", device="cpu") as file:
        return [file.get_tensor(os.environ["FIRST_TENSOR"])]


run(first if method == "first" else load)
