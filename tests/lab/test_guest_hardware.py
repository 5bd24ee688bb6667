"""QEMU's command line, without QEMU."""

from pathlib import Path

from cni_underlay.lab.guest_hardware import Hardware, command_line, tap

HARDWARE = Hardware(
    image=Path("/k/vmlinux"),
    initramfs=Path("/k/initramfs"),
    memory=300,
    serial=Path("/x/serial.log"),
    settings={"mode": "vm", "name": "g"},
    ports=["pipe,path=/x/one", "pipe,path=/x/two"],
    devices=tap("g.0", "52:54:00:00:00:01"),
)


def test_a_guest_never_uses_kvm() -> None:
    command = command_line(HARDWARE)
    assert command[command.index("-accel") + 1].startswith("tcg")
    assert "-enable-kvm" not in command


def test_settings_reach_the_guest_with_the_number_of_ports() -> None:
    command = command_line(HARDWARE)
    assert command[command.index("-append") + 1].endswith("lab.mode=vm lab.name=g lab.ports=2")


def test_ports_are_numbered_from_one_because_zero_is_the_consoles() -> None:
    devices = [option for option in command_line(HARDWARE) if option.startswith("virtserialport")]
    assert devices == ["virtserialport,chardev=port1,nr=1", "virtserialport,chardev=port2,nr=2"]


def test_the_tap_is_not_configured_by_qemus_scripts() -> None:
    assert "tap,id=net0,ifname=g.0,script=no,downscript=no" in command_line(HARDWARE)
