"""What stands in infra/ is held against the real schemas, the code and the pinned versions; nothing is started here.

Plain Kubernetes kinds: the schemas that the package kubernetes-validate carries, unknown fields refused. KubeRay and
Milvus kinds: the openAPIV3Schema of their resource definitions in ../shared/data/schemas beside the checkout. Compose:
its own schema is not at hand, so the rules that this project sets itself are checked one by one.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
K8S = INFRA / "k8s"
SCHEMAS = ROOT.parent / "shared" / "data" / "schemas"
DEFINITIONS = {
    "RayCluster": "ray.io_rayclusters.yaml",
    "RayService": "ray.io_rayservices.yaml",
    "RayJob": "ray.io_rayjobs.yaml",
    "Milvus": "milvus.io_milvuses.yaml",
}
KUBERNETES = "1.33"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(re.findall(r"^([\w-]+)(?:\[.*\])?==(.+)$", "\n".join(PROJECT["dependencies"]), flags=re.MULTILINE))
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text(encoding="utf-8"))
KUSTOMIZATION = yaml.safe_load((K8S / "kustomization.yaml").read_text(encoding="utf-8"))
DOCUMENTS = {
    f"{path.stem}:{document['kind']}:{document['metadata'].get('name', 'generated')}": document
    for path in sorted(K8S.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}
SERVICES = COMPOSE["services"]


# Kubernetes


@cache
def definition(kind: str) -> dict[str, Any]:
    """The schema of a custom kind, unknown fields refused where the API server would drop them."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"the resource definitions are not beside this checkout ({SCHEMAS})")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = yaml.load((SCHEMAS / DEFINITIONS[kind]).read_text(encoding="utf-8"), loader)
    version = next(v for v in found["spec"]["versions"] if v.get("storage"))
    schema = _closed(version["schema"]["openAPIV3Schema"])
    # The API server itself checks apiVersion, kind and the object's own metadata.
    schema["properties"]["apiVersion"] = {"const": f"{found['spec']['group']}/{version['name']}"}
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    is_object = schema.get("type") == "object"
    if is_object and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    if schema.get("nullable") and isinstance(schema.get("type"), str):
        closed["type"] = [schema["type"], "null"]
    return closed


