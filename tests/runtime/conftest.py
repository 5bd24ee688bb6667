"""A real runtime on a node of the lab: Debian's containerd and runc, asked by CRI as the kubelet asks them."""

import os
import shutil

import pytest

from .bed.containerd import PROGRAMS


@pytest.fixture(scope="session")
def programs() -> None:
    """Skip, saying what is missing, where no runtime can run."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, mounts and cgroups are made")
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        pytest.skip(f"not installed: {' '.join(sorted(missing))} (Debian packages)")
