"""The package's build: what is in a wheel and in a source distribution, and the words when a tool is missing."""

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import cni_underlay.client
from cni_underlay.client import MARKER, ClientMissingError
from cni_underlay.client.build import CompileError, compile_client

ROOT = Path(__file__).resolve().parents[2]
CLIENT = "cni_underlay/client/underlay"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what git would check out for a build."""
    copy = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "underlay")
    shutil.copytree(ROOT / "cni_underlay", copy / "cni_underlay", ignore=ignored)
    shutil.copytree(ROOT / "conf", copy / "conf")
    for name in ("pyproject.toml", "hatch_build.py", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    (copy / "README.md").touch()
    return copy


def build(checkout: Path, hook: str, **env: str) -> subprocess.CompletedProcess[str]:
    """One of PEP 517's hooks, in a process of its own as pip runs it; the files appear in dist/."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    script = f"import hatchling.build as backend; print(backend.{hook}('dist'))"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=checkout, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def only_file(folder: Path) -> Path:
    [path] = folder.iterdir()
    return path


def compiler(tmp_path: Path, script: str) -> str:
    path = tmp_path / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_wheel_holds_the_client_and_the_files_of_conf_for_this_platform(checkout: Path, tmp_path: Path) -> None:
    done = build(checkout, "build_wheel")
    assert done.returncode == 0, done.stderr
    wheel = only_file(checkout / "dist")
    assert wheel.name.endswith(f"-py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {CLIENT, "cni_underlay/conf/10-underlay.conflist"} <= set(archive.namelist())
        assert stat.S_IMODE(archive.getinfo(CLIENT).external_attr >> 16) == 0o755
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
        assert "Root-Is-Purelib: false" in archive.read(metadata).decode()
        archive.extract(CLIENT, tmp_path)
    (tmp_path / CLIENT).chmod(0o755)
    about = subprocess.run([tmp_path / CLIENT], env={}, capture_output=True, check=True)
    version = wheel.name.split("-")[1]
    assert about.stderr.startswith(f"CNI plugin underlay v{version}\n".encode())


def test_an_editable_installation_has_the_client_in_the_checkout(checkout: Path) -> None:
    pytest.importorskip("editables", reason="hatchling needs it for editable wheels")
    done = build(checkout, "build_editable")
    assert done.returncode == 0, done.stderr
    subprocess.run([checkout / CLIENT], env={"CNI_COMMAND": "VERSION"}, check=True, stdout=subprocess.DEVNULL)
    with zipfile.ZipFile(only_file(checkout / "dist")) as archive:
        assert CLIENT not in archive.namelist()


def test_a_source_distribution_has_the_sources_and_no_binary(checkout: Path) -> None:
    assert build(checkout, "build_wheel").returncode == 0
    assert (checkout / CLIENT).exists()
    shutil.rmtree(checkout / "dist")
    done = build(checkout, "build_sdist")
    assert done.returncode == 0, done.stderr
    with tarfile.open(only_file(checkout / "dist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(checkout)) for path in (checkout / CLIENT).parent.glob("*.[ch]")}
    assert len(sources) > 1
    assert sources | {"hatch_build.py", "conf/10-underlay.conflist"} <= names
    assert CLIENT not in names


def test_a_build_without_a_compiler_says_what_to_install_in_a_few_lines(checkout: Path) -> None:
    done = build(checkout, "build_wheel", CC="no-such-compiler")
    assert done.returncode != 0
    assert "the compiler `no-such-compiler` cannot be started" in done.stderr
    assert "apt-get install gcc libc6-dev" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 5


@pytest.mark.parametrize(
    "complaint",
    [
        "/usr/bin/ld: cannot find -lc: No such file or directory",
        "/usr/bin/ld: cannot find crt1.o: No such file or directory",
        "ld.lld: error: unable to find library -lc",
        "underlay.c:1:10: fatal error: errno.h: No such file or directory",
        "underlay.c:1:10: fatal error: 'errno.h' file not found",
    ],
)
def test_a_missing_c_library_is_named_with_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: str
) -> None:
    monkeypatch.setenv("CC", compiler(tmp_path, f'echo "{complaint}" >&2; exit 1'))
    with pytest.raises(CompileError, match=r"static library of the C library are missing.*libc6-dev"):
        compile_client(tmp_path / "underlay", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["cc"]


def test_any_other_complaint_of_the_compiler_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler(tmp_path, 'echo "something else" >&2; exit 4'))
    with pytest.raises(CompileError, match=r"failed \(exit status 4\).*-static(.|\n)*something else"):
        compile_client(tmp_path / "underlay", "1")


def test_the_compiler_of_the_environment_gets_its_own_arguments_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = compiler(tmp_path, 'echo "$1 $2" >&2; exit 1')
    monkeypatch.setenv("CC", f"{fake} --one 'two three'")
    with pytest.raises(CompileError, match="\n\n--one two three\n"):
        compile_client(tmp_path / "underlay", "1")


def test_a_compiler_for_musl_is_preferred_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    compiler(tmp_path, "echo plain >&2; exit 1")
    with pytest.raises(CompileError, match="\n\nplain\n"):
        compile_client(tmp_path / "underlay", "1")
    (tmp_path / "cc").rename(tmp_path / "musl-gcc")
    with pytest.raises(CompileError, match=r"musl-gcc -std=c11"):
        compile_client(tmp_path / "underlay", "1")


def test_the_sources_compile_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -Werror -Wconversion -Wshadow -Wformat=2 -Wstrict-prototypes -Wvla")
    compile_client(tmp_path / "underlay", "1.2.3")
    assert MARKER + b"1.2.3" in (tmp_path / "underlay").read_bytes()


def test_a_client_that_runs_is_replaced_undisturbed(tmp_path: Path) -> None:
    target = tmp_path / "underlay"
    compile_client(target, "1")
    env = {"CNI_COMMAND": "ADD", "UNDERLAY_SOCKET": str(tmp_path / "none")}
    with subprocess.Popen([target], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as old:
        compile_client(target, "2")
        out, _ = old.communicate(b"{}", timeout=20)
    assert b'"code":11' in out
    assert b"v2\n" in subprocess.run([target], env={}, capture_output=True, check=True).stderr


def test_a_package_without_its_binary_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cni_underlay.client, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ClientMissingError, match=f"missing at {tmp_path}/underlay: reinstall"):
        cni_underlay.client.path()
    (tmp_path / "underlay").touch(mode=0o755)
    assert cni_underlay.client.path() == tmp_path / "underlay"
