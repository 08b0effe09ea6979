"""One SendingPool → the document that delivery reads. Pure; the same on one machine and in a cluster."""

from dataclasses import dataclass
from typing import Any

from postroom_core.documents import DestinationLimit, Pool, PoolLimits, Rates, ReplyRule, Reputation, Retry, Route, SmartHost, Thresholds, TlsRule
from postroom_core.replyrule import Action, Class, compile_pattern
from postroom_operator.plan import durations, limits
from postroom_operator.plan.findings import Lookup, Problem
from postroom_operator.resources import Resource


@dataclass(frozen=True, slots=True)
class CompiledPool:
    """With problems the document lacks what they concern."""

    document: Pool
    problems: tuple[Problem, ...]


def pool_name(resource: Resource) -> str:
    """namespace/name, unique over the platform."""
    return f"{resource.namespace}/{resource.name}"


def compile_pool(resource: Resource, secret: Lookup) -> CompiledPool:
    """`secret` finds the Secrets of smart hosts."""
    problems: list[Problem] = []
    spec = resource.spec
    routes = [_route(resource.namespace, index, route, secret, problems) for index, route in enumerate(spec.get("routes", []))]
    signals = {ours: _thresholds(spec["reputation"], theirs, problems) for ours, theirs in _SIGNALS.items()}
    document = Pool(
        name=pool_name(resource),
        retry=_retry(spec["retry"], problems),
        limits=PoolLimits(max_connections=spec.get("limits", {}).get("maxConnections"), **_rates(spec.get("limits", {}))),
        tenant_rates=Rates(**_rates(spec.get("tenantRates", {}))),
        destination_limits=tuple(_limit(entry) for entry in spec.get("destinationLimits", [])),
        routes=tuple(route for route in routes if route is not None),
        tls_rules=tuple(_tls_rule(rule) for rule in spec.get("tls", [])),
        reputation=Reputation(
            enforcement=spec["reputation"]["enforcement"],
            minimum_recipients=spec["reputation"]["minimumRecipients"],
            pause_hours=spec["reputation"]["pauseHours"],
            slow_messages_per_hour=spec["reputation"]["slowMessagesPerHour"],
            **signals,
        ),
        tenant_limits=limits.compile_limits(spec.get("tenantLimits", {}), ("tenantLimits",), problems),
        reply_rules=tuple(_reply_rule(index, rule, problems) for index, rule in enumerate(spec.get("replyRules", []))),
    )
    return CompiledPool(document, tuple(problems))


def _retry(retry: dict[str, Any], problems: list[Problem]) -> Retry:
    backoff = retry["backoff"]
    times = Retry(
        max_age=durations.seconds(retry["maxAge"]),
        initial=durations.seconds(backoff["initial"]),
        maximum=durations.seconds(backoff["max"]),
        delay_notice=durations.seconds(retry["delayNotice"]) if "delayNotice" in retry else None,
    )
    if times.initial < 1 or times.maximum < times.initial:
        problems.append(Problem(("retry", "backoff"), "initial must be at least 1s and not longer than max"))
    return times


def _reply_rule(index: int, rule: dict[str, Any], problems: list[Problem]) -> ReplyRule:
    path = ("replyRules", index)
    if not rule.keys() & {"code", "enhancedCode", "pattern"}:
        problems.append(Problem(path, "one of code, enhancedCode and pattern is required"))
    try:
        compile_pattern(rule.get("pattern", ""))
    except ValueError as error:
        problems.append(Problem((*path, "pattern"), str(error)))
    return ReplyRule(
        name=rule["name"],
        code=rule.get("code", ""),
        enhanced_code=rule.get("enhancedCode", ""),
        pattern=rule.get("pattern", ""),
        classification=Class(rule["class"]),
        action=Action(rule["action"]) if "action" in rule else None,
    )


_SIGNALS = {"hard_bounces": "hardBouncePercent", "complaints": "complaintPercent", "spam": "spamPercent", "volume": "volumeTimes"}


def _thresholds(given: dict[str, Any], name: str, problems: list[Problem]) -> Thresholds:
    found = Thresholds(**given[name])
    values = [value for value in (found.alert, found.slow, found.pause) if value is not None]
    if values != sorted(values):
        problems.append(Problem(("reputation", name), "alert must not exceed slow, nor slow pause"))
    return found


def _limit(limit: dict[str, Any]) -> DestinationLimit:
    return DestinationLimit(
        name=limit["name"],
        match=tuple(match.lower() for match in limit["match"]),
        max_connections=limit["maxConnections"],
        messages_per_connection=limit["messagesPerConnection"],
        **_rates(limit),
    )


def _tls_rule(rule: dict[str, Any]) -> TlsRule:
    return TlsRule(name=rule["name"], match=tuple(match.lower() for match in rule["match"]), policy=rule["policy"])


def _rates(limit: dict[str, Any]) -> dict[str, int | None]:
    fields = {"messages_per_second": "messagesPerSecond", "messages_per_hour": "messagesPerHour", "messages_per_day": "messagesPerDay"}
    return {ours: limit.get(theirs) for ours, theirs in fields.items()}


def _route(namespace: str, index: int, route: dict[str, Any], lookup: Lookup, problems: list[Problem]) -> Route | None:
    smart = route["smartHost"]
    username = password = None
    if reference := smart.get("credentialsRef"):
        secret = lookup((namespace, reference["name"]))
        if secret is None or not {"username", "password"} <= secret.data.keys():
            path = ("routes", index, "smartHost", "credentialsRef")
            problems.append(Problem(path, f"no Secret {reference['name']} with username and password"))
            return None
        username, password = secret.data["username"], secret.data["password"]
    host = SmartHost(host=smart["host"], port=smart["port"], tls=smart["tls"], username=username, password=password)
    return Route(name=route["name"], match=tuple(match.lower() for match in route["match"]), smart_host=host)
