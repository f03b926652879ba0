"""One way to refuse: the message names the value, what is allowed, and the nearest name. Standard library only."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


class MissingExtraError(ImportError, ValueError):
    """A package of an optional extra is not installed; the message is one line that names the extra."""


def require_extra(extra: str, *packages: str) -> None:
    """Raise MissingExtraError, naming the extra that brings them, unless every package can be found.

    >>> require_extra("study", "json")
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"{', '.join(missing)} not installed; pip install 'dyniso[{extra}]' brings what is needed"
        )


def nearest(value: object, allowed: Iterable[object]) -> str:
    """One phrase for an error message: what is allowed, and the nearest name if there is one.

    >>> nearest("smok", ["smoke", "check"])
    "allowed are 'smoke', 'check'; did you mean 'smoke'?"
    """
    names = [str(a) for a in allowed]
    return "allowed are " + (", ".join(map(repr, names)) or "none") + suggestion(value, names)


def suggestion(value: object, allowed: Iterable[object]) -> str:
    """The nearest name alone, to end an error message where a list of all would be too long; "" if none is near.

    >>> suggestion("smok", ["smoke", "check"])
    "; did you mean 'smoke'?"
    """
    names = [str(a) for a in allowed]
    near = difflib.get_close_matches(str(value), names, 1) or [n for n in names if value and str(value) in n]
    return f"; did you mean {near[0]!r}?" if near else ""


def require(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise ValueError naming field, value and what is allowed, unless `value` is one of `allowed`.

    >>> require("tier", "smok", ["smoke", "check"])
    Traceback (most recent call last):
    ValueError: tier='smok'; allowed are 'smoke', 'check'; did you mean 'smoke'?
    """
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; {nearest(value, allowed)}")


def require_keys(where: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise ValueError for the first key that is not allowed, with the nearest one that is.

    >>> require_keys("redo", ["treshold"], ["threshold", "every"])
    Traceback (most recent call last):
    ValueError: redo has no 'treshold'; allowed are 'threshold', 'every'; did you mean 'threshold'?
    """
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            raise ValueError(f"{where} has no {key!r}; {nearest(key, allowed)}")


def require_range(name: str, value: Any, low: float, high: float = float("inf"), kind: type = int) -> None:
    """Raise ValueError unless `value` is a number of `kind` (int or float; numpy's count too) in [low, high].

    >>> require_range("seeds", 0, 1)
    Traceback (most recent call last):
    ValueError: seeds=0; it must be a whole number from 1 to inf
    """
    fits = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if not fits or not low <= value <= high or value == float("inf"):
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name}={value!r}; it must be {what} from {low} to {high}")


def require_type(name: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> None:
    """Raise TypeError, saying what is expected and what came, unless `value` is an instance of one of `kinds`.

    >>> require_type("model", [1.0], dict, "a module, e.g. isometry_groups(model)")
    Traceback (most recent call last):
    TypeError: model is of type list; expected a module, e.g. isometry_groups(model)
    """
    if not isinstance(value, kinds):
        raise TypeError(f"{name} is of type {type(value).__name__}; expected {expected}")


def require_that(holds: object, name: str, value: Any, expected: str) -> None:
    """Raise ValueError naming the value and what it must be, unless the condition holds.

    >>> require_that(4 % 2, "kernel", 4, "an odd number")
    Traceback (most recent call last):
    ValueError: kernel=4; it must be an odd number
    """
    if not holds:
        raise ValueError(f"{name}={value!r}; it must be {expected}")


def require_shape(holds: object, name: str, value: Any, expected: str) -> None:
    """Raise ValueError naming the shape of an array and the one that is expected, unless the condition holds.

    >>> require_shape(False, "W", memoryview(b"abc"), "(..., out, in)")
    Traceback (most recent call last):
    ValueError: W has shape (3,); expected (..., out, in)
    """
    if not holds:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected {expected}")
