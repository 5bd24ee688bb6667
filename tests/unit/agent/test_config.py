"""agent.yaml from text to values. What is refused, and in which words, tests/agent sees at a real start too."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cni_underlay.agent import config
from cni_underlay.errors import InvalidConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.yaml"


def test_an_empty_file_means_the_defaults(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "worker-7")
    file.write_text("# nothing\n")
    loaded = config.load(file)
    assert loaded.socket == Path("/run/cni-underlay/agent.sock")
    assert loaded.ledger == Path("/var/lib/cni-underlay/ledger.db")
    assert loaded.spool == Path("/run/cni-underlay/spool")
    assert loaded.http == ("127.0.0.1", 9177)
    assert loaded.log_level == "info"
    assert loaded.settings.node == "worker-7"
    assert loaded.settings.pools == {}
    assert (loaded.settings.quarantine, loaded.settings.floor) == (120.0, 30.0)
    assert loaded.settings.exhausted_is_not_ready is False


def test_the_file_that_ships_is_valid() -> None:
    loaded = config.load(Path(__file__).parents[3] / "conf" / "agent.yaml")
    assert list(loaded.settings.pools) == ["app"]
    assert loaded.settings.quarantine == 120


def test_the_node_is_called_as_its_host_where_nobody_says_otherwise(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "db_1.example.org")
    file.write_text("")
    assert config.load(file).settings.node == "db_1.example.org"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http: 127.0.0.1:80", ("127.0.0.1", 80)),
        ("http: 0.0.0.0:9177", ("0.0.0.0", 9177)),
        ("http: localhost:1", ("127.0.0.1", 1)),
        ('http: "[::1]:9177"', ("::1", 9177)),
        ("http: false", None),
        ("http: ''", None),
        ("http:", ("127.0.0.1", 9177)),
    ],
)
def test_http_is_an_address_and_a_port_or_nothing(file: Path, text: str, expected: tuple[str, int] | None) -> None:
    file.write_text(text)
    assert config.load(file).http == expected


@pytest.mark.parametrize(
    "value", ["true", "9177", "example.org:80", "1.2.3:80", '"::1:80"', '":80"', "127.0.0.1:65536", "[a]", "{a: b}"]
)
def test_any_other_http_is_refused_with_its_value(file: Path, value: str) -> None:
    file.write_text(f"http: {value}")
    with pytest.raises(InvalidConfigError, match=r"http: .* is not ADDRESS:PORT"):
        config.load(file)


def test_a_short_quarantine_brings_the_floor_down_with_it(file: Path) -> None:
    file.write_text("quarantine: 10s")
    assert config.load(file).settings.floor == 10


def test_differences_that_need_a_restart_are_named(file: Path) -> None:
    file.write_text("")
    before = config.load(file)
    file.write_text("{http: false, socket: /run/other.sock, quarantine: 60s}")
    assert before.fixed_differences(config.load(file)) == ["socket", "http"]


def _refusal(file: Path) -> str:
    """Why it is refused; its own name where it is not."""
    try:
        config.load(file)
    except InvalidConfigError as error:
        return str(error)
    return str(file)


@given(document=st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_an_invalid_config_error(
    tmp_path_factory: pytest.TempPathFactory, document: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(document)
    assert str(file) in _refusal(file)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
KEYS = ("node", "socket", "state_dir", "http", "log_level", "quarantine", "floor", "exhausted_is_not_ready", "pools")


@given(document=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_any_value_of_any_key_is_taken_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object]
) -> None:
    file = tmp_path_factory.getbasetemp() / "values.yaml"
    file.write_text(yaml.safe_dump(document))
    assert str(file) in _refusal(file)
