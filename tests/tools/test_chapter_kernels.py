"""Kernels of chapters: each is this Python with a folder of its own, whatever the user's kernels and settings are."""

import gc
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import kernels
from kernels import own_kernels


def test_two_managers_have_sockets_in_two_folders():
    first, second = (own_kernels(KernelManager)() for _ in range(2))
    assert (first.transport, second.transport) == ("ipc", "ipc")
    assert Path(first.ip).parent != Path(second.ip).parent
    assert Path(first.ip).parent.is_dir()


def test_a_folder_goes_with_its_manager():
    manager = own_kernels(KernelManager)()
    folder = Path(manager.ip).parent
    del manager
    gc.collect()
    assert not folder.exists()


def test_kernel_is_this_python_whatever_a_kernelspec_of_the_same_name_says(tmp_path, monkeypatch):
    (tmp_path / "kernels/python3").mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "Wrong", "language": "python"}
    (tmp_path / "kernels/python3/kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert own_kernels(KernelManager)(kernel_name="python3").kernel_spec.argv[0] == sys.executable


@pytest.mark.parametrize("system", [True, False])
def test_socket_fits_however_long_the_folder_for_temporary_files_is(tmp_path, monkeypatch, system):
    long = tmp_path / ("x" * 101)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(os, "access", lambda *_: system)
    manager = own_kernels(KernelManager)()
    if system:
        assert len(f"{manager.ip}-5") < 108
    assert (manager.transport, manager.ip.startswith("/")) == (("ipc", True) if system else ("tcp", False))


@pytest.mark.slow
def test_kernel_starts_under_settings_of_a_user_that_would_break_it(tmp_path, monkeypatch):
    for name in ("ipython/profile_default/startup", "long/" + "x" * 101):
        (tmp_path / name).mkdir(parents=True)
    for name in ("startup.py", "ipython/profile_default/startup/a.py"):
        (tmp_path / name).write_text("import os\nos._exit(1)\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "long" / ("x" * 101)))
    harmful = {"IPYTHONDIR": tmp_path / "ipython", "PYTHONSTARTUP": tmp_path / "startup.py", "HOME": "/proc/none"}
    for variable, value in (harmful | {"PYTHONWARNINGS": "error", "MPLBACKEND": "nonsense"}).items():
        monkeypatch.setenv(variable, str(value))
    manager = own_kernels(KernelManager)()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        reply = client.execute_interactive("import matplotlib", timeout=120)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok"
    assert set(kernels.ENVIRONMENT) >= {"MATPLOTLIBRC", "PYTHONSTARTUP"}
