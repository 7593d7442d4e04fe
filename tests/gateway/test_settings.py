import hashlib
import math
import os
import pickle

import pytest
from pydantic import TypeAdapter

from hermes.errors import InvalidConfiguration
from hermes.gateway import GatewaySettings
from hermes.gateway.settings import LIMITS, is_loopback
from hermes.gateway.tokens import VARIABLES, digest_of
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
        ({"public_url": "https://hermes.example"}, f"--public-url: https://hermes.example {OPEN}"),
        ({"port": 99999}, "--port: is 99999; set 1 to 65535"),
        ({"max_wait": math.nan}, "--max-wait: is nan; set 0.001 to 1000000000"),
        ({"max_waiting": -1}, "--max-waiting: is -1; set at least 0"),
        ({"max_body": 2, "max_memory": 1}, "--max-body: is 2, more than half of --max-memory 1"),
        (
            {"forwarded_from": ("10.0.0.1/8",)},
            "--forwarded-from: 10.0.0.1/8 has host bits set; write an address or a network",
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


def test_a_file_has_the_tokens_one_a_line(tokens_file):
    tokens_file.write_text("\ufeffone\r\n\n two\n# a comment, which counts for nothing\nthree\n", encoding="utf-8")
    assert GatewaySettings(host="0.0.0.0").tokens == ("one", "two", "three")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, f"user {os.geteuid()} cannot read FILE: No such file or directory; name a file that it can read"),
        (b"", "FILE has no token; put one on each line"),
        (b" \n", "FILE has no token; put one on each line"),
        (b"alice:Zk3,9\n", "FILE has a comma; put one token on each line, without commas"),
        (b"secret\xff", f"user {os.geteuid()} cannot read FILE: it is not UTF-8; name a file that it can read"),
    ],
    ids=["missing", "empty", "blank", "commas", "binary"],
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
        *[(host, True) for host in ("LOCALHOST", "localhost.", "hermes.localhost", "a.b.LocalHost.")],
        *[
            (host, False)
            for host in ("", "0.0.0.0", "10.0.0.1", "localhost.evil.example", "127.0.0.1.example", "2130706433")
        ],
        *[(host, False) for host in ("localhost..", "notlocalhost", "localhost.example", "x-localhost", "local")],
    ],
)
def test_loopback_is_told_from_the_rest(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("name", ["ftp://127.0.0.1", "127.0.0.1:5000", "hermes"])
def test_an_upstream_that_is_none_is_refused(name):
    with pytest.raises(InvalidConfiguration, match=r"write http://HOST:PORT or replicate:owner/name"):
        open_upstream(name, slots=1)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1])
@pytest.mark.parametrize("settings_of", [GatewaySettings, lambda **given: of_a_cluster(given)], ids=["here", "cluster"])
def test_a_number_that_is_none_or_out_of_range_is_refused_by_its_option(name, value, settings_of):
    """However it is given: NaN and infinity are no int, which pydantic says for a cluster."""
    with pytest.raises((InvalidConfiguration, ValueError), match=rf"--{name.replace('_', '-')}|{name}"):
        settings_of(**{name: value})


def of_a_cluster(given):
    """As in docs/rayservice.yaml: hermes.cluster.ClusterSettings has this type."""
    return TypeAdapter(GatewaySettings).validate_python(given)


def test_a_manifest_gives_lists_and_a_copy_for_another_process_is_the_same():
    settings = of_a_cluster({"host": "0.0.0.0", "tokens": ["alice:secret"], "store": "x.db", "webhooks": ["example"]})
    assert (settings.tokens, settings.webhooks, settings.store.name) == (("alice:secret",), ("example",), "x.db")
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://hermes.example", "https://hermes.example"),
        ("https://hermes.example/", "https://hermes.example"),
        ("http://10.0.0.1:8080/a/hermes//", "http://10.0.0.1:8080/a/hermes"),
        ("https://[2001:db8::1]/", "https://[2001:db8::1]"),
        ("", None),  # as Compose passes an unset variable
        (None, None),
    ],
)
def test_a_public_url_has_no_slash_at_its_end(given, kept):
    assert GatewaySettings(public_url=given, tokens=("secret",)).public_url == kept


@pytest.mark.parametrize(
    "url",
    [
        *("hermes.example", "ftp://hermes.example", "//hermes.example", "https://", "https:///x", "https://a:b"),
        *(
            "https://a?b",
            "https://a/#b",
            "https://a b",
            "https://[::1",
            "https://a:99999",
            "https://a:0",
            "https://a\n",
        ),
    ],
)
def test_a_public_url_that_is_none_is_refused(url):
    with pytest.raises(InvalidConfiguration, match=r"--public-url: is .*; write http\[s\]://HOST\[:PORT\]\[/PATH\]"):
        GatewaySettings(public_url=url, tokens=("secret",))


