"""Every statement of the specification that concerns a plugin has a test that names it."""

import ast
from collections.abc import Iterator
from pathlib import Path

from .bed.statements import NOT_THE_PLUGINS, STATEMENTS

HERE = Path(__file__).parent


def _proven() -> Iterator[tuple[str, str]]:
    """Each statement that a test names, and the test."""
    for path in sorted(HERE.glob("test_*.py")):
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef):
                for decorator in function.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in {"spec", "pytest.mark.spec"}:
                        yield from (
                            (ast.literal_eval(each), f"{path.name}::{function.name}") for each in decorator.args
                        )


PROVEN = tuple(_proven())


def test_every_statement_that_concerns_a_plugin_has_a_test() -> None:
    named = {statement for statement, _ in PROVEN}
    assert [each for each in STATEMENTS if each not in NOT_THE_PLUGINS and each not in named] == []


def test_no_test_names_a_statement_that_does_not_exist() -> None:
    assert [(named, test) for named, test in PROVEN if named not in STATEMENTS] == []


def test_every_exception_is_a_statement_and_has_a_reason() -> None:
    assert set(NOT_THE_PLUGINS) <= set(STATEMENTS)
    assert all(len(reason) > 20 for reason in NOT_THE_PLUGINS.values())
