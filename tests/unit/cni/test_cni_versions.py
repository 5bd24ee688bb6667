import pytest

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.versions import SUPPORTED, numbers, require
from cni_underlay.errors import DecodingError, IncompatibleVersionError


def test_versions_are_listed_ascending_because_libcni_walks_them() -> None:
    assert sorted(SUPPORTED, key=numbers) == list(SUPPORTED)
    assert SUPPORTED == ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("verb", [Verb.ADD, Verb.DEL])
def test_every_version_has_add_and_del(verb: Verb, version: str) -> None:
    require(version, verb)


@pytest.mark.parametrize(
    ("verb", "since"), [(Verb.CHECK, "0.4.0"), (Verb.GC, "1.1.0"), (Verb.STATUS, "1.1.0")], ids=str
)
def test_later_verbs_begin_with_their_version(verb: Verb, since: str) -> None:
    for version in SUPPORTED[SUPPORTED.index(since) :]:
        require(version, verb)
    for version in SUPPORTED[: SUPPORTED.index(since)]:
        with pytest.raises(IncompatibleVersionError, match=f"config version does not allow {verb}"):
            require(version, verb)


@pytest.mark.parametrize(
    "version", ["1.0", "v1.0.0", " 1.0.0", "1.2.0", "0.5.0", "1.1.0\n", "", "banana", "\u0661.\u0660.\u0660"]
)
@pytest.mark.parametrize("verb", [Verb.ADD, Verb.DEL])
def test_a_version_that_is_not_literally_listed_is_incompatible(verb: Verb, version: str) -> None:
    with pytest.raises(IncompatibleVersionError, match=r"^incompatible CNI versions$") as caught:
        require(version, verb)
    assert caught.value.code == 1
    assert caught.value.details.startswith(f'config is "{version}", plugin supports ["0.1.0" "0.2.0"')


@pytest.mark.parametrize("version", ["1.2.0", "1.1.1", "2", "99.0.0"])
@pytest.mark.parametrize("verb", [Verb.CHECK, Verb.GC, Verb.STATUS])
def test_a_version_newer_than_ours_is_incompatible_for_later_verbs_too(verb: Verb, version: str) -> None:
    with pytest.raises(IncompatibleVersionError):
        require(version, verb)


@pytest.mark.parametrize(
    "version", ["banana", "v1.1.0", " 1.1.0", "1.1.0.0", "1..0", "-1.1.0", "1.1.0\n", "9" * 5000, "\u0661"]
)
@pytest.mark.parametrize("verb", [Verb.CHECK, Verb.GC, Verb.STATUS])
def test_what_is_no_version_cannot_be_decoded_for_later_verbs(verb: Verb, version: str) -> None:
    with pytest.raises(DecodingError) as caught:
        require(version, verb)
    assert caught.value.code == 6
    assert len(str(caught.value)) < 200
