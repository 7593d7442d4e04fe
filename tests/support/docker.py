"""A Docker engine, and the images that `make test-image` builds in it. Neither needs a registry.

An engine that answers is used. Otherwise one is started with its own socket and folder, without a network of its own:
every build and container uses the network of this machine.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from packaging.utils import canonicalize_name

from hermes.client import CogServer
from hermes.client.cog import READY
from hermes.devserver import PROJECT
from hermes.devserver.server import STARTING, free_port
from tests.support.asking import until

PREFIX = "hermes-test/"  # of each image here
FAILED = 129  # the exit status after a failed start, see docs/operations.md
DEBIAN = "bookworm"
PACKAGES = (
    *("ca-certificates", "tini", "curl", "python3", "python3-pip", "python3-venv"),
    # what another Python links to
    *("libsqlite3-0", "libssl3", "libbz2-1.0", "libffi8", "liblzma5", "libreadline8", "libncursesw6", "libuuid1"),
    "libexpat1",
)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # with that of a proxy, where there is one


def docker(*arguments, check=True):
    """What a command of Docker prints. Raises AssertionError with its last lines if it fails."""
    done = subprocess.run(
        ["docker", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        # the classic builder takes an image of this engine without asking a registry
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )
    output = (done.stdout + done.stderr).strip()
    assert not check or done.returncode == 0, f"docker {arguments[0]} failed:\n{output[-3000:]}"
    return output if done.returncode else done.stdout.strip()


@contextmanager
def engine(work):
    """A Docker engine that answers, for `docker`. One that is started here keeps its data in the folder `work`."""
    if shutil.which("docker") and "Server:" in docker("version", check=False):
        yield
        return
    assert "DOCKER_HOST" not in os.environ, "no Docker engine answers at DOCKER_HOST"
    running = subprocess.run(["pgrep", "-x", "dockerd"], capture_output=True, check=False).returncode == 0
    assert not running, "a Docker engine runs, but does not answer here: set DOCKER_HOST, or use root's rights"
    require("dockerd", "docker.io")
    socket, pid = work / "docker.sock", work / "docker.pid"
    os.environ["DOCKER_HOST"] = f"unix://{socket}"
    with (work / "docker.log").open("w") as log:
        daemon = subprocess.Popen(
            [
                *("dockerd", "--data-root", work / "data", "--exec-root", work / "exec", "--pidfile", pid),
                *("-H", f"unix://{socket}", "--iptables=false", "--bridge=none"),
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: "Server:" in docker("version", check=False), 60, f"the Docker engine, see {log.name}")
        yield
    finally:
        del os.environ["DOCKER_HOST"]
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        for mount in Path("/proc/self/mounts").read_text().splitlines():  # it leaves the namespace of the network
            if (point := mount.split()[1]).startswith(f"{work}/"):
                subprocess.run(["umount", point], check=True)


def require(program, package):
    """Install a Debian package unless its program is there."""
    if not shutil.which(program):
        assert os.geteuid() == 0, f"{program} is not installed; run `apt-get install {package}`"
        subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-qqy", package], check=True, capture_output=True, env=quiet)


def base_image(work):
    """A stand-in for python:slim, made by debootstrap: Debian 12 with its Python and this machine's certificates.

    pip finds there the wheel of torch's CPU build, which an index of its own has that may not be reached here.
    """
    name, root, context = f"{PREFIX}base", work / "debian", work / "base"
    if docker("images", "-q", name):
        return name
    require("debootstrap", "debootstrap")
    if not (root / "etc" / "debian_version").is_file():
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", DEBIAN, root]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"debootstrap failed: {(done.stdout + done.stderr)[-1000:]}"
    shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    for marker in (root / "usr/lib").glob("python3.*/EXTERNALLY-MANAGED"):
        marker.unlink()
    import_folder(root, f"{name}:debian")
    wheels = context / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    pip("download", "-q", "--no-deps", "-d", wheels, "-r", PROJECT / "requirements" / "torch.txt")
    index = pip("config", "get", "global.index-url", check=False)
    lines = ["[global]", f"cert = {CERTIFICATES}", "find-links = /wheels", "timeout = 60", "retries = 2"]
    (context / "pip.conf").write_text("\n".join([*lines, *([f"index-url = {index}"] if index else [])]))
    (context / "Dockerfile").write_text(
        f"FROM {name}:debian\nCOPY wheels /wheels\nCOPY pip.conf /etc/pip.conf\n"
        f"ENV SSL_CERT_FILE={CERTIFICATES} REQUESTS_CA_BUNDLE={CERTIFICATES}\n"
        "RUN ln -s /usr/bin/python3 /usr/local/bin/python\n"
    )
    docker("build", "-q", "-t", name, context)
    return name


def gpu_base_image(work, version):
    """A stand-in for Cog's base image for GPUs: the same Debian, and another Python where uv installs it for root."""
    name, context = f"{PREFIX}gpu-base", work / "gpu-base"
    if docker("images", "-q", name):
        return name
    source, python = python_prefix(version), context / "python"
    shutil.rmtree(context, ignore_errors=True)
    unused = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a", "pip*")
    for part in ("bin", "lib", "include"):
        shutil.copytree(source / part, python / part, ignore=unused, symlinks=True)
    packages = python / "lib" / f"python{version}" / "site-packages"
    packages.mkdir()
    subprocess.run([source / "bin/python3", "-m", "pip", "install", "-q", "--target", packages, "pip"], check=True)
    home = f"/root/.local/share/uv/python/cpython-{version}"
    (context / "Dockerfile").write_text(
        f"FROM {base_image(work)}\nCOPY python {home}\n"
        f"RUN chmod 700 /root && echo {home}/lib >/etc/ld.so.conf.d/python.conf && ldconfig"
        f" && for name in /usr/bin/python3 /usr/local/bin/python; do ln -sf {home}/bin/python{version} $name; done\n"
    )
    docker("build", "-q", "-t", name, context)
    return name


