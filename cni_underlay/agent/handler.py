"""One frame in, one answer out: the only place that turns errors into the specification's JSON, and logs requests."""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from cni_underlay.agent.log import LOGGER
from cni_underlay.agent.protocol import KIND_ADMIN, KIND_CNI, Answer, Frame
from cni_underlay.cni.environment import Call, Verb, parse_call
from cni_underlay.cni.grammar import clip
from cni_underlay.cni.netconf import version_of
from cni_underlay.cni.result import failure, version_answer
from cni_underlay.cni.versions import NEWEST
from cni_underlay.errors import DecodingError, UnderlayError
from cni_underlay.plugin import dispatch
from cni_underlay.plugin.add import take_back
from cni_underlay.plugin.services import Request, Services, Steps

Admin = Callable[[Mapping[str, Any]], bytes]
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context, version 00
_BUG = "internal error of underlayd ({}); its log has the trace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer; of a successful ADD the request, to be undone if the answer reaches nobody; and the log's line.

    The line is written when the answer is on its way: composing it takes as long as decoding the request.
    """

    answer: Answer
    added: Request | None = None
    line: Callable[[], None] = lambda: None


@dataclass(slots=True)
class _Trail:
    """What is known of a call while it is being served, for its log line."""

    call: Call | None = None
    request: Request | None = None
    steps: Steps = field(default_factory=Steps)
    started: int = field(default_factory=time.perf_counter_ns)
    total: float = 0.0

    def end(self) -> Self:
        """Note the milliseconds that it took."""
        self.total = round((time.perf_counter_ns() - self.started) / 1e6, 3)
        return self


class Handler:
    """Serves frames. `before_add` runs ahead of every ADD: a DEL left in the spool must not be overtaken by it."""

    def __init__(self, services: Services, admin: Admin) -> None:
        self._services = services
        self._admin = admin
        self.before_add: Callable[[], None] = lambda: None

    def handle(self, frame: Frame, abandoned: Callable[[], bool] = lambda: False) -> Reply:
        """The answer to a frame, whatever happens; the caller keeps the descriptor.

        `abandoned` tells whether the client has hung up.
        """
        if frame.kind == KIND_ADMIN:
            return Reply(answer=self._administrate(frame))
        trail = _Trail()
        try:
            stdout = self._serve(frame, trail, abandoned)
        except UnderlayError as error:
            answer = Answer(status=1, stdout=_failure(frame, trail, error), stderr=_warnings(trail))
            return Reply(answer=answer, line=partial(_log, frame, trail.end(), error))
        except Exception as error:  # noqa: BLE001  # the boundary: a bug is answered in JSON too, and logged with its trace
            LOGGER.exception("internal error", extra=_identity(trail))
            bug = UnderlayError(_BUG.format(type(error).__name__))
            return Reply(answer=Answer(status=1, stdout=_failure(frame, trail, bug)))
        added = trail.request if trail.call is not None and trail.call.verb is Verb.ADD else None
        answer = Answer(status=0, stdout=stdout, stderr=_warnings(trail))
        return Reply(answer=answer, added=added, line=partial(_log, frame, trail.end(), None))

    def replay(self, frame: Frame) -> Answer:
        """The answer to a spooled frame, which nobody waits for."""
        reply = self.handle(frame)
        self.delivered(reply)
        return reply.answer

    def delivered(self, reply: Reply) -> None:
        """The client has the answer: whatever comes later, the attachment is the runtime's."""
        reply.line()
        if reply.added is not None:
            self._services.owed.pop(reply.added.attachment, None)

    def undelivered(self, reply: Reply) -> None:
        """The answer reached nobody: a successful ADD is taken back."""
        reply.line()
        if reply.added is None:
            return
        extra = {"container": reply.added.call.container_id, "ifname": reply.added.call.ifname}
        try:
            undone = take_back(self._services, reply.added)
        except UnderlayError as error:
            LOGGER.error("undoing an unanswered ADD failed", extra={**extra, "error": str(error)})
        else:
            LOGGER.warning("an ADD was not answered", extra={**extra, "undone": undone})

    def _serve(self, frame: Frame, trail: _Trail, abandoned: Callable[[], bool]) -> bytes:
        if frame.kind != KIND_CNI:
            raise DecodingError(f"a request of kind {frame.kind} is not known; client and agent differ in version")
        trail.call = parse_call(frame.environment)
        if trail.call.verb is Verb.VERSION:
            return version_answer(version_of(frame.body))
        if trail.call.verb is Verb.ADD:
            self.before_add()
        with trail.steps.step("decode"):
            trail.request = dispatch.prepare(
                trail.call, frame.body, frame.netns, frame.netns_errno, trail.steps, abandoned
            )
        return dispatch.execute(self._services, trail.request)

    def _administrate(self, frame: Frame) -> Answer:
        try:
            return Answer(status=0, stdout=self._admin(_object(frame.body)))
        except UnderlayError as error:
            return Answer(status=1, stdout=failure(NEWEST, error))
        except Exception as error:  # noqa: BLE001  # as in `handle`
            LOGGER.exception("internal error in an admin call")
            return Answer(status=1, stdout=failure(NEWEST, UnderlayError(_BUG.format(type(error).__name__))))


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DecodingError("an admin call is one JSON object", str(error)) from error
    if not isinstance(document, dict):
        raise DecodingError("an admin call is one JSON object")
    return document


def _failure(frame: Frame, trail: _Trail, error: UnderlayError) -> bytes:
    return failure(version_of(frame.body), error, trail.call.verb if trail.call else None)


def _warnings(trail: _Trail) -> bytes:
    if trail.request is None or not trail.request.warnings:
        return b""
    return "".join(f"{warning}\n" for warning in trail.request.warnings).encode("utf-8", "replace")


def _identity(trail: _Trail) -> dict[str, Any]:
    if trail.call is None:
        return {}
    call, pod = trail.call, trail.call.args.pod
    trace = call.environment.get("TRACEPARENT", "")
    return {
        "verb": call.verb.value,
        "network": trail.request.conf.name if trail.request else "",
        "container": clip(call.container_id),  # the specification sets no limit
        "ifname": call.ifname,
        "pod": clip(f"{pod.namespace}/{pod.name}") if pod.name else "",
        "traceparent": trace if _TRACEPARENT.fullmatch(trace) else "",
    }


def _log(frame: Frame, trail: _Trail, error: UnderlayError | None) -> None:
    """The one line of this request."""
    extra = _identity(trail) or {"verb": frame.environment.get("CNI_COMMAND", "")}
    if trail.request:
        extra["address"] = [str(address) for address in trail.request.addresses]
        extra["warnings"] = trail.request.warnings
    extra["ms"] = {"total": trail.total, **trail.steps.milliseconds}
    if error is None:
        LOGGER.info("served", extra=extra)
    else:
        LOGGER.warning("refused", extra={**extra, "code": error.code, "error": str(error), "details": error.details})
