"""`clio-exporter kubernetes`: what it writes is what Kubernetes, its schemas and Prometheus take."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from clio_client import __version__
from clio_control_api.exposure import Auth, auth_of
from clio_control_api.settings import load
from clio_exporter.cli import main
from clio_exporter.settings import load_settings
from tests.prometheus import promtool
from tests.system import needs_system
from tests.unit.grafana.boards import UIDS

Document = dict[str, Any]
OLDEST = "1.28.0"
KINDS = ("Deployment", "Service", "ServiceAccount", "NetworkPolicy", "ServiceMonitor", "PrometheusRule")


def write(directory: Path, *arguments: str, hosts: str = "compute-01\ncompute-02:9513\n") -> Path:
    directory.mkdir()
    (directory / "hosts").write_text(hosts)
    made = directory / "made"
    assert main(["kubernetes", f"--directory={made}", f"--hostfile={directory / 'hosts'}", *arguments]) == 0
    return made


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kubernetes") / "with"
    return write(
        directory, "--control-api=https://control.example", "--namespace=lab", "--monitoring-namespace=obs",
        "--image=registry.example:5000/lab/clio-exporter:1.2.3", "--grafana-url=https://g.example",
        "--docs-url=https://d.example", "--job=lab/clio", "--datasource=Main",
    )  # fmt: skip


def documents(directory: Path) -> Iterator[Document]:
    """Every object that the kustomization names."""
    kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        yield from yaml.safe_load_all((directory / name).read_text())


def of_kind(directory: Path, kind: str) -> list[Document]:
    return [document for document in documents(directory) if document["kind"] == kind]


# --- The schemas of Kubernetes and of the Prometheus operator ------------------------------------------


def an_object(required: tuple[str, ...], **properties: Any) -> Document:
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
DURATION = {"type": "string", "pattern": r"^(\d+(ms|[smhdwy]))+$"}
METADATA = an_object(("name",), name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
SECRET_KEY = an_object(("key",), name=TEXT, key=TEXT, optional={"type": "boolean"})
RELABELING = an_object(
    (), targetLabel=TEXT, replacement=TEXT, regex=TEXT, separator=TEXT,
    sourceLabels={"type": "array", "items": TEXT},
    action={"enum": ["replace", "keep", "drop", "labelmap", "labeldrop", "labelkeep"]},
)  # fmt: skip
ENDPOINT = an_object(
    (), port=TEXT, path=TEXT, scheme={"enum": ["http", "https"]}, interval=DURATION, scrapeTimeout=DURATION,
    authorization=an_object((), type=TEXT, credentials=SECRET_KEY),
    relabelings={"type": "array", "items": RELABELING},
)  # fmt: skip
RULE = an_object(
    ("expr",), alert=TEXT, record=TEXT, expr=TEXT, **{"for": DURATION}, keep_firing_for=DURATION,
    labels=TEXTS, annotations=TEXTS,
)  # fmt: skip
GROUP = an_object(
    ("name",), name=TEXT, interval=DURATION, limit={"type": "integer"}, query_offset=DURATION, labels=TEXTS,
    rules={"type": "array", "items": RULE},
)  # fmt: skip
OPERATOR = {
    "ServiceMonitor": an_object(
        ("endpoints", "selector"),
        endpoints={"type": "array", "items": ENDPOINT},
        selector=an_object((), matchLabels=TEXTS),
        jobLabel=TEXT,
    ),
    "PrometheusRule": an_object((), groups={"type": "array", "items": GROUP}),
}
"""Written down from the operator's API reference (monitoring.coreos.com/v1), as far as it is used here."""


