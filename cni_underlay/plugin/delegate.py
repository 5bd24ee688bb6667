"""Delegated plugins (CNI specification, section 4): found in CNI_PATH, run with the caller's environment and stdin."""

import errno
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.netconf import DelegateConf
from cni_underlay.cni.received import decode_result
from cni_underlay.cni.result import Result
from cni_underlay.errors import DelegateError, InvalidConfigError, TryAgainLaterError, UnderlayError
from cni_underlay.plugin.services import Request, Services

# Below the client's 55 s, together with the DEL that follows a failed ADD, so that the runtime hears which plugin hung.
SECONDS = 40.0
UNDO_SECONDS = 10.0
STATUS_SECONDS = 4.0  # the kubelet asks every 5 s
_PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
OWN_VARIABLES = ("argv0",)  # the client's own entry in the environment block; no delegate shall see it


def find(name: str, path: tuple[str, ...]) -> str:
    """The first regular file of that name in CNI_PATH, as libcni finds it; raises `InvalidConfigError` naming both."""
    for directory in path:
        candidate = os.path.join(directory, name)  # noqa: PTH118  # Path() would drop a leading "./" that exec needs
        if directory and Path(candidate).is_file():
            return candidate
    raise InvalidConfigError(f"ipam.type: there is no plugin {name!r} in CNI_PATH {':'.join(path)!r}")


def execute(
    services: Services, request: Request, delegate: DelegateConf, verb: Verb, seconds: float = SECONDS
) -> bytes:
    """Run the delegate with this verb and return its standard output.

    Raises `DelegateError` with its own code and words, `TryAgainLaterError` when it does not end. Its standard error is
    handed on to the runtime's, on success too (section 4).
    """
    program = find(delegate.type, request.call.path)
    environment = {key: value for key, value in request.call.environment.items() if key not in OWN_VARIABLES}
    environment["CNI_COMMAND"] = verb.value
    with services.aside():
        done = _run(program, environment, request.conf.raw, f"delegate {delegate.type} on {verb}", seconds)
    if done.stderr:
        request.warnings.append(done.stderr.decode("utf-8", "replace").rstrip("\n"))
    if done.returncode != 0:
        raise _failure(delegate.type, verb, done)
    return done.stdout


def _run(
    program: str, environment: Mapping[str, str], stdin: bytes, what: str, seconds: float
) -> "subprocess.CompletedProcess[bytes]":
    """The finished process, with all of its output; raises `TryAgainLaterError` when it does not finish in time."""
    try:
        # A process group of its own: a plugin that is a script is killed together with what it waits for.
        process = subprocess.Popen(
            [program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
    except (OSError, ValueError) as error:
        passing = isinstance(error, OSError) and error.errno in _PASSING
        kind = TryAgainLaterError if passing else InvalidConfigError
        raise kind(f"delegate {program} cannot be executed", str(error)) from error
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise TryAgainLaterError(f"{what} did not finish within {seconds:.0f} s") from error
    return subprocess.CompletedProcess([program], process.returncode, stdout, stderr)


def add(services: Services, request: Request, delegate: DelegateConf) -> Result:
    """ADD; after a failure the delegate's DEL has run (section 4: "should execute again with a CNI_COMMAND of DEL")."""
    try:
        return _result(request, delegate, execute(services, request, delegate, Verb.ADD))
    except InvalidConfigError:
        raise  # it never ran
    except UnderlayError:
        undo_add(services, request, delegate)
        raise


def undo_add(services: Services, request: Request, delegate: DelegateConf) -> None:
    """DEL after a failed ADD; a failure of its own is noted and does not hide the first one."""
    try:
        execute(services, request, delegate, Verb.DEL, UNDO_SECONDS)
    except UnderlayError as error:
        request.warnings.append(f"undoing the ADD of {delegate.type}: {error}")


def _result(request: Request, delegate: DelegateConf, stdout: bytes) -> Result:
    try:
        document = msgspec.json.decode(stdout)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DelegateError(999, f"delegate {delegate.type} printed no JSON result", str(error)) from error
    try:
        result = decode_result(document, request.conf.cni_version)
    except UnderlayError as error:
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
