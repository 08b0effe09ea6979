"""The chart as Helm renders it: what pods may do, who may read Secrets, which values are refused. Needs the command helm."""

import functools
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from postroom_cli import clusterpage, clustertest
from postroom_ingress.settings import Settings as IngressSettings
from postroom_operator.plan import keys
from postroom_operator.plan.names import workload
from postroom_signer.settings import Settings as SignerSettings

from architecture.tree import ROOT

CHART = ROOT / "charts" / "postroom"
_HOME = pathlib.Path.home()
PLACES = os.pathsep.join([os.environ.get("PATH", ""), str(_HOME / ".cache" / "cluster" / "bin"), str(_HOME / "go" / "bin")])
HELM = os.environ.get("POSTROOM_TEST_HELM") or shutil.which("helm", path=PLACES)  # another major version by the variable
needs_helm = pytest.mark.skipif(HELM is None, reason="the command helm is not installed")
VERSIONS = ["1.30.0", "1.32.0", "1.34.0"]
Object = dict[str, Any]


@functools.cache
def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=30)


def rendered(*options: str, version: str = "1.34.0") -> list[Object]:
    done = helm("template", "postroom", str(CHART), "--namespace", "mail", "--kube-version", version, *options)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def refused(*options: str) -> str:
    done = helm("template", "postroom", str(CHART), "--namespace", "mail", "--kube-version", "1.34.0", *options)
    assert done.returncode != 0
    return done.stderr


