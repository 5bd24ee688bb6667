"""The package's build: compiles the client for every wheel, editable ones too, and takes the files in conf/ along."""

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_CLIENT = "cni_underlay/client/underlay"


class ClientBuildHook(BuildHookInterface[Any]):
    """A source distribution has no binary: it is compiled where it is installed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        build = runpy.run_path(str(root / "cni_underlay/client/build.py"))
        try:
            build["compile_client"](root / _CLIENT, self.metadata.version)
        except build["CompileError"] as error:
            self.app.abort(str(error))
        # Python's ABI does not matter to it, the machine does. Being static it is not tied to a C library's version.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(_CLIENT)
        if version == "standard":
            build_data["force_include"][str(root / "conf")] = "cni_underlay/conf"
