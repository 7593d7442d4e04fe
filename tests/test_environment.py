"""Which proxy is asked for a URL and that none is for this machine; what a token may be."""

import socket
import ssl
from os import pathsep

import httpx
import psutil
import pytest

from hermes.environment import CA_VARIABLES, can_be_asked, header_token, is_local, proxy_for, tls
from hermes.errors import InvalidConfiguration
from tests.support.certificates import certificate_of

NAME = socket.gethostname()
OWN = [
    address.address
    for addresses in psutil.net_if_addrs().values()
    for address in addresses
    if address.family in (socket.AF_INET, socket.AF_INET6)
]
HERE = [
    *("localhost", "LOCALHOST", "localhost.", "a.localhost", "ip6-localhost", "localhost.localdomain"),
    *("localhost4.localdomain4", "localhost6.localdomain6"),
    *("127.0.0.1", "127.8.9.10", "127.1", "0", "0.0.0.0", "0x7f.1", "[::1]", "[::]", "[::ffff:127.0.0.1]"),
    *(NAME, NAME.upper(), *(f"[{address}]" if ":" in address else address for address in OWN)),
]
ELSEWHERE = [
    "example.com",
    "localhost.example.com",
    "8.8.8.8",
    "10.255.255.254",
    "[2001:db8::1]",
    "1.127",
    "[fe80::1%25lo]",
]
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("host", HERE)
def test_what_is_on_this_machine_is_asked_directly(monkeypatch, host):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "elsewhere")
    assert proxy_for(f"http://{host}:5000/health-check") is None
    assert proxy_for(f"https://{host}") is None


@pytest.mark.parametrize("host", ELSEWHERE)
def test_what_is_elsewhere_is_asked_through_the_proxy(monkeypatch, host):
    assert proxy_for(f"http://{host}") is None
    monkeypatch.setenv("ALL_PROXY", "http://me:secret@proxy:3128")
    assert proxy_for(f"http://{host}").url == "http://me:secret@proxy:3128"
    assert str(proxy_for(f"http://{host}")) == "the proxy http://proxy:3128 of ALL_PROXY"


def test_the_proxy_is_that_of_the_scheme_and_may_have_no_scheme_itself(monkeypatch):
    monkeypatch.setenv("http_proxy", "one:1")
    monkeypatch.setenv("HTTPS_PROXY", " https://two ")
    monkeypatch.setenv("ALL_PROXY", "socks5://three")
    found = [proxy_for(f"{scheme}://example.com") for scheme in ("http", "https")]
    assert [(proxy.url, proxy.variable) for proxy in found] == [
        ("http://one:1", "HTTP_PROXY"),
        ("https://two", "HTTPS_PROXY"),
    ]
    monkeypatch.setenv("http_proxy", " ")
    monkeypatch.delenv("ALL_PROXY")
    assert proxy_for("http://example.com") is None


V6 = "http://[2001:db8::1]:8080/x"
DIRECT = [
    *(("*", V6), ("example.com", "http://example.com"), ("example.com", "http://a.example.com")),
    *((" a , .example.com ", "http://a.example.com"), ("*.example.com", "http://a.example.com")),
    *(("a\texample.com", "http://EXAMPLE.com."), ("example.com:80", "http://example.com")),
    *((".example.com.", "http://example.com"), ("10.0.0.0/99,example.com", "http://example.com")),
    *(("10.0.0.0/8", "http://10.1.2.3"), ("10.1.2.3", "http://10.1.2.3:99"), ("10.1.2.3:99", "http://10.1.2.3:99")),
    *(("[2001:db8::1]", V6), ("2001:db8::1", V6), ("[2001:db8::1]:8080", V6), ("[2001:0db8:0::1]", V6)),
    *(("[2001:db8::]/32", V6), ("2001:db8::/32", V6), ("[2001:db8::/32]", V6), ("[::1],2001:db8::1", V6)),
]
PROXIED = [
    *(("", V6), ("[::1]", V6), (" , ,", V6), ("example.com", "http://notexample.com"), ("[2001:db8::1]:81", V6)),
    *(("example.com:81", "http://example.com"), ("10.0.0.0/99,a.*.b", "http://example.com")),
    *(("10.0.0.0/8", "http://11.1.2.3"), ("10.0.0.0/8", V6), ("2001:db9::/32", V6), ("10.0.0.0/8", "http://a")),
]


@pytest.mark.parametrize(("entries", "url"), DIRECT)
def test_what_no_proxy_covers_is_asked_directly(monkeypatch, entries, url):
    monkeypatch.setenv("ALL_PROXY", "http://proxy")
    monkeypatch.setenv("NO_PROXY", entries)
    assert proxy_for(url) is None


