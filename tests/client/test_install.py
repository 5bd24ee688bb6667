"""Putting the plugin on a node and taking it away: order, atomicity, and respect for what others wrote."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cni_underlay import client as client_package
from cni_underlay.cli import install as installer
from cni_underlay.cli.install import Action, Change, Foreign, InstallError, install, uninstall
from cni_underlay.client.build import compile_client

BINARIES = ["underlay", "underlay-ipam"]
CONFLIST = "10-underlay.conflist"


@pytest.fixture(autouse=True)
def packaged_client(client: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The freshly compiled client, where the package would have its own."""
    monkeypatch.setattr(client_package, "path", lambda: client)
    return client


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    return tmp_path / "opt" / "cni" / "bin"


@pytest.fixture
def conf_dir(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "cni" / "net.d"


def actions(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.path.name, str(change.action)) for change in changes]


def every(action: Action) -> list[tuple[str, str]]:
    return [(name, str(action)) for name in [*BINARIES, CONFLIST]]


def snapshot(root: Path) -> dict[str, tuple[int, int, bytes]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_an_empty_node_gets_everything(bin_dir: Path, conf_dir: Path, client: Path) -> None:
    changes = install(bin_dir, conf_dir)
    assert actions(changes) == every(Action.INSTALLED)
    assert str(changes[0]) == f"installed {bin_dir}/underlay"
    for name in BINARIES:
        assert (bin_dir / name).read_bytes() == client.read_bytes()
        assert stat.S_IMODE((bin_dir / name).stat().st_mode) == 0o755
        about = subprocess.run([bin_dir / name], env={}, capture_output=True, check=True)
        assert about.stderr.startswith(f"CNI plugin {name} v".encode())
    assert stat.S_IMODE((conf_dir / CONFLIST).stat().st_mode) == 0o644
    assert sorted(path.name for path in bin_dir.iterdir()) == BINARIES
    assert [path.name for path in conf_dir.iterdir()] == [CONFLIST]


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_modes_do_not_depend_on_the_umask(bin_dir: Path, conf_dir: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        install(bin_dir, conf_dir)
    finally:
        os.umask(before)
    folders = [bin_dir, bin_dir.parent, conf_dir, conf_dir.parent]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o755}
    assert stat.S_IMODE((conf_dir / CONFLIST).stat().st_mode) == 0o644


def test_a_second_time_nothing_is_written(bin_dir: Path, conf_dir: Path, tmp_path: Path) -> None:
    install(bin_dir, conf_dir)
    before = snapshot(tmp_path)
    assert actions(install(bin_dir, conf_dir)) == every(Action.UNCHANGED)
    assert snapshot(tmp_path) == before


def test_a_lost_mode_is_restored(bin_dir: Path, conf_dir: Path) -> None:
    install(bin_dir, conf_dir)
    (bin_dir / "underlay").chmod(0o600)
    assert actions(install(bin_dir, conf_dir))[0] == ("underlay", "updated")
    assert os.access(bin_dir / "underlay", os.X_OK)


def test_another_version_of_ours_is_updated(bin_dir: Path, conf_dir: Path, client: Path) -> None:
    bin_dir.mkdir(parents=True)
    compile_client(bin_dir / "underlay", "0.0.1")
    assert actions(install(bin_dir, conf_dir))[:2] == [("underlay", "updated"), ("underlay-ipam", "installed")]
    assert (bin_dir / "underlay").read_bytes() == client.read_bytes()


def test_the_plugin_can_be_executed_at_every_moment_of_an_update(bin_dir: Path, conf_dir: Path, client: Path) -> None:
    """No "text file busy", no missing or half-written file: the runtime's execs and our renames do not meet."""
    install(bin_dir, conf_dir)
    loop = """
        count=0
        while [ $count -lt 200 ]; do
            case $("$0") in '{"cniVersion":'*) count=$((count + 1)) ;; *) exit 1 ;; esac
        done
    """
    updates = 0
    with subprocess.Popen(["sh", "-c", loop, bin_dir / "underlay"], env={"CNI_COMMAND": "VERSION"}) as caller:
        while caller.poll() is None:
            # A file of other content under the same name, as the release before this one would have left it.
            older = bin_dir / ".older"
            older.write_bytes(client.read_bytes() + b"%d" % updates)
            older.chmod(0o755)
            older.replace(bin_dir / "underlay")
            assert actions(install(bin_dir, conf_dir))[0] == ("underlay", "updated")
            updates += 1
    assert caller.returncode == 0
    assert updates > 2


def test_a_client_that_is_being_executed_goes_on_with_the_old_file(bin_dir: Path, conf_dir: Path, client: Path) -> None:
    install(bin_dir, conf_dir)
    env = {"CNI_COMMAND": "ADD", "UNDERLAY_SOCKET": "/nonexistent/agent.sock"}
    with subprocess.Popen([bin_dir / "underlay"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as old:
        (bin_dir / ".other").write_bytes(client.read_bytes() + b"x")
        (bin_dir / ".other").replace(bin_dir / "underlay")
        install(bin_dir, conf_dir)
        uninstall(bin_dir, conf_dir)
        out, _ = old.communicate(b"{}", timeout=20)
    assert json.loads(out)["code"] == 11


def test_an_edited_configuration_stops_the_installation_before_any_change(bin_dir: Path, conf_dir: Path) -> None:
    conf_dir.mkdir(parents=True)
    (conf_dir / CONFLIST).write_text('{"name": "mine"}')
    with pytest.raises(InstallError, match=f"{conf_dir}/{CONFLIST} differs.*--keep.*--force"):
        install(bin_dir, conf_dir)
    assert not bin_dir.exists()
    assert (conf_dir / CONFLIST).read_text() == '{"name": "mine"}'


def test_an_edited_configuration_can_be_kept(bin_dir: Path, conf_dir: Path) -> None:
    conf_dir.mkdir(parents=True)
    (conf_dir / CONFLIST).write_text('{"name": "mine"}')
    changes = install(bin_dir, conf_dir, foreign=Foreign.KEEP)
    assert actions(changes)[2] == (CONFLIST, "kept")
    assert str(changes[2]) == f"kept {conf_dir}/{CONFLIST}: differs from what would be installed"
    assert (conf_dir / CONFLIST).read_text() == '{"name": "mine"}'
    assert sorted(path.name for path in bin_dir.iterdir()) == BINARIES


def test_an_edited_configuration_is_replaced_when_asked(bin_dir: Path, conf_dir: Path) -> None:
    conf_dir.mkdir(parents=True)
    (conf_dir / CONFLIST).write_text('{"name": "mine"}')
    assert actions(install(bin_dir, conf_dir, foreign=Foreign.REPLACE))[2] == (CONFLIST, "updated")
    assert (conf_dir / CONFLIST).read_bytes() == installer.default_conflist().read_bytes()


def test_a_configuration_of_the_callers_own_is_installed_and_known_again(
    bin_dir: Path, conf_dir: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"name": "own"}')
    install(bin_dir, conf_dir, conflist=own)
    assert (conf_dir / CONFLIST).read_text() == '{"name": "own"}'
    assert actions(install(bin_dir, conf_dir, conflist=own)) == every(Action.UNCHANGED)
    uninstall(bin_dir, conf_dir, conflist=own)
    assert list(conf_dir.iterdir()) == []


@pytest.mark.parametrize("foreign", [Foreign.REFUSE, Foreign.KEEP])
def test_a_program_of_somebody_else_is_not_overwritten(bin_dir: Path, conf_dir: Path, foreign: Foreign) -> None:
    bin_dir.mkdir(parents=True)
    (bin_dir / "underlay-ipam").write_text("#!/bin/sh\n")
    with pytest.raises(InstallError, match=f"{bin_dir}/underlay-ipam is not a file of cni-underlay"):
        install(bin_dir, conf_dir, foreign=foreign)
    assert [path.name for path in bin_dir.iterdir()] == ["underlay-ipam"]
    assert not conf_dir.exists()


def test_a_program_of_somebody_else_is_replaced_when_asked(bin_dir: Path, conf_dir: Path, client: Path) -> None:
    bin_dir.mkdir(parents=True)
    (bin_dir / "underlay").symlink_to("/missing")
    install(bin_dir, conf_dir, foreign=Foreign.REPLACE)
    assert not (bin_dir / "underlay").is_symlink()
    assert (bin_dir / "underlay").read_bytes() == client.read_bytes()


def test_a_symbolic_link_to_the_same_client_is_left(bin_dir: Path, conf_dir: Path, client: Path) -> None:
    bin_dir.mkdir(parents=True)
    (bin_dir / "underlay").symlink_to(client)
    assert actions(install(bin_dir, conf_dir))[0] == ("underlay", "unchanged")


def test_uninstalling_removes_what_was_installed_and_nothing_beside_it(bin_dir: Path, conf_dir: Path) -> None:
    install(bin_dir, conf_dir)
    (bin_dir / "loopback").write_text("x")
    (conf_dir / "20-other.conflist").write_text("{}")
    changes = uninstall(bin_dir, conf_dir)
    assert actions(changes) == [(CONFLIST, "removed"), ("underlay", "removed"), ("underlay-ipam", "removed")]
    assert [path.name for path in bin_dir.iterdir()] == ["loopback"]
    assert [path.name for path in conf_dir.iterdir()] == ["20-other.conflist"]


def test_uninstalling_from_an_empty_node_is_no_failure(bin_dir: Path, conf_dir: Path) -> None:
    assert {change.action for change in uninstall(bin_dir, conf_dir)} == {Action.ABSENT}
    assert not bin_dir.exists()


def test_uninstalling_under_an_edited_configuration_is_refused(bin_dir: Path, conf_dir: Path) -> None:
    install(bin_dir, conf_dir)
    (conf_dir / CONFLIST).write_text('{"name": "mine"}')
    with pytest.raises(InstallError, match=r"was changed after it had been installed.*--force"):
        uninstall(bin_dir, conf_dir)
    assert sorted(path.name for path in bin_dir.iterdir()) == BINARIES
    assert actions(uninstall(bin_dir, conf_dir, foreign=Foreign.REPLACE))[0] == (CONFLIST, "removed")


def test_uninstalling_keeps_what_somebody_else_put_there(bin_dir: Path, conf_dir: Path) -> None:
    install(bin_dir, conf_dir)
    (bin_dir / "underlay-ipam").write_text("#!/bin/sh\n")
    (conf_dir / CONFLIST).write_text('{"name": "mine"}')
    changes = uninstall(bin_dir, conf_dir, foreign=Foreign.KEEP)
    assert actions(changes) == [(CONFLIST, "kept"), ("underlay", "removed"), ("underlay-ipam", "kept")]


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder on a read-only file system: root passes by permissions, but not by this."""
    made = subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("this process cannot mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_no_configuration_appears_when_a_binary_cannot_be_written(bin_dir: Path, conf_dir: Path) -> None:
    bin_dir.mkdir(parents=True)
    wanted = f"cannot write {bin_dir}/underlay: .*read-only.*--bin-dir"
    with read_only(bin_dir), pytest.raises(InstallError, match=wanted) as caught:
        install(bin_dir, conf_dir)
    assert caught.value.details == "EROFS"
    assert not conf_dir.exists()


def test_no_binary_goes_while_the_configuration_cannot(bin_dir: Path, conf_dir: Path) -> None:
    install(bin_dir, conf_dir)
    with read_only(conf_dir), pytest.raises(InstallError, match=f"cannot remove {conf_dir}/{CONFLIST}: .*read-only"):
        uninstall(bin_dir, conf_dir)
    assert sorted(path.name for path in bin_dir.iterdir()) == BINARIES


def test_a_file_in_place_of_a_directory_is_named(tmp_path: Path, conf_dir: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstallError, match=r"a part of the path is not a directory|file exists"):
        install(tmp_path / "file", conf_dir)
    with pytest.raises(InstallError):
        install(tmp_path / "bin", tmp_path / "file")


def test_a_directory_in_place_of_a_binary_is_not_taken_for_ours(bin_dir: Path, conf_dir: Path) -> None:
    (bin_dir / "underlay").mkdir(parents=True)
    with pytest.raises(InstallError, match="is not a file of cni-underlay"):
        install(bin_dir, conf_dir)
    with pytest.raises(InstallError, match="a directory of this name is in the way"):
        install(bin_dir, conf_dir, foreign=Foreign.REPLACE)
    assert [path.name for path in bin_dir.iterdir()] == ["underlay"]


def test_the_default_configuration_is_one_that_runtimes_load() -> None:
    document = json.loads(installer.default_conflist().read_text())
    # libcni 1.1 (containerd 1.6) knows 1.0.0 at most and reads cniVersion alone; later ones take the highest they know.
    assert document["cniVersion"] == "1.0.0"
    assert document["cniVersions"] == ["0.4.0", "1.0.0", "1.1.0"]
    assert document["name"] == "underlay"
    [plugin] = document["plugins"]
    assert (plugin["type"], plugin["ipam"]["type"]) == ("underlay", "underlay-ipam")


def test_an_installed_package_finds_its_configuration_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cni_underlay" / "conf").mkdir(parents=True)
    (tmp_path / "cni_underlay" / "conf" / CONFLIST).write_text("{}")
    monkeypatch.setattr(installer.cni_underlay, "__file__", str(tmp_path / "cni_underlay" / "__init__.py"))
    assert installer.default_conflist() == tmp_path / "cni_underlay" / "conf" / CONFLIST
    (tmp_path / "cni_underlay" / "conf" / CONFLIST).unlink()
    with pytest.raises(InstallError, match="reinstall"):
        installer.default_conflist()
