"""Data sets of a user's own arrays: what a spec has to know of them. `dyniso.study.data.register` fills the table."""

from __future__ import annotations

from typing import NamedTuple


class Own(NamedTuple):
    """What is known of a registered data set without its arrays."""

    content: str  # digest of the arrays: runs on other arrays of the same name are other runs
    images: int  # how many
    classes: int  # 0 where the targets are real numbers


OWN: dict[str, Own] = {}  # by name
