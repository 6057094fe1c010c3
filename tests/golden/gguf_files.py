"""Writes GGUF files with the format's own package, and what that package reads from them.

usage: gguf_files.py FOLDER

Each case is a folder with one model, and `golden.json` beside them says what is in each: every tensor's type, shape, place and SHA-256, and
the metadata. `damaged` has copies of a small file with bytes changed, and what the package makes of each.
"""

import hashlib
import json
import random
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

# The package has 40 bytes for a block of this type and ggml 36; it is never stored.
NOT_STORED = {Type.Q8_1}
PLAIN = {
    Type.F32: np.float32,
    Type.F16: np.float16,
    Type.F64: np.float64,
    Type.I8: np.int8,
    Type.I16: np.int16,
    Type.I32: np.int32,
    Type.I64: np.int64,
}
DAMAGED = 400


def numbers(*shape):
    rng = np.random.default_rng(sum(shape) + 7)
    return rng.standard_normal(shape, dtype=np.float32)


def add_tensor(writer, name, kind, shape):
    """Quantises numbers where the package can, and writes random blocks where it cannot."""
    if kind in PLAIN:
        writer.add_tensor(name, (numbers(*shape) * 100).astype(PLAIN[kind]))
        return
    try:
        data = gguf.quants.quantize(numbers(*shape), kind)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        rng = np.random.default_rng(int(kind))
        data = rng.integers(0, 256, (*shape[:-1], shape[-1] // block * size), dtype=np.uint8)
    writer.add_tensor(name, data, raw_dtype=kind)


def add_metadata(writer):
    writer.add_name("golden")
    writer.add_uint8("golden.u8", 255)
    writer.add_int8("golden.i8", -128)
    writer.add_uint16("golden.u16", 65535)
    writer.add_int16("golden.i16", -32768)
    writer.add_uint32("golden.u32", 2**32 - 1)
    writer.add_int32("golden.i32", -(2**31))
    writer.add_uint64("golden.u64", 2**64 - 1)
    writer.add_int64("golden.i64", -(2**63))
    writer.add_float32("golden.f32", 0.1)
    writer.add_float64("golden.f64", 0.1)
    writer.add_bool("golden.true", True)
    writer.add_bool("golden.false", False)
    writer.add_string("golden.text", "{% for m in messages %}\n\t\x1b[31m模型 😀 \\\n" + "x" * 5000)
    writer.add_array("golden.integers", list(range(-50, 50)))
    writer.add_array("golden.numbers", [0.5, -1.25, 1e10])
    writer.add_array("golden.truths", [True, False, True])
    writer.add_array("golden.texts", ["<s>", "", "ä", "模" * 300] + [f"token{i}" for i in range(20)])


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def kinds(folder):
    writer = gguf.GGUFWriter(folder / "kinds.gguf", "llama")
    add_metadata(writer)
    for kind in Type:
        if kind not in NOT_STORED:
            add_tensor(writer, f"blk.0.{kind.name.lower()}.weight", kind, (3, 512))
    add_tensor(writer, "dims.one", Type.F32, (7,))
    add_tensor(writer, "dims.three", Type.Q8_0, (2, 3, 64))
    add_tensor(writer, "dims.four", Type.F16, (2, 3, 5, 4))
    write(writer)


def version_two(folder):
    """The package writes version 3 alone, of which 2 differs by its number."""
    kinds(folder)
    path = folder / "kinds.gguf"
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(struct.pack("<I", 2))
    path.rename(folder / "version2.gguf")


def aligned(folder):
    writer = gguf.GGUFWriter(folder / "aligned.gguf", "llama")
    writer.add_custom_alignment(256)
    for i, kind in enumerate([Type.Q4_K, Type.F32, Type.MXFP4, Type.BF16]):
        add_tensor(writer, f"blk.{i}.weight", kind, (1 + i, 256))
    write(writer)


def large(folder):
    """Long enough for direct reads in several chunks."""
    writer = gguf.GGUFWriter(folder / "large.gguf", "llama")
    add_tensor(writer, "token_embd.weight", Type.Q8_0, (2048, 2048))
    add_tensor(writer, "norm.weight", Type.F32, (33,))
    add_tensor(writer, "output.weight", Type.Q6_K, (4096, 2048))
    add_tensor(writer, "last.weight", Type.F32, (1024, 1024))
    write(writer)


def split(folder):
    writer = gguf.GGUFWriter(folder / "split.gguf", "llama", split_max_tensors=2, small_first_shard=True)
    add_metadata(writer)
    for i, kind in enumerate([Type.Q4_0, Type.Q8_0, Type.F32, Type.Q4_K, Type.BF16]):
        add_tensor(writer, f"blk.{i}.weight", kind, (4 + i, 256))
    write(writer)


def vocabulary(folder):
    """A header of about 14 MB, as that of a model with a large tokenizer."""
    writer = gguf.GGUFWriter(folder / "vocabulary.gguf", "llama")
    tokens = [f"▁token{i:x}" for i in range(250_000)]
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.scores", [float(i) for i in range(len(tokens))])
    writer.add_array("tokenizer.ggml.token_type", [1] * len(tokens))
    writer.add_array("tokenizer.ggml.merges", [f"{a} {b}" for a, b in zip(tokens, tokens[1:])])
    add_tensor(writer, "token_embd.weight", Type.Q4_0, (64, 256))
    write(writer)


def value_of(field):
    """A metadata value: of an array its type, its length and its beginning."""
    value = field.contents()
    if field.types[0] != gguf.GGUFValueType.ARRAY:
        return value
    return {"type": field.types[-1].name.lower(), "count": len(value), "first": value[:8]}


def tensors_of(reader):
    return [
        {
            "name": tensor.name,
            "type": tensor.tensor_type.name,
            "ggml_shape": tensor.field.parts[3].tolist(),
            "offset": int(tensor.data_offset),
            "bytes": int(tensor.n_bytes),
        }
        for tensor in reader.tensors
    ]


def read_back(folder):
    files, tensors, metadata = sorted(folder.iterdir()), [], {}
    for path in files:
        reader = gguf.GGUFReader(path)
        for tensor, facts in zip(reader.tensors, tensors_of(reader)):
            facts["sha256"] = hashlib.sha256(tensor.data.tobytes()).hexdigest()
            facts["file"] = path.name
            tensors.append(facts)
        for key, field in reader.fields.items():
            if not key.startswith("GGUF."):
                metadata.setdefault(key, value_of(field))
    return {"files": [path.name for path in files], "tensors": tensors, "metadata": metadata}


def damaged(folder):
    """Copies of a small file with one to three bytes of its header changed: what the package reads from them, or null."""
    path = folder / "whole"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.number", 7)
    writer.add_array("a.list", ["one", "two", "three"])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_custom_alignment(32)
    for i, kind in enumerate([Type.Q4_0, Type.F32, Type.Q4_K]):
        add_tensor(writer, f"t{i}", kind, (2, 256))
    write(writer)
    whole = path.read_bytes()
    header = gguf.GGUFReader(path).data_offset
    path.unlink()
    chance, verdicts = random.Random(6), []
    for number in range(DAMAGED):
        copy = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            copy[chance.randrange(4, header)] = chance.choice([0, 1, 2, 8, 9, 32, 64, 128, 255, chance.randrange(256)])
        path = folder / f"{number:03}"
        path.write_bytes(copy)
        try:
            verdicts.append(tensors_of(gguf.GGUFReader(path)))
        # Whatever it fails with: it has no errors of its own.
        except Exception:
            verdicts.append(None)
    return verdicts


def main():
    root, golden = Path(sys.argv[1]), {}
    for make in [kinds, version_two, aligned, large, split, vocabulary]:
        folder = root / make.__name__
        folder.mkdir()
        make(folder)
        golden[make.__name__] = read_back(folder)
    folder = root / "damaged"
    folder.mkdir()
    golden["damaged"] = damaged(folder)
    (root / "golden.json").write_text(json.dumps(golden))


main()