def check(document: Document) -> None:
    """Raises where a schema forbids the object."""
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        whole = an_object(
            ("metadata", "spec"),
            apiVersion=TEXT,
            kind=TEXT,
            metadata=METADATA,
            spec=OPERATOR[document["kind"]],
        )
        jsonschema.validate(document, whole)
    else:
        for version in (OLDEST, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(document, version, strict=True)


def test_every_object_is_as_the_schemas_have_it(kit: Path) -> None:
    found = list(documents(kit))
    for document in found:
        check(document)
    assert {document["kind"] for document in found} == {
        *KINDS, "Namespace", "ConfigMap", "PersistentVolumeClaim",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["Deployment", "ServiceMonitor", "PrometheusRule"])
def test_the_schemas_find_a_mistake(kit: Path, kind: str) -> None:
    document = of_kind(kit, kind)[0]
    document["spec"]["replica"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(document)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed here")
def test_kustomize_builds_it(kit: Path) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(kit)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    (settings,) = [each for each in built if each["metadata"]["name"].startswith("clio-settings-")]
    assert set(settings["data"]) == {"hostfile", "exporter.yaml", "control-api.yaml"}
    for document in built:
        check(document)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "lab"
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            assert pod["containers"][0]["image"] == "registry.example:5000/lab/clio-exporter:1.2.3"
            assert settings["metadata"]["name"] in [
                volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume
            ]


def test_everything_that_the_kustomization_names_is_there(kit: Path) -> None:
    kustomization = yaml.safe_load((kit / "kustomization.yaml").read_text())
    (generator,) = kustomization["configMapGenerator"]
    named = {*kustomization["resources"], *generator["files"], "kustomization.yaml"}
    written = {path.relative_to(kit).as_posix() for path in kit.rglob("*") if path.is_file()}
    assert named == written


def test_configmaps_fit_into_what_kubectl_apply_notes(kit: Path) -> None:
    """It keeps a copy in an annotation, and all annotations may have 256 KiB."""
    for document in documents(kit):
        assert len(json.dumps(document)) < 256 * 1024, document["metadata"]["name"]


# --- Least privilege -----------------------------------------------------------------------------------


def test_pods_may_do_nothing_that_they_need_not(kit: Path) -> None:
    (namespace,) = of_kind(kit, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    deployments = of_kind(kit, "Deployment")
    assert [each["metadata"]["name"] for each in deployments] == ["clio-exporter", "clio-control-api"]
    for deployment in deployments:
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
        pod = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {"requests", "limits"} <= container["resources"].keys()
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(kit, "ServiceAccount"))


def test_the_network_is_closed_but_for_what_is_asked(kit: Path) -> None:
    policies = of_kind(kit, "NetworkPolicy")
    pods = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(kit, "Deployment")]
    assert [policy["spec"]["podSelector"]["matchLabels"] for policy in policies] == pods
    for policy in policies:
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        asking, reply = spec["ingress"]
        assert asking["from"] == [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "obs"}}}
        ]
        assert reply["ports"] == [{"port": "reply"}]
        assert spec["egress"][-1]["ports"] == [{"port": 9416}, {"port": 9516}]


# --- What belongs together -----------------------------------------------------------------------------


