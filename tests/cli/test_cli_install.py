"""install and uninstall as an admin types them; what they do in detail is tests/client's."""

from pathlib import Path

import pytest

from .conftest import Ctl

NAMES = ("underlay", "underlay-ipam")
CONFLIST = "10-underlay.conflist"


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, ...]:
    return ("--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "net.d"))


def test_install_puts_everything_in_place_and_says_so_by_line(
    bare: Ctl, places: tuple[str, ...], tmp_path: Path
) -> None:
    done = bare("install", *places)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        *(f"installed {tmp_path}/bin/{name}" for name in NAMES),
        f"installed {tmp_path}/net.d/{CONFLIST}",
    ]
    for name in NAMES:
        assert (tmp_path / "bin" / name).stat().st_mode & 0o777 == 0o755


def test_a_second_install_changes_nothing(bare: Ctl, places: tuple[str, ...]) -> None:
    bare("install", *places)
    done = bare("install", *places)
    assert done.returncode == 0
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"unchanged"}


def test_uninstall_takes_all_away_and_succeeds_twice(bare: Ctl, places: tuple[str, ...], tmp_path: Path) -> None:
    bare("install", *places)
    done = bare("uninstall", *places)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["removed"] * 3
    assert list((tmp_path / "bin").iterdir()) == list((tmp_path / "net.d").iterdir()) == []
    again = bare("uninstall", *places)
    assert again.returncode == 0
    assert {line.split()[0] for line in again.stdout.splitlines()} == {"absent"}


def test_a_changed_configuration_is_refused_kept_or_replaced(
    bare: Ctl, places: tuple[str, ...], tmp_path: Path
) -> None:
    bare("install", *places)
    network = tmp_path / "net.d" / CONFLIST
    network.write_text("{}")
    refused = bare("install", *places)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert str(network) in refused.stderr
    assert bare("install", *places, "--keep").returncode == 0
    assert network.read_text() == "{}"
    assert bare("install", *places, "--force").returncode == 0
    assert network.read_text() != "{}"


def test_a_configuration_of_ones_own_is_installed(bare: Ctl, places: tuple[str, ...], tmp_path: Path) -> None:
    own = tmp_path / "own.conflist"
    own.write_text('{"cniVersion": "1.0.0", "name": "own", "plugins": []}')
    assert bare("install", *places, "--conflist", own).returncode == 0
    assert (tmp_path / "net.d" / CONFLIST).read_text() == own.read_text()


def test_somebody_elses_binary_is_not_overwritten(bare: Ctl, places: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "underlay").write_text("#!/bin/sh\n")
    done = bare("install", *places)
    assert done.returncode == 1
    assert (tmp_path / "bin" / "underlay").read_text() == "#!/bin/sh\n"
    assert not (tmp_path / "net.d").exists()


def test_a_place_that_cannot_be_written_is_one_line(bare: Ctl, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = bare("install", "--bin-dir", tmp_path / "file" / "bin", "--conf-dir", tmp_path / "net.d")
    assert done.returncode == 1
    (words,) = done.stderr.splitlines()
    assert words.startswith("underlayctl: cannot ")
    assert str(tmp_path / "file") in words


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_help_tells_the_exit_statuses(bare: Ctl, command: str) -> None:
    text = " ".join(bare(command, "--help").stdout.split())
    assert "Exit status: 0" in text
    assert "2 for wrong arguments" in text
