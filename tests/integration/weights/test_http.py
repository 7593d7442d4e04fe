import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import formatdate
from os import pathsep

import pytest

from hermes.environment import CA_VARIABLES
from hermes.errors import WeightsError
from hermes.weights import http
from hermes.weights.http import HttpFile, Session, break_off
from hermes.weights.remote import Interrupted, PermanentFault
from tests.support.certificates import over_tls
from tests.support.faults import Html, NoRange, Reset, Stall, Status, Truncate, WrongLength
from tests.support.file_server import FileServer
from tests.support.replies import Reply
from tests.support.tiny_models import WEIGHTS, everything_said

SIZE = len(WEIGHTS)
SIGNATURE = "s3cr3t"


class OddServer(FileServer):
    """Answers with whatever a test has put at a path."""

    def __init__(self):
        super().__init__()
        self.replies = {}

    def reply_to(self, call):
        return self.replies.get(call.path) or super().reply_to(call)


@pytest.fixture(scope="module")
def one_server():
    with OddServer() as server:
        yield server


@pytest.fixture
def server(one_server):
    one_server.clear()
    return one_server


@pytest.fixture
def session():
    with Session() as session:
        yield session


@pytest.fixture
def file(server, session):
    return HttpFile(session, server.add_file("/m.tar", WEIGHTS), "m.tar")


def read(file, offset=0, end=None):
    return b"".join(map(bytes, file.read(offset, end)))


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("offset", "end"), [(0, None), (0, SIZE), (0, 1), (7, None), (7, 99), (SIZE - 1, SIZE)])
def test_any_part_can_be_read_from_any_host(server, session, monkeypatch, ranges, offset, end):
    monkeypatch.setattr(http, "PIECE", 999)
    file = HttpFile(session, server.add_file("/any.tar", WEIGHTS, ranges=ranges), "any.tar")
    assert (file.probe(), file.size) == (ranges, SIZE)
    assert read(file, offset, end) == WEIGHTS[offset:end]


def test_no_piece_is_small_but_the_last(file, monkeypatch):
    monkeypatch.setattr(http, "PIECE", 1000)
    monkeypatch.setattr(http, "LEAST", 8000)
    sizes = [len(piece) for piece in file.read(0)]
    assert (len(sizes), sum(sizes)) == (4, SIZE)
    assert all(8000 <= size < 9000 for size in sizes[:-1])


STATUSES = {
    400: "the host refuses the request (HTTP 400 status",
    401: "the host wants a valid token (HTTP 401 status",
    403: "the host refuses access (HTTP 403 status",
    404: "there is nothing (HTTP 404 status",
    416: "the host refuses the request (HTTP 416 status",
}


@pytest.mark.parametrize(("status", "problem"), STATUSES.items())
def test_what_the_host_refuses_is_said(server, session, status, problem):
    server.replies["/no"] = Reply.text(status, "no", {"X-Error-Message": "status"})
    with pytest.raises(WeightsError) as caught:
        HttpFile(session, f"{server.url}/no", "m.tar").probe()
    assert str(caught.value) == f"E1000 WeightsError: weights 'm.tar': {problem}); check the address and your access"


