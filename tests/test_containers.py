"""The Dockerfiles and the Compose files, read as text; `make test-image` builds and runs them."""

import json
import re

import pytest
import yaml

from hermes.devserver.server import PROJECT
from hermes.gateway import GatewaySettings
from hermes.settings import Settings
from tests.test_project import in_the_image

DOCKERFILES = sorted((PROJECT / "docker").glob("*.Dockerfile"))
COMPOSE = {name: yaml.safe_load((PROJECT / name).read_text()) for name in ("compose.yaml", "compose.gpus.yaml")}
SERVERS = [compose["services"]["server"] for compose in COMPOSE.values()]
GATEWAY = COMPOSE["compose.yaml"]["services"]["gateway"]
ENGINE_STOP_SECONDS = 5  # after the grace period of predictions


def instructions(dockerfile):
    """The (name, arguments) of a Dockerfile."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def interpolated(text, **environment):
    """A value of a Compose file: ${NAME:-default}."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: environment.get(found[1]) or found[2], text)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_is_for_both_builders_and_installs_locked_packages_alone(dockerfile):
    """The classic builder of Docker 20.10 has no RUN --mount, no heredoc and no COPY --link."""
    steps = instructions(dockerfile)
    (base,) = [text for name, text in steps if name == "ARG" and text.startswith("BASE=")]
    assert base == "BASE=hermes" or re.fullmatch(r"BASE=[\w./-]+:\d[\w.-]*", base), "the base has a version"
    assert [text for name, text in steps if name == "FROM"] == ["${BASE}"]
    assert not [text for name, text in steps if "<<" in text or re.match(r"--(mount|link|chmod|network)", text)]
    for text in (text for name, text in steps if name == "RUN" and "pip install" in text):
        assert "--no-deps" in text
        for word in re.sub(r"--?[\w-]+( :all:)?", "", text).split("pip install")[1].split("&&")[0].split():
            assert word.endswith(".txt") or "==" in word or word.startswith("https://"), word
    copied = [word for name, text in steps if name == "COPY" for word in text.split()[:-1] if not word.startswith("--")]
    there = [word for word in copied if (PROJECT / word).exists() and (word == "." or in_the_image(word))]
    assert there == copied, "it is in the build context"


def test_the_gateways_image_runs_as_nobody_and_stops_by_a_signal_to_its_only_process():
    steps = dict(instructions(PROJECT / "docker/gateway.Dockerfile"))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", steps["USER"])
    assert json.loads(steps["ENTRYPOINT"])[:4] == ["python", "-m", "hermes", "gateway"], "no shell"
    assert json.loads(steps["CMD"]) == ["--help"], "it says nowhere where its port is published"
    probe = json.loads(steps["HEALTHCHECK"].partition("CMD ")[2])
    assert probe[0] == "python"
    compile(probe[2], "the health check", "exec")


def test_the_cluster_image_has_what_ray_needs_to_find_the_package():
    steps = instructions(PROJECT / "docker/cluster.Dockerfile")
    (environment,) = [text for name, text in steps if name == "ENV"]
    assert {"PYTHONPATH=/src", "RAY_AUTH_MODE=token"} <= set(environment.split())
    assert ("ENTRYPOINT", "[]") in steps
    assert any("/usr/local/bin/ray" in text for name, text in steps if name == "RUN"), "KubeRay starts `ray`"


def test_only_the_gateways_port_is_published_and_on_this_machine_unless_asked():
    services = [each for compose in COMPOSE.values() for each in compose["services"].values()]
    (port,) = [port for each in services for port in each.get("ports", [])]
    assert [port] == GATEWAY["ports"]
    assert interpolated(port) == "127.0.0.1:8000:8000"
    assert interpolated(port, HERMES_GATEWAY_BIND="0.0.0.0", HERMES_GATEWAY_PORT="80") == "0.0.0.0:80:8000"


def test_the_gateway_is_told_where_compose_publishes_its_port():
    (port,) = GATEWAY["ports"]
    (published,) = [word.removeprefix("--published=") for word in GATEWAY["command"] if "--published" in word]
    assert f"{published}:8000" == port
    assert GatewaySettings(host="0.0.0.0", published=interpolated(published)).local


def test_the_gateway_has_the_public_url_of_a_proxy_if_compose_is_given_one():
    (url,) = [word.removeprefix("--public-url=") for word in GATEWAY["command"] if "--public-url" in word]
    assert GatewaySettings(public_url=interpolated(url)).public_url is None
    url = interpolated(url, HERMES_GATEWAY_PUBLIC_URL="https://hermes.example/")
    assert GatewaySettings(public_url=url, tokens=("secret",)).public_url == "https://hermes.example"


def test_the_gateway_is_the_same_before_gpus_where_its_tokens_must_be_named():
    extends = {"file": "compose.yaml", "service": "gateway"}
    assert COMPOSE["compose.gpus.yaml"]["services"]["gateway"] == {
        "extends": extends,
        "healthcheck": {"start_period": "2h"},
    }
    (secret,) = GATEWAY["secrets"]
    assert GATEWAY["environment"]["HERMES_GATEWAY_TOKENS_FILE"] == f"/run/secrets/{secret}"
    default, required = (compose["secrets"][secret]["file"] for compose in COMPOSE.values())
    assert interpolated(default) == "/dev/null"
    assert required.startswith("${HERMES_GATEWAY_TOKENS_FILE:?")
    assert "depends_on" not in GATEWAY, "Compose cannot extend it then"


def test_compose_builds_no_image_that_cog_build_makes():
    local, gpus = SERVERS
    assert (local["image"], local["build"]["dockerfile"]) == ("hermes-local", "docker/local.Dockerfile")
    assert interpolated(gpus["image"]) == "hermes"
    assert "build" not in gpus
    (device,) = gpus["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}
    assert GATEWAY["build"]["dockerfile"] == "docker/gateway.Dockerfile"


@pytest.mark.parametrize("service", [*SERVERS, GATEWAY], ids=["server", "server on GPUs", "gateway"])
def test_a_service_has_few_rights_is_restarted_and_has_time_to_end(service):
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert service["restart"] == "unless-stopped"
    assert float(service["stop_grace_period"].removesuffix("s")) > Settings().shutdown_grace + ENGINE_STOP_SECONDS
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("server", SERVERS, ids=COMPOSE)
def test_the_weights_are_in_a_volume_that_hides_no_lock(server):
    assert server["volumes"] == ["weights:/weights"]
    assert server["environment"]["HERMES_WEIGHTS_DIR"] == "/weights"
    assert all("weights" in compose["volumes"] for compose in COMPOSE.values())
