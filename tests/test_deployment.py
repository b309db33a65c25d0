"""deploy/ and the compose files: held to the schemas of those who read them, and to our own names."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = [*yaml.safe_load_all((DEPLOY / "kubernetes" / "stn-serve.yaml").read_text())]
KSERVE = yaml.safe_load((DEPLOY / "kserve" / "inference-service.yaml").read_text())
KEDA = yaml.safe_load((DEPLOY / "kubernetes" / "keda.yaml").read_text())
KSERVE_ALONE = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"}
"""What a predictor has and a pod has not."""
KSERVE_SCHEMA = json.loads((ROOT / "tests" / "data" / "kserve-inference-service.schema.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
USER = 10001
ALERTS = sorted((DEPLOY / "prometheus").glob("*alerts.yml"))
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "stn-serve.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
EXPRESSIONS += [variable["definition"] for variable in DASHBOARD["templating"]["list"]]
METRICS = (ROOT / "docs" / "operate" / "metrics.md").read_text()
RUNBOOK = (ROOT / "docs" / "operate" / "operations.md").read_text()
NO_PRIVILEGES = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}

Manifest = dict[str, Any]


def pod(manifest: Manifest) -> Manifest:
    """The pod that a Deployment or an InferenceService asks for, as one of its own."""
    spec = manifest["spec"]
    if "predictor" in spec:
        asked = {name: value for name, value in spec["predictor"].items() if name not in KSERVE_ALONE}
    else:
        asked = spec["template"]["spec"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": asked}


PODS = [pod(KUBERNETES[0]), pod(KSERVE)]


@pytest.mark.parametrize("manifest", KUBERNETES, ids=lambda manifest: manifest["kind"])
def test_kubernetes_takes_every_manifest(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_images_that_serve_take_the_extras_that_a_build_asks_for() -> None:
    asked = re.findall(
        r'ARG EXTRAS=(\S+)\nARG PACKAGES\nRUN pip install .* "\.\[([\w-]+)\$\{EXTRAS:\+,\$EXTRAS\}\]"', DOCKERFILE
    )
    assert asked == [("grpc,heif", "serve-cpu"), ("grpc,heif", "cuda")]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (shown,) = re.findall(r"EXTRAS=(\S+) --build-arg", RUNBOOK)
    assert {*shown.split(","), "serve-cpu", "cuda"} <= extras.keys()


def test_kserve_takes_the_inference_service() -> None:
    Draft202012Validator(KSERVE_SCHEMA).validate(KSERVE)


@pytest.mark.parametrize("asked", PODS, ids=["kubernetes", "kserve"])
def test_kubernetes_takes_the_pod(asked: Manifest) -> None:
    kubernetes_validate.validate(asked, kubernetes_validate.latest_version(), strict=True)


def test_a_manifest_with_a_field_that_is_none_is_not_taken() -> None:
    wrong = json.loads(json.dumps(PODS[0]))
    wrong["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_keda_scales_our_deployment_as_the_autoscaler_it_replaces() -> None:
    """Kubernetes has no schema of KEDA's kinds, but it has one of the autoscaler that KEDA makes."""
    (own,) = [manifest for manifest in KUBERNETES if manifest["kind"] == "HorizontalPodAutoscaler"]
    spec, made = KEDA["spec"], json.loads(json.dumps(own))
    config = spec["advanced"]["horizontalPodAutoscalerConfig"]
    made["metadata"]["name"] = config["name"]
    made["spec"] |= {"scaleTargetRef": spec["scaleTargetRef"], "behavior": config["behavior"]}
    made["spec"] |= {"minReplicas": spec["minReplicaCount"], "maxReplicas": spec["maxReplicaCount"]}
    kubernetes_validate.validate(made, kubernetes_validate.latest_version(), strict=True)
    assert made == own
    queue, cpu = spec["triggers"]
    assert all(isinstance(value, str) for trigger in (queue, cpu) for value in trigger["metadata"].values())
    assert int(cpu["metadata"]["value"]) == own["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"]
    assert metrics(queue["metadata"]["query"]) == {"stn_queue_depth"}
    assert "`stn_queue_depth`" in METRICS


