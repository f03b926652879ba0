"""Make the small image sets that travel with dyniso: the first images of MNIST and Fashion-MNIST as IDX .gz.

    python tools/make_small_data.py      writes data/<set>/*.gz and their rows of data/manifest.json

Needs the full sets (`dyniso.study.data.load` finds or fetches them). No time stamp or file name goes into the .gz, so
one version of zlib gives the same bytes each time; the pixels are the same with any.
"""

import gzip
import hashlib
import io
import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyniso.study import data

STEMS = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")}
STEMS["test"] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_gz(array: NDArray[np.uint8]) -> bytes:
    """Encode an array of bytes as IDX, compressed: the inverse of `dyniso.study.containers.idx_array` after gunzip.

    >>> from dyniso.study import containers
    >>> containers.idx_array(gzip.decompress(idx_gz(np.array([7, 2], np.uint8)))).tolist()
    [7, 2]
    """
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, filename="", mode="wb", compresslevel=9, mtime=0) as packed:
        packed.write(header + array.tobytes())
    return buffer.getvalue()


def write(root: Path, name: str, entry: dict) -> None:
    """Write the four files of one small set and fill its row of the manifest."""
    folder = root / name
    folder.mkdir(exist_ok=True)
    entry["files"] = {}
    for split, facts in entry["splits"].items():
        full = data.load(entry["subset_of"], split)
        x, y = full.x[: facts["count"]], full.y[: facts["count"]].astype(np.uint8)
        for stem, array in zip(STEMS[split], (x[:, 0], y), strict=True):
            content = idx_gz(array)
            (folder / f"{stem}.gz").write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            entry["files"][f"{stem}.gz"] = {"bytes": len(content), "sha256": digest, "splits": [split]}
        facts.update(data.array_hashes(x, y))


def main() -> None:
    path = data.data_root() / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for name, entry in document["sets"].items():
        if "subset_of" in entry:
            write(path.parent, name, entry)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
