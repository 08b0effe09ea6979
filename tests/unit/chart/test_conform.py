"""The rendered chart against Kubernetes' own schemas of three versions, by kubeconform: a field that a version does not know is an error.

kubeconform and Go are needed; the schemas are made from the Go module k8s.io/kubernetes where Go already has it (scripts/kube_schemas.py), and
nothing is downloaded here. `make kubeconform` fetches both.
"""

import pathlib
import shutil
import subprocess

import pytest

from architecture.tree import ROOT
from unit.chart.test_chart import CHART, HELM, PLACES

KUBECONFORM = shutil.which("kubeconform", path=PLACES)
# The oldest that the chart is for, one between, the one of the end-to-end tests.
VERSIONS = ("1.30.14", "1.32.13", "1.34.4")
EVERYTHING = [
    "page.pools={main,tenant/bulk}",
    "ingress.ports.relay=25",
    "ingress.ports.http=443",
    "ingress.autoscaling.enabled=true",
    "signer.autoscaling.enabled=true",
    "ingress.tokens.issuer=https://issuer.example",
    "ingress.service.type=LoadBalancer",
    "credentialNamespaces={tenant}",
    "networkPolicy.submitFrom[0].podSelector.matchLabels.a=b",
    "monitoring.dashboard.enabled=true",
    "image.pullSecrets={registry}",
    "page.accessFrom[0].podSelector.matchLabels.a=b",
]
pytestmark = pytest.mark.skipif(HELM is None or KUBECONFORM is None or shutil.which("go") is None, reason="helm, kubeconform or go is not installed")


@pytest.fixture(scope="module", params=VERSIONS)
def schemas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a version's schemas."""
    version: str = request.param
    known = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    if not (pathlib.Path(known) / "k8s.io" / f"kubernetes@v{version}").is_dir():
        pytest.skip(f"Go has no k8s.io/kubernetes@v{version}: go mod download k8s.io/kubernetes@v{version}")
    folder = tmp_path_factory.mktemp("schemas")
    subprocess.run(["python3", str(ROOT / "scripts" / "kube_schemas.py"), str(folder), version], check=True, capture_output=True, timeout=120)
    return folder / f"v{version}"


def judged(schemas: pathlib.Path, manifests: str) -> subprocess.CompletedProcess[str]:
    assert KUBECONFORM is not None
    where = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [KUBECONFORM, "-strict", "-summary", "-schema-location", where, "-kubernetes-version", schemas.name.removeprefix("v"), "-"]
    return subprocess.run(command, input=manifests, capture_output=True, text=True, timeout=60)


def rendered(version: str, *options: str) -> str:
    assert HELM is not None
    command = [HELM, "template", "postroom", str(CHART), "--namespace", "mail", "--kube-version", version]
    command += [part for option in options for part in ("--set", option)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("options", [(), tuple(EVERYTHING)], ids=["defaults", "everything"])
def test_every_field_is_one_that_kubernetes_knows(schemas: pathlib.Path, options: tuple[str, ...]) -> None:
    done = judged(schemas, rendered(schemas.name.removeprefix("v"), *options))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout


def test_a_misspelt_field_is_found(schemas: pathlib.Path) -> None:
    manifests = rendered(schemas.name.removeprefix("v"))
    assert "revisionHistoryLimit" in manifests
    done = judged(schemas, manifests.replace("revisionHistoryLimit", "revisionHistoryLimits"))
    assert done.returncode == 1 and "revisionHistoryLimits" in done.stdout
