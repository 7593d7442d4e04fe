import pytest

from hermes.errors import InvalidConfiguration
from hermes.gateway import GatewaySettings
from hermes.gateway.settings import is_loopback
from hermes.gateway.upstream import open_upstream


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"model": "hermes"}, "--model: is 'hermes'; write owner/name"),
        ({"model": "a/b/c"}, "--model: is 'a/b/c'; write owner/name"),
        ({"host": "0.0.0.0"}, "--host: 0.0.0.0 can be reached by others; set HERMES_GATEWAY_TOKENS, or say --no-auth"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(given, problem):
    with pytest.raises(InvalidConfiguration, match="E1202") as refused:
        GatewaySettings(**given)
    assert str(refused.value).endswith(problem)


@pytest.mark.parametrize("more", [{"tokens": ("secret",)}, {"no_auth": True}])
def test_other_machines_are_served_with_a_token_or_when_told_so(more):
    assert not GatewaySettings(host="0.0.0.0", **more).local


def test_the_environment_has_the_tokens(monkeypatch):
    monkeypatch.setenv("HERMES_GATEWAY_TOKENS", " one,two ,")
    assert GatewaySettings(host="0.0.0.0").tokens == ("one", "two")


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
