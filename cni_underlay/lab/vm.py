"""VMs and routers of the lab that are namespaces; the QEMU kind is in `guest_vm`."""

from pathlib import Path

from cni_underlay.lab.host import NamespaceHost
from cni_underlay.lab.process import Processes
from cni_underlay.lab.topology import HostSpec
from cni_underlay.records import IPAddress


class Machine(NamespaceHost):
    """A VM or router that is a namespace."""

    def __init__(self, spec: HostSpec, netns_path: Path, processes: Processes, lab_directory: Path) -> None:
        super().__init__(spec.name, netns_path, processes, lab_directory / "machines" / spec.name)
        self.spec = spec

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return tuple(address.ip for address in self.spec.addresses)
