"""DEL: nothing is left, whatever was gone before, and nothing of others is touched (SPEC section 7)."""

import re
from pathlib import Path

import pytest

from cni_underlay.datapath import links
from cni_underlay.datapath.netlink import RequestSocket
from cni_underlay.errors import DatapathError
from cni_underlay.records import DatapathKind

from . import values
from .segment import Machine, Node, Segment, execute, together

MACVLAN, VETH = DatapathKind.MACVLAN, DatapathKind.VETH
BOTH = pytest.mark.parametrize("kind", [VETH, MACVLAN])


@pytest.fixture
def ready(segment: Segment, node: Node) -> Node:
    """A node with a pod of each kind, so that settings and its own link are as they stay."""
    for number, kind in ((200, VETH), (201, MACVLAN)):
        node.datapath.create(values.wiring(number, kind=kind), segment.pod().descriptor)
    return node


class Attached:
    """A pod on a node, and both as they were before it."""

    def __init__(self, segment: Segment, node: Node, kind: DatapathKind) -> None:
        self.node, self.pod = node, segment.pod()
        self.before = self.pod.dump(), node.dump()
        self.wiring = values.wiring(20, kind=kind)
        self.lease = values.lease(self.wiring)
        node.datapath.create(self.wiring, self.pod.descriptor)

    def nothing_is_left(self) -> None:
        assert (self.pod.dump(), self.node.dump()) == self.before


@pytest.fixture
def attached(segment: Segment, ready: Node, kind: DatapathKind) -> Attached:
    return Attached(segment, ready, kind)


@BOTH
def test_nothing_is_left_in_either_namespace_and_again(attached: Attached) -> None:
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    attached.nothing_is_left()
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    attached.node.datapath.delete(attached.lease, None)
    attached.nothing_is_left()


@BOTH
def test_by_the_marks_alone_nothing_is_left_in_either_namespace_and_again(attached: Attached) -> None:
    attached.node.datapath.delete_unknown(attached.wiring.attachment, attached.pod.descriptor)
    attached.nothing_is_left()
    attached.node.datapath.delete_unknown(attached.wiring.attachment, attached.pod.descriptor)
    attached.node.datapath.delete_unknown(attached.wiring.attachment, None)
    attached.nothing_is_left()


@pytest.mark.parametrize("kind", [VETH])
def test_a_veth_goes_from_the_nodes_side_without_its_namespace(attached: Attached) -> None:
    attached.node.datapath.delete(attached.lease, None)
    attached.nothing_is_left()


@pytest.mark.parametrize("kind", [VETH])
def test_a_veth_that_no_ledger_knows_goes_from_the_nodes_side_without_its_namespace(attached: Attached) -> None:
    attached.node.datapath.delete_unknown(attached.wiring.attachment, None)
    attached.nothing_is_left()


@pytest.mark.parametrize("kind", [MACVLAN])
def test_a_macvlan_leaves_nothing_on_the_node_without_its_namespace(attached: Attached) -> None:
    attached.node.datapath.delete(attached.lease, None)
    assert attached.node.dump() == attached.before[1]


@BOTH
def test_it_succeeds_when_the_namespace_is_gone(attached: Attached) -> None:
    execute("ip", "netns", "del", attached.pod.name)
    attached.node.datapath.delete(attached.lease, None)
    # The last descriptor of ours keeps it alive for the kernel; the node's side is clean all the same.
    assert attached.node.dump() == attached.before[1]


@BOTH
def test_it_succeeds_when_the_link_is_gone(attached: Attached) -> None:
    attached.pod.ip("link", "del", "eth0")
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    attached.nothing_is_left()


@BOTH
def test_a_renamed_link_is_found_by_its_mark(attached: Attached) -> None:
    attached.pod.ip("link", "set", "eth0", "down")
    attached.pod.ip("link", "set", "eth0", "name", "eth9")
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    attached.nothing_is_left()


@pytest.mark.parametrize("kind", [VETH])
def test_a_renamed_host_end_is_found_by_its_mark(attached: Attached) -> None:
    attached.node.ip("link", "set", attached.wiring.host_ifname, "down")
    attached.node.ip("link", "set", attached.wiring.host_ifname, "name", "renamed0")
    attached.node.datapath.delete(attached.lease, None)
    attached.nothing_is_left()


