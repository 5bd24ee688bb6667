"""Delegated plugins (CNI specification, section 4): found in CNI_PATH, executed with the caller's environment and stdin."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.netconf import DelegateConf
from cni_underlay.cni.result import Result, decode_result
from cni_underlay.errors import DelegateError, InvalidConfigError, TryAgainLaterError
from cni_underlay.plugin.services import Request

SECONDS = 45.0  # below the client's 55 s, so that the runtime hears which plugin hung
OWN_VARIABLES = ("argv0",)  # the client's own entry in the environment block; no delegate shall see it


def find(name: str, path: tuple[str, ...]) -> str:
    """The first regular file of that name in CNI_PATH, as libcni's FindInPath; raises `InvalidConfigError` naming both."""
    for directory in path:
        candidate = os.path.join(directory, name)  # noqa: PTH118  # Path() would drop a leading "./" that exec needs
        if directory and Path(candidate).is_file():
            return candidate
    raise InvalidConfigError(f"ipam.type: there is no plugin {name!r} in CNI_PATH {':'.join(path)!r}")


def execute(request: Request, delegate: DelegateConf, verb: Verb) -> bytes:
    """Run the delegate with this verb and return its standard output; raises `DelegateError` with its own code and words.

    Its standard error is handed on to the runtime's, on success too (section 4).
    """
    program = find(delegate.type, request.call.path)
    environment = {key: value for key, value in request.call.environment.items() if key not in OWN_VARIABLES}
    environment["CNI_COMMAND"] = verb.value
    try:
        done = subprocess.run(
            [program], input=request.conf.raw, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TryAgainLaterError(f"delegate {delegate.type} did not finish {verb} within {SECONDS:.0f} s") from error
    except OSError as error:
        raise InvalidConfigError(f"delegate {program} cannot be executed", str(error.strerror)) from error
    if done.stderr:
        request.warnings.append(done.stderr.decode("utf-8", "replace").rstrip("\n"))
    if done.returncode != 0:
        raise _failure(delegate.type, verb, done)
    return done.stdout


def add(request: Request, delegate: DelegateConf) -> Result:
    """ADD; after a failure the delegate's DEL has run (section 4: "should execute again with a CNI_COMMAND of DEL")."""
    try:
        result = _result(request, delegate, execute(request, delegate, Verb.ADD))
    except InvalidConfigError:
        raise  # it never ran
    except (DelegateError, TryAgainLaterError):
        undo_add(request, delegate)
        raise
    return result


def undo_add(request: Request, delegate: DelegateConf) -> None:
    """DEL after a failed ADD; a failure of its own is noted and does not hide the first one."""
    try:
        execute(request, delegate, Verb.DEL)
    except (DelegateError, TryAgainLaterError, InvalidConfigError) as error:
        request.warnings.append(f"undoing the ADD of {delegate.type}: {error}")


def _result(request: Request, delegate: DelegateConf, stdout: bytes) -> Result:
    try:
        document = msgspec.json.decode(stdout)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DelegateError(999, f"delegate {delegate.type} printed no JSON result", str(error)) from error
    try:
        result = decode_result(document, request.conf.cni_version)
    except Exception as error:
        if not hasattr(error, "code"):
            raise
        raise DelegateError(999, f"delegate {delegate.type} printed a wrong result: {error}") from error
    if not result.ips:
        raise DelegateError(999, f"delegate {delegate.type} returned no IP configuration")
    return result


def _failure(name: str, verb: Verb, done: "subprocess.CompletedProcess[bytes]") -> DelegateError:
    try:
        answer: Any = msgspec.json.decode(done.stdout)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    if isinstance(answer, Mapping) and isinstance(answer.get("code"), int) and answer["code"] > 0:
        return DelegateError(answer["code"], str(answer.get("msg", "")), str(answer.get("details", "")))
    ending = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    return DelegateError(999, f"delegate {name} ended {verb} with {ending} and no error message")