def test_a_password_in_a_public_url_is_refused_and_not_shown():
    with pytest.raises(InvalidConfiguration, match="--public-url: has a user or a password") as refused:
        GatewaySettings(public_url="https://alice:secret@hermes.example")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("more", [{"tokens": ("secret",)}, {"no_auth": True}, {"public_url": "http://localhost:80"}])
def test_who_is_found_at_a_public_url_needs_tokens_or_to_be_told_so(more):
    assert GatewaySettings(**{"public_url": "https://hermes.example", **more}).local


@pytest.mark.parametrize("origin", ["*", "https://app.example", "http://10.0.0.1:3000", "chrome-extension://abc"])
def test_an_origin_is_taken_as_browsers_write_it(origin):
    assert GatewaySettings(origins=(origin,), no_auth=True).origins == (origin,)


@pytest.mark.parametrize(
    "origin", ["", "app.example", "https://app.example/", "https://App.example", "null", "https://"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin):
    with pytest.raises(InvalidConfiguration, match=r"--origin: is .*; write scheme://host"):
        GatewaySettings(origins=(origin,))


@pytest.mark.parametrize("host", ["*", "hooks.example", "hooks.example:8443", "10.0.0.1:80", "[::1]", "[::1]:80"])
def test_webhooks_may_go_to_a_host(host):
    assert GatewaySettings(webhooks=(host,)).webhooks == (host,)


@pytest.mark.parametrize(
    "host", ["", "https://hooks.example", "hooks.example/x", "*.example", "*:80", "::1", "u@h", "@h", "h:99999", "a b"]
)
def test_webhooks_to_what_is_no_host_are_refused(host):
    with pytest.raises(InvalidConfiguration, match=r"--webhooks: is .*; write HOST or HOST:PORT"):
        GatewaySettings(webhooks=(host,))


def test_proxies_are_addresses_and_networks():
    GatewaySettings(forwarded_from=("127.0.0.1", "10.0.0.0/8", "fd00::/8"))
    with pytest.raises(InvalidConfiguration, match="--forwarded-from: 'proxy' does not appear to be an IPv4 or IPv6"):
        GatewaySettings(forwarded_from=("proxy",))


HASHED = hashlib.sha256(b"secret").hexdigest()


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("alice:secret", "alice"),
        ("alice: secret", "alice"),
        (f"alice:sha256:{HASHED}", "alice"),
        (f"alice:sha256:{HASHED.upper()}", "alice"),
        ("secret", f"token-{HASHED[:8]}"),
    ],
)
def test_a_token_has_the_name_before_its_colon_or_one_of_its_digest(entry, name):
    settings = GatewaySettings(tokens=("other", entry))
    assert settings.token_names[digest_of(b"secret")] == name
    assert digest_of(b"wrong") not in settings.token_names


def test_a_token_may_have_colons_after_its_name():
    assert GatewaySettings(tokens=("alice:a:b",)).token_names == {digest_of(b"a:b"): "alice"}


def test_two_tokens_of_one_person_may_be_valid_while_the_old_one_is_replaced():
    assert list(GatewaySettings(tokens=("alice:old", "alice:new")).token_names.values()) == ["alice", "alice"]


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (["a b:secret"], "entry 1 is not name:token"),
        (["fine", ":secret"], "entry 2 is not name:token"),
        (["alice:"], "entry 1 is not name:token"),
        ([f"{'x' * 65}:secret"], "entry 1 is not name:token"),
        ([f"sha256:{HASHED}"], "entry 1 is not name:sha256:DIGEST"),
        (["alice:sha256:secret"], "entry 1 is not name:sha256:DIGEST"),
        (["alice:secret", "bob:secret"], "entry 2: this token is also that of alice"),
        (["alice:secret", f"bob:sha256:{HASHED}"], "entry 2: this token is also that of alice"),
        (["alice:secret", "secret"], "entry 2: this token is also that of alice"),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused_and_not_shown(entries, problem):
    with pytest.raises(InvalidConfiguration) as refused:
        GatewaySettings(tokens=tuple(entries))
    assert f"E1202 InvalidConfiguration: tokens: {problem}" in str(refused.value)
    assert not any(secret in str(refused.value) for secret in ("secret", HASHED))


def test_a_file_of_tokens_has_comments_and_names(tokens_file):
    tokens_file.write_text(f"# who, since when\n\nalice:one\n  # bob, later\nbob:sha256:{HASHED}\n", encoding="utf-8")
    assert list(GatewaySettings().token_names.values()) == ["alice", "bob"]
