"""An installation of the chart in a namespace of its own, as the end-to-end tests use it, and what they do with it."""

import base64
import collections
import contextlib
import pathlib
import secrets
import smtplib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from e2e.world import (
    MX_PORT,
    NAMESERVER,
    READY,
    ROOT,
    WORLD,
    Bind,
    Mailbox,
    Object,
    apply,
    get,
    items,
    kubectl,
    message,
    run,
    service_address,
    session,
    until,
)

DOMAIN, ABROAD = "d.test", "x.test"
GROUP = "mail.postroom.dev/v1alpha1"
VALUES = {
    "image.registry": "localhost",
    "image.tag": "e2e",
    "hostname": f"mta.{DOMAIN}",
    "resolvers[0]": f"{NAMESERVER}:53",
    # Days of caution would make a test of days: the gate itself stays.
    "operator.env.POSTROOM_DNS_SETTLE_SECONDS": "2",
    "operator.env.POSTROOM_DNS_CHECK_SECONDS": "1",
    "delivery.env.POSTROOM_REMOTE_SMTP_PORT": str(MX_PORT),
    "delivery.env.POSTROOM_ALLOWED_MX_NETWORKS": f"{WORLD}/32",
}


@dataclass
class Installation:
    """`measured` is what was seen on the way, in seconds, for the summary of the run."""

    namespace: str
    bind: Bind
    mailbox: Mailbox
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def keys(self) -> str:
        return f"{self.namespace}-keys"

    def helm(self, *arguments: str) -> str:
        return run("helm", *arguments, "--namespace", self.namespace, seconds=300)

    def install(self, chart: pathlib.Path = ROOT / "charts" / "postroom", **values: str) -> None:
        """Or upgrades; and waits until every pod of the chart is ready."""
        began = time.monotonic()
        settings = [f"--set-string={name}={value}" if "env" in name else f"--set={name}={value}" for name, value in (VALUES | values).items()]
        # The CRDs of an earlier installation were kept and are taken over.
        self.helm("upgrade", "--install", "--create-namespace", "--take-ownership", "postroom", str(chart), *settings)
        until("every pod is ready", lambda: self.ready("operator", "ingress", "signer"), READY)
        self.measured["helm install to ready"] = round(time.monotonic() - began, 1)

    def remove(self) -> None:
        """Resources first, while the operator can finalize them. Nothing happens when there is no installation."""
        for kind in ("maildomains", "sendingpools"):
            kubectl("-n", self.namespace, "delete", kind, "--all", "--timeout=30s", check=False)
        run("helm", "uninstall", "postroom", "--namespace", self.namespace, check=False)

    def pods(self, component: str) -> list[Object]:
        return items("pods", self.namespace, f"app.kubernetes.io/component={component}")

    def ready(self, *components: str) -> bool:
        return all(_ready(pod) for component in components for pod in self.pods(component)) and all(self.pods(c) for c in components)

    def pool(self, name: str = "main", **spec: object) -> None:
        # Retries within seconds, so that a pod that is away is a pause and no hour.
        wanted = {"retry": {"maxAge": "1h", "backoff": {"initial": "1s", "max": "5s"}}, "drainSeconds": 5, **spec}
        apply({"apiVersion": GROUP, "kind": "SendingPool", "metadata": {"name": name, "namespace": self.namespace}, "spec": wanted})

    def domain(self, name: str = DOMAIN, pool: str = "main", **spec: object) -> None:
        wanted: Object = {
            "domainName": name,
            "poolRef": {"name": pool},
            "dkim": {},
            "dns": {"provider": "Manual"},
            "credentials": [{"name": "app", "secretRef": {"name": f"{name.replace('.', '-')}-app"}, "allowedSenders": [f"*@{name}"]}],
            **spec,
        }
        apply({"apiVersion": GROUP, "kind": "MailDomain", "metadata": {"name": name, "namespace": self.namespace}, "spec": wanted})

    def publish(self, name: str = DOMAIN) -> None:
        """What a person does in Manual mode: every record of the status goes to the zone."""
        records = until("the records to publish", lambda: get("maildomain", name, self.namespace).get("status", {}).get("dnsRecords"), READY)
        for record in records:
            self.bind.publish(name, record["name"], record["type"], record["value"])

    def condition(self, kind: str, name: str, wanted: str = "Ready") -> Object:
        conditions: list[Object] = get(kind, name, self.namespace).get("status", {}).get("conditions", [])
        return next((condition for condition in conditions if condition["type"] == wanted), {})

    def login(self, name: str = DOMAIN) -> tuple[str, str]:
        """The generated credential."""
        data = until("the credential", lambda: get("secret", f"{name.replace('.', '-')}-app", self.namespace).get("data"), READY)
        username, password = (base64.b64decode(data[part]).decode() for part in ("username", "password"))
        return username, password

    @property
    def address(self) -> str:
        return service_address("postroom-ingress", self.namespace)

    def postroom(self, *arguments: str) -> str:
        """The command against the cluster."""
        return run("kubectl-postroom", "-n", self.namespace, *arguments)


def _ready(pod: Object) -> bool:
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in pod.get("status", {}).get("conditions", []))


@contextlib.contextmanager
def installation(folder: pathlib.Path) -> Iterator[Installation]:
    """Everything but the chart: the world outside and a free namespace. Afterwards the namespace is gone."""
    with Bind(folder, (DOMAIN, ABROAD, "e.test")) as bind, Mailbox() as mailbox:
        made = Installation(f"e2e-{secrets.token_hex(3)}", bind, mailbox)
        try:
            yield made
        finally:
            made.remove()
            for name in (made.namespace, made.keys):
                kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


class Load:
    """Submits messages at a rate from a few sessions; a client that is answered 4xx or cut tries the same message again, as mail clients do."""

    def __init__(self, where: Installation, rate: float, threads: int = 0, login: tuple[str, str] | None = None) -> None:
        threads = threads or max(4, int(rate / 10))  # each waits for its replies
        self._where = where
        self._login = login or where.login()
        self._host = where.address
        self._pause = threads / rate
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.accepted: set[str] = set()
        self.retried = 0
        self.marker = secrets.token_hex(4)
        self._threads = [threading.Thread(target=self._run, args=(index,)) for index in range(threads)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def _run(self, index: int) -> None:
        pending: list[str] = []
        number = 0
        while not self._stop.is_set():
            with contextlib.suppress(OSError, smtplib.SMTPException), session(self._host, self._login) as client:
                while not self._stop.is_set():
                    if not pending:
                        number += 1
                        pending.append(f"{self.marker}-{index}-{number}")
                    client.sendmail(f"a@{DOMAIN}", [f"b@{ABROAD}"], message(f"a@{DOMAIN}", f"b@{ABROAD}", pending[0]))
                    with self._lock:
                        self.accepted.add(pending.pop())
                    self._stop.wait(self._pause)
            if pending:
                with self._lock:
                    self.retried += 1
                self._stop.wait(0.5)

    def arrived(self) -> collections.Counter[str]:
        """Markers of this load and how often each arrived."""
        found: collections.Counter[str] = collections.Counter()
        for received in self._where.mailbox.holding(self.marker):
            subject = next(line for line in received.content.split(b"\r\n") if line.startswith(b"Subject: "))
            found[subject.removeprefix(b"Subject: ").decode()] += 1
        return found

    def missing(self) -> Sequence[str]:
        arrived = self.arrived()
        return [marker for marker in sorted(self.accepted) if marker not in arrived]
