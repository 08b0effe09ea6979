"""Which MailDomains are accepted: the first to claim a domain, and only those that the pool admits. Pure."""

from collections.abc import Mapping, Sequence

from postroom_operator.plan.conditions import Condition
from postroom_operator.plan.names import Object


def first_claim(domains: Sequence[Object]) -> Object:
    """Of MailDomains with one domainName, the one that has it: the oldest."""
    return min(domains, key=lambda found: (found["metadata"]["creationTimestamp"], found["metadata"]["uid"]))


def decide(domain: Object, rivals: Sequence[Object], pool: Object | None, tenants: Sequence[str], labels: Mapping[str, str]) -> Condition:
    """The condition Accepted.

    `rivals` are all MailDomains of this domainName, `tenants` the namespaces that already use the pool, oldest first, `labels` those of the
    MailDomain's namespace.
    """
    first = first_claim([domain, *rivals])
    if first["metadata"]["uid"] != domain["metadata"]["uid"]:
        name = domain["spec"]["domainName"]
        # Whose it is stays untold: tenants do not see each other.
        return Condition("Accepted", "False", "DomainConflict", f"{name} is already the domain of an older MailDomain; delete that one or this one")
    reference = domain["spec"]["poolRef"]
    namespace = domain["metadata"]["namespace"]
    where = f"{reference.get('namespace', namespace)}/{reference['name']}"
    if pool is None:
        return Condition("Accepted", "False", "PoolNotFound", f"there is no SendingPool {where}")
    if not _admits(pool, namespace, labels):
        return Condition("Accepted", "False", "NotAllowedByPool", f"spec.domains of SendingPool {where} does not admit the namespace {namespace}")
    if pool["spec"].get("sharing") == "Dedicated" and tenants and tenants[0] != namespace:
        return Condition("Accepted", "False", "NotAllowedByPool", f"SendingPool {where} is dedicated to another tenant")
    return Condition("Accepted", "True", "Accepted")


def _admits(pool: Object, namespace: str, labels: Mapping[str, str]) -> bool:
    if pool["metadata"]["namespace"] == namespace:
        return True
    rule = pool["spec"].get("domains", {}).get("namespaces", {})
    match rule.get("from", "Same"):
        case "All":
            return True
        case "Selector":
            wanted = rule.get("selector", {}).get("matchLabels", {})
            return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())
        case _:
            return False
