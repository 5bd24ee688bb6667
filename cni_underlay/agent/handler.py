"""One frame in, one answer out: the only place that turns errors into the specification's JSON, and that logs a request."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cni_underlay.agent.log import LOGGER
from cni_underlay.agent.protocol import KIND_ADMIN, KIND_CNI, Answer, Frame
from cni_underlay.cni.environment import Call, Verb, parse_call
from cni_underlay.cni.netconf import version_of
from cni_underlay.cni.result import failure, version_answer
from cni_underlay.errors import DecodingError, UnderlayError
from cni_underlay.plugin import dispatch
from cni_underlay.plugin.delete import delete
from cni_underlay.plugin.services import Request, Services, Steps
from cni_underlay.records import IPAddress

Admin = Callable[[Mapping[str, Any]], bytes]


@dataclass(slots=True)
class _Trail:
    """What is known of a call while it is being served: for its log line, and for undoing it."""

    call: Call | None = None
    request: Request | None = None
    steps: Steps = field(default_factory=Steps)
    started: int = field(default_factory=time.perf_counter_ns)


class Handler:
    """Serves frames. `before_add` runs ahead of every ADD: a DEL left in the spool must not be overtaken by it."""

    def __init__(self, services: Services, admin: Admin) -> None:
        self._services = services
        self._admin = admin
        self.before_add: Callable[[], None] = lambda: None

    def handle(self, frame: Frame) -> Answer:
        """The answer to a frame, whatever happens; the caller keeps the descriptor."""
        if frame.kind == KIND_ADMIN:
            return self._administrate(frame)
        trail = _Trail()
        try:
            if frame.kind != KIND_CNI:
                raise DecodingError(f"a request of kind {frame.kind} is not known; client and agent differ in version")
            stdout = self._serve(frame, trail)
        except UnderlayError as error:
            _log(frame, trail, error, self._services)
            return Answer(status=1, stdout=failure(version_of(frame.body), error), stderr=_warnings(trail))
        except Exception as error:  # noqa: BLE001  # the boundary: a bug is answered in JSON too, and logged with its trace
            LOGGER.exception("internal error", extra=_identity(trail))
            bug = UnderlayError(f"internal error of underlayd ({type(error).__name__}); its log has the trace")
            return Answer(status=1, stdout=failure(version_of(frame.body), bug))
        _log(frame, trail, None, self._services)
        return Answer(status=0, stdout=stdout, stderr=_warnings(trail))

    def undo_add(self, frame: Frame) -> None:
        """The answer of a successful ADD reached nobody: take the attachment away again."""
        trail = _Trail()
        try:
            call = parse_call({**frame.environment, "CNI_COMMAND": Verb.DEL.value})
            trail.request = dispatch.prepare(call, frame.body, frame.netns, 0, trail.steps)
            delete(self._services, trail.request)
        except UnderlayError as error:
            LOGGER.error("undoing an unanswered ADD failed", extra={**_identity(trail), "error": str(error)})  # noqa: TRY400
        else:
            LOGGER.warning("an ADD was undone because its client was gone", extra=_identity(trail))

    def _serve(self, frame: Frame, trail: _Trail) -> bytes:
        trail.call = parse_call(frame.environment)
        if trail.call.verb is Verb.VERSION:
            return version_answer(version_of(frame.body))
        if trail.call.verb is Verb.ADD:
            self.before_add()
        with trail.steps.step("decode"):
            trail.request = dispatch.prepare(trail.call, frame.body, frame.netns, frame.netns_errno, trail.steps)
        return dispatch.execute(self._services, trail.request)

    def _administrate(self, frame: Frame) -> Answer:
        try:
            return Answer(status=0, stdout=self._admin(_object(frame.body)))
        except UnderlayError as error:
            return Answer(status=1, stdout=failure("1.1.0", error))
        except Exception:  # noqa: BLE001  # as in `handle`
            LOGGER.exception("internal error in an admin call")
            return Answer(
                status=1, stdout=failure("1.1.0", UnderlayError("internal error; the agent's log has the trace"))
            )


def _object(body: bytes) -> Mapping[str, Any]:
    import json  # noqa: PLC0415  # admin calls only

    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DecodingError("an admin call is one JSON object", str(error)) from error
    if not isinstance(document, dict):
        raise DecodingError("an admin call is one JSON object")
    return document


def _warnings(trail: _Trail) -> bytes:
    if trail.request is None or not trail.request.warnings:
        return b""
    return "".join(f"{warning}\n" for warning in trail.request.warnings).encode("utf-8", "replace")


def _identity(trail: _Trail) -> dict[str, Any]:
    if trail.call is None:
        return {}
    call, pod = trail.call, trail.call.args.pod
    return {
        "verb": call.verb.value,
        "network": trail.request.conf.name if trail.request else "",
        "container": call.container_id,
        "ifname": call.ifname,
        "pod": f"{pod.namespace}/{pod.name}" if pod.name else "",
        "trace": call.environment.get("TRACEPARENT", ""),
    }


def _log(frame: Frame, trail: _Trail, error: UnderlayError | None, services: Services) -> None:
    extra = _identity(trail) or {"verb": frame.environment.get("CNI_COMMAND", "")}
    extra["address"] = [str(ip) for ip in _addresses(trail, services)] if error is None else ""
    extra["ms"] = {"total": round((time.perf_counter_ns() - trail.started) / 1e6, 3), **trail.steps.milliseconds}
    if trail.request and trail.request.warnings:
        extra["warnings"] = trail.request.warnings
    if error is None:
        LOGGER.info("served", extra=extra)
    else:
        LOGGER.warning("refused", extra={**extra, "code": error.code, "error": str(error), "details": error.details})


def _addresses(trail: _Trail, services: Services) -> list[IPAddress]:
    if trail.request is None or trail.call is None or trail.call.verb is not Verb.ADD:
        return []
    lease = services.store.find(trail.request.attachment)
    return [address.interface.ip for address in lease.addresses] if lease else []


def close(frame: Frame) -> None:
    """Give the frame's descriptor back."""
    if frame.netns is not None:
        os.close(frame.netns)
