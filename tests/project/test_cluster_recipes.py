# SPDX-License-Identifier: Apache-2.0
"""The recipes of tools/cluster say the same: one image, one user, the ports and variables of Ray; no privileges.

The image and compose.yml were run by hand (docs/cluster.md); kuberay.yaml was not: this is all that is known of it.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from fuzz.cli.main import parsed
from fuzz.cluster.address import read_address
from fuzz.cluster.ray_nodes import OBJECT_STORE
from tests.support.paths import ROOT

RECIPES = ROOT / "tools" / "cluster"
CONTAINERFILE = (RECIPES / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((RECIPES / "compose.yml").read_text())
CLUSTER, POLICY, JOB = yaml.safe_load_all((RECIPES / "kuberay.yaml").read_text())
HEAD = CLUSTER["spec"]["headGroupSpec"]
(NODES,) = CLUSTER["spec"]["workerGroupSpecs"]
PODS: dict[str, dict[str, Any]] = {
    name: each["template"]["spec"] for name, each in (("head", HEAD), ("node", NODES), ("campaign", JOB["spec"]))
}
SERVICE = "shadowfuzz-head-svc"
"""KubeRay calls the service of a cluster's head so."""


def container(name: str) -> dict[str, Any]:
    (found,) = PODS[name]["containers"]
    assert isinstance(found, dict)
    return found


def words(service: str) -> str:
    return str(COMPOSE["services"][service]["command"])


def options(group: dict[str, Any]) -> Iterator[str]:
    for name, value in group["rayStartParams"].items():
        assert isinstance(value, str), "KubeRay takes text"
        yield f"--{name}"


