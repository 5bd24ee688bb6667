"""What can go wrong, one class for each party who has to act; the CNI code stands on the class, the words at the raise.

Codes below 100 are the specification's (CNI 1.1.0, section "Error"); 100 and above are this plugin's own.
"""

from typing import ClassVar


class UnderlayError(Exception):
    """Root of every failure that is answered to a runtime or an admin.

    The message is one line for people; `details` may say more (an errno, a path, a list) and may be empty.
    """

    code: ClassVar[int] = 999

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class IncompatibleVersionError(UnderlayError):
    """Code 1: the configuration's cniVersion, or the verb at that version, is not supported."""

    code = 1


class UnsupportedFieldError(UnderlayError):
    """Code 2: a field of our own `ipam` block is unknown; the message holds its key and value."""

    code = 2


class UnknownContainerError(UnderlayError):
    """Code 3: the namespace is gone. The runtime will not call DEL after it, so nothing may be left behind."""

    code = 3


class InvalidEnvironmentError(UnderlayError):
    """Code 4: a CNI_ variable is missing or malformed; the message names it."""

    code = 4


class IoFailureError(UnderlayError):
    """Code 5: the request could not be read, or the answer not be written."""

    code = 5


class DecodingError(UnderlayError):
    """Code 6: standard input is not the JSON that the specification describes."""

    code = 6


class InvalidConfigError(UnderlayError):
    """Code 7: the configuration is well-formed and wrong: who wrote it has to act."""

    code = 7


class InvalidNamespaceError(UnderlayError):
    """Code 8: CNI_NETNS is not a network namespace, or it is the node's own (libcni's `ErrInvalidNetNS`)."""

    code = 8


class TryAgainLaterError(UnderlayError):
    """Code 11: a passing state; the runtime repeats the call."""

    code = 11


class PoolExhaustedError(TryAgainLaterError):
    """No address of the pools asked for can be leased at this moment."""


class AddressInUseError(TryAgainLaterError):
    """A requested address is held by another attachment, or still resting after its last owner."""


class StoreUnavailableError(TryAgainLaterError):
    """The ledger cannot be read or written: disk full, read-only, damaged."""


class PluginNotAvailableError(UnderlayError):
    """Code 50 (STATUS): the node cannot serve ADD."""

    code = 50


class LimitedConnectivityError(UnderlayError):
    """Code 51 (STATUS): as 50, and running containers may be affected too."""

    code = 51


class CheckFailedError(UnderlayError):
    """Code 100: CHECK found the attachment different from what ADD made; the message says what differs."""

    code = 100


class AddressConflictError(UnderlayError):
    """Code 101: a machine outside answers for the address."""

    code = 101


class DatapathError(UnderlayError):
    """Code 102: the kernel refused a step; `details` holds the step and the errno's name."""

    code = 102


class AttachmentExistsError(UnderlayError):
    """Code 103: the attachment holds a lease already, and its first ADD stands: DEL has to come before another ADD."""

    code = 103


class DelegateError(UnderlayError):
    """A delegated plugin failed; its own code and message are passed on (specification, section 4)."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message, details)
        self.code = code  # type: ignore[misc]  # the delegate's, not the class's
