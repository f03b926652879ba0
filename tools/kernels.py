"""Kernels that depend on this Python alone: no kernelspec, start-up file or setting of the user's changes a chapter."""

from __future__ import annotations

import os
import sys
import tempfile
import weakref
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from traitlets import default

COMMAND = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
ENVIRONMENT = {
    "TQDM_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MATPLOTLIBRC": os.devnull,
    "PYTHONSTARTUP": "",
    "PYTHONWARNINGS": "",
}
SHORT = 80  # bytes of a folder's path below which a socket's path fits into the 108 that Linux allows


def own_kernels(manager: type[KernelManager]) -> type[KernelManager]:
    """A kernel manager whose kernels are this Python, each with a folder of its own for sockets and state.

    They talk over socket files, since a free TCP port is chosen before a kernel binds it, so that two can collide; over
    TCP only where every folder for temporary files has a long path.
    """

    class OwnKernels(manager):  # type: ignore[valid-type, misc]
        @property
        def kernel_spec(self) -> KernelSpec:
            state = {"IPYTHONDIR": str(self.folder() / "ipython"), "JUPYTER_RUNTIME_DIR": str(self.folder())}
            return KernelSpec(argv=COMMAND, env=ENVIRONMENT | state, display_name="Python 3", language="python")

        def folder(self) -> Path:
            """The kernel's own folder, which goes with its manager."""
            if not hasattr(self, "own_folder"):
                made = tempfile.TemporaryDirectory(dir=shortest_place(), ignore_cleanup_errors=True)
                weakref.finalize(self, made.cleanup)
                self.own_folder = Path(made.name)
            return self.own_folder

        @default("connection_file")
        def _default_connection_file(self) -> str:
            return str(self.folder() / "connection.json")

        @default("transport")
        def _default_transport(self) -> str:
            return "ipc" if is_short(str(self.folder().parent)) else "tcp"

        @default("ip")
        def _default_ip(self) -> str:
            return str(self.folder() / "kernel") if self.transport == "ipc" else "127.0.0.1"

    return OwnKernels


def is_short(place: str) -> bool:
    return len(os.fsencode(place)) <= SHORT


def shortest_place() -> str:
    """The folder for temporary files; one of the system's where the path of that is too long for a socket."""
    places = [tempfile.gettempdir(), "/var/tmp", "/dev/shm"]
    usable = [place for place in places if is_short(place) and os.access(place, os.W_OK | os.X_OK)]
    return (usable or places)[0]
