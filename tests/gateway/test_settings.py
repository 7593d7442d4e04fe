import os

import pytest

from hermes.errors import InvalidConfiguration
from hermes.gateway import GatewaySettings
from hermes.gateway.settings import VARIABLES, is_loopback
from hermes.gateway.upstream import open_upstream
from hermes.settings import NOT_OF_A_SERVER

OPEN = "can be reached by others; set HERMES_GATEWAY_TOKENS or HERMES_GATEWAY_TOKENS_FILE, or pass --no-auth"
CONTAINER = "; in a container, --published may say that it is local"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"model": "hermes"}, "--model: is 'hermes'; write owner/name"),
        ({"model": "a/b/c"}, "--model: is 'a/b/c'; write owner/name"),
        ({"host": "0.0.0.0"}, f"--host: 0.0.0.0 {OPEN}{CONTAINER}"),
        ({"host": "0.0.0.0", "published": "0.0.0.0:8000"}, f"--published: 0.0.0.0:8000 {OPEN}"),
        ({"published": "[::]:80"}, f"--published: [::]:80 {OPEN}"),
        (
            {"host": "0.0.0.0", "published": ":8000"},
            "--published: is ':8000'; write HOST:PORT, with [ ] around an IPv6 address",
        ),
        (
            {"host": "0.0.0.0", "published": "[::1:80"},
            "--published: is '[::1:80'; write HOST:PORT, with [ ] around an IPv6 address",
        ),
        ({"published": "127.0.0.1"}, "--published: is '127.0.0.1'; write HOST:PORT, with [ ] around an IPv6 address"),
        (
            {"published": "127.0.0.1:abc"},
            "--published: is '127.0.0.1:abc'; write HOST:PORT, with [ ] around an IPv6 address",
        ),
        (
            {"published": "x@127.0.0.1:80"},
            "--published: is 'x@127.0.0.1:80'; write HOST:PORT, with [ ] around an IPv6 address",
        ),
        (
            {"published": "127.0.0.1:80/foo"},
            "--published: is '127.0.0.1:80/foo'; write HOST:PORT, with [ ] around an IPv6 address",
        ),
        (
            {"published": "http://127.0.0.1:80"},
            "--published: is 'http://127.0.0.1:80'; write HOST:PORT, with [ ] around an IPv6 address",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_refused(given, problem):
    with pytest.raises(InvalidConfiguration, match="E1202") as refused:
        GatewaySettings(**given)
    assert str(refused.value).endswith(problem)


@pytest.mark.parametrize("more", [{"tokens": ("secret",)}, {"no_auth": True}])
def test_other_machines_are_served_with_a_token_or_when_told_so(more):
    assert not GatewaySettings(host="0.0.0.0", **more).local


@pytest.mark.parametrize("published", ["127.0.0.1:8000", "localhost:80", "[::1]:8000"])
def test_a_container_whose_port_is_published_on_this_machine_only_needs_no_token(published):
    assert GatewaySettings(host="0.0.0.0", published=published).local


def test_a_misspelt_variable_is_refused_and_those_of_compose_are_known(monkeypatch):
    assert set(VARIABLES) < set(NOT_OF_A_SERVER)
    for name in VARIABLES[2:]:
        monkeypatch.setenv(name, "1")
    assert GatewaySettings().tokens == ()
    monkeypatch.setenv("HERMES_GATEWAY_TOKEN", "secret")
    with pytest.raises(InvalidConfiguration, match="HERMES_GATEWAY_TOKEN: there is no such setting; there are HERMES_"):
        GatewaySettings()


def test_the_environment_has_the_tokens(monkeypatch):
    monkeypatch.setenv("HERMES_GATEWAY_TOKENS", " one,two ,")
    assert GatewaySettings(host="0.0.0.0").tokens == ("one", "two")


@pytest.fixture
def tokens_file(monkeypatch, tmp_path):
    file = tmp_path / "tokens"
    monkeypatch.setenv("HERMES_GATEWAY_TOKENS_FILE", str(file))
    return file


def test_a_file_has_the_tokens_one_a_line_or_by_commas(tokens_file):
    tokens_file.write_text("\ufeffone\r\n\n two, three\n", encoding="utf-8")
    assert GatewaySettings(host="0.0.0.0").tokens == ("one", "two", "three")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, f"user {os.geteuid()} cannot read FILE: No such file or directory; name a file that it can read"),
        (b"", "FILE has no token; put one on each line"),
        (b" ,\n", "FILE has no token; put one on each line"),
        (b"secret\xff", f"user {os.geteuid()} cannot read FILE: it is not UTF-8; name a file that it can read"),
    ],
    ids=["missing", "empty", "blank", "binary"],
)
def test_a_file_that_is_named_and_gives_no_token_is_refused(tokens_file, content, problem):
    if content is not None:
        tokens_file.write_bytes(content)
    with pytest.raises(InvalidConfiguration) as refused:
        GatewaySettings()
    expected = f"E1202 InvalidConfiguration: HERMES_GATEWAY_TOKENS_FILE: {problem.replace('FILE', str(tokens_file))}"
    assert str(refused.value) == expected


def test_the_null_device_is_a_file_without_tokens(monkeypatch):
    monkeypatch.setenv("HERMES_GATEWAY_TOKENS_FILE", "/dev/null")
    assert GatewaySettings().tokens == ()
    with pytest.raises(InvalidConfiguration, match="can be reached by others"):
        GatewaySettings(host="0.0.0.0")


def test_tokens_in_two_places_are_refused(tokens_file, monkeypatch):
    tokens_file.write_text("one\n")
    monkeypatch.setenv("HERMES_GATEWAY_TOKENS", "two")
    with pytest.raises(InvalidConfiguration, match="HERMES_GATEWAY_TOKENS is set, too; unset one of them"):
        GatewaySettings()


def test_the_variable_counts_beside_a_file_without_tokens_as_compose_sets_it(monkeypatch):
    monkeypatch.setenv("HERMES_GATEWAY_TOKENS_FILE", os.devnull)
    assert GatewaySettings().tokens == ()
    monkeypatch.setenv("HERMES_GATEWAY_TOKENS", "one")
    assert GatewaySettings().tokens == ("one",)


def test_tokens_are_not_shown():
    assert "secret" not in repr(GatewaySettings(tokens=("secret",)))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]")],
        *[
            (host, False)
            for host in ("", "0.0.0.0", "10.0.0.1", "localhost.evil.example", "127.0.0.1.example", "2130706433")
        ],
    ],
)
def test_loopback_is_told_from_the_rest(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("name", ["ftp://127.0.0.1", "127.0.0.1:5000", "hermes"])
def test_an_upstream_that_is_none_is_refused(name):
    with pytest.raises(InvalidConfiguration, match=r"write http://HOST:PORT or replicate:owner/name"):
        open_upstream(name, slots=1)
