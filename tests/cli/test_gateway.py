"""What the options of `gateway`, `up` and `cluster` set; nothing starts."""

from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from hermes.cli import cluster, gateway, main, up
from hermes.cli.gateway import OPTIONS
from hermes.devserver import ServerFailed
from hermes.gateway import GatewaySettings

UPSTREAM = ["gateway", "--upstream", "http://127.0.0.1:1"]


@pytest.fixture
def started(monkeypatch):
    """The settings that a command started a gateway with."""
    settings = []

    @contextmanager
    def server():
        yield SimpleNamespace(url="http://127.0.0.1:1")

    for module in (gateway, up):
        monkeypatch.setattr(module, "run", lambda given, upstreams: settings.append((given, len(upstreams))))
    monkeypatch.setattr(up, "require_free", lambda *_: None)
    monkeypatch.setattr(up, "local_server", server)
    monkeypatch.setattr(up, "wait_until_ready", lambda _: None)
    return settings


def test_every_setting_has_an_option():
    assert OPTIONS.keys() == {field.name for field in fields(GatewaySettings)}


def test_without_options_the_defaults_hold(started):
    assert main(UPSTREAM) == 0
    assert started == [(GatewaySettings(), 1)]


def test_each_option_sets_its_setting(started, tmp_path):
    (tmp_path / "tokens").write_text("alice:secret\n")
    given = ["--public-url", "https://hermes.example/x", "--forwarded-from", "10.0.0.1", "--forwarded-from", "fd00::/8"]
    given += ["--alias", "a", "--alias", "b", "--tokens-file", str(tmp_path / "tokens"), "--webhooks", "hooks.example"]
    given += ["--origin", "https://app.example", "--max-body", "10", "--max-memory", "20", "--max-per-token", "3"]
    given += ["--keep", "60", "--store", "x.db", "--grace", "1.5", "--max-waiting", "0", "--max-wait", "2"]
    assert main([*UPSTREAM, "--upstream", "http://127.0.0.1:2", *given]) == 0
    expected = GatewaySettings(
        public_url="https://hermes.example/x",
        forwarded_from=("10.0.0.1", "fd00::/8"),
        aliases=("a", "b"),
        tokens=("alice:secret",),
        webhooks=("hooks.example",),
        origins=("https://app.example",),
        max_body=10,
        max_memory=20,
        max_per_token=3,
        keep=60,
        store=Path("x.db"),
        grace=1.5,
        max_waiting=0,
        max_wait=2,
    )
    assert started == [(expected, 2)]


def test_the_option_wins_over_the_variable_of_a_file(started, monkeypatch, tmp_path):
    for name in ("option", "variable"):
        (tmp_path / name).write_text(f"{name}:{name}-token\n")
    monkeypatch.setenv("HERMES_GATEWAY_TOKENS_FILE", str(tmp_path / "variable"))
    assert main(UPSTREAM) == main([*UPSTREAM, "--tokens-file", str(tmp_path / "option")]) == 0
    assert [list(settings.token_names.values()) for settings, _ in started] == [["variable"], ["option"]]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--max-wait", "nan"], "--max-wait: is nan; set 0.001 to 1000000000"),
        (["--grace", "-1"], "--grace: is -1.0; set at least 0"),
        (["--max-body", "0"], "--max-body: is 0; set at least 1"),
        (["--keep", "inf"], "--keep: is inf; set 0 to 1000000000"),
        (["--tokens-file", "/no/such/file"], "cannot read /no/such/file: No such file or directory"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line(started, options, problem, capsys):
    assert main([*UPSTREAM, *options]) == 1
    assert problem in capsys.readouterr().err
    assert not started


@pytest.mark.parametrize("options", [["--slots", "0"], ["--max-waiting", "many"], ["--webhooks-anywhere"]])
def test_what_is_no_number_or_no_option_is_misuse(options):
    assert main([*UPSTREAM, *options]) == 2


@pytest.mark.parametrize(
    ("options", "store"),
    [
        ([], "predictions/gateway.db"),
        (["--store", "other.db"], "other.db"),
        (["--no-store"], None),
    ],
)
def test_up_keeps_predictions_beside_the_weights(started, monkeypatch, tmp_path, options, store):
    monkeypatch.setenv("HERMES_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    assert main(["up", *options, "--alias", "gpt-4o"]) == 0
    [(settings, _)] = started
    assert settings.aliases == ("gpt-4o",)
    assert (settings.store and tmp_path / settings.store) == (store and tmp_path / store)


def test_up_makes_the_folder_of_the_store_whatever_is_missing_above_it(started, monkeypatch, tmp_path):
    monkeypatch.setenv("HERMES_WEIGHTS_DIR", str(tmp_path / "not" / "yet" / "weights"))
    assert main(["up"]) == 0
    assert started[0][0].store.parent.is_dir()


def test_a_folder_of_the_store_that_cannot_be_made_is_one_line(started, monkeypatch, tmp_path, capsys):
    (tmp_path / "predictions").write_text("a file")
    monkeypatch.setenv("HERMES_WEIGHTS_DIR", str(tmp_path / "weights"))
    assert main(["up"]) == 1
    assert f"--store: cannot make {tmp_path}/predictions: File exists; " in capsys.readouterr().err
    assert not started


def serve_status(**applications):
    return SimpleNamespace(applications=applications)


def test_an_application_that_was_deleted_elsewhere_is_a_failure_with_a_reason(monkeypatch):
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0)
    running = SimpleNamespace(status="RUNNING", deployments={})
    found = iter([serve_status(hermes=running), serve_status(hermes=running), serve_status()])
    cluster.wait(lambda: next(found), until="RUNNING")
    with pytest.raises(ServerFailed, match="the application hermes is not on the cluster"):
        cluster.wait(lambda: next(found))


@pytest.mark.parametrize(
    ("found", "runs"),
    [
        (serve_status(), False),
        (serve_status(hermes=SimpleNamespace(deployments={})), False),
        (serve_status(hermes=SimpleNamespace(deployments={"Ingress": SimpleNamespace(replica_states={})})), False),
        (
            serve_status(
                hermes=SimpleNamespace(deployments={"Ingress": SimpleNamespace(replica_states={"RUNNING": 1})})
            ),
            True,
        ),
    ],
)
def test_a_gateway_is_stopped_only_where_it_runs(found, runs):
    assert cluster.has_gateway(found) is runs


def test_a_store_and_none_is_a_contradiction(started, capsys):
    assert main(["up", "--store", "x.db", "--no-store"]) == 1
    assert "--no-store: --store is given, too" in capsys.readouterr().err


def test_a_cluster_has_no_store_and_checks_its_gateway_before_anything_else(capsys):
    assert main(["cluster", "--store", "x.db"]) == 2
    assert main(["cluster", "--max-wait", "nan"]) == 1
    assert "--max-wait: is nan" in capsys.readouterr().err


def test_the_store_of_this_folder_is_in_no_commit_and_in_no_image():
    store = up.store_beside(Path("weights")).relative_to(Path.cwd())
    for file in (".gitignore", ".dockerignore"):
        ignored = (Path.cwd() / file).read_text().split()
        assert str(store.parent) in [each.strip("/") for each in ignored]