def test_an_archive_may_have_its_password_in_netrc(server, file, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert read(file) == WEIGHTS
    assert [asked.has_authorization for asked in server.requests] == [True]


def test_what_the_host_says_has_no_secrets(server, session):
    server.replies["/no"] = Reply.text(404, "no", {"X-Error-Message": "nothing at http://me:secret@host/m?key=secret"})
    with pytest.raises(WeightsError) as caught:
        HttpFile(session, f"{server.url}/no", "m.tar").probe()
    assert "nothing at http://" in str(caught.value)
    assert "secret" not in str(caught.value)


FAULTS = {
    "a busy server": (Status(503), "HTTP 503 Service Unavailable"),
    "too many requests": (Status(429), "HTTP 429 Too Many Requests"),
    "a reset before the answer": (Reset(0), "ConnectionResetError"),
    "a reset": (Reset(7000), "ConnectionResetError"),
    "an end before the answer": (Truncate(0), "RemoteDisconnected"),
    "an early end": (Truncate(7000), "IncompleteRead"),
    "silence": (Stall(0), "TimeoutError: timed out"),
    "silence in the middle": (Stall(7000), "TimeoutError: timed out"),
    "a page instead": (Html(), "sent a page of HTML in place of the file"),
    "a body too short": (WrongLength(-9), "the host has 29991 bytes instead of 30000"),
    "a body too long": (WrongLength(9), "the host has 30009 bytes instead of 30000"),
}


@pytest.mark.parametrize(("fault", "cause"), FAULTS.values(), ids=FAULTS)
def test_a_fault_may_pass_and_what_has_come_before_it_counts(server, file, monkeypatch, fault, cause):
    file.probe()
    server.fail("/m.tar", fault)
    arrived = []
    with monkeypatch.context() as patch:
        patch.setattr(http, "READ_SECONDS", 0.05 if isinstance(fault, Stall) else 30.0)
        with pytest.raises(Interrupted, match=cause):
            arrived.extend(map(bytes, file.read(0)))
    assert b"".join(arrived) == WEIGHTS[: getattr(fault, "after", 0)]
    assert read(file, len(arrived)) == WEIGHTS[len(arrived) :]


def test_a_host_that_can_not_be_reached_may_be_there_later(session):
    with pytest.raises(Interrupted, match="Connection refused"):
        read(HttpFile(session, "http://127.0.0.1:9/m.tar", "m.tar"))


def test_a_host_may_forget_about_ranges(server, file):
    file.probe()
    server.fail("/m.tar", NoRange())
    assert read(file, 20_000, 20_100) == WEIGHTS[20_000:20_100]


def test_a_signature_that_has_run_out_is_asked_for_again(server, session):
    url = server.add_file("/m.tar", WEIGHTS)
    server.fail("/m.tar", Status(403), times=4)
    for query, error in (("?signature=1", Interrupted), ("", WeightsError)):
        server.replies["/signs"] = Reply.text(302, "there", {"Location": f"{url}{query}"})
        with pytest.raises(error, match="HTTP 403"):
            read(HttpFile(session, f"{server.url}/signs", "m.tar"))
        with pytest.raises(WeightsError, match="HTTP 403"):
            read(HttpFile(session, f"{url}{query}", "m.tar"))


@pytest.mark.parametrize("address", ["http://a..b/m", f"http://{'a' * 300}/m", "http://127.0.0.1:999999/m"])
def test_an_address_that_can_not_be_asked_is_refused(server, session, address):
    server.replies["/moved"] = Reply.text(302, "there", {"Location": address})
    for url in (address, f"{server.url}/moved"):
        with pytest.raises(WeightsError, match="its address, or one that it redirects to, is not valid"):
            HttpFile(session, url, "m.tar").probe()


def test_a_page_is_known_by_its_type_and_its_size(server, session):
    server.replies["/page"] = Reply.text(200, "<p>Please log in", kind="Text/HTML; charset=utf-8")
    for size in (None, 15):
        with pytest.raises(PermanentFault, match="sent a page of HTML in place of the file"):
            read(HttpFile(session, f"{server.url}/page", "m.tar", size=size))
    with pytest.raises(PermanentFault, match="sent a page of HTML in place of the file"):
        HttpFile(session, f"{server.url}/page", "m.tar").probe()
    assert read(HttpFile(session, f"{server.url}/page", "LICENSE.html", size=16)) == b"<p>Please log in"
    server.replies["/template"] = Reply.of(b"<!-- {{ messages }} -->", {"Content-Type": "text/plain"})
    assert read(HttpFile(session, f"{server.url}/template", "chat_template.jinja", size=23))[:4] == b"<!--"


@pytest.mark.parametrize("coding", ["aws-chunked", "", "none", "utf-8", "binary", "identity"])
def test_a_coding_that_compresses_nothing_is_no_fault(server, session, coding):
    server.replies["/coded"] = Reply.of(WEIGHTS, {"Content-Encoding": coding})
    assert read(HttpFile(session, f"{server.url}/coded", "m.tar")) == WEIGHTS


@pytest.mark.parametrize("coding", ["gzip", "aws-chunked, GZIP", "br", "zstd"])
def test_a_coding_that_compresses_is_refused(server, session, coding):
    server.replies["/coded"] = Reply.of(WEIGHTS, {"Content-Encoding": coding})
    with pytest.raises(PermanentFault, match="the host sends the file compressed, with Content-Encoding '"):
        read(HttpFile(session, f"{server.url}/coded", "m.tar"))


@pytest.mark.parametrize("kind", ["file", "folders"])
def test_the_certificates_of_the_environment_are_trusted(session, monkeypatch, tmp_path, kind):
    with OddServer() as server:
        path = over_tls(server, tmp_path)
        (tmp_path / "hashed").mkdir()
        (tmp_path / "hashed" / "88d0bdcb.0").symlink_to(path)  # as `openssl rehash` names it
        url = server.add_file("/m.tar", WEIGHTS)
        for name in CA_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(WeightsError, match="the certificate of its host is not trusted"):
            read(HttpFile(session, url, "m.tar"))
        if kind == "file":
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
        else:
            monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}/none{pathsep}{tmp_path}/hashed")
        with Session() as another:
            assert read(HttpFile(another, url, "m.tar")) == WEIGHTS


