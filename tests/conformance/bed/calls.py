"""One execution of a plugin, as a runtime does it, and what holds of each of them whatever it was for."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .kinds import Option
from .netns import inside

SILENT = ("DEL", "CHECK", "GC", "STATUS")
GO_CNI_SUCCESS = ("not found", "no such file or directory")  # go-cni's Remove takes a failure with these for done


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Exit status and both outputs of one call."""

    verb: str
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object of a successful ADD or VERSION."""
        assert self.status == 0, self._told()
        return self._object()

    @property
    def error(self) -> dict[str, Any]:
        """The JSON object of a failure."""
        assert self.status != 0, f"{self.verb} succeeded: {self.stdout!r}"
        return self._object()

    @property
    def code(self) -> int:
        code = self.error["code"]
        assert isinstance(code, int)
        return code

    def succeed(self) -> "Outcome":
        assert self.status == 0, self._told()
        return self

    def refuse(self, *codes: int) -> dict[str, Any]:
        """The error, after checking that it has one of the codes."""
        error = self.error
        assert error["code"] in codes, self._told()
        return error

    def _object(self) -> dict[str, Any]:
        document = json.loads(self.stdout.decode("utf-8", "strict"))
        assert isinstance(document, dict)
        return document

    def _told(self) -> str:
        return f"{self.verb}: status {self.status}, stdout {self.stdout!r}, stderr {self.stderr!r}"

    def require_form(self) -> "Outcome":
        """What section 3 demands of every answer (O-1 to O-6, D-11)."""
        assert b"Traceback" not in self.stdout + self.stderr, self._told()
        if self.status == 0 and self.verb in SILENT:
            assert self.stdout == b"", self._told()
        elif self.status != 0:
            self._require_error()
        elif self.verb:  # without a command there is only a text about the plugin
            assert self._object(), self._told()
        return self

    def _require_error(self) -> None:
        error = self._object()
        assert set(error) <= {"cniVersion", "code", "msg", "details"}, self._told()
        assert isinstance(error["cniVersion"], str), self._told()
        assert isinstance(error["code"], int), self._told()
        assert not isinstance(error["code"], bool), self._told()
        assert error["code"] >= 1, self._told()
        # With 3 a runtime need not clean up: nothing is so certain that it could be said after an ADD or a DEL.
        assert error["code"] != 3 or self.verb not in {"ADD", "DEL"}, self._told()
        assert isinstance(error["msg"], str), self._told()
        assert error["msg"], self._told()
        assert isinstance(error.get("details", ""), str), self._told()
        if self.verb == "DEL":
            words = error["msg"] + error.get("details", "")
            assert not [text for text in GO_CNI_SUCCESS if text in words], self._told()


@dataclass(slots=True, kw_only=True)
class Caller:
    """Executes plugins in the node's namespace. `environment` is what every call has beside its CNI_ variables."""

    netns: str
    bin_dir: Path
    environment: dict[str, str]
    log: Path
    reference_dir: Path = Path("/usr/lib/cni")

    @property
    def cni_path(self) -> str:
        return f"{self.bin_dir}:{self.reference_dir}"

    def find(self, plugin: str) -> Path:
        own = self.bin_dir / plugin
        return own if own.exists() else self.reference_dir / plugin

    def variables(self, verb: str, container: str, netns: str, ifname: str, args: str) -> dict[str, str]:
        """As libcni sets them: all of them, for every verb, empty where there is nothing to say."""
        return {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
            "CNI_PATH": self.cni_path,
        }

    def __call__(
        self,
        verb: str,
        conf: dict[str, Any] | bytes,
        *,
        container: str = "",
        netns: str = "",
        ifname: str = "",
        args: str = "",
        env: dict[str, str | bytes | None] | None = None,
        plugin: str = "underlay",
        timeout: float = 60,
        **popen: Option,
    ) -> Outcome:
        """Run the plugin to its end. In `env`, None takes a variable away. `popen` goes to subprocess.Popen."""
        own = plugin in {"underlay", "underlay-ipam"}
        variables = self.variables(verb, container, netns, ifname, args)
        process = self.start(variables, env or {}, plugin, **popen)
        body = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
        try:
            stdout, stderr = process.communicate(body if process.stdin else None, timeout=timeout)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        outcome = Outcome(verb=verb, status=process.returncode, stdout=stdout or b"", stderr=stderr or b"")
        if b"internal error of underlayd" in outcome.stdout:
            pytest.fail(f"a bug: {self.log.read_text()[-4000:]}")
        return outcome.require_form() if own and process.returncode >= 0 and process.stdout else outcome

    def start(
        self, variables: dict[str, str], env: dict[str, str | bytes | None], plugin: str = "underlay", **popen: Option
    ) -> "subprocess.Popen[bytes]":
        """Start the plugin with exactly these variables and the caller's own."""
        merged = {**self.environment, **variables, **env}
        block = {os.fsencode(key): os.fsencode(value) for key, value in merged.items() if value is not None}
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": "/"} | popen
        return inside(self.netns, lambda: subprocess.Popen([str(self.find(plugin))], env=block, **streams))
