"""Kernels over socket files: each has a folder of its own, which goes with its manager."""

import gc
import sys
from pathlib import Path

from jupyter_client.manager import KernelManager

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from kernel_sockets import over_sockets


def test_two_managers_have_sockets_in_two_folders():
    first, second = (over_sockets(KernelManager)() for _ in range(2))
    assert (first.transport, second.transport) == ("ipc", "ipc")
    assert Path(first.ip).parent != Path(second.ip).parent
    assert Path(first.ip).parent.is_dir()


def test_a_folder_goes_with_its_manager():
    manager = over_sockets(KernelManager)()
    folder = Path(manager.ip).parent
    del manager
    gc.collect()
    assert not folder.exists()