def python_prefix(version):
    """The folder of a Python of that version on this machine which can be moved: one of pyenv's or uv's."""
    found = [Path.home() / ".pyenv/versions", Path.home() / ".local/share/uv/python"]
    pythons = sorted(path for folder in found for path in folder.glob(f"*{version}*/bin/python{version}"))
    assert pythons, (
        f"the image for GPUs needs a Python {version} of pyenv or uv on this machine: `uv python install {version}`"
    )
    return pythons[-1].parents[1]


def cog_dockerfile(config, base):
    """The Dockerfile that Cog makes of a cog.yaml, in Cog's order, before it adds its OpenAPI document and labels."""
    part = config["build"]
    lines = [
        f"FROM {base}",
        "ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1",
        'ENTRYPOINT ["/usr/bin/tini", "--"]',
        *(f"ENV {pair}" for pair in config["environment"]),
        f"RUN apt-get update -qq && apt-get install -qqy --no-install-recommends {' '.join(part['system_packages'])}",
        f"COPY {part['python_requirements']} /tmp/requirements.txt",
        "RUN python -m pip install -q --no-cache-dir -r /tmp/requirements.txt",
        f"RUN python -m pip install -q --no-cache-dir cog=={part['sdk_version']}",
        *(f"RUN {command}" for command in part["run"]),
        "WORKDIR /src",
        "EXPOSE 5000",
        f"ENV COG_PREDICT_TYPE_STUB={config['run']} COG_MAX_CONCURRENCY=32",
        'CMD ["python", "-m", "cog.server.http"]',
        "COPY . /src",
    ]
    return "\n".join(lines) + "\n"


def pip(*arguments, check=True):
    """What pip of this environment prints, without warnings."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr[-1000:]
    return done.stdout.strip() if done.returncode == 0 else ""


def import_folder(root, name):
    """Make an image of a folder."""
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", name], stdin=tar.stdout, check=True, capture_output=True)


def build(name, dockerfile, context, **arguments):
    """Build an image with the network of this machine, and its name."""
    pairs = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    docker("build", "-q", "--network", "host", "-t", name, "-f", dockerfile, *pairs, context)
    return name


def clone(work):
    """A clone of this project's HEAD: what a user would build."""
    folder = work / "project"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "-q", PROJECT, folder], check=True, capture_output=True)
    return folder


def remove_images():
    """Remove each image that was made here, the newest first. What others have named or run of them stays."""
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={PREFIX}*").split()
    if names:
        docker("rmi", *names)


