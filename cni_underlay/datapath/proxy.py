"""Answering ARP and ND in a pod's place, by proxy neighbour entries."""

from cni_underlay.datapath import messages
from cni_underlay.datapath.refusal import kernel
from cni_underlay.datapath.work import Work


def answer(work: Work) -> None:
    """Answer for the pod's addresses on the master."""
    _answer_on(work, work.master.index)


def answer_on_host_link(work: Work) -> None:
    """Answer for them on the node's own link on the master too, if there is one: macvlan pods of this node ask there.

    To be called after `answer`, see HostLinks._share_proxies.
    """
    with kernel(f"look up the node's own link on {work.master.name}"):
        link = work.shared.host_links.find(work.requests, work.master)
    if link is not None:
        _answer_on(work, link.index)


def _answer_on(work: Work, index: int) -> None:
    ips = work.plan.ips
    if ips:
        work.undo.callback(lambda: work.requests.attempt([messages.delete_proxy(index, ip) for ip in ips]))
        with kernel(f"answer for the pod on {work.master.name}"):
            work.requests.change(*(messages.new_proxy(index, ip) for ip in ips))
