"""The end of an installation: the resources, then the chart."""

import pytest
from e2e.installation import Installation
from e2e.world import READY, kubectl, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


def test_an_uninstall_leaves_what_keep_says_and_nothing_else(postroom: Installation) -> None:
    """Resources first, while the operator can finalize them; the CRDs, the key namespace and the volume with accepted mail stay."""
    for kind in ("maildomains", "sendingpools"):
        kubectl("-n", postroom.namespace, "delete", kind, "--all", f"--timeout={READY:.0f}s")
    postroom.helm("uninstall", "postroom", "--wait")
    kinds = "deployments,statefulsets,services,secrets,roles,rolebindings,serviceaccounts,networkpolicies,poddisruptionbudgets,leases"

    def left() -> set[str]:
        named = kubectl("-n", postroom.namespace, "get", kinds, "-o", "name").split()
        return {name for name in named if "postroom" in name or "delivery" in name or "directory" in name}

    until("nothing of the installation is left", lambda: left() <= LEFT, READY)
    assert kubectl("get", "namespace", postroom.keys, "-o", "name").strip() == f"namespace/{postroom.keys}"
    assert "maildomains.mail.postroom.dev" in kubectl("get", "crds", "-o", "name")
    assert kubectl("-n", postroom.namespace, "get", "persistentvolumeclaims", "-o", "name").split() == ["persistentvolumeclaim/spool-main-delivery-0"]
    orphans = kubectl("get", "clusterroles,clusterrolebindings", "-o", "name").split()
    assert [name for name in orphans if postroom.namespace in name] == []


# Made by the operator for the installation itself; docs/kubernetes/install.md says how to remove them.
SERVICES = ("operator", "ingress", "signer", "delivery", "cli")
LEFT = {f"secret/postroom-{service}-tls" for service in SERVICES} | {"secret/certificate-default", "lease.coordination.k8s.io/postroom-operator"}
