"""What is deployed: manifests that Kubernetes would take, images that stay the same, settings that exist."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy import probe
from streams import topic_admin, web
from streams.connection import Security
from streams.guard import Bearer
from streams.leaving import FAREWELL_S, START_S
from streams.listening import listening
from streams.settings import PLACEHOLDER, Settings
from streams.vitals import Vitals
from tests.integration.chaos.fleet import STOP_S

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
K8S = DEPLOY / "k8s"
NOT_OURS = {"kustomization.yaml", "keda.yaml"}
"""Of kinds that Kubernetes' own schemas do not know."""
FIELDS = {f"SALIENCE_{name.upper()}" for model in (Settings, Security) for name in model.model_fields}


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


MANIFESTS = [
    pytest.param(document, id=f"{path.name}-{document['kind']}")
    for path in sorted(K8S.glob("*.yaml"))
    if path.name not in NOT_OURS
    for document in documents(path)
]


def workload(name: str) -> dict[str, Any]:
    return next(each for each in documents(K8S / f"{name}.yaml") if each["kind"] in ("StatefulSet", "Deployment"))


WORKLOADS = ("worker", "lag", "reviews", "referee")


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_kubernetes_would_take_the_manifest(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_schemas_refuse_what_kubernetes_would() -> None:
    wrong = workload("worker")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_every_manifest_is_in_the_kustomization_and_kubectl_builds_it() -> None:
    listed = set(documents(K8S / "kustomization.yaml")[0]["resources"])
    assert listed == {path.name for path in K8S.glob("*.yaml")} - {"kustomization.yaml"}
    if shutil.which("kubectl"):
        built = subprocess.run(["kubectl", "kustomize", str(K8S)], capture_output=True, text=True, check=True)
        assert {each["kind"] for each in yaml.safe_load_all(built.stdout)} >= {"StatefulSet", "ScaledObject"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_container_is_bounded_probed_and_has_no_rights(name: str) -> None:
    pod = workload(name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    for container in pod["containers"]:
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == {"cpu", "memory"}
        assert {"livenessProbe", "readinessProbe"} <= container.keys()
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        claims = workload(name)["spec"].get("volumeClaimTemplates", [])
        assert mounts == {v["name"] for v in pod["volumes"]} | {claim["metadata"]["name"] for claim in claims}


def test_a_worker_has_static_membership_and_settings_that_fit_one_another() -> None:
    spec = workload("worker")["spec"]
    container = spec["template"]["spec"]["containers"][0]
    given = {each["name"]: each.get("value") for each in container["env"]}
    assert "SALIENCE_INSTANCE_ID" in given
    config = documents(K8S / "config.yaml")[0]["data"]
    fields = {name.removeprefix("SALIENCE_").lower(): value for name, value in (config | given).items()}
    settings = Settings(
        **{name: value for name, value in fields.items() if name in Settings.model_fields}
        | {"instance_id": "salience-worker-0", "web_token": "token", "web_token_file": None, "seal_secret_file": None}
    )
    assert settings.web_port == container["ports"][0]["containerPort"]


def test_every_role_has_a_secret_of_its_own_with_all_that_its_settings_name() -> None:
    there = {each["metadata"]["name"]: set(each["stringData"]) for each in documents(K8S / "secrets.yaml.example")}
    shared = documents(K8S / "config.yaml")[0]["data"]
    mounted = {}
    for name in WORKLOADS:
        pod = workload(name)["spec"]["template"]["spec"]
        (mounted[name],) = (volume["secret"]["secretName"] for volume in pod["volumes"] if volume["name"] == "secrets")
        given = shared | {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        files = {
            path.rpartition("/")[2] for path in given.values() if (path or "").startswith("/etc/salience/secrets/")
        }
        assert there[mounted[name]] == files, name
    assert set(mounted.values()) == there.keys()
    assert len(there) == len(WORKLOADS)
    assert [name for name, keys in there.items() if "seal_secret" in keys] == [mounted["worker"]]


def test_the_example_of_secrets_holds_the_placeholder_alone_and_kubectl_passes_over_it() -> None:
    (file,) = K8S.glob("secrets*")
    assert file.suffix not in {".yaml", ".yml", ".json"}
    assert {text for each in documents(file) for text in each["stringData"].values()} == {PLACEHOLDER}


def test_a_worker_that_is_told_to_stop_has_the_time_that_it_takes_when_brokers_are_silent() -> None:
    lanes_s = Settings.model_fields["stop_deadline_ms"].default / 1000
    silent_s = lanes_s + 3 * FAREWELL_S + START_S + topic_admin.ANSWER_S
    kubernetes = workload("worker")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["worker"]["stop_grace_period"]
    assert compose == f"{kubernetes}s" == f"{STOP_S:.0f}s"
    assert silent_s < kubernetes


def test_scaling_follows_the_lag_of_the_workers_group() -> None:
    scaled = documents(K8S / "keda.yaml")[0]
    assert (scaled["apiVersion"], scaled["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    target = scaled["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", workload("worker")["metadata"]["name"])
    trigger = scaled["spec"]["triggers"][0]
    assert {"serverAddress", "query", "threshold"} <= trigger["metadata"].keys()
    assert f'group="{Settings().group}"' in trigger["metadata"]["query"]
    assert trigger["metricType"] == "Value", "a lag is no sum that workers share"
    assert 1 < scaled["spec"]["minReplicaCount"] <= scaled["spec"]["maxReplicaCount"]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def images() -> Iterator[str]:
    yield from (line.split()[1] for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line.startswith("FROM"))
    yield from (service["image"] for service in compose()["services"].values())
    yield from (workload(name)["spec"]["template"]["spec"]["containers"][0]["image"] for name in WORKLOADS)


def test_every_image_is_pinned() -> None:
    for image in images():
        _, _, tag = image.partition(":")
        assert tag[:1] in "v0123456789", f"{image}: name a version"
        assert tag.count(".") >= 2 or "-" in tag, f"{image}: name a version in full"


def test_every_setting_that_is_given_exists() -> None:
    pages = (*K8S.glob("*.yaml"), DEPLOY / "compose.yaml", DEPLOY / "Dockerfile", DEPLOY / "OPERATIONS.md")
    words = {word for path in pages for word in re.findall(r"\bSALIENCE_[A-Z_]+", path.read_text())}
    assert words <= FIELDS


def test_compose_mounts_secrets_into_read_only_services_as_files() -> None:
    told = compose()
    for name, service in told["services"].items():
        for kind in ("secrets", "configs"):
            for each in service.get(kind, []) if service.get("read_only") else []:
                source = told[kind][each["source"] if isinstance(each, dict) else each]
                assert source.keys() == {"file"}, f"{name}: compose refuses to write {each} into a read-only service"


def test_compose_tells_how_to_make_the_files_of_its_secrets_which_stay_out_of_the_repository_and_the_image() -> None:
    head = (DEPLOY / "compose.yaml").read_text().partition("\nname:")[0]
    for secret in compose()["secrets"].values():
        path = f"deploy/{secret['file'].removeprefix('./')}"
        assert f"> {path}" in head, path
        for ignored in (".gitignore", ".dockerignore"):
            assert "deploy/secrets/" in (ROOT / ignored).read_text().splitlines(), ignored


def test_every_file_that_compose_mounts_is_there_and_every_service_that_it_waits_for() -> None:
    told = compose()
    for service in told["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in told["volumes"] or (DEPLOY / source).exists(), volume
        assert set(service.get("depends_on", [])) <= told["services"].keys()
    assert (ROOT / "deploy" / told["x-salience"]["build"]["context"]).resolve() == ROOT


def test_the_images_user_is_not_root_and_what_it_copies_is_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001:10001"
    for line in (line for line in lines if line.startswith("COPY") and "--from" not in line):
        assert all((ROOT / name).exists() for name in line.split()[1:-1]), line


def test_docker_compose_takes_the_file_where_it_is_installed() -> None:
    found = (
        subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if shutil.which("docker")
        else None
    )
    if found is None or found.returncode:
        pytest.skip("docker compose is not installed")
    command = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    subprocess.run(command, check=True)


def test_the_images_health_is_asked_at_the_port_where_it_serves() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    given = dict(word.split("=", 1) for line in lines for word in line.split() if word.startswith("SALIENCE_"))
    assert given["SALIENCE_WEB_PORT"] == probe.DEFAULT_PORT


def test_a_pod_lives_on_but_is_not_called_ready_while_the_file_of_the_token_is_empty_or_gone(tmp_path: Path) -> None:
    file, wrong = tmp_path / "web_token", tmp_path / "wrong"
    file.write_text("former")
    wrong.write_text("another's")

    async def probed(port: str, file: Path) -> list[int]:
        given = {"SALIENCE_WEB_PORT": port, "SALIENCE_WEB_TOKEN_FILE": str(file), "PATH": os.environ["PATH"]}
        command = [sys.executable, "-I", str(DEPLOY / "probe.py")]
        probes = [
            await asyncio.create_subprocess_exec(*command, page, env=given, stderr=asyncio.subprocess.DEVNULL)
            for page in ("/healthz", "/readyz")
        ]
        return [await probe_.wait() for probe_ in probes]

    async def scenario() -> None:
        held = Bearer(Settings(web_token_file=file))
        async with listening(web.make_app(lambda: Vitals(joined=True), held, "127.0.0.1"), "127.0.0.1", 0) as url:
            port = url.rpartition(":")[2]
            assert await probed(port, file) == [0, 0]
            assert await probed(port, wrong) == [1, 1]
            file.write_text("")
            assert await probed(port, file) == [0, 1]
            file.unlink()
            assert await probed(port, file) == [0, 1]

    asyncio.run(scenario())


def test_the_probe_fails_where_nobody_answers() -> None:
    environment = {"SALIENCE_WEB_PORT": "1", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-I", str(DEPLOY / "probe.py"), "/healthz"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "/healthz" in done.stderr) == (1, True)
