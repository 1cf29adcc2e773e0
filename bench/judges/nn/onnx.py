"""Reads the weights of an ONNX file, for a network that is written in torch.

ONNX is protocol buffers (onnx/onnx, `onnx.proto`); only the few fields that hold tensors are read,
and nothing in the file is executed.

The package `onnx` would read the same tensors (1.23.2: equal bit for bit for both files of DNSMOS).
It is not used: it is 33 MB installed with `ml_dtypes`, most of it test data, and it would make
protobuf 6.31 or newer a requirement of every installation.
"""

import struct
from collections.abc import Iterator

import numpy as np

# Numbers of fields in onnx.proto.
GRAPH, INITIALIZER = 7, 5
DIMS, DATA_TYPE, FLOATS, NAME, RAW = 1, 2, 4, 8, 9
FLOAT32 = 1


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The float32 tensors of an ONNX model by name; others are left out.

    Raises:
        ValueError: if the data is no ONNX model, or is cut short.
    """
    try:
        graphs = [value for number, value in _fields(data) if number == GRAPH]
        if len(graphs) != 1 or not isinstance(graphs[0], bytes):
            raise ValueError(f"{len(graphs)} graphs, not one")
        arrays = {}
        for number, value in _fields(graphs[0]):
            if number == INITIALIZER and isinstance(value, bytes):
                name, array = _tensor(value)
                if array is not None:
                    arrays[name] = array
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"not an ONNX model, or cut short: {error}") from error
    return arrays


def _tensor(data: bytes) -> tuple[str, np.ndarray | None]:
    shape: list[int] = []
    name, kind, content = "", 0, b""
    for number, value in _fields(data):
        if number == DIMS and isinstance(value, int):
            shape.append(value)
        elif number == DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == NAME and isinstance(value, bytes):
            name = value.decode()
        elif number in (FLOATS, RAW) and isinstance(value, bytes):
            content += value
    if kind != FLOAT32:
        return name, None
    return name, np.frombuffer(content, "<f4").reshape(shape)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: their numbers and values."""
    at = 0

    def integer() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = integer()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, integer()
            continue
        size = {1: 8, 5: 4}.get(wire)
        if size is None:
            if wire != 2:
                raise ValueError(f"field {number} of kind {wire}")
            size = integer()
        if at + size > len(data):
            raise ValueError(f"field {number} ends {at + size - len(data)} bytes behind the file")
        yield number, data[at : at + size]
        at += size