@pytest.mark.parametrize(("entries", "url"), PROXIED)
def test_what_no_proxy_does_not_cover_is_not(monkeypatch, entries, url):
    monkeypatch.setenv("ALL_PROXY", "http://proxy")
    monkeypatch.setenv("NO_PROXY", entries)
    assert proxy_for(url).url == "http://proxy"


UNUSABLE = ["ftp://proxy", "socks4://proxy", "socks://proxy:1", "http://", "http://proxy:port", "http://[::1", "//a:b"]
UNUSABLE += ["http://127.0.0.1:999999", "http://proxy:0", "http://a..b", f"http://{'a' * 64}:1", "http://xn--a:1..b"]


@pytest.mark.parametrize("value", UNUSABLE)
def test_a_proxy_that_can_not_be_used_is_one_error(monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(InvalidConfiguration, match=r"E1202 .*: ALL_PROXY: is not the URL of a proxy"):
        proxy_for("http://example.com")
    assert proxy_for("http://localhost") is None


@pytest.mark.parametrize("password", ["se/cret", "12/secret", "se?cret", "se#cret", "12#secret", "se cret", "s@cret"])
def test_no_password_of_a_proxy_is_shown(monkeypatch, password):
    monkeypatch.setenv("ALL_PROXY", f"http://me:{password}@proxy:3128")
    try:
        said = str(proxy_for("http://example.com"))
    except InvalidConfiguration as error:
        said = str(error)
    assert not [part for part in ("me:", "cret", ":12") if part in said]


@pytest.mark.parametrize("value", ["socks5://proxy:1080", "SOCKS5H://me:secret@proxy"])
def test_a_missing_package_for_socks_is_named(monkeypatch, value):
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(InvalidConfiguration, match=r"HTTPS_PROXY: is .* `pip install '\.\[socks\]'") as caught:
        proxy_for("https://example.com", ["no_such_module"])
    assert "secret" not in str(caught.value)
    assert proxy_for("https://example.com", []).url == value


def test_a_url_that_is_none_is_left_to_the_client():
    assert proxy_for("http://[::1") is None
    assert not is_local("")


@pytest.mark.parametrize(
    ("text", "token"), [(" hf_x\n", "hf_x"), ("hf_x\r\n", "hf_x"), ("\t \n", None), ("", None), (None, None)]
)
def test_a_token_has_no_white_space_around_it(text, token):
    assert header_token(text, "HF_TOKEN") == token


@pytest.mark.parametrize(
    "text", ["hf_secret\nhf_secret", "hf_secret x", "hf_secr\u00e9t", "hf_secret\0", "hf_secret\u200b"]
)
def test_a_token_that_no_header_holds_is_not_shown(text):
    with pytest.raises(InvalidConfiguration, match="HF_TOKEN: has a token with a blank, a line break or") as caught:
        header_token(text, "HF_TOKEN")
    assert "secr" not in str(caught.value)


@pytest.mark.parametrize("name", CA_VARIABLES)
@pytest.mark.parametrize("kind", ["file", "folder", "folders"])
def test_certificates_may_be_in_a_file_or_in_folders(monkeypatch, tmp_path, name, kind):
    for each in CA_VARIABLES:
        monkeypatch.delenv(each, raising=False)
    (tmp_path / "ca.pem").write_bytes(certificate_of("a.test"))
    where = {"file": tmp_path / "ca.pem", "folder": tmp_path, "folders": f"{tmp_path}/none{pathsep}{tmp_path}"}[kind]
    default = tls()
    monkeypatch.setenv(name, str(where))
    context = tls()
    assert (context is tls(), context is default, context.verify_mode) == (True, False, ssl.CERT_REQUIRED)
    assert context.cert_store_stats()["x509"] == (kind == "file")  # OpenSSL reads folders later


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is '.*/ca.pem', which is not there; correct it, or unset it"),
        ("none", "has no certificates that can be"),
    ],
)
def test_certificates_that_can_not_be_read_are_one_error(monkeypatch, tmp_path, text, said):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    if text:
        (tmp_path / "ca.pem").write_text(text)
    with pytest.raises(InvalidConfiguration, match=f"SSL_CERT_FILE: .*{said}"):
        tls()


@pytest.mark.parametrize("address", ["a..b", "a" * 64, "xn--", "*:0", "a:65536", "[::1]:999999", "a:-1"])
def test_a_host_and_a_port_that_no_resolver_takes_are_not_asked(address):
    assert not can_be_asked(httpx.URL(f"http://{address}/x"))


@pytest.mark.parametrize(
    "address", ["a.b", "a.b.:65535", "b\u00fccher.example:1", "[::1]", "127.1", "xn--bcher-kva.example"]
)
def test_other_hosts_are(address):
    assert can_be_asked(httpx.URL(f"https://{address}"))
