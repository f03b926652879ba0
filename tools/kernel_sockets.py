"""Kernels that talk over socket files: a free TCP port is chosen before a kernel binds it, so that two can collide."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path

from jupyter_client.manager import KernelManager
from traitlets import default


def over_sockets(manager: type[KernelManager]) -> type[KernelManager]:
    """A kernel manager whose kernels have a folder each for their sockets, with a short path, while they live."""

    class OverSockets(manager):  # type: ignore[valid-type, misc]
        @default("transport")
        def _default_transport(self) -> str:
            return "ipc"

        @default("ip")
        def _default_ip(self) -> str:
            folder = tempfile.TemporaryDirectory()
            weakref.finalize(self, folder.cleanup)
            return str(Path(folder.name, "kernel"))

    return OverSockets
