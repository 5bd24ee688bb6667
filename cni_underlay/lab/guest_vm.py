"""A VM of the lab with a kernel of its own: QEMU on a tap in the switch, commands over its channels."""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from cni_underlay.lab import guest_channel, wiring
from cni_underlay.lab.errors import GuestError
from cni_underlay.lab.guest_hardware import Hardware, command_line, tap
from cni_underlay.lab.guest_initramfs import initramfs
from cni_underlay.lab.guest_kernel import kernel
from cni_underlay.lab.host import Host
from cni_underlay.lab.process import Processes, ProcessId, tail
from cni_underlay.lab.topology import VmSpec
from cni_underlay.records import IPAddress

# Two seconds on an idle machine; TCG shares the processors with everything else.
_BOOT_WITHIN = 90.0
_PAUSE = 0.02


class GuestVm(Host):
    """Runs commands as root of the guest, with busybox's programs."""

    def __init__(self, spec: VmSpec, switch: Path, processes: Processes, lab_directory: Path) -> None:
        super().__init__(spec.name)
        self.spec = spec
        self.directory = lab_directory / "machines" / spec.name
        self._switch = switch
        self._processes = processes
        self._name = f"qemu.{spec.name}"
        self._serial = self.directory / "serial.log"
        self._log = self.directory / "qemu.log"

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return tuple(address.ip for address in self.spec.addresses)

    @property
    def mac(self) -> str:
        """The MAC of its interface, in QEMU's own range; the same on every boot of this lab."""
        digest = hashlib.sha256(str(self.directory).encode()).hexdigest()
        return f"52:54:00:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"

    @property
    def process(self) -> ProcessId | None:
        """Its QEMU, or None where it does not run."""
        return self._processes.find(self._name)

    def power_off(self) -> None:
        """Pull its plug; nothing happens where it is off."""
        self._processes.end(self._name, signal.SIGKILL)

    def power_on(self) -> None:
        """Boot it and wait until it is ready; raises `LabError`."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start QEMU, without waiting for the guest: `wait_until_ready` does."""
        if self.process is not None:
            raise GuestError(f"guest {self.name} runs already")
        self.directory.mkdir(parents=True, exist_ok=True)
        cached = kernel()
        hardware = Hardware(
            image=cached.image,
            initramfs=initramfs(cached),
            memory=self.spec.memory,
            serial=self._serial,
            settings=_settings(self.spec),
            ports=guest_channel.make(self.directory),
            devices=tap(wiring.port_name(self.name, 0), self.mac),
        )
        self._processes.start(
            self._name, self._switch, command_line(hardware), output=self._log, environment=os.environ
        )

    def wait_until_ready(self) -> None:
        """Wait until the guest executes commands; `GuestError` with the end of its console where it dies or hangs."""
        deadline = time.monotonic() + _BOOT_WITHIN
        while True:
            alive = self.process is not None
            try:
                self.run(["true"], timeout=deadline - time.monotonic())
            except GuestError as error:
                # QEMU opens the FIFOs a moment after its start.
                if not alive:
                    raise GuestError(f"guest {self.name}: {error}\n{self.console()}") from error
                time.sleep(_PAUSE)
            except subprocess.TimeoutExpired as error:
                raise GuestError(f"guest {self.name} did not boot in {_BOOT_WITHIN:g} s\n{self.console()}") from error
            else:
                return

    def console(self) -> str:
        """The end of what QEMU and the guest's kernel said."""
        return f"{tail(self._log)}\n{tail(self._serial)}".strip()

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        return guest_channel.run(self.directory, argv, stdin=stdin, timeout=timeout)


def _settings(spec: VmSpec) -> dict[str, str]:
    return {
        "mode": "vm",
        "name": spec.name,
        "mtu": str(spec.uplinks[0].segment.mtu),
        "addresses": ",".join(map(str, spec.addresses)),
        "gateways": ",".join(map(str, spec.gateways)),
        "http": "yes" if spec.http else "no",
    }