def of(objects: list[Object], *kinds: str) -> list[Object]:
    return [found for found in objects if found["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(found for found in of(objects, kind) if found["metadata"]["name"] == name)


def environment(deployment: Object) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}


@needs_helm
@pytest.mark.parametrize("version", VERSIONS)
def test_it_renders_without_any_prerequisite(version: str) -> None:
    objects = rendered(version=version)
    assert {found["metadata"]["name"] for found in of(objects, "Deployment")} == {"postroom-operator", "postroom-ingress", "postroom-signer"}
    assert not [found for found in objects if found["apiVersion"].startswith(("monitoring.coreos.com", "cert-manager.io", "keda.sh"))]
    keys = [(found["kind"], found["metadata"].get("namespace"), found["metadata"]["name"]) for found in objects]
    assert len(keys) == len(set(keys))


@needs_helm
def test_every_pod_meets_the_restricted_standard() -> None:
    objects = rendered("--set", "page.pools={main}")
    pods = [found["spec"]["template"]["spec"] for found in of(objects, "Deployment")] + [found["spec"] for found in of(objects, "Pod")]
    assert len(pods) == 5
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            assert container["resources"]["limits"]["memory"]
            assert min(port["containerPort"] for port in container["ports"]) >= 1024


@needs_helm
def test_secrets_are_readable_by_role_in_named_namespaces_only() -> None:
    objects = rendered("--set", "credentialNamespaces={tenant-a}")
    for role in of(objects, "ClusterRole"):
        rules = [rule for rule in role["rules"] if "secrets" in rule["resources"] or "*" in (*rule["resources"], *rule["verbs"], *rule["apiGroups"])]
        assert rules == [], role["metadata"]["name"]
    readers = {
        (role["metadata"]["namespace"], role["metadata"]["name"])
        for role in of(objects, "Role")
        for rule in role["rules"]
        if "secrets" in rule["resources"]
    }
    assert readers == {
        ("mail", "postroom-operator"),
        ("mail", "postroom-ingress"),
        ("mail", "postroom-delivery"),
        ("mail-keys", "postroom-operator-secrets"),
        ("mail-keys", "postroom-signer"),
        ("tenant-a", "postroom-operator-secrets"),
    }


@needs_helm
def test_every_binding_names_a_role_and_an_account_that_are_there() -> None:
    objects = rendered("--set", "credentialNamespaces={tenant-a},page.pools={main}")
    roles = {(found["kind"], found["metadata"].get("namespace"), found["metadata"]["name"]) for found in of(objects, "Role", "ClusterRole")}
    accounts = {(found["metadata"]["namespace"], found["metadata"]["name"]) for found in of(objects, "ServiceAccount")}
    bindings = of(objects, "RoleBinding", "ClusterRoleBinding")
    assert bindings
    for binding in bindings:
        reference = binding["roleRef"]
        assert (reference["kind"], binding["metadata"].get("namespace"), reference["name"]) in roles
        assert all((subject["namespace"], subject["name"]) in accounts for subject in binding["subjects"])


@needs_helm
def test_replicas_are_left_to_the_autoscaler_where_there_is_one() -> None:
    assert all("replicas" in deployment["spec"] for deployment in of(rendered(), "Deployment"))
    scaled = rendered("--set", "ingress.autoscaling.enabled=true,signer.autoscaling.enabled=true")
    targets = {found["spec"]["scaleTargetRef"]["name"] for found in of(scaled, "HorizontalPodAutoscaler")}
    assert targets == {"postroom-ingress", "postroom-signer"}
    assert {found["metadata"]["name"] for found in of(scaled, "Deployment") if "replicas" in found["spec"]} == {"postroom-operator"}


@needs_helm
@pytest.mark.parametrize(
    ("deployment", "known"),
    [("postroom-ingress", IngressSettings), ("postroom-signer", SignerSettings)],
)
def test_pods_get_settings_that_their_service_knows(deployment: str, known: type[IngressSettings] | type[SignerSettings]) -> None:
    names = environment(named(rendered("--set", "hostname=mta.example.com,ingress.ports.relay=25"), "Deployment", deployment))
    assert {name.removeprefix("POSTROOM_").lower() for name in names} <= set(known.model_fields)
    known(**{name.removeprefix("POSTROOM_").lower(): value for name, value in names.items()})  # type: ignore[arg-type]


@needs_helm
def test_the_page_and_the_test_get_settings_that_they_know() -> None:
    objects = rendered("--set", "page.pools={main},egressAddresses={192.0.2.1},hostname=mta.example.com,resolvers={10.0.0.1:53},watchNamespaces={a}")
    page = environment(named(objects, "Deployment", "postroom-web-main"))
    known = clusterpage.Settings(**{name.removeprefix("POSTROOM_").lower(): value for name, value in page.items()})  # type: ignore[arg-type]
    assert {name.removeprefix("POSTROOM_").lower() for name in page} <= set(clusterpage.Settings.model_fields)
    assert (known.page_pool, known.delivery_target) == ("main-delivery", "dns:///main-delivery.mail.svc.cluster.local:7443")
    (pod,) = of(objects, "Pod")
    names = {entry["name"].removeprefix("POSTROOM_").lower() for entry in pod["spec"]["containers"][0]["env"]}
    assert names == set(clustertest.Settings.model_fields)


@needs_helm
def test_a_page_for_each_pool_is_named_as_the_operator_names_its_workload() -> None:
    objects = rendered("--set", "page.pools={main,tenant/bulk,mail/other}")
    names = {
        found["metadata"]["name"]: environment(found)["POSTROOM_PAGE_POOL"]
        for found in of(objects, "Deployment")
        if "-web-" in found["metadata"]["name"]
    }
    assert names == {
        "postroom-web-main": workload("mail", "main", "mail"),
        "postroom-web-tenant-bulk": workload("tenant", "bulk", "mail"),
        "postroom-web-other": workload("mail", "other", "mail"),
    }
    for name, pool in names.items():
        selector = named(objects, "Service", name)["spec"]["selector"]
        pods = [found["spec"]["template"]["metadata"]["labels"] for found in of(objects, "Deployment")]
        assert [labels["mail.postroom.dev/pool"] for labels in pods if selector.items() <= labels.items()] == [pool]
    assert "longer than 63" in refused("--set", f"page.pools={{{'t' * 50}/{'p' * 20}}}")


@needs_helm
def test_the_page_reads_mail_domains_and_nothing_else_and_nobody_reaches_it_unasked() -> None:
    objects = rendered("--set", "page.pools={main}")
    assert named(objects, "ClusterRole", "postroom-web-mail")["rules"] == [
        {"apiGroups": ["mail.postroom.dev"], "resources": ["maildomains"], "verbs": ["list"]}
    ]
    assert not [found for found in of(objects, "Role") if "web" in found["metadata"]["name"]]
    assert named(objects, "NetworkPolicy", "postroom-web")["spec"]["ingress"] == []
    opened = rendered("--set", "page.pools={main},page.accessFrom[0].podSelector.matchLabels.app=proxy")
    (rule,) = named(opened, "NetworkPolicy", "postroom-web")["spec"]["ingress"]
    assert rule == {"from": [{"podSelector": {"matchLabels": {"app": "proxy"}}}], "ports": [{"port": 2580}]}


@needs_helm
def test_the_operator_makes_the_pages_tokens_unless_they_are_brought_along() -> None:
    def token_secret(*options: str) -> tuple[str | None, list[str]]:
        objects = rendered(*options)
        pages = [found for found in of(objects, "Deployment") if "-web-" in found["metadata"]["name"]]
        mounted = [
            volume["secret"]["secretName"] for page in pages for volume in page["spec"]["template"]["spec"]["volumes"] if volume["name"] == "tokens"
        ]
        return environment(named(objects, "Deployment", "postroom-operator")).get("POSTROOM_PAGE_TOKEN_SECRET"), mounted

    assert token_secret() == (None, [])
    assert token_secret("--set", "page.pools={main}") == ("postroom-web-tokens", ["postroom-web-tokens"])
    assert token_secret("--set", "page.pools={main},page.tokenSecret=mine") == (None, ["mine"])


@needs_helm
def test_tokens_of_service_accounts_are_a_value() -> None:
    assert not [name for name in environment(named(rendered(), "Deployment", "postroom-ingress")) if "TOKEN" in name]
    issuer = "ingress.tokens.issuer=https://kubernetes.default.svc.cluster.local"
    found = environment(named(rendered("--set", issuer), "Deployment", "postroom-ingress"))
    assert {name: value for name, value in found.items() if "TOKEN" in name} == {
        "POSTROOM_TOKEN_ISSUER": "https://kubernetes.default.svc.cluster.local",
        "POSTROOM_TOKEN_AUDIENCE": "postroom",
        "POSTROOM_TOKEN_CA_FILE": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        "POSTROOM_TOKEN_BEARER_FILE": "/var/run/secrets/kubernetes.io/serviceaccount/token",
    }
    other = environment(
        named(
            rendered("--set", f"{issuer},ingress.tokens.inCluster=false,ingress.tokens.keys=https://keys.example"), "Deployment", "postroom-ingress"
        )
    )
    assert other["POSTROOM_TOKEN_KEYS"] == "https://keys.example"
    assert "POSTROOM_TOKEN_BEARER_FILE" not in other  # the pod's token is for nobody but the API server
    assert "pattern" in refused("--set", "ingress.tokens.issuer=http://clear.example")


@needs_helm
def test_submission_by_http_has_a_port_at_the_service_with_tls() -> None:
    objects = rendered("--set", "ingress.ports.http=443")
    deployment = named(objects, "Deployment", "postroom-ingress")
    assert environment(deployment)["POSTROOM_LISTEN_HTTP"] == "0.0.0.0:2443"
    ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert {port["name"]: port["containerPort"] for port in ports} == {"submission": 2587, "tls": 2465, "https": 2443, "http": 2580}
    assert {"name": "https", "port": 443, "targetPort": "https"} in named(objects, "Service", "postroom-ingress")["spec"]["ports"]
    alone = rendered("--set", "ingress.ports.submission=0,ingress.ports.tls=0,ingress.ports.http=443")
    assert [port["name"] for port in named(alone, "Service", "postroom-ingress")["spec"]["ports"]] == ["https"]
    assert of(alone, "Pod") == []  # helm test submits by SMTP


@needs_helm
def test_helm_test_makes_its_own_credential_and_key_each_time_and_may_touch_only_its_own_resources() -> None:
    objects = rendered()
    hooks = [found for found in objects if found["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
    assert {found["kind"] for found in hooks} == {"Secret", "ServiceAccount", "Role", "RoleBinding", "Pod"}
    assert all("before-hook-creation" in found["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for found in hooks)
    assert {found["metadata"]["name"] for found in of(objects, "Secret")} == {"helm-test-credential", "helm-test-key"}
    assert all(found in hooks for found in of(objects, "Secret"))  # no secret is in the release itself
    role = named(objects, "Role", "postroom-test")
    assert [rule.get("resourceNames") for rule in role["rules"] if rule["verbs"] != ["create"]] == [["helm-test"], ["spool-helm-test-delivery-0"]]
    key = named(objects, "Secret", "helm-test-key")["stringData"]["tls.key"]
    assert keys.describe(key)[0] == "RSA2048"
    assert of(rendered("--set", "test.enabled=false"), "Pod", "Secret") == []


@needs_helm
def test_services_and_policies_select_pods_that_are_there() -> None:
    objects = rendered("--set", "ingress.ports.relay=25")
    pods = [found["spec"]["template"] for found in of(objects, "Deployment")]
    selectors = [(found, found["spec"]["selector"]) for found in of(objects, "Service")]
    selectors += [(found, found["spec"]["selector"]["matchLabels"]) for found in of(objects, "PodDisruptionBudget")]
    selectors += [(found, found["spec"]["podSelector"]["matchLabels"]) for found in of(objects, "NetworkPolicy")]
    assert len(selectors) == 2 + 3 + 3
    for found, selector in selectors:
        matching = [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items()]
        assert len(matching) == 1, found["metadata"]["name"]
        ports = {port["name"] for port in matching[0]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in found["spec"].get("ports", [])} <= ports


@needs_helm
def test_the_clients_address_is_kept_by_default() -> None:
    service = named(rendered("--set", "ingress.service.type=LoadBalancer"), "Service", "postroom-ingress")
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    assert [port["port"] for port in service["spec"]["ports"]] == [587, 465]


@needs_helm
def test_proxy_headers_count_from_named_networks_only() -> None:
    proxy = "ingress.proxyProtocol.listeners={submission}"
    refused("--set", proxy)
    names = environment(named(rendered("--set", proxy + ",ingress.proxyProtocol.networks={10.0.0.0/8}"), "Deployment", "postroom-ingress"))
    assert (names["POSTROOM_PROXY_LISTENERS"], names["POSTROOM_PROXY_NETWORKS"]) == ("submission", "10.0.0.0/8")


@needs_helm
def test_a_listener_that_is_off_is_nowhere() -> None:
    objects = rendered("--set", "ingress.ports.tls=0")
    assert "POSTROOM_LISTEN_TLS" not in environment(named(objects, "Deployment", "postroom-ingress"))
    assert [port["port"] for port in named(objects, "Service", "postroom-ingress")["spec"]["ports"]] == [587]


@needs_helm
@pytest.mark.parametrize(
    "option",
    ["hots=1", "ingress.port.submission=1", "ingress.service.externalTrafficPolicy=local", "signer.env.HOSTNAME=x", "image.digests.signer=latest"],
)
def test_values_that_nobody_reads_are_refused(option: str) -> None:
    assert re.search("not allowed|must be one of|does not match|'enum'|pattern", refused("--set", option))


@needs_helm
def test_images_come_from_the_registry_by_tag_or_digest() -> None:
    digest = f"sha256:{'a' * 64}"
    objects = rendered("--set", f"image.registry=registry.example.com/mail,image.digests.signer={digest}")
    images = {found["metadata"]["name"]: found["spec"]["template"]["spec"]["containers"][0]["image"] for found in of(objects, "Deployment")}
    assert images["postroom-signer"] == f"registry.example.com/mail/postroom-signer@{digest}"
    assert images["postroom-ingress"] == "registry.example.com/mail/postroom-ingress:0.1.0"


@needs_helm
def test_monitoring_is_rendered_where_it_is_served_and_wanted() -> None:
    wanted = ["--set", "monitoring.podMonitor.enabled=true,monitoring.rules.enabled=true,monitoring.dashboard.enabled=true"]
    assert {found["kind"] for found in rendered(*wanted)} & {"PodMonitor", "PrometheusRule"} == set()
    objects = rendered(*wanted, "--api-versions", "monitoring.coreos.com/v1")
    rules = of(objects, "PrometheusRule")[0]["spec"]["groups"][0]["rules"]
    assert len(rules) >= 5 and all(rule["annotations"]["summary"] for rule in rules)
    assert of(objects, "PodMonitor")
    assert json.loads(of(objects, "ConfigMap")[0]["data"]["postroom.json"])["panels"]


def made_metrics() -> set[str]:
    sources = [path.read_text() for folder in ("services", "operator") for path in (ROOT / folder).rglob("*.py")]
    return {name for source in sources for name in re.findall(r"(?:Counter|Gauge|Histogram)\(\s*\"(postroom_[a-z_]+)\"", source)}


def test_alerts_and_panels_read_metrics_that_the_services_have() -> None:
    text = (CHART / "templates" / "rules.yaml").read_text() + (CHART / "files" / "dashboard.json").read_text()
    read = {re.sub("_(total|bucket)$", "", name) for name in re.findall(r"\b(postroom_(?:ingress|delivery|signer|directory|grpc)_[a-z_]+)", text)}
    assert len(read) >= 8
    assert read - made_metrics() == set()


@needs_helm
def test_crds_are_kept_unless_told_otherwise() -> None:
    def annotations(*options: str) -> list[object]:
        return [found["metadata"].get("annotations") for found in of(rendered(*options), "CustomResourceDefinition")]

    assert annotations() == [{"helm.sh/resource-policy": "keep"}] * 2
    assert annotations("--set", "crds.keep=false") == [None] * 2
    assert annotations("--set", "crds.enabled=false") == []


@needs_helm
def test_rendered_crds_are_those_of_the_source() -> None:
    found = {crd["metadata"]["name"]: crd["spec"] for crd in of(rendered(), "CustomResourceDefinition")}
    source = {crd["metadata"]["name"]: crd["spec"] for crd in (yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml"))}
    assert found == source


def test_the_charts_crds_are_what_the_script_writes() -> None:
    specification = importlib.util.spec_from_file_location("chart_crds", ROOT / "scripts" / "chart_crds.py")
    assert specification is not None and specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    committed = {path.name: path.read_text() for path in (CHART / "templates").glob("crd-*.yaml")}
    assert committed == script.templates(), "run `python scripts/chart_crds.py`"