def test_services_monitors_and_probes_find_their_pods(kit: Path) -> None:
    pods = {each["metadata"]["name"]: each["spec"]["template"] for each in of_kind(kit, "Deployment")}
    services = {each["metadata"]["name"]: each for each in of_kind(kit, "Service")}
    monitors = {each["metadata"]["name"]: each for each in of_kind(kit, "ServiceMonitor")}
    assert pods.keys() == services.keys() == monitors.keys()
    for name, pod in pods.items():
        (container,) = pod["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        service, monitor = services[name], monitors[name]["spec"]
        assert service["spec"]["selector"] == pod["metadata"]["labels"]
        assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
        (port,) = service["spec"]["ports"]
        assert ports[port["targetPort"]] == port["port"]
        assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [port["name"]]
        assert container["readinessProbe"]["httpGet"]["port"] in ports
    assert {volume["name"] for volume in pods["clio-control-api"]["spec"]["volumes"]} == {
        mount["name"] for mount in pods["clio-control-api"]["spec"]["containers"][0]["volumeMounts"]
    }


def test_series_have_the_jobs_that_rules_look_for(kit: Path) -> None:
    jobs = {
        each["metadata"]["name"]: each["spec"]["endpoints"][0]["relabelings"][0]
        for each in of_kind(kit, "ServiceMonitor")
    }
    assert jobs["clio-exporter"] == {"targetLabel": "job", "replacement": "lab/clio"}
    assert jobs["clio-control-api"] == {"targetLabel": "job", "replacement": "clio-control-api"}
    text = json.dumps(of_kind(kit, "PrometheusRule"))
    assert 'job=\\"lab/clio\\"' in text
    assert 'job=\\"clio-control-api\\"' in text
    assert 'job=\\"clio-exporter\\"' not in text


@needs_system("promtool")
def test_prometheus_takes_the_rules(kit: Path, tmp_path: Path) -> None:
    rules = of_kind(kit, "PrometheusRule")
    assert len(rules) == 4
    for rule in rules:
        path = tmp_path / f"{rule['metadata']['name']}.yml"
        path.write_text(yaml.safe_dump(rule["spec"]))
        checked = promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboards_are_those_of_the_kit(kit: Path, tmp_path: Path) -> None:
    boards = [json.loads(text) for each in of_kind(kit, "ConfigMap") for text in each["data"].values()]
    assert sorted(board["uid"] for board in boards) == sorted(UIDS)
    arguments = [f"--directory={tmp_path}", "--control-api=https://control.example", "--datasource=Main"]
    assert main(["dashboards", *arguments]) == 0
    for board in boards:
        assert board == json.loads((tmp_path / "dashboards" / f"{board['uid']}.json").read_text())


def test_the_services_take_their_settings(kit: Path, tmp_path: Path) -> None:
    settings = kit / "settings"
    (cluster,) = load_settings(settings / "exporter.yaml").clusters
    assert cluster.hostfile == settings / "hostfile"
    assert (settings / "hostfile").read_text() == "compute-01\ncompute-02:9513\n"
    control = load(settings / "control-api.yaml", {}, {}, tmp_path)
    assert (control.host, control.port, auth_of(control)) == ("0.0.0.0", 5000, Auth.ALL)
    (pod,) = [each["spec"]["template"]["spec"] for each in of_kind(kit, "Deployment")][1:]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    mounted = {f"/run/secrets/clio/{item['path']}" for item in secret["items"]}
    ssh = control.ssh_of("").ssh
    assert {str(control.tokens_file), str(ssh.key_file), str(ssh.known_hosts_file)} == mounted


# --- Without a control API, and what cannot be -----------------------------------------------------------


def test_without_a_control_api_there_is_none(tmp_path: Path) -> None:
    made = write(tmp_path / "without")
    assert [each["metadata"]["name"] for each in of_kind(made, "Deployment")] == ["clio-exporter"]
    for document in documents(made):
        check(document)
    assert not (made / "settings" / "control-api.yaml").exists()
    kustomization = yaml.safe_load((made / "kustomization.yaml").read_text())
    assert kustomization["namespace"] == "clio"
    assert kustomization["images"] == [
        {"name": "clio-exporter", "newName": "clio-exporter", "newTag": __version__}
    ]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--namespace=Big"], 2),
        (["--image=clio-exporter"], 2),
        (["--image=a b:1"], 2),
        (["--control-api=control"], 2),
        (["--job=a b"], 1),
        (["--hostfile=/nowhere/hostfile"], 1),
    ],
)
def test_arguments_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int
) -> None:
    (tmp_path / "hosts").write_text("n1\n")
    made = tmp_path / "made"
    command = ["kubernetes", f"--directory={made}", f"--hostfile={tmp_path / 'hosts'}", *arguments]
    if status == 2:
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 2
        assert arguments[0].partition("=")[0] in capsys.readouterr().err
    else:
        assert main(command) == 1
        assert capsys.readouterr().err.startswith("clio-exporter kubernetes: ")
    assert not made.exists()
