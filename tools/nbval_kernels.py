"""A pytest plugin, `-p nbval_kernels`: nbval executes chapters in the kernels that executed them for the book."""

import nbval.kernel
from jupyter_client.manager import KernelManager
from kernels import own_kernels

nbval.kernel.KernelManager = own_kernels(KernelManager)
