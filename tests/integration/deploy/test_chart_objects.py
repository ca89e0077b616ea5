"""The objects of the chart keep its promises: drain, probes, hardening, models, secrets, networks."""

import subprocess
import sys
from typing import Any

import pytest

from convvae_service.errors import StartupError
from convvae_service.server.health import LIVENESS
from convvae_service.settings.loader import load_settings
from support.chart import NAMESPACE, VALUES, only, pod_of, pods, rendered, server_of
from support.serving import ServerProcess

SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))


@pytest.mark.parametrize("values", SETS)
def test_the_server_takes_its_arguments(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments and variables of the container are settings of the server, with the declared ports."""
    server = server_of(rendered(values))
    for variable in server["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    command, *flags = server["args"]
    settings = load_settings(flags)
    assert command == "run"
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert settings.address == (f"0.0.0.0:{ports['grpc']}",)
    assert settings.metrics_address == f"0.0.0.0:{ports['metrics']}"
    assert str(settings.models) == server["volumeMounts"][0]["mountPath"]
    monkeypatch.setenv("CONVVAE_SERVE_GRACE", "3")
    with pytest.raises(StartupError, match="CONVVAE_SERVE_GRACE"):
        load_settings(flags)


def test_numbers_and_lists_arrive_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large numbers, fractions, lists and truth values reach the server unchanged."""
    server = server_of(rendered("secure"))
    for variable in server["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    settings = load_settings(server["args"][1:])
    assert (settings.max_message_bytes, settings.access_log_sample) == (67108864, 0.01)
    assert settings.versions == ("latest:2", "tiny=all")
    assert settings.watch is False
    assert settings.drain_delay_s == 7.5


@pytest.mark.parametrize(
    ("values", "words", "grace"),
    [
        ("pvc", (), 43),
        ("secure", (), 83),
        ("pvc", ("--set", "settings.drain_delay_s=0"), 40),
        ("pvc", ("--set", "settings.grace_s=null"), 43),
    ],
)
def test_pods_are_killed_after_the_drain(values: str, words: tuple[str, ...], grace: int) -> None:
    """The grace of the pod is the sleep, the drain delay, the grace of the calls, and 10 s more."""
    assert pod_of(rendered(values, *words))["terminationGracePeriodSeconds"] == grace


def test_the_stop_waits_first_if_asked() -> None:
    """`preStopSleepSeconds` delays SIGTERM; without it there is no hook: the server itself serves on."""
    assert server_of(rendered("secure"))["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert "lifecycle" not in server_of(rendered("pvc"))


def test_kubernetes_asks_for_health_itself() -> None:
    """Without TLS probes need no program: start and life by `liveness`, readiness by the whole server."""
    server = server_of(rendered("pvc"))
    assert server["startupProbe"]["grpc"] == {"port": 50051, "service": LIVENESS}
    assert server["livenessProbe"]["grpc"] == {"port": 50051, "service": LIVENESS}
    assert server["readinessProbe"]["grpc"] == {"port": 50051}
    assert server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"] == 60


def convvae(words: list[str], target: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the chart here, at another target."""
    assert words[0] == "convvae"
    moved = [f"--target={target}" if word.startswith("--target=") else word for word in words[1:]]
    return subprocess.run(
        [sys.executable, "-m", "convvae", *moved], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.one_front
def test_commands_of_health_are_answered(tiny_server: ServerProcess) -> None:
    """The commands of probes and of `helm test` are ones of the client; here, without TLS, they succeed."""
    server = server_of(rendered("secure"))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        words = server[probe]["exec"]["command"]
        assert ("--service=liveness" in words) == (probe != "readinessProbe")
        assert "--tls-server-name=vae.example.com" in words
        (limit_s,) = [float(word.partition("=")[2]) for word in words if word.startswith("--timeout=")]
        assert limit_s < server[probe]["timeoutSeconds"]
        plain = [word for word in words if not word.startswith("--tls")]
        done = convvae(plain, tiny_server.target)
        assert (done.returncode, done.stderr) == (0, "")
        (ca,) = [word for word in words if word.startswith("--tls-ca=")]
        assert ca.rpartition("=")[2].startswith(server["volumeMounts"][1]["mountPath"])
    test = only(rendered("pvc"), "Pod")["spec"]["containers"][0]
    assert f"--target=r-convvae.{NAMESPACE}.svc:50051" in test["command"]
    assert convvae(test["command"], tiny_server.target).returncode == 0


@pytest.mark.parametrize("values", SETS)
def test_pods_have_no_privileges(values: str) -> None:
    """Every container is a numeric user, cannot write, and has no capability and no token."""
    for pod in pods(rendered(values)):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def models_of(values: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the volume of models and its mount in the server."""
    objects = rendered(values)
    (volume,) = [one for one in pod_of(objects)["volumes"] if one["name"] == "models"]
    mount = server_of(objects)["volumeMounts"][0]
    assert (mount["name"], mount["mountPath"], mount["readOnly"]) == ("models", "/models", True)
    return volume, mount


def test_models_come_from_a_claim() -> None:
    """The claim is mounted read-only, by the folder that is named."""
    volume, mount = models_of("pvc")
    assert volume["persistentVolumeClaim"] == {"claimName": "vae-models", "readOnly": True}
    assert mount["subPath"] == "published"


def test_models_come_from_an_image() -> None:
    """The image of models is a volume."""
    volume, mount = models_of("gpu")
    assert volume["image"] == {"reference": "registry.example.com/models:7", "pullPolicy": "IfNotPresent"}
    assert mount["subPath"] == "vae"


def test_models_come_from_a_bucket() -> None:
    """An init container copies into a volume of limited size, with the keys of the secret."""
    volume, mount = models_of("secure")
    (init,) = pod_of(rendered("secure"))["initContainers"]
    assert volume["emptyDir"] == {"sizeLimit": "2Gi"}
    assert "subPath" not in mount
    assert init["args"][-2:] == [":s3,provider=AWS,env_auth=true:bucket/models", "/models"]
    assert init["envFrom"] == [{"secretRef": {"name": "bucket-keys"}}]
    assert init["volumeMounts"] == [{"name": "models", "mountPath": "/models"}]


def test_secrets_are_whole_folders() -> None:
    """Certificates and tokens are mounted without a subPath, which would never follow the secret."""
    objects = rendered("secure")
    mounts = {mount["name"]: mount for mount in server_of(objects)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod_of(objects)["volumes"]}
    for name in ("tls", "tokens"):
        assert "subPath" not in mounts[name]
        assert volumes[name]["secret"] == {"secretName": f"vae-{name}", "defaultMode": 0o440}
    test = only(objects, "Pod")["spec"]
    assert [item["key"] for item in test["volumes"][0]["secret"]["items"]] == ["ca.crt"]


@pytest.mark.parametrize("values", SETS)
def test_selectors_find_the_pods_of_the_server_alone(values: str) -> None:
    """Services, budget, policy and spread select the Deployment's pods, and not that of `helm test`."""
    objects = rendered(values)
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    others = only(objects, "Pod")["metadata"]["labels"]
    selectors = [one["spec"]["selector"] for (kind, _), one in objects.items() if kind == "Service"]
    selectors += [
        only(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    selectors += [one["labelSelector"]["matchLabels"] for one in pod_of(objects)["topologySpreadConstraints"]]
    assert len(selectors) >= 6
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= others.items()


def test_services_are_for_proxies_and_for_clients() -> None:
    """One service has an address, the other all pods; HTTP/2 without TLS is named where it is true."""
    plain, secure = rendered("gpu"), rendered("secure")
    assert plain["Service", "vae-headless"]["spec"]["clusterIP"] == "None"
    assert plain["Service", "vae"]["spec"]["type"] == "ClusterIP"
    for name in ("vae", "vae-headless"):
        assert plain["Service", name]["spec"]["ports"][0]["appProtocol"] == "kubernetes.io/h2c"
    assert "appProtocol" not in secure["Service", "r-convvae"]["spec"]["ports"][0]


def test_a_monitor_reads_each_pod_once() -> None:
    """The ServiceMonitor selects the headless service alone, and its port of metrics."""
    objects = rendered("secure")
    spec = only(objects, "ServiceMonitor")["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    chosen = [
        one
        for (kind, _), one in objects.items()
        if kind == "Service" and wanted <= one["metadata"]["labels"].items()
    ]
    assert [one["metadata"]["name"] for one in chosen] == ["r-convvae-headless"]
    assert spec["endpoints"][0]["port"] in [port["name"] for port in chosen[0]["spec"]["ports"]]


def test_networks_are_closed() -> None:
    """Only clients reach gRPC, with the pod of `helm test`; pods call nobody, unless a bucket needs it."""
    plain, secure = only(rendered("pvc"), "NetworkPolicy")["spec"], rendered("secure")
    assert plain["policyTypes"] == ["Ingress", "Egress"]
    assert plain["egress"] == []
    assert plain["ingress"][0] == {"from": [{"podSelector": {}}], "ports": [{"port": "grpc"}]}
    policy = only(secure, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    clients, test = policy["ingress"][0]["from"]
    assert clients == {"namespaceSelector": {"matchLabels": {"team": "search"}}}
    labels = only(secure, "Pod")["metadata"]["labels"]
    assert test["podSelector"]["matchLabels"].items() <= labels.items()


def test_gpus_are_asked_for() -> None:
    """A pod with GPUs has the resource, the tolerance and the image of GPUs, and refuses to run without."""
    objects = rendered("gpu")
    server, pod = server_of(objects), pod_of(objects)
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert server["resources"]["limits"]["memory"] == "2Gi"
    assert "--device=cuda" in server["args"]
    assert server["image"].endswith(":gpu")
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert [one["whenUnsatisfiable"] for one in pod["topologySpreadConstraints"]] == ["DoNotSchedule"]
    assert server_of(rendered("pvc"))["image"].endswith(":cpu")


def test_names_are_those_of_services() -> None:
    """A dot in a name, and a name that is too long, still give services that Kubernetes takes."""
    for full in ("vae.v2", "v" * 60):
        objects = rendered("pvc", "--set", f"fullnameOverride={full}")
        names = [name for kind, name in objects if kind == "Service"]
        assert len(names) == 2
        assert all(len(name) <= 63 and "." not in name for name in names)