@BOTH
def test_it_succeeds_when_the_master_is_gone(attached: Attached) -> None:
    attached.node.ip("link", "del", "eth0")
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    assert attached.pod.dump() == attached.before[0]
    assert attached.wiring.attachment.digest not in attached.node.ip("-d", "link")


@BOTH
def test_it_succeeds_with_a_plain_file_for_a_namespace(attached: Attached, tmp_path: Path) -> None:
    with (tmp_path / "left over").open("w") as file:
        attached.node.datapath.delete(attached.lease, file.fileno())
        attached.node.datapath.delete_unknown(attached.wiring.attachment, file.fileno())
    assert attached.node.dump() == attached.before[1]


@BOTH
def test_an_interface_that_only_has_the_name_stays(attached: Attached) -> None:
    attached.pod.ip("link", "del", "eth0")
    attached.pod.ip("link", "add", "eth0", "type", "bridge")
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    attached.node.datapath.delete_unknown(attached.wiring.attachment, attached.pod.descriptor)
    assert "eth0" in attached.pod.ip("link")


@BOTH
@pytest.mark.parametrize("known", [True, False])
def test_a_link_that_an_agent_was_killed_over_before_it_could_mark_it_goes(attached: Attached, known: bool) -> None:
    """The kernel takes no alias with a new link; what it takes says that the link is ours, but not whose."""
    attached.pod.ip("link", "set", "eth0", "alias", "")
    if attached.wiring.kind is VETH:
        attached.node.ip("link", "set", attached.wiring.host_ifname, "alias", "")
    if known:
        attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
        attached.nothing_is_left()
    else:
        attached.node.datapath.delete_unknown(attached.wiring.attachment, attached.pod.descriptor)
        assert attached.pod.dump() == attached.before[0]


@BOTH
def test_the_nodes_own_interface_of_that_name_stays_when_the_namespace_is_the_nodes(attached: Attached) -> None:
    attached.node.datapath.delete(attached.lease, attached.node.descriptor)
    attached.node.datapath.delete_unknown(attached.wiring.attachment, attached.node.descriptor)
    assert attached.node.json("link", "show", "dev", "eth0")
    assert attached.node.dump() == attached.before[1]


@BOTH
def test_the_containers_other_interface_stays_and_works(segment: Segment, attached: Attached, vm: Machine) -> None:
    second = values.wiring(21, kind=attached.wiring.kind, ifname="eth1")
    attached.node.datapath.create(second, attached.pod.descriptor)
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    links_left = [link["ifname"] for link in attached.pod.json("link", "show")]
    assert links_left == ["lo", "eth1"]


@BOTH
def test_an_attachment_that_never_was_touches_nothing(attached: Attached) -> None:
    state = attached.pod.dump(), attached.node.dump()
    attached.node.datapath.delete_unknown(values.wiring(99).attachment, attached.pod.descriptor)
    assert (attached.pod.dump(), attached.node.dump()) == state


@BOTH
def test_what_others_put_on_the_node_for_that_address_stays(attached: Attached) -> None:
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    attached.node.ip("route", "add", "10.9.0.20/32", "dev", "eth0")
    state = attached.node.dump()
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    assert attached.node.dump() == state


@BOTH
def test_parallel_deletions_of_one_attachment_all_succeed(attached: Attached) -> None:
    together(lambda _: attached.node.datapath.delete(attached.lease, attached.pod.descriptor), range(4))
    attached.nothing_is_left()


@BOTH
def test_it_goes_on_past_a_failing_step_and_tells_it_at_the_end(
    attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(kernel: RequestSocket, index: int) -> None:
        raise PermissionError(1, "No such file or directory")

    monkeypatch.setattr(links, "delete", refuse)
    monkeypatch.setattr(links, "see_off", refuse)
    with pytest.raises(DatapathError, match="could not be removed completely") as caught:
        attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    assert "EPERM" in caught.value.details
    # A runtime reads these words as success (go-cni, Remove).
    assert not re.search("not found|no such file", f"{caught.value} {caught.value.details}", re.IGNORECASE)
    assert "10.9.0.20 " not in attached.node.ip("neigh", "show", "proxy")
    monkeypatch.undo()
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    attached.nothing_is_left()


@BOTH
def test_add_and_del_again_and_again_leave_nothing(attached: Attached) -> None:
    attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    for _ in range(30):
        attached.node.datapath.create(attached.wiring, attached.pod.descriptor)
        attached.node.datapath.delete(attached.lease, attached.pod.descriptor)
    attached.nothing_is_left()
