"""The plugin's executable, one static binary in C for both of its names, and where to find it."""

import os
from pathlib import Path

from cni_underlay.errors import UnderlayError

# What `strings` shows in every build of the client, followed by its version (underlay.c).
MARKER = b"@(#)cni-underlay client "


class ClientMissingError(UnderlayError):
    """The package was installed without its binary."""


def path() -> Path:
    """The binary that belongs to this installation of the package. Raises ClientMissingError."""
    binary = Path(__file__).resolve().with_name("underlay")
    if not os.access(binary, os.X_OK) or not binary.is_file():
        raise ClientMissingError(
            f"the client is missing at {binary}: reinstall the package, or in a checkout run "
            "`python -m cni_underlay.client.build`"
        )
    return binary