def compose_command():
    """`docker compose`, or the docker-compose that Debian 12 has."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    require("docker-compose", "docker-compose")
    return ["docker-compose"]


@contextmanager
def composed(file, work, base):
    """The services of compose.yaml, built on `base` and running, in the network of this machine. Yields the command.

    An engine of this module has no network of its own, so nothing is published: the gateway listens on port 8000.
    """
    command, environment = compose_command(), {**os.environ, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}

    def run(*arguments, path=work / "compose.yaml"):
        done = subprocess.run(
            [*command, "-p", "hermes-test", "-f", path, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    config = yaml.safe_load(run("config", path=file))
    server, gateway = config["services"]["server"], config["services"]["gateway"]
    port = str(free_port())
    for name, service in config["services"].items():
        service["network_mode"] = "host"
        service["image"] = f"{PREFIX}{'local' if name == 'server' else name}"
        service["build"] |= {"network": "host", "args": {"BASE": base}}
        for each in ("ports", "networks"):
            service.pop(each, None)
    server["environment"]["PORT"] = port
    gateway["command"] += [f"--upstream=http://127.0.0.1:{port}", "--host=127.0.0.1"]
    gateway["command"].pop(0)
    (work / "compose.yaml").write_text(yaml.safe_dump(config))
    try:
        run("up", "--build", "--detach")
        for name in config["services"]:
            (container,) = run("ps", "-q", name).split()
            state = ("inspect", "-f", "{{.State.Health.Status}}", container)
            until(lambda state=state: docker(*state) == "healthy", 120, f"the health of the {name}")
        yield run
    finally:
        run("down", "--volumes")


def gigabytes(image):
    """The size of an image."""
    return int(docker("image", "inspect", "-f", "{{.Size}}", image)) / 1e9


def versions(image):
    """Each package in an image, as (name, version)."""
    listed = docker("run", "--rm", "--network", "none", image, "python", "-m", "pip", "list", "--format", "json")
    return {(canonicalize_name(each["name"]), each["version"]) for each in json.loads(listed)}


def pins(lock):
    """Each package in a lock, as (name, version)."""
    lines = (line.split()[0] for line in lock.read_text().splitlines() if "==" in line and not line.startswith("#"))
    return {(canonicalize_name(name), version) for name, version in (line.split("==") for line in lines)}


def ray_version(image, project):
    """The version of Ray in docker/cluster.Dockerfile on an image, where all that a cluster imports is imported."""
    name = build(f"{image}-ray", project / "docker/cluster.Dockerfile", project, BASE=image)
    code = "import hermes.cluster.application, hermes.gateway.app, ray.serve; print(ray.__version__)"
    run = ("run", "--rm", "--network", "host", name)
    start = "ray get-auth-token --generate && ray start --head --disable-usage-stats && ray stop --force"
    assert "Ray runtime started" in docker(*run, "sh", "-c", f"exec 2>&1; {start}")
    return docker(*run, "python", "-c", code).splitlines()[-1]


class Container:
    """A container of an image, in the network of this machine, from `docker run` to its removal."""

    def __init__(self, image, *options, command=(), **environment):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        pairs = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        ours = ("--network", "host", "-e", f"PORT={self.port}")
        self._id = docker("run", "-d", *ours, *pairs, *options, image, *command)
        self.began = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        docker("rm", "-f", self._id)

    @property
    def client(self):
        """For predictions."""
        return CogServer(self.url)

    def health(self):
        """The body of /health-check."""
        try:
            return httpx.get(f"{self.url}/health-check", trust_env=False, timeout=10).json()
        except httpx.TransportError:
            return {"status": "STARTING"}

    def wait_until_started(self, seconds=300):
        """The body of /health-check when the start is over. Raises AssertionError if the container ended before."""
        health = self.health()
        while health["status"] in STARTING:
            assert self.running, f"the container ended with {self.exit_status}:\n{self.log()[-3000:]}"
            assert time.monotonic() - self.began < seconds, f"not ready after {seconds} s:\n{self.log()[-3000:]}"
            time.sleep(0.25)
            health = self.health()
        return health

    def wait_until_ready(self):
        """This container, ready. Raises AssertionError if its start failed."""
        health = self.wait_until_started()
        assert health["status"] in READY, health["setup"]["logs"][-3000:]
        return self

    def log(self):
        """What it has written."""
        command = ["docker", "logs", self._id]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout

    def run(self, *command):
        """What a command in it prints."""
        return docker("exec", self._id, *command)

    @property
    def running(self):
        """Whether it runs."""
        return self._state("Running")

    @property
    def exit_status(self):
        """The exit status of its last end."""
        return self._state("ExitCode")

    def wait_until_ended(self, seconds=60):
        """Its exit status."""
        until(lambda: not self.running, seconds, "the end of the container")
        return self.exit_status

    def stop(self):
        """The exit status after `docker stop`, and the seconds that it took."""
        began = time.monotonic()
        docker("stop", self._id)
        return self.exit_status, time.monotonic() - began

    def _state(self, name):
        return json.loads(docker("inspect", "-f", "{{json .State}}", self._id))[name]
