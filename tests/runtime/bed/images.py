"""Two container images made from Debian's static busybox, so that no registry is needed.

The format is what `docker save` writes: `manifest.json` names a configuration and the layers, each a tar by itself.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .whoami import WHOAMI, WHOAMI_PATH

BUSYBOX = Path("/bin/busybox")
PAUSE = "docker.io/underlay-test/pause:1"
APP = "docker.io/underlay-test/app:1"

SERVE = ("/bin/httpd", "-f", "-p", "80", "-h", "/www")

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_APPLETS = ("sh", "cat", "httpd", "hostname", "ip", "ping", "sleep", "wget")


def write_images(archive: Path) -> None:
    """Write both images into one archive for `ctr images import`."""
    layer = _layer({"bin/busybox": BUSYBOX.read_bytes(), f"www/{WHOAMI_PATH}": WHOAMI.encode()})
    blobs = {"layer.tar": layer}
    manifest = []
    for tag, command in ((PAUSE, ["/bin/sleep", "2147483647"]), (APP, list(SERVE))):
        config = json.dumps(
            {
                "architecture": _ARCHITECTURES.get(machine := platform.machine(), machine),
                "os": "linux",
                "config": {"Cmd": command, "Env": ["PATH=/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            }
        ).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        blobs[name] = config
        manifest.append({"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]})
    blobs["manifest.json"] = json.dumps(manifest).encode()
    archive.write_bytes(_tar((_file(name, 0o644, data), data) for name, data in blobs.items()))


def _layer(executables: Mapping[str, bytes]) -> bytes:
    def members() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        for name, data in executables.items():
            yield _file(name, 0o755, data), data
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            yield link, b""

    return _tar(members())


def _file(name: str, mode: int, data: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.size = mode, len(data)
    return info


def _tar(members: Iterator[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
