"""What Ray is told: resources, numbers and limits, here and in the manifest for KubeRay. No process of Ray's runs."""

import os
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.utils import canonicalize_name

from hermes.cli.cluster import require_ray, require_resources
from hermes.devserver.server import PROJECT
from hermes.errors import InvalidConfiguration, ServerError
from hermes.settings import Settings
from tests.test_project import pins, requirements_of

MANIFEST = yaml.safe_load((PROJECT / "docs" / "rayservice.yaml").read_text())


def test_without_ray_the_command_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr("hermes.cli.cluster.PACKAGES", tmp_path / "none")
    with pytest.raises(InvalidConfiguration, match=r"E1202 .* ray: is not installed; run `make cluster`"):
        require_ray()


@pytest.mark.parametrize(
    ("profile", "replica", "replicas", "problem"),
    [
        ("production", {"CPU": 1, "GPU": 2}, 2, "E1204 .* needs 4 CUDA devices and 2 were found"),
        ("local", {"CPU": 1}, 3, "E1202 .* --replicas: 3 take 3 CPUs, and this machine has 2"),
    ],
)
def test_what_is_not_there_is_an_error_and_no_wait(profile, replica, replicas, problem):
    machine = {"CPU": 2.0, "GPU": 2.0, "memory": 1e9}
    with pytest.raises(ServerError, match=problem):
        require_resources(Settings(profile=profile), replica, replicas, machine)
    require_resources(Settings(profile=profile), replica, 1, machine)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_installed")
