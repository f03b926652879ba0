"""A pytest plugin, `-p nbval_sockets`: nbval's kernels talk over socket files, so several chapters run at a time."""

import nbval.kernel
from jupyter_client.manager import KernelManager
from kernel_sockets import over_sockets

nbval.kernel.KernelManager = over_sockets(KernelManager)
