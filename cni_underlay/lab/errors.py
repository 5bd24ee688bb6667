"""What can go wrong in a lab, apart from what goes wrong inside it."""


class LabError(Exception):
    """The lab could not do what was asked; the message is for the person who asked."""


class TopologyError(LabError):
    """The topology file is wrong; the message starts with the file and the key."""


class GuestError(LabError):
    """The QEMU guest could not be made, did not boot, or stopped answering."""


class CniError(LabError):
    """A plugin answered a call with an error object, or with something that is none (`code` 0)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"code {code}: {message}")
        self.code = code