@pytest.mark.parametrize(("before", "after"), [({"ETag": '"a"'}, {"ETag": '"b"'})] * 2, ids=["ETag", "size, too"])
def test_a_file_that_has_changed_is_not_mixed_with_the_old_one(server, session, request, before, after):
    file = HttpFile(session, f"{server.url}/changing", "m.tar")
    server.replies["/changing"] = Reply.of(WEIGHTS, before, ranges=True)
    file.probe()
    server.replies["/changing"] = Reply.of(WEIGHTS + b"." * ("too" in request.node.name), after, ranges=True)
    with pytest.raises(WeightsError, match="it changed during the download; start again"):
        read(file, 100)


@pytest.mark.parametrize(("before", "after"), [('"a"', 'W/"a"'), ('W/"a"', '"a"'), ('W/"a"', 'W/"a"')])
def test_a_weak_etag_is_that_of_the_same_file(server, session, before, after):
    file = HttpFile(session, f"{server.url}/weak", "m.tar")
    server.replies["/weak"] = Reply.of(WEIGHTS, {"ETag": before}, ranges=True)
    file.probe()
    server.replies["/weak"] = Reply.of(WEIGHTS, {"ETag": after}, ranges=True)
    assert (file.version, read(file, 100)) == (("ETag", '"a"'), WEIGHTS[100:])


def test_where_there_is_no_etag_the_date_tells_of_a_change(server, session):
    file = HttpFile(session, f"{server.url}/changing", "m.tar")
    server.replies["/changing"] = Reply.of(WEIGHTS, {"Last-Modified": formatdate(0, usegmt=True)}, ranges=True)
    file.probe()
    assert file.version == ("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
    server.replies["/changing"] = Reply.of(WEIGHTS, {"Last-Modified": formatdate(1, usegmt=True)}, ranges=True)
    with pytest.raises(WeightsError, match="it changed during the download"):
        read(file, 100)


ODD = {
    "compressed": (
        200,
        {"Content-Encoding": "gzip"},
        "the host sends the file compressed, with Content-Encoding 'gzip'",
    ),
    "another range": (206, {"Content-Range": "bytes 0-9/30000"}, "the host did not send the range from byte 100"),
    "no range at all": (206, {}, "the host did not send the range from byte 100"),
}


@pytest.mark.parametrize(("status", "headers", "cause"), ODD.values(), ids=ODD)
def test_what_was_not_asked_for_is_not_taken(server, session, status, headers, cause):
    server.replies["/odd"] = Reply.of(WEIGHTS, headers, status)
    with pytest.raises(Interrupted, match=cause):
        read(HttpFile(session, f"{server.url}/odd", "m.tar"), 100)


def test_a_host_may_not_know_the_size(server, session):
    server.replies["/sizeless"] = Reply.of(WEIGHTS, chunked=True)
    file = HttpFile(session, f"{server.url}/sizeless", "m.tar")
    assert (file.probe(), file.size, file.version) == (False, None, None)
    assert read(file, 9) == WEIGHTS[9:]


@contextmanager
def called_off(session):
    """Hangs up again and again."""
    ended = threading.Event()

    def hang_up():
        while not ended.wait(0.01):
            session.hang_up()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(hang_up)
        yield
        ended.set()


@pytest.mark.parametrize("after", [0, 7000])
def test_who_waits_for_a_silent_host_can_be_called_off(server, file, session, after):
    server.fail("/m.tar", Stall(after))
    with called_off(session), pytest.raises(Interrupted):
        read(file)
    assert read(file) == WEIGHTS


def test_reads_that_have_ended_leave_their_connections_to_the_next(server, file, session):
    with ThreadPoolExecutor(1) as threads:
        ended, never_began = threads.submit(read, file), Future()
        assert ended.result() == WEIGHTS
        break_off([ended, never_began], session.hang_up)
    (connection,) = session._adapter._made
    kept = connection.sock
    assert read(file) == WEIGHTS
    assert (connection.sock, list(session._adapter._made)) == (kept, [connection])


def test_a_reader_that_stops_half_way_leaves_no_connection_open(file, session, monkeypatch):
    for name in ("PIECE", "LEAST"):
        monkeypatch.setattr(http, name, 999)
    reading = file.read(0)
    assert WEIGHTS.startswith(next(reading))
    reading.close()
    assert [connection.sock for connection in session._adapter._made] == [None]


def test_errors_show_no_signature(session):
    with pytest.raises(Interrupted) as caught:
        read(HttpFile(session, f"http://127.0.0.1:9/m.tar?X-Amz-Signature={SIGNATURE}", "m.tar"))
    assert SIGNATURE not in everything_said(caught.value)
