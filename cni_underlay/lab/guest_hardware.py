"""The QEMU command line of a guest. Pure.

Always TCG: the lab must run where there is no /dev/kvm, and behave the same where there is one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

QEMU = "qemu-system-x86_64"
# `panic=-1 reboot=t` with -no-reboot: a guest that dies ends its process. A guest without rdrand (`-cpu max` has it)
# waits a second for randomness at the first Python.
_KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1 reboot=t mitigations=off random.trust_cpu=on"
# Translated code; the default is an eighth of this machine's memory, which a parallel start need not take.
_CODE_CACHE_MIB = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a guest starts from.

    `settings` become lab.KEY=VALUE for its init; `ports` are chardev options, the other ends of its serial ports.
    """

    image: Path
    initramfs: Path
    memory: int
    serial: Path
    settings: Mapping[str, str]
    ports: Sequence[str]
    devices: Sequence[str] = field(default=())


def command_line(hardware: Hardware) -> list[str]:
    """The whole command, to be executed where the guest's tap is."""
    settings = {**hardware.settings, "ports": str(len(hardware.ports))}
    arguments = " ".join((_KERNEL_ARGUMENTS, *(f"lab.{key}={value}" for key, value in settings.items())))
    return [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "pc", "-cpu", "max", "-accel", f"tcg,tb-size={_CODE_CACHE_MIB}", "-m", str(hardware.memory)),
        *("-kernel", str(hardware.image), "-initrd", str(hardware.initramfs), "-append", arguments),
        *("-serial", f"file:{hardware.serial}", "-device", "virtio-serial-pci"),
        *_ports(hardware.ports),
        *hardware.devices,
    ]


def _ports(ends: Sequence[str]) -> Iterator[str]:
    for number, end in enumerate(ends, 1):
        # Port 0 is the console's.
        yield from ("-chardev", f"{end},id=port{number}", "-device", f"virtserialport,chardev=port{number},nr={number}")


def tap(ifname: str, mac: str) -> list[str]:
    """A network interface on a tap that exists."""
    return [
        *("-netdev", f"tap,id=net0,ifname={ifname},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=net0,mac={mac},romfile="),
    ]


def files_of_this_machine() -> list[str]:
    """The root directory of this machine, read-only, under the tag that the guest's init mounts."""
    export = "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"
    return ["-fsdev", export, "-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]
