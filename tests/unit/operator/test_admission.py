"""Who may use a domain name and a pool."""

from typing import Any

import pytest

from postroom_operator.plan.admission import decide, first_claim


def mail_domain(name: str, namespace: str = "tenant", created: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"domainName": "a.example", "poolRef": {"name": "main", "namespace": "mail"}}}


def sending_pool(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "main", "namespace": "mail"}, "spec": spec}


def admits(**namespaces: Any) -> dict[str, Any]:
    return sending_pool(domains={"namespaces": namespaces})


def test_the_oldest_claim_has_the_domain_and_equal_ages_are_told_apart_by_uid() -> None:
    old, young = mail_domain("b"), mail_domain("a", created="2026-01-02T00:00:00Z")
    assert first_claim([young, old]) is old
    assert first_claim([mail_domain("z"), mail_domain("c")])["metadata"]["name"] == "c"
    refused = decide(young, [old], admits(**{"from": "All"}), [], {})
    assert (refused.status, refused.reason) == ("False", "DomainConflict")
    assert "tenant" not in refused.message  # tenants do not see each other
    assert decide(old, [young], admits(**{"from": "All"}), [], {}).status == "True"


@pytest.mark.parametrize(
    ("pool", "labels", "reason"),
    [
        (None, {}, "PoolNotFound"),
        (sending_pool(), {}, "NotAllowedByPool"),
        (admits(**{"from": "Same"}), {}, "NotAllowedByPool"),
        (admits(**{"from": "All"}), {}, "Accepted"),
        (admits(**{"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}), {"a": "b", "c": "d"}, "Accepted"),
        (admits(**{"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}), {"a": "x"}, "NotAllowedByPool"),
        (admits(**{"from": "Selector"}), {}, "NotAllowedByPool"),
    ],
)
def test_the_pool_says_who_may_use_it(pool: dict[str, Any] | None, labels: dict[str, str], reason: str) -> None:
    assert decide(mail_domain("a"), [], pool, [], labels).reason == reason


def test_the_pools_own_namespace_is_always_admitted() -> None:
    assert decide(mail_domain("a", "mail"), [], sending_pool(), [], {}).status == "True"


@pytest.mark.parametrize(("tenants", "reason"), [([], "Accepted"), (["tenant"], "Accepted"), (["other", "tenant"], "NotAllowedByPool")])
def test_a_dedicated_pool_admits_the_first_tenant_alone(tenants: list[str], reason: str) -> None:
    pool = {**admits(**{"from": "All"})}
    pool["spec"]["sharing"] = "Dedicated"
    assert decide(mail_domain("a"), [], pool, tenants, {}).reason == reason
