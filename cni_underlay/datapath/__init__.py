"""The kernel's side of an attachment: namespaces, links, addresses, routes, neighbours."""

from cni_underlay.datapath.kernel_datapath import KernelDatapath

__all__ = ["KernelDatapath"]
