"""After any fault, and after a kill at any moment, a model is whole and verified, or absent and resumable."""

import gzip
import hashlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from hermes.devserver.server import PROJECT
from hermes.weights import Store, http, hub, reader
from hermes.weights.lock import LockedFile, locked, read_lock_file, write_lock
from hermes.weights.source import HubSource, parse_source
from hermes.weights.staging import MARKER
from tests.support.asking import until
from tests.support.fakes import safetensors
from tests.support.faults import Corrupt, Html, NoRange, Reset, Stall, Status, Truncate, WrongLength
from tests.support.fetching_child import BUG, FETCHED, LITTLE, REFUSED, SKIPPED, Zygote, fetch, small_pieces
from tests.support.hostile import TIMES
from tests.support.hub_server import HubServer
from tests.support.running import Command
from tests.support.tiny_models import SMALL, files_in, tar_of

SEED = int(os.environ.get("FAULTS_SEED", "4"))
ROUNDS, POINTS = 40 if TIMES == 1 else 70, 3  # so many models, and so often each is hurt before it is let be
DISK_OPERATIONS = 60  # so many has a fetch, or a few less

draw = random.Random(0)
SHARDS = {f"model-0000{n}-of-00002.safetensors": safetensors(70_000 - 20_000 * n, n, tensor=f"{n}") for n in (1, 2)}
INDEX = json.dumps({"weight_map": {f"{n}": name for n, name in enumerate(SHARDS, 1)}})
MODEL = {
    "config.json": draw.randbytes(200),
    **SHARDS,
    "model.safetensors.index.json": INDEX.ljust(700).encode(),
    "tokenizer.json": draw.randbytes(5000),
}
SIZE = sum(map(len, MODEL.values()))
TAR = tar_of(MODEL)


@pytest.fixture(scope="module")
def server():
    with HubServer() as server:
        server.add_repo("org/http", MODEL)
        server.add_repo("org/xet", MODEL, xet=True)
        server.add_file("/ranges.tar", TAR)
        server.add_file("/none.tar", TAR, ranges=False)
        server.add_file("/packed.tar.gz", gzip.compress(TAR))
        yield server