def validate(document: dict[str, Any]) -> None:
    if document["kind"] in DEFINITIONS:
        jsonschema.Draft202012Validator(definition(document["kind"])).validate(document)
        # Its metadata is an ordinary object's.
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]}
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def pod_specs() -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Name, spec and labels of every pod template, in whatever kind it lies."""

    def walk(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            if isinstance(value.get("spec"), dict) and "containers" in value["spec"]:
                yield value
            for child in value.values():
                yield from walk(child)
        elif isinstance(value, list):
            for child in value:
                yield from walk(child)

    for name, document in DOCUMENTS.items():
        for template in walk(document):
            yield name, template["spec"], template["metadata"]["labels"]


def named(kind: str) -> set[str]:
    return {document["metadata"]["name"] for document in DOCUMENTS.values() if document["kind"] == kind}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_manifest_fits_its_schema(name: str) -> None:
    validate(DOCUMENTS[name])


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayCluster", ["spec", "authOptions", "mode"], "password"),
        ("RayCluster", ["spec", "authOption"], {"mode": "token"}),
        ("RayService", ["spec", "rayClusterConfig", "workerGroupSpecs", 0, "replicas"], "two"),
        ("RayService", ["spec", "serveConfig"], "misspelt"),
        ("RayJob", ["spec", "entryPoint"], "misspelt"),
        ("RayJob", ["metadata", "generatename"], "misspelt"),
        ("Milvus", ["spec", "mode"], "single"),
        ("Milvus", ["spec", "components", "imageTag"], "v3.0.2"),
        ("Milvus", ["apiVersion"], "milvus.io/v9"),
        ("Deployment", ["spec", "template", "spec", "containers", 0, "readinesProbe"], {}),
        ("NetworkPolicy", ["spec", "ingress", 0, "from"], "everyone"),
    ],
)
def test_broken_manifest_is_refused(kind: str, path: list[str | int], value: object) -> None:
    document = copy.deepcopy(next(d for d in DOCUMENTS.values() if d["kind"] == kind))
    *parents, last = path
    inner: Any = document
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(document)


def test_kustomization_names_every_file_once() -> None:
    files = {path.name for path in K8S.glob("*.yaml")} - {"kustomization.yaml", "ray-job.yaml"}
    assert sorted(KUSTOMIZATION["resources"]) == sorted(files)


def test_kustomize_builds_it() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed; it builds the kustomization without a cluster")
    built = subprocess.run([kubectl, "kustomize", str(K8S)], capture_output=True, text=True, check=True, timeout=60)
    documents = list(yaml.safe_load_all(built.stdout))
    assert len(documents) == sum("ray-job" not in name for name in DOCUMENTS)
    for document in documents:
        validate(document)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "mulan"


def test_pods_run_as_nobody_special_and_state_what_they_need() -> None:
    specs = list(pod_specs())
    assert len(specs) >= 9
    # The autoscaler of KubeRay talks to Kubernetes from the head's pod; nobody else does.
    autoscaled = {
        id(cluster["headGroupSpec"]["template"]["spec"])
        for cluster in ray_clusters()
        if cluster.get("enableInTreeAutoscaling")
    }
    assert len(autoscaled) == 2
    for name, spec, _ in specs:
        assert spec["automountServiceAccountToken"] is (id(spec) in autoscaled), name
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0, name
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert {"requests", "limits"} <= container["resources"].keys(), name


def test_names_between_manifests_meet() -> None:
    claims, config_maps = named("PersistentVolumeClaim"), named("ConfigMap")
    readme = (INFRA / "README.md").read_text(encoding="utf-8")
    for name, spec, _ in pod_specs():
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "mulan-home") in claims, (name, volume)
            assert volume.get("configMap", {}).get("name", "mulan-addresses") in config_maps, (name, volume)
        for container in spec["containers"]:
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            # "data" is the StatefulSet's own claim.
            assert mounts - {"data"} == volumes.keys(), name
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in config_maps, name
    for document in DOCUMENTS.values():
        for secret in re.findall(r"'(?:secretName|secretRef|existingSecret)': '([\w-]+)'", str(document)):
            assert f"secret generic {secret} " in readme, f"README does not say how to make the secret {secret}"
        for reference in re.findall(r"'secretKeyRef': (\{.*?\})", str(document)):
            key = yaml.safe_load(reference)
            assert f"secret generic {key['name']} " in readme and f"--from-literal={key['key']}=" in readme, key


def test_services_and_policies_select_pods_that_exist() -> None:
    labels = [labels for _, _, labels in pod_specs()]
    for name, document in DOCUMENTS.items():
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            pods = [s for _, s, own in pod_specs() if spec["selector"].items() <= own.items()]
            ports = {port["name"] for pod in pods for container in pod["containers"] for port in container["ports"]}
            assert pods and {port["targetPort"] for port in spec["ports"]} <= ports, name
        elif document["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            wanted = (spec.get("podSelector") or spec.get("selector")).get("matchLabels", {})
            # KubeRay itself puts the labels of ray.io on.
            wanted = {key: value for key, value in wanted.items() if not key.startswith("ray.io/")}
            assert any(wanted.items() <= own.items() for own in labels), name


def ray_clusters() -> list[dict[str, Any]]:
    return [
        document["spec"].get("rayClusterSpec") or document["spec"].get("rayClusterConfig") or document["spec"]
        for document in DOCUMENTS.values()
        if document["kind"].startswith("Ray")
    ]


def test_ray_clusters_ask_for_the_token_and_run_our_ray() -> None:
    assert len(ray_clusters()) == 3
    for cluster in ray_clusters():
        assert cluster["authOptions"] == {"mode": "token", "secretName": "mulan-ray"}
        assert cluster["rayVersion"] == PINS["ray"]


def test_gpu_pods_run_the_cuda_image_on_gpu_nodes() -> None:
    pools = [g for cluster in ray_clusters() for g in cluster["workerGroupSpecs"] if g["groupName"] == "gpu"]
    assert len(pools) == 2
    for pool in pools:
        spec = pool["template"]["spec"]
        (container,) = spec["containers"]
        assert container["image"].startswith("mulan-cuda") and spec["tolerations"] and spec["nodeSelector"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert pool["minReplicas"] == 0, "GPUs cost nothing until a run asks for them"


def test_the_endpoint_is_probed_by_its_own_readiness() -> None:
    service = next(d for d in DOCUMENTS.values() if d["kind"] == "RayService")
    worker = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert worker["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "serve"}
    assert "http://127.0.0.1:8000/readyz" in SERVICES["mulan"]["healthcheck"]["test"]


def test_what_rayservice_imports_exists() -> None:
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import ServeDeploySchema

    from mulan_core.config import ServeConfig, from_mapping

    service = next(d for d in DOCUMENTS.values() if d["kind"] == "RayService")
    config = ServeDeploySchema(**yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    module, name = application.import_path.split(":")
    builder = getattr(import_module(module), name)
    # Serve refuses a builder with any other number of parameters.
    assert len(inspect.signature(builder).parameters) == 1
    asked = AutoscalingConfig.model_validate(from_mapping(ServeConfig, application.args).autoscaling)
    replicas = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert (asked.min_replicas, asked.max_replicas) == (replicas["minReplicas"], replicas["maxReplicas"])


# Compose


def test_compose_pins_checks_and_restarts_every_service() -> None:
    assert set(SERVICES) == {
        "postgres",
        "mlflow",
        "prefect",
        "etcd",
        "minio",
        "milvus",
        "mulan",
        "worker",
        "prometheus",
        "grafana",
    }
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]*\d[\w.-]*", service["image"]), (name, service["image"])
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert service["restart"] == "unless-stopped", name


def test_compose_listens_on_loopback_only() -> None:
    for name, service in SERVICES.items():
        assert "network_mode" not in service, name
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), (name, port)


def test_compose_has_no_default_passwords() -> None:
    text = re.sub(r"^\s*#.*$", "", (INFRA / "compose.yaml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    variables = re.findall(r"(?<!\$)\$\{(\w+)(.*?)\}", text)
    assert variables
    for name, rest in variables:
        secret = re.search("PASSWORD|AUTH|TOKEN|USER", name)
        assert rest == f":?set {name} in .env" if secret else rest.startswith((":?", ":-")), name
    # A bare $NAME would be replaced too, by nothing.
    assert not re.search(r"(?<!\$)\$(?![${])", text)
    example = re.findall(r"^(\w+)=(.*)$", (INFRA / ".env.example").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {name for name, _ in example} == {name for name, _ in variables}
    assert [name for name, value in example if value] == ["CATALOGUE_DIR", "METRICS_KEY_FILE"]
    for service in SERVICES.values():
        for name, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|AUTH_STRING", name):
                assert "${" in value, name


def test_compose_names_meet() -> None:
    volumes = {v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", []) if v[0].isalpha()}
    assert volumes == set(COMPOSE["volumes"])
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES and how["condition"] in ("service_healthy", "service_started"), (name, other)
        for value in (service.get("environment") or {}).values():
            for host in re.findall(r"(?:@|//|^)([a-z]+):\d+", value):
                assert host in SERVICES, (name, value)


def test_the_databases_are_made_alike_everywhere() -> None:
    script = COMPOSE["configs"]["databases"]["content"].replace("$$", "$")
    assert script == DOCUMENTS["postgres:ConfigMap:postgres-databases"]["data"]["databases.sh"]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=10)
    for database in ("mlflow", "prefect"):
        assert f"CREATE DATABASE {database} OWNER {database};" in script


# What both share with the code


def commands() -> Iterator[str]:
    """Every shell line that infra/ runs in a container of ours."""
    for service in SERVICES.values():
        if service["image"].startswith("mulan:"):
            entry, command = service["entrypoint"], service.get("command", [])
            yield from command[0].splitlines() if command else [" ".join(entry)]
    for _, spec, _ in pod_specs():
        for container in spec["containers"]:
            if "args" in container:
                yield from container["args"][0].splitlines()
    yield next(d["spec"]["entrypoint"] for d in DOCUMENTS.values() if d["kind"] == "RayJob")


def test_mulan_commands_and_options_exist() -> None:
    from flows.cli.app import app

    cli = typer.main.get_command(app)
    lines = [line.strip().removeprefix("exec ").split() for line in commands()]
    ours = [words for words in lines if words[0] == "mulan"]
    assert {words[1] for words in ours} == {"serve", "run"}
    for _, command, *rest in ours:
        options = {
            option
            for parameter in cli.commands[command].params  # type: ignore[attr-defined]
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in rest if word.startswith("--")} <= options, command


def test_worker_serves_the_pool_of_our_deployments() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    pools = {re.search(r"--pool (\S+)", line).group(1) for line in commands() if "worker start" in line}  # type: ignore[union-attr]
    assert {deployment["work_pool"]["name"] for deployment in deployments} == pools


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_pools_fill_every_variable_and_name_what_there_is(kind: str) -> None:
    """Rendered as a worker does it, with nothing but the pool's own values and what Prefect always gives."""
    from prefect.utilities.templating import apply_values, find_placeholders

    template = json.loads((INFRA / "prefect" / f"{kind}.json").read_text(encoding="utf-8"))
    variables = template["variables"]["properties"]
    assert {p.name for p in find_placeholders(template["job_configuration"])} <= variables.keys()
    defaults = {name: known["default"] for name, known in variables.items() if "default" in known}
    job = apply_values(template["job_configuration"], defaults | {"name": "a-run", "labels": {}})
    assert "exec prefect flow-run execute" in str(job)
    checkout = re.search(r"^COPY \. (\S+)$", (INFRA / "images" / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert job["env"]["MULAN_CHECKOUT"] == checkout.group(1)  # type: ignore[union-attr]
    assert defaults["image"] == f"mulan:{PROJECT['version']}"
    if kind == "docker":
        ours = SERVICES["worker"]["environment"]
        named = {name for name in job["env"] if name != "MULAN_CHECKOUT"}
        assert named == set(ours) - {"MULAN_URL"}
        assert all(job["env"][name] == ours[name] for name in named if "secret" not in job["env"][name])
        volume = job["volumes"][0].split(":")[0]
        assert volume.removeprefix(f"{COMPOSE['name']}_") in COMPOSE["volumes"]
        assert job["networks"] == [f"{COMPOSE['name']}_default"]
        return
    manifest = job["job_manifest"]
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    manifest["metadata"] |= {"name": "a-run", "labels": {}}
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    documents = {(d["kind"], d["metadata"].get("name")) for d in DOCUMENTS.values()}
    pod = manifest["spec"]["template"]["spec"]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert {("PersistentVolumeClaim", claim) for claim in claims} <= documents
    assert ("ConfigMap", container["envFrom"][0]["configMapRef"]["name"]) in documents
    secret = container["envFrom"][1]["secretRef"]["name"]
    assert f"create secret generic {secret}" in (INFRA / "README.md").read_text(encoding="utf-8")


def test_environment_variables_are_read_by_someone() -> None:
    from prefect.settings.legacy import _get_valid_setting_names
    from prefect.settings.models.root import Settings as PrefectSettings

    def source(*paths: Path) -> str:
        return "\n".join(path.read_text(encoding="utf-8") for path in paths)

    code = source(*(p for package in ("flows", "serving", "mulan_core") for p in (ROOT / package).rglob("*.py")))
    mlflow, ray = (Path(str(metadata.distribution(name).locate_file(name))) for name in ("mlflow", "ray"))
    readers = {
        "MULAN": set(re.findall(r"[\"'](MULAN_\w+)[\"']", code)),
        "PREFECT": set(_get_valid_setting_names(PrefectSettings)),
        "MLFLOW": set(
            re.findall(
                r"[\"'](MLFLOW_\w+)[\"']",
                source(
                    mlflow / "environment_variables.py",
                    mlflow / "utils" / "cli_args.py",
                    mlflow / "cli" / "__init__.py",
                ),
            )
        ),
        # Ray's core, which is compiled, reads its own.
        "RAY": {name.decode() for name in re.findall(rb"RAY_AUTH_[A-Z]+", (ray / "_raylet.so").read_bytes())}
        | set(re.findall(r"[\"'](RAY_\w+)[\"']", source(ray / "_private" / "ray_constants.py"))),
    }
    named_here = set()
    for path in (INFRA / "compose.yaml", INFRA / "images" / "Dockerfile", *K8S.glob("*.yaml")):
        text = re.sub(r"#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        named_here |= set(re.findall(r"^\s*(?:- \{?name: )?([A-Z]+_\w+)(?:: |=|, value)", text, flags=re.MULTILINE))
    # The two database passwords are only read by the script and by addresses made of them.
    named_here -= {"MLFLOW_DB_PASSWORD", "PREFECT_DB_PASSWORD"}
    checked = {name for name in named_here if name.split("_")[0] in readers}
    assert {"MULAN_HOME", "MULAN_MILVUS_TOKEN", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RAY_AUTH_TOKEN"} <= checked
    for name in checked:
        assert name in readers[name.split("_")[0]], name


def test_images_are_ours_or_of_the_pinned_version() -> None:
    """Our image is built from the lock; an image that Ray, MLflow or Prefect publish would have to equal the pin."""
    ours = f"mulan:{PROJECT['version']}"
    assert {f"{i['name']}:{i['newTag']}" for i in KUSTOMIZATION["images"]} == {
        ours,
        ours.replace("mulan", "mulan-cuda"),
    }
    used = {service["image"] for service in SERVICES.values()} | set(
        re.findall(
            r"'image': '([^']+)'", re.sub(r"('image': 'mulan(-cuda)?)'", rf"\1:{PROJECT['version']}'", str(DOCUMENTS))
        )
    )
    for name in used:
        repository, tag = name.rsplit(":", 1)
        if repository.startswith("mulan"):
            assert tag == PROJECT["version"], name
        for tool in ("ray", "mlflow", "prefect"):
            if tool in repository:
                assert PINS[tool] in tag, name
    milvus = {name for name in used if name.startswith("milvusdb/milvus:")}
    assert len(milvus) == 1 and milvus.pop().split(":v")[1].split(".")[0] == PINS["pymilvus"].split(".")[0]
    assert len({name for name in used if name.startswith("postgres:")}) == 1
    dockerfile = (INFRA / "images" / "Dockerfile").read_text(encoding="utf-8")
    stages = re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM|\Z)", dockerfile, flags=re.MULTILINE | re.DOTALL)
    assert {source for source, _, _ in stages} - {name for _, name, _ in stages} == {"python:3.11-slim-bookworm"}
    lines = {name: lines for _, name, lines in stages}
    for target in ("cpu", "cuda"):
        assert "\nUSER 1000" in lines[target] and "-c constraints.txt" in lines[f"{target}-packages"]
    assert f" torch=={PINS['torch']} " in lines["cpu-packages"] and SERVICES["mlflow"]["build"]["target"] == "cpu"
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", lines["locked"], flags=re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())
    lock = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert {f"{tool}=={PINS[tool]}" for tool in ("ray", "mlflow", "prefect", "pymilvus")} <= set(lock)