@pytest.mark.parametrize("name", PODS)
def test_nothing_has_privileges(name: str) -> None:
    user = re.search(r"useradd --uid (\d+)", CONTAINERFILE)
    assert user is not None and "USER fuzz" in CONTAINERFILE
    pod, plain = PODS[name]["securityContext"], container(name)["securityContext"]
    assert pod["runAsNonRoot"] is True and pod["runAsUser"] == pod["fsGroup"] == int(user[1])
    assert plain == {"allowPrivilegeEscalation": False, "capabilities": {"drop": COMPOSE["x-node"]["cap_drop"]}}
    assert PODS[name]["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(PODS[name])
    assert all("hostPath" not in volume for volume in PODS[name].get("volumes", []))


@pytest.mark.parametrize("name", PODS)
def test_all_run_one_image_with_bounds(name: str) -> None:
    assert container(name)["image"] == COMPOSE["x-node"]["image"]
    resources = container(name)["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}


def test_what_is_secret_comes_from_the_secret() -> None:
    made = set(re.findall(r"--from-literal=(\w+)=", (RECIPES / "kuberay.yaml").read_text()))
    used = set()
    for name in PODS:
        variables = {each["name"]: each for each in container(name)["env"]}
        mode = variables.pop("RAY_AUTH_MODE")["value"]
        assert f"RAY_AUTH_MODE={mode}" in CONTAINERFILE
        for each in variables.values():
            reference = each["valueFrom"]["secretKeyRef"]
            assert reference["name"] == "shadowfuzz" and set(each) == {"name", "valueFrom"}
            used.add(reference["key"])
        more = {"head": set(), "node": {"PGPASSWORD"}, "campaign": {"PGPASSWORD", "STORE"}}[name]
        assert set(variables) == {"RAY_AUTH_TOKEN"} | more
    assert used == made
    assert {"RAY_AUTH_TOKEN", "PGPASSWORD"} == set(COMPOSE["x-node"]["environment"])


def test_the_head_offers_no_cpu_and_listens_where_others_ask() -> None:
    start = HEAD["rayStartParams"]
    for name in ("num-cpus", "port"):
        assert f"--{name} {start[name]}" in words("head")
    assert f"--address head:{start['port']}" in words("node")
    assert f"ray://head:{start['ray-client-server-port']}" in words("campaign")
    ports = {each["containerPort"] for each in container("head")["ports"]}
    assert ports == {int(start["port"]), int(start["ray-client-server-port"])}
    assert container("head")["livenessProbe"]["tcpSocket"]["port"] == int(start["port"])
    assert container("node")["livenessProbe"]["tcpSocket"]["port"] == int(NODES["rayStartParams"]["node-manager-port"])


def test_only_pods_of_the_campaign_reach_ray() -> None:
    cluster = {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    assert POLICY["spec"]["podSelector"]["matchLabels"] == cluster
    (rule,) = POLICY["spec"]["ingress"]
    allowed = [each["podSelector"]["matchLabels"] for each in rule["from"]]
    assert allowed == [cluster, JOB["spec"]["template"]["metadata"]["labels"]] and "ports" not in rule


def test_what_nodes_build_is_kept_where_the_image_says() -> None:
    (mount,) = container("node")["volumeMounts"]
    assert f"VOLUME {mount['mountPath']}" in CONTAINERFILE
    assert [volume["name"] for volume in PODS["node"]["volumes"]] == [mount["name"]]
    assert COMPOSE["x-node"]["volumes"] == [f"built:{mount['mountPath']}"]


def test_all_that_is_written_to_belongs_to_the_user() -> None:
    """Engines differ in whose the directories are that WORKDIR and VOLUME make; a volume takes over what is there."""
    made = re.search(r"install -d -o fuzz -g fuzz ([^\\]*)\\", CONTAINERFILE)
    assert made is not None and made.start() < CONTAINERFILE.index("USER fuzz")
    written = re.findall(r"^(?:WORKDIR|VOLUME) (.*)$", CONTAINERFILE, re.MULTILINE)
    assert len(written) == 2 and set(written) <= set(made[1].split())


def test_objects_of_ray_fit_into_shared_memory() -> None:
    """Otherwise Ray takes a third of the memory for them, in files below /tmp."""
    size = HEAD["rayStartParams"]["object-store-memory"]
    assert size == NODES["rayStartParams"]["object-store-memory"] == str(OBJECT_STORE)
    assert all(f"--object-store-memory {size} " in words(service) for service in ("head", "node"))
    assert int(COMPOSE["x-node"]["shm_size"].removesuffix("m")) << 20 > OBJECT_STORE


def test_what_ends_the_nodes_knows_how_many_there_are() -> None:
    """``podman-compose down`` leaves those running that the file does not have."""
    header = (RECIPES / "compose.yml").read_text().partition("services:")[0]
    (mode, replicas) = (COMPOSE["services"]["node"]["deploy"][name] for name in ("mode", "replicas"))
    assert mode == "replicated", "podman-compose reads the number only then"
    assert replicas == "${NODES:-2}" and "export NODES=" in header and "--scale node=" not in header


def test_every_variable_of_compose_is_read() -> None:
    """podman-compose 1.0.3 takes ``${NAME:?}``, with no message, as the password itself."""
    text = (RECIPES / "compose.yml").read_text()
    read = re.findall(r"\$\{[A-Z_]+:(?:\?[a-z ]+|-\d+)\}", text)
    assert len(read) == text.count("$") == 4


def test_the_image_has_nothing_that_git_ignores() -> None:
    ignored = {line.removeprefix("**/").rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    assert ignored >= {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()} | {".git"}


def test_campaigns_are_command_lines_of_shadowfuzz() -> None:
    args = [word.replace("$(STORE)", "postgresql://fuzz@host/fuzz") for word in container("campaign")["args"]]
    found = parsed(["fuzz", *args])
    place = read_address(found.cluster).place
    assert place == (SERVICE, int(HEAD["rayStartParams"]["ray-client-server-port"]))
    line = re.search(r"exec shadowfuzz ([^']*)'", words("campaign"))
    assert line is not None
    composed = parsed(line[1].replace('"', "").split())
    assert (composed.targets, composed.seconds) == (found.targets, found.seconds)


def test_login_shells_find_ray() -> None:
    """KubeRay starts ``ray`` in one, and /etc/profile of Debian sets PATH."""
    path = re.search(r"ENV PATH=([^:]+):", CONTAINERFILE)
    assert path is not None and f"'PATH={path[1]}:$PATH' > /etc/profile.d/" in CONTAINERFILE


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.parametrize("group", [HEAD, NODES], ids=["head", "nodes"])
def test_ray_has_the_options(group: dict[str, Any]) -> None:
    from ray.scripts.scripts import start

    assert set(options(group)) <= {name for each in start.params for name in each.opts}