@pytest.fixture(scope="module")
def environment(server, tmp_path_factory):
    home = tmp_path_factory.mktemp("hf")
    return {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture
def zygote(environment):
    zygote = Zygote(**environment, PYTHONPATH=str(PROJECT))
    yield zygote
    zygote.close()


@pytest.fixture
def in_small_pieces(monkeypatch, environment):
    for module, name in ((http, "PIECE"), (http, "LEAST"), (http, "READ_SECONDS"), (hub, "READ_SECONDS")):
        monkeypatch.setattr(module, name, getattr(module, name))
    for name in ("BLOCK", "SKIPPED", "LITTLE"):
        monkeypatch.setattr(reader, name, getattr(reader, name))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    small_pieces()


def sources(url):
    """Where the model is to be had, how often that is drawn, and which paths are asked for."""
    return {
        "hf://org/http": (5, ["/cdn/", "/api/", "config.json", "tokenizer.json"]),
        "hf://org/xet": (1, ["/api/", "/xet-read-token/", "config.json"]),
        f"{url}/ranges.tar": (3, ["/ranges.tar"]),
        f"{url}/none.tar": (1, ["/none.tar"]),
        f"{url}/packed.tar.gz": (1, ["/packed.tar.gz"]),
    }


def lock_of(source):
    files = [
        LockedFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in MODEL.items()
    ]
    return locked(None, str(source), files)


class Round:
    """One model on its way into one folder."""

    def __init__(self, server, folder, draw):
        self.server, self.folder, self.draw = server, folder, draw
        weighed = [(source, weight) for source, (weight, _) in sources(server.url).items()]
        self.text = draw.choices(*zip(*weighed, strict=True))[0]
        self.paths = sources(server.url)[self.text][1]
        self.source = parse_source(self.text)
        self.store = Store(folder / "weights", folder / "weights.lock")
        self.final = self.store.folder / self.source.key
        self.lost, self.was_corrupted = None, False
        self.is_checked = not self.text.endswith(".tar")  # a plain tar has no checksums, but in a lock
        if not self.is_checked and draw.random() < 0.5:
            folder.mkdir()
            write_lock(self.store.lock_file, lock_of(self.source))
            self.is_checked = True

    def hurt(self, zygote):
        """One point: faults, or a kill, or both. Returns what became of it."""
        self.server.clear()
        if self.is_whole:
            self.lost = self.draw.choice(list(MODEL))
            (self.final / self.lost).unlink()
        way = self.draw.choice(["faults", "faults", "bytes", "bytes", "end", "time", "disk", "disk"])
        if way == "faults" or self.draw.random() < 0.3:
            self.fault()
        status = fetch(self.folder, self.text) if way == "faults" else self.child(zygote, way)
        assert status != BUG, "see its standard error"
        return {FETCHED: "fetched", REFUSED: "refused", -signal.SIGKILL: "killed"}[status]

    def fault(self):
        """Spoil some of the answers that come next."""
        at, delta = self.draw.randrange(60_000), self.draw.choice([-9, 9])
        kinds = [Status(503), Status(404), Status(429, retry_after=0), Html(), NoRange(), WrongLength(delta), Reset(0)]
        kinds += [Reset(at), Truncate(at), Stall(at), *[Corrupt(at)] * 2 * self.is_checked]
        fault = self.draw.choice(kinds)
        self.was_corrupted |= isinstance(fault, Corrupt)
        self.server.fail(self.draw.choice(self.paths), fault, self.draw.choice([1, 1, 2, 3, None]))

    def child(self, zygote, way):
        """Fetch in a child. Kill it after so many bytes, soon after the last, after a time, or at a disk operation."""
        lose = (
            self.draw.randint(self.draw.choice([1, DISK_OPERATIONS // 2]), DISK_OPERATIONS) if way == "disk" else None
        )
        victim = Victim({"end": 0.02, "time": 0.06}.get(way, 0) * self.draw.random())
        if way == "time":
            threading.Thread(target=victim.kill).start()
        elif way in ("bytes", "end"):
            missing = max(1, self.missing())
            self.server.on_bytes(self.draw.randint(1, missing) if way == "bytes" else missing, victim.kill)
        return victim.live(zygote, folder=str(self.folder), source=self.text, lose=lose)

    @property
    def is_whole(self):
        return self.final.exists() and files_in(self.final) == MODEL

    def check(self):
        """What has to be so at any time."""
        for path in self.store.folder.glob(".*.partial/files/*"):
            assert path.name.startswith(".") or path.read_bytes() == MODEL[path.name]
        if self.final.exists():
            assert self.is_whole or files_in(self.final) == {name: MODEL[name] for name in MODEL if name != self.lost}
            lock = json.loads((self.final / MARKER).read_bytes())["lock"]
            assert {file["name"]: file["size"] for file in lock["files"]} == {k: len(data) for k, data in MODEL.items()}
            held = read_lock_file(self.store.lock_file).model_for(str(self.source))
            assert held is None or held.model_dump(mode="json") == lock

    def missing(self):
        """Bytes that have to be fetched."""
        if self.is_whole:
            return 0
        if isinstance(self.source, HubSource):
            return SIZE - here(self.store.folder)
        staged = next(self.store.folder.glob(".*.partial"), self.store.folder / "none")
        parts = [path.stat().st_size for path in staged.glob("parts/*")]
        lines = (staged / "unpacked.jsonl").read_text().splitlines(True) if (staged / "unpacked.jsonl").exists() else []
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        ends = [each["end"] for each in whole if (staged / "files" / each["file"]["name"]).exists()]
        return len(TAR) - max(ends, default=0) - sum(parts)

    def slack(self):
        """Bytes that may be fetched again: all of it where it has to be, and in a tar the way to a header."""
        if self.was_corrupted or "none.tar" in self.text or ".gz" in self.text:
            return 2 * len(TAR)
        return 0 if isinstance(self.source, HubSource) else LITTLE + SKIPPED


class Victim:
    """A child that is killed some seconds after something happens."""

    def __init__(self, seconds):
        self.seconds, self.pid, self.is_over = seconds, None, False
        self.is_born = threading.Event()

    def live(self, zygote, **job):
        self.pid = zygote.start(**job)
        self.is_born.set()
        status = zygote.wait()
        self.is_over = True
        return status

    def kill(self):
        self.is_born.wait()
        time.sleep(self.seconds)
        if not self.is_over:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def here(folder):
    """The bytes of the model that are there, or on their way."""
    paths = [path for place in ("*", ".*.partial/files", ".*.partial/parts") for path in folder.glob(f"{place}/*")]
    return sum(path.stat().st_size for path in paths if path.is_file() and path.name in MODEL)


@pytest.mark.timeout(300)
def test_a_model_is_whole_or_absent_and_resumable_whatever_happens(server, zygote, in_small_pieces, tmp_path):
    began, happened, most = time.monotonic(), Counter(), 0
    for number in range(ROUNDS):
        model = Round(server, tmp_path / str(number), random.Random(f"{SEED} {number}"))
        for _ in range(POINTS):
            what = model.hurt(zygote)
            model.check()
            happened[what, "whole" if model.is_whole else "not whole"] += 1
        server.clear()
        missing, found = model.missing(), model.store.fetch(model.source)
        model.check()
        assert files_in(found.folder) == MODEL
        assert here(model.store.folder) == SIZE  # and no second one beside it
        assert found.fetched_bytes <= missing + model.slack()
        most = max(most, found.fetched_bytes - missing if model.slack() < len(TAR) else 0)
    seconds = time.monotonic() - began
    facts = ", ".join(f"{count} {what} and {state}" for (what, state), count in sorted(happened.items()))
    print(f"\nseed {SEED}, {seconds:.0f} s, {happened.total()} points: {facts}; at most {most} bytes fetched twice")
    assert happened.total() == ROUNDS * POINTS
    assert happened["fetched", "not whole"] == 0
    assert (
        min(happened[each] for each in (("killed", "not whole"), ("killed", "whole"), ("refused", "not whole")))
        >= ROUNDS // 35
    )


LARGE = {**SMALL, "model.safetensors": safetensors(3_000_000)}


def fetching(folder, source, environment):
    settings = {"HERMES_WEIGHTS_DIR": str(folder), "HERMES_WEIGHTS_LOCK": str(folder / "weights.lock")}
    return Command("weights", "fetch", source, **environment, **settings)


@pytest.fixture
def large(server):
    server.clear()
    server.add_repo("org/large", LARGE)
    return {"hub": "hf://org/large", "archive": server.add_file("/large.tar", tar_of(LARGE))}


def arrived(folder):
    """The bytes of the large file that are on the disk."""
    return sum(path.stat().st_size for path in folder.glob(".*.partial/parts/model.safetensors"))


@pytest.mark.parametrize("kind", ["hub", "archive"])
def test_ctrl_c_ends_a_download_that_hangs_and_the_next_one_goes_on(server, environment, large, tmp_path, kind):
    hangs = threading.Event()
    path, first = ("/cdn/", 2) if kind == "hub" else ("/large.tar", 1 + reader.LITTLE)
    server.on_bytes(first, lambda: server.fail(path, Stall(2_000_000), times=None))
    server.on_bytes(2_000_000, hangs.set)
    command = fetching(tmp_path, large[kind], environment)
    assert hangs.wait(60)
    until(lambda: arrived(tmp_path) >= 2_000_000 - 2 * http.LEAST, 60, "what has come is on the disk")
    command.process.send_signal(signal.SIGINT)
    assert command.wait(http.READ_SECONDS / 2)[:2] == (130, "")
    server.clear()
    code, out, err, _ = fetching(tmp_path, large[kind], environment).wait()
    assert code == 0, err
    assert (files_in(Path(out.strip())), "Traceback" in err) == (LARGE, False)
    assert server.bytes_sent < 1_000_000 + 4 * http.LEAST  # a connection loses what it had read of its next piece


def test_of_two_processes_one_fetches_and_the_other_waits_and_says_so(server, environment, large, tmp_path):
    server.fail("/cdn/", Stall(1_000_000, seconds=4))
    commands = [fetching(tmp_path, large["hub"], environment) for _ in range(2)]
    ended = [command.wait() for command in commands]
    folder = ended[0][1]
    assert [(code, out) for code, out, *_ in ended] == [(0, folder)] * 2
    assert files_in(Path(folder.strip())) == LARGE
    waiting = "weights: another process is fetching hf://org/large@main; waiting for it\n"
    assert sorted(waiting in err for _, _, err, _ in ended) == [False, True]
    assert server.bytes_sent == sum(map(len, LARGE.values()))