def test_kserve_offers_grpc_at_the_port_of_the_service() -> None:
    (container,) = KSERVE["spec"]["predictor"]["containers"]
    assert [port["name"] for port in container["ports"]] == ["http", "grpc"], "several ports need names"
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert container["ports"][1]["containerPort"] == int(variables["STN_GRPC_PORT"])
    extras = re.findall(r"ARG EXTRAS=(\S+)", DOCKERFILE)
    assert ["grpc" in each.split(",") for each in extras] == [True, True], "on CPUs and GPUs"


@pytest.mark.parametrize("asked", PODS, ids=["kubernetes", "kserve"])
def test_pods_have_no_privileges_limits_and_probes(asked: Manifest) -> None:
    spec = asked["spec"]
    (container,) = spec["containers"]
    assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, USER)
    assert spec["enableServiceLinks"] is False, f"they would be {PREFIX} variables, which the service refuses"
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > Settings.model_fields["shutdown_timeout_s"].default + pause
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    for probe in ("startup", "readiness", "liveness"):
        state = "live" if probe == "liveness" else "ready"
        assert container[f"{probe}Probe"]["httpGet"]["path"].endswith(f"/health/{state}")
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_services_of_the_compose_file_have_no_privileges_and_limits(name: str) -> None:
    service = COMPOSE["services"][name]
    assert {key: service[key] for key in NO_PRIVILEGES} == NO_PRIVILEGES
    assert {"mem_limit", "pids_limit"} <= service.keys()
    assert "healthcheck" in service or service["build"]["target"] in {"cpu", "train"}, "those have it in the Dockerfile"


def test_only_serving_starts_unless_more_is_asked_for() -> None:
    profiles = {name: service.get("profiles") for name, service in COMPOSE["services"].items()}
    assert profiles == {
        "stn-serve": None,
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
        "train": ["training"],
    }
    assert GPU["services"].keys() <= profiles.keys()


def test_images_run_as_a_user_that_is_a_number_and_check_their_health() -> None:
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert users[0] == f"{USER}:{USER}"
    assert re.findall(r"^FROM (\S+) AS (?:cpu|cuda|train)$", DOCKERFILE, re.MULTILINE) == ["base"] * 3
    assert "/health/ready" in DOCKERFILE


def test_every_variable_of_ours_is_a_setting() -> None:
    variables = set(re.findall(rf"\b({PREFIX}[A-Z_]+)=", DOCKERFILE))
    for compose in (COMPOSE, GPU):
        variables |= compose["services"]["stn-serve"]["environment"].keys()
    for asked in PODS:
        variables |= {v["name"] for v in asked["spec"]["containers"][0]["env"] if v["name"].startswith(PREFIX)}
    assert variables
    assert {name.removeprefix(PREFIX).lower() for name in variables} <= Settings.model_fields.keys()


def metrics(expression: str) -> set[str]:
    """Names of ours in ``expression``, without what histograms add."""
    names = set(re.findall(r"\b(?:stn|nv)_\w+", expression))
    return {re.sub(r"(_seconds|_batch_size)_(?:bucket|sum|count)$", r"\1", name) for name in names}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_asks_for_metrics_that_there_are(expression: str) -> None:
    assert metrics(expression)
    for name in metrics(expression):
        assert f"`{name}`" in METRICS


def test_the_dashboard_shows_service_and_drift() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [row.partition(":")[0] for row in rows] == ["Service", "Drift"]
    uids = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "datasource" in panel}
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert uids == {source["datasources"][0]["uid"]}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "rule",
    [rule for file in ALERTS for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]],
    ids=lambda rule: rule["alert"],
)
def test_alerts_ask_for_metrics_that_there_are_and_stand_in_the_runbook(rule: Manifest) -> None:
    for name in metrics(rule["expr"]):
        assert f"`{name}`" in METRICS
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
    assert f"### {rule['alert']}\n" in RUNBOOK
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_prometheus_reads_every_file_of_alerts() -> None:
    settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (pattern,) = settings["rule_files"]
    assert sorted((DEPLOY / "prometheus").glob(pattern)) == ALERTS
    (job,) = [job for job in settings["scrape_configs"] if job["job_name"] == "stn-serve"]
    assert job["dns_sd_configs"][0]["names"][0] in COMPOSE["services"]
