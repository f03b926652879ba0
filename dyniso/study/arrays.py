"""A user's arrays as images and labels: checked, copied, and named by what they hold."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import require_range, require_shape, require_that

CHANNELS = (1, 3, 4)  # of an image whose channels come last, where torch wants them first


def as_numpy(name: str, array: Any) -> NDArray[Any]:
    """A numpy array of what numpy can read, or of a torch tensor on any device; of half precision as float32.

    Raises:
        ValueError: rows of different lengths, or an array with masked numbers.

    >>> as_numpy("x", [[1, 2]]).shape
    (1, 2)
    """
    if hasattr(array, "detach"):  # a torch tensor, which this module need not import
        array = array.detach().cpu()
        array = (array.float() if "float16" in str(array.dtype) else array).numpy()
    require_that(not np.ma.is_masked(array), name, "an array with masked numbers", "whole; leave those rows out")
    try:
        found = np.asarray(array)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths; expected one array") from None
    return found.astype(np.float32) if found.dtype == np.float16 else found


def fits_float32(array: NDArray[Any]) -> bool:
    """Whether all numbers are finite, in single precision too."""
    return bool((np.abs(array) <= np.finfo(np.float32).max).all())


def as_images(x: Any) -> NDArray[Any]:
    """A copy of images, uint8 or floating point, as (n, channels, height, width).

    Args:
        x: (n, features), (n, height, width) or (n, channels, height, width), e.g. (500, 3, 32, 32).
    Raises:
        ValueError: another shape or dtype, no images, numbers that are not finite, or that are all the same.

    >>> as_images(np.eye(3)).shape
    (3, 1, 1, 3)
    """
    found = as_numpy("x", x)
    expected = "(n, features), (n, height, width) or (n, channels, height, width), with n at least 1"
    require_shape(found.ndim in (2, 3, 4) and found.size, "x", found, expected)
    last = found.ndim == 4 and found.shape[1] not in CHANNELS and found.shape[3] in CHANNELS
    require_shape(not last, "x", found, "channels before height and width: np.moveaxis(x, 3, 1)")
    real = np.issubdtype(found.dtype, np.floating)
    require_that(found.dtype == np.uint8 or real, "x.dtype", str(found.dtype), "uint8 or floating point")
    require_that(fits_float32(found), "x", "an array with NaN, infinite or huge numbers", "finite in float32")
    require_that(found.min() < found.max(), "x", f"an array of {found.flat[0]} alone", "of more than one value")
    shape = (len(found), *(1,) * (4 - found.ndim), *found.shape[1:])
    return np.array(found, order="C").reshape(shape)


def as_targets(y: Any, count: int, classes: int | None = None) -> tuple[NDArray[Any], int]:
    """A copy of the targets of `count` images: int64 labels with the number of classes, or float32 numbers with 0.

    Args:
        y: (count,), whole numbers from 0 for labels, floating point for regression.
        classes: how many, where `y` lacks some of them; None: every label from 0 to the largest occurs.
    Raises:
        ValueError: another shape or dtype, labels below 0 or not below `classes`, a class that does not occur, or
            numbers that are not finite.

    >>> as_targets([0, 2, 1, 1], 4)
    (array([0, 2, 1, 1]), 3)
    """
    found = as_numpy("y", y)
    require_shape(found.shape == (count,), "y", found, f"({count},): one label an image")
    if np.issubdtype(found.dtype, np.floating):
        require_that(classes is None, "classes", classes, "left out with real targets; labels are whole numbers")
        require_that(fits_float32(found), "y", "an array with NaN, infinite or huge numbers", "finite in float32")
        return found.astype(np.float32), 0
    whole = np.issubdtype(found.dtype, np.integer)
    require_that(whole, "y.dtype", str(found.dtype), "whole numbers for labels, floating point for regression")
    require_range("the smallest label", int(found.min()), 0)
    if classes is not None:
        require_range("classes", classes, int(found.max()) + 1)
        return found.astype(np.int64), int(classes)
    occurring = np.unique(found)
    missing = np.flatnonzero(occurring != np.arange(len(occurring)))
    expected = "every whole number from 0 to the largest; number the classes anew, or say how many there are: classes=K"
    require_that(not len(missing), "y", f"labels without {missing[0] if len(missing) else ''}", expected)
    return found.astype(np.int64), len(occurring)


def digest_of(x: NDArray[Any], y: NDArray[Any], classes: int) -> str:
    """Sixteen hex digits that name arrays by their type, shape and content, and by the number of their classes."""
    whole = hashlib.sha256(f"{classes}".encode())
    for array in (x, y):
        whole.update(f"\0{array.dtype.str}{array.shape}\0".encode())
        whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()[:16]
