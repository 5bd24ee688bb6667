"""A record becomes one line of JSON, whatever is in it."""

import json
import logging
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_underlay.agent.log import JsonFormatter


def formatted(message: str = "served", level: int = logging.INFO, **extra: object) -> str:
    record = logging.getLogger("test").makeRecord("test", level, __file__, 1, message, (), None, extra=extra)
    return JsonFormatter().format(record)


def test_time_level_message_and_then_the_fields_in_their_order() -> None:
    before = datetime.now(UTC)
    line = json.loads(formatted(level=logging.WARNING, verb="ADD", code=7))
    assert list(line) == ["time", "level", "msg", "verb", "code"]
    assert line["level"] == "warning"
    assert line["time"].endswith("Z")
    assert abs((datetime.fromisoformat(line["time"]) - before).total_seconds()) < 5


def test_fields_without_a_value_are_left_out_and_zeros_are_not() -> None:
    line = json.loads(formatted(address=[], details="", trace=None, undone=0, ready=False))
    assert set(line) == {"time", "level", "msg", "undone", "ready"}


def test_an_exception_has_its_trace() -> None:
    try:
        int("no")
    except ValueError:
        record = logging.getLogger("test").makeRecord("test", logging.ERROR, "", 1, "bug", (), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["traceback"].splitlines()[-1].startswith("ValueError: ")


@given(message=st.text(), value=st.text(st.characters()), key=st.text(min_size=1))
def test_any_text_stays_in_one_line_that_reads_back(message: str, value: str, key: str) -> None:
    line = formatted(message, field={key: value})
    assert line.isascii()
    assert line.isprintable()
    read = json.loads(line)
    assert read["field"] == {key: value}
    assert read["msg"] == message


@pytest.mark.parametrize("value", ["\udcff", "a\ud800b", "\udfff\udc00"])
def test_lone_surrogates_are_replaced(value: str) -> None:
    line = formatted(pod=value, extra_list=[value])
    assert "\\ud" not in line.lower()
    json.loads(line)["pod"].encode()


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert json.loads(formatted(pod="\N{GRINNING FACE}"))["pod"] == "\N{GRINNING FACE}"


def test_what_json_does_not_know_is_written_as_text() -> None:
    assert json.loads(formatted(path=datetime(2026, 1, 2, tzinfo=UTC)))["path"] == "2026-01-02 00:00:00+00:00"
