"""Settings under /proc/sys/net, which are those of the calling thread's network namespace (see `netns.Node.run`)."""

from pathlib import Path

from cni_underlay.datapath.refusal import kernel

_ROOT = "/proc/sys/net/"


def read(name: str) -> str | None:
    """The setting's value; None where this kernel or this interface does not have it (IPv6 off, link gone)."""
    try:
        with open(_ROOT + name, "rb", buffering=0) as file:  # noqa: PTH123  # half of Path.read_text's time
            return file.read(64).strip().decode()
    except FileNotFoundError:
        return None


def ensure(name: str, value: str) -> str | None:
    """Set it where it is different, because some writes have side effects even then. Returns the old value if changed.

    A setting that does not exist is left alone. Raises `DatapathError` (read-only /proc/sys, for one).
    """
    old = read(name)
    if old is None or old == value:
        return None
    with kernel(f"set {name.replace('/', '.')} to {value}"):
        Path(_ROOT + name).write_bytes(value.encode())
    return old


def interfaces(family: str) -> tuple[str, ...]:
    """The interfaces that have settings of `ipv4` or `ipv6`, without the entries `all` and `default`."""
    directory = Path(_ROOT, family, "conf")
    if not directory.is_dir():
        return ()
    return tuple(entry.name for entry in directory.iterdir() if entry.name not in {"all", "default"})
