"""Lays out a ServerlessLLM checkpoint as its writers do, from a description of the format alone.

    python3 serverlessllm.py FOLDER original|tensora LIMIT

writes `tensor_index.json` and the partitions into FOLDER, and `expected.json`, which says of every tensor what is in it. A partition ends
before a record that would take it past LIMIT bytes; a record that is longer than that has one of its own. The standard library is all it
needs.
"""

import hashlib
import json
import pathlib
import sys

# What ServerlessLLM writes: PyTorch's name, Tensora's, the name in `expected.json`, bytes of an element.
DTYPES = {
    "float16": ("torch.float16", "f16", "F16", 2),
    "float32": ("torch.float32", "f32", "F32", 4),
    "float64": ("torch.float64", "f64", "F64", 8),
    "bfloat16": ("torch.bfloat16", "bf16", "BF16", 2),
    "int8": ("torch.int8", "i8", "I8", 1),
    "int16": ("torch.int16", "i16", "I16", 2),
    "int32": ("torch.int32", "i32", "I32", 4),
    "int64": ("torch.int64", "i64", "I64", 8),
    "uint8": ("torch.uint8", "u8", "U8", 1),
}

# Name, dtype, shape, and the tensor whose storage it shares. In the order of a model's state, which is neither that of names nor of sizes.
STATE = [
    ("model.embed_tokens.weight", "bfloat16", [1000, 512], None),
    ("model.layers.0.input_layernorm.weight", "bfloat16", [513], None),
    ("model.layers.0.mask", "uint8", [3, 7], None),
    ("model.layers.0.mlp.down_proj.weight", "float32", [300, 1111], None),
    ("model.layers.0.rotary", "float64", [13], None),
    ("model.layers.0.scale", "float32", [], None),
    ("model.layers.0.nothing", "int64", [0, 4], None),
    ("model.layers.0.half", "float16", [5, 1, 5], None),
    ("model.layers.0.steps", "int64", [7], None),
    ("model.layers.0.codes", "int8", [2, 3, 5, 7], None),
    ("model.layers.0.short", "int16", [9], None),
    ("model.layers.0.ids", "int32", [11], None),
    ("model.layers.1.mlp.down_proj.weight", "float32", [1, 1_300_001], None),
    ("model.layers.1.h\u00f6rbar \u6a21\u578b\n", "uint8", [5], None),
    ("model.norm.weight", "bfloat16", [512], None),
    # Tied to the first, as a whole, as one dimension, and as bytes.
    ("lm_head.weight", "bfloat16", [1000, 512], "model.embed_tokens.weight"),
    ("lm_head.flat", "bfloat16", [512_000], "model.embed_tokens.weight"),
    ("lm_head.bytes", "uint8", [1000, 1024], "model.embed_tokens.weight"),
    ("the last", "uint8", [1], None),
]


def product(numbers):
    result = 1
    for number in numbers:
        result *= number
    return result


def strides(shape):
    return [product(shape[dim + 1 :]) for dim in range(len(shape))]


def contents(name, size):
    """Bytes that differ from tensor to tensor and from place to place."""
    return hashlib.shake_128(name.encode()).digest(size)


def main(folder, dialect, limit):
    folder = pathlib.Path(folder)
    partitions = [bytearray()]
    # Where each storage lies: its partition, and its offset there.
    stored = {}
    sizes = {}
    index, expected = {}, {}
    for name, dtype, shape, shares in STATE:
        torch, short, plain, width = DTYPES[dtype]
        size = product(shape) * width
        owner = shares or name
        if owner not in stored:
            padded = size if dialect == "tensora" else -(-size // 8) * 8
            if partitions[-1] and len(partitions[-1]) + padded > limit:
                partitions.append(bytearray())
            stored[owner] = (len(partitions) - 1, len(partitions[-1]))
            sizes[owner] = size
            # Padding is whatever was in the writer's buffer.
            partitions[-1] += contents(name, size) + b"\xa5" * (padded - size)
        assert sizes[owner] == size
        partition, offset = stored[owner]
        if dialect == "tensora":
            index[name] = [offset, size, shape, strides(shape), short, partition]
        else:
            # Those before it do not change any more.
            before = sum(len(earlier) for earlier in partitions[:partition])
            index[name] = [before + offset, size, shape, strides(shape), torch]
        digest = hashlib.sha256(contents(owner, size)).hexdigest()
        expected[name] = {"dtype": plain, "shape": shape, "sha256": digest, "file": f"tensor.data_{partition}", "offset": offset}
    for number, partition in enumerate(partitions):
        (folder / f"tensor.data_{number}").write_bytes(partition)
    (folder / "tensor_index.json").write_text(json.dumps(index))
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