class TestWithRay:
    def test_the_image_with_ray_has_everything_that_ray_asks_for(self):
        locked = pins("requirements.txt") | pins("requirements/cluster.txt")
        asked = [*requirements_of("ray", "serve"), *(each for name in locked for each in requirements_of(name))]
        missing = [str(each) for each in asked if canonicalize_name(each.name) not in locked]
        assert missing == []
        assert len(requirements_of("ray", "serve")) > 15

    @pytest.mark.parametrize(
        ("settings", "resources"),
        [
            ({"profile": "production"}, {"CPU": 1, "GPU": 2}),
            ({"profile": "production-fp8", "engine_args": {"tensor_parallel_size": 1}}, {"CPU": 1, "GPU": 1}),
            ({"profile": "local"}, {"CPU": 1}),
            ({"profile": "local", "engine_args": {"tensor_parallel_size": 2}}, {"CPU": 2}),
        ],
    )
    def test_a_replica_takes_the_gpus_of_its_workers(self, settings, resources):
        from hermes.cluster import resources_of

        assert resources_of(Settings(**settings)) == resources

    @pytest.mark.parametrize(
        "more",
        [
            {"pipeline_parallel_size": 2},
            {"tensor_parallel_size": 1, "data_parallel_size": 2},
            {"distributed_executor_backend": "ray"},
        ],
    )
    def test_an_engine_on_several_nodes_is_refused(self, more):
        from hermes.cluster import resources_of

        with pytest.raises(InvalidConfiguration, match="here an engine runs on one node"):
            resources_of(Settings(profile="production", engine_args=more))

    def test_a_number_of_gpus_that_is_none_is_refused(self):
        from hermes.cluster import resources_of

        with pytest.raises(
            InvalidConfiguration, match=r"engine_args\.tensor_parallel_size: Input should be a valid int"
        ):
            resources_of(Settings(engine_args={"tensor_parallel_size": None}))

    def test_ray_is_told_the_slots_the_numbers_and_how_long_a_response_may_take(self, monkeypatch):
        monkeypatch.setenv("HERMES_PROFILE", "local")
        monkeypatch.setenv("COG_MAX_CONCURRENCY", "12")
        monkeypatch.setenv("HERMES_REQUEST_TIMEOUT", "100")
        ingress, replicas = deployments(replicas=2, max_replicas=5)
        scaling = replicas._deployment_config.autoscaling_config
        assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 5, 6)
        assert replicas.max_ongoing_requests == 12
        assert replicas._deployment_config.graceful_shutdown_timeout_s > 100
        assert (ingress.num_replicas, ingress.ray_actor_options["num_cpus"]) == (1, 0)
        assert ingress.max_ongoing_requests > 1000
        assert deployments(replicas=3)[1].num_replicas == 3

    def test_all_of_a_replica_is_on_one_node(self, monkeypatch):
        monkeypatch.setenv("HERMES_PROFILE", "production")
        _, replicas = deployments()
        assert replicas._replica_config.placement_group_bundles == [{"CPU": 1, "GPU": 2}]
        assert replicas._replica_config.placement_group_strategy == "STRICT_PACK"
        held = replicas.ray_actor_options
        assert (held["num_cpus"], held["num_gpus"]) == (1, 2)

    @pytest.mark.parametrize(
        "wrong", [{"replicas": 0}, {"replicas": 3, "max_replicas": 2}, {"replica": 1}, {"gateway": {"port": "many"}}]
    )
    def test_arguments_that_cannot_be_used_are_refused(self, wrong):
        from hermes.cluster import ClusterSettings

        with pytest.raises((ValueError, InvalidConfiguration), match=next(reversed(wrong))):
            ClusterSettings(**wrong)

    def test_the_manifest_holds_what_serve_and_the_application_take(self, monkeypatch):
        from ray.serve.schema import ServeDeploySchema

        from hermes.cluster import ClusterSettings

        config = ServeDeploySchema.model_validate(yaml.safe_load(MANIFEST["spec"]["serveConfigV2"]))
        (application,) = config.applications
        assert application.import_path == "hermes.cluster:application"
        with pytest.raises(InvalidConfiguration, match="set HERMES_GATEWAY_TOKENS"):
            ClusterSettings(**application.args)
        monkeypatch.setenv("HERMES_GATEWAY_TOKENS", "one, two")
        settings = ClusterSettings(**application.args)
        assert settings.gateway.tokens == ("one", "two")
        workers = MANIFEST["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
        assert (workers["minReplicas"], workers["maxReplicas"]) == (settings.replicas, settings.max_replicas)

    def test_a_node_of_the_manifest_has_what_a_replica_takes(self):
        from hermes.cluster import resources_of

        head, workers = (
            MANIFEST["spec"]["rayClusterConfig"]["headGroupSpec"],
            MANIFEST["spec"]["rayClusterConfig"]["workerGroupSpecs"][0],
        )
        (container,) = workers["template"]["spec"]["containers"]
        environment = {each["name"]: each.get("value") for each in container["env"]}
        settings = Settings(profile=environment["HERMES_PROFILE"])
        resources = resources_of(settings)
        limits = container["resources"]["limits"]
        assert int(limits["nvidia.com/gpu"]) == resources["GPU"]
        assert int(limits["cpu"]) >= resources["CPU"]
        assert head["rayStartParams"]["num-cpus"] == "0", "no replica is placed on the head"
        assert workers["template"]["spec"]["terminationGracePeriodSeconds"] > settings.request_timeout
        assert environment["HERMES_WEIGHTS_DIR"] in {each["mountPath"] for each in container["volumeMounts"]}


def deployments(**args):
    """Ingress and replicas of the application."""
    from hermes.cluster import ClusterSettings, application

    ingress = application(ClusterSettings(**args))._bound_deployment
    return ingress, ingress.init_args[1]._bound_deployment


@pytest.mark.skipif("KUBERAY_CRD" not in os.environ, reason="KUBERAY_CRD is not the path of ray.io_rayservices.yaml")
def test_the_manifest_satisfies_kuberays_schema():
    definition = yaml.safe_load(Path(os.environ["KUBERAY_CRD"]).read_text())
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"] if each["storage"]]
    validator = jsonschema.Draft7Validator(strict(schema))
    assert [error.message for error in validator.iter_errors(MANIFEST)] == []
    MANIFEST["spec"]["rayClusterConfig"]["headGroupSpec"]["replica"] = 1
    assert len(list(validator.iter_errors(MANIFEST))) == 1


def strict(schema):
    """The schema with Kubernetes' two peculiarities: unknown fields are dropped, and numbers may be texts."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(each) for name, each in schema.items()}
    if "properties" in made and "x-kubernetes-preserve-unknown-fields" not in made:
        made.setdefault("additionalProperties", False)
    if "x-kubernetes-int-or-string" in made:
        made.pop("type", None)
    return made
