"""The directory's documents: what MailDomain and SendingPool are compiled to, one JSON document per domain, pool, key set and certificate.

Made by the operator's plan (in a cluster and on one machine alike), read by the services. Each service gets only its own kinds: ingress
Domain and Certificate, signer KeySet, delivery Pool and SenderDomain. KeySet, Certificate, Pool (smart-host passwords) and SenderDomain (secrets
of webhooks) hold secrets, no other document does; credentials are verifiers, never passwords.
"""

import base64
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from postroom_core.replyrule import Action, Class


class Document(BaseModel):
    """Documents are immutable and closed: an unknown field is an error, because it would do nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ScramVerifier(Document):
    """SCRAM-SHA-256 (RFC 7677, RFC 5803), everything in base64."""

    salt: str
    iterations: int = Field(ge=4096)
    stored_key: str
    server_key: str


class ScryptVerifier(Document):
    """scrypt (RFC 7914) for PLAIN and LOGIN; `salt` and `key` in base64."""

    salt: str
    n: int
    r: int
    p: int
    key: str


class Verifier(Document):
    """One valid password; during a rotation a credential has two."""

    scram: ScramVerifier
    scrypt: ScryptVerifier


class ServiceAccount(Document):
    """A ServiceAccount of Kubernetes whose tokens count as the credential."""

    namespace: str
    name: str


class ClientCertificate(Document):
    """TLS client certificates that count as the credential: issued by one of `authorities` (PEM), with one of `names`."""

    authorities: str
    names: tuple[str, ...] = Field(min_length=1)


class Limits(Document):
    """None: no limit of this kind. Windows are the hours and days of UTC."""

    messages_per_hour: int | None = None
    messages_per_day: int | None = None
    recipients_per_hour: int | None = None
    recipients_per_day: int | None = None
    max_message_bytes: int | None = None
    max_recipients_per_message: int | None = None
    max_connections: int | None = None


class Credential(Document):
    """Who may submit with AUTH. `allowed_senders` are addresses or `*@domain`, lower-case domains.

    It is proven by a password (`verifiers`: several while one replaces another), a ServiceAccount's token or a client certificate.
    """

    name: str
    username: str
    verifiers: tuple[Verifier, ...] = ()
    allowed_senders: tuple[str, ...]
    allowed_source_cidrs: tuple[str, ...] = ()
    priorities: tuple[int, int] | None = None  # RFC 6710: least and greatest MT-PRIORITY that may be asked for; None: none
    service_accounts: tuple[ServiceAccount, ...] = ()
    client_certificate: ClientCertificate | None = None
    limits: Limits = Limits()


class Client(Document):
    """Who may submit on a relay port without AUTH, known by the source address."""

    name: str
    cidrs: tuple[str, ...] = Field(min_length=1)
    allowed_senders: tuple[str, ...]


class Domain(Document):
    """A MailDomain as ingress needs it. `delivery_target` is the gRPC target of the pool's delivery, "" where there is one delivery only."""

    kind: Literal["domain"] = "domain"
    name: str
    generation: int = 0  # of the MailDomain in a cluster; ingress tells the operator which one is in force
    tenant: str
    pool: str
    delivery_target: str = ""
    active: bool
    signed: bool
    return_path: str = ""  # where reports about its mail come back to, from anybody; "" is nowhere
    credentials: tuple[Credential, ...] = ()
    clients: tuple[Client, ...] = ()
    limits: Limits = Limits()


WebhookEvent = Literal["delivered", "deferred", "bounced", "complained", "suppressed"]


class Webhook(Document):
    """Who is told what happens to a domain's mail. `secrets` sign (`whsec_BASE64`): two while one replaces another."""

    name: str
    url: str = Field(repr=False)  # its path may be a secret
    events: tuple[WebhookEvent, ...]
    secrets: tuple[str, ...] = Field(repr=False, min_length=1)


def webhook_key(secret: str) -> bytes:
    """The octets of `whsec_BASE64`. Raises ValueError for what is none or has not 24 to 64 octets, as Standard Webhooks demand."""
    prefix, _, text = secret.partition("_")
    octets = base64.b64decode(text, validate=True)
    if prefix != "whsec" or not 24 <= len(octets) <= 64:
        raise ValueError("not whsec_ and 24 to 64 octets in base64")
    return octets


class SenderDomain(Document):
    """A MailDomain as delivery needs it, for the messages that it makes itself, and for who is told of its mail."""

    kind: Literal["sender"] = "sender"
    name: str
    tenant: str
    signed: bool
    return_path: str = ""  # what the reverse-paths of its mail are made of; "" leaves the client's
    pool: str = ""
    webhooks: tuple[Webhook, ...] = ()


class Certificate(Document):
    """A listener's certificate chain and private key, PEM. `hostnames` (or `*.NAME`) are those for which clients get it; the one named `default`
    is for everybody else."""

    kind: Literal["certificate"] = "certificate"
    name: str
    hostnames: tuple[str, ...] = ()
    chain: str
    private_key: str = Field(repr=False)


class SigningKey(Document):
    """One selector: one key pair, never reused. A key that does not sign is held ready for the moment when it shall."""

    selector: str
    algorithm: Literal["RSA2048", "Ed25519"]
    private_key: str = Field(repr=False)
    signs: bool = True


class KeySet(Document):
    """The active keys of a domain, for the signer alone. Imported RSA keys of other lengths also carry RSA2048: it names the algorithm."""

    kind: Literal["keyset"] = "keyset"
    name: str
    tenant: str
    keys: tuple[SigningKey, ...]


class Rates(Document):
    """Messages that may begin; None is no limit of this kind."""

    messages_per_second: int | None = Field(default=None, ge=1)
    messages_per_hour: int | None = Field(default=None, ge=1)
    messages_per_day: int | None = Field(default=None, ge=1)


class PoolLimits(Rates):
    """What a whole pool may do at a time."""

    max_connections: int | None = Field(default=None, ge=1)


class DestinationLimit(Rates):
    """First match wins; `match` holds domains, sites (`mx:HOST`), `smart-host:NAME`, or "*"."""

    name: str
    match: tuple[str, ...]
    max_connections: int = Field(default=10, ge=1)
    messages_per_connection: int = Field(default=100, ge=1)


class SmartHost(Document):
    """A fixed next hop instead of MX."""

    host: str
    port: int
    tls: Literal["Opportunistic", "Required", "Implicit"] = "Opportunistic"
    username: str | None = None
    password: str | None = Field(default=None, repr=False)


class Route(Document):
    """First match wins; no route is MX."""

    name: str
    match: tuple[str, ...]
    smart_host: SmartHost


# Opportunistic: what the domain itself asks by DANE or MTA-STS, and no more.
TlsPolicy = Literal["Opportunistic", "Encrypt", "Verify", "Dane"]


class TlsRule(Document):
    """What the MX hosts of some domains must give at least. First match wins; `match` holds domains or "*"."""

    name: str
    match: tuple[str, ...]
    policy: TlsPolicy


class Retry(Document):
    """Seconds. `delay_notice` None: only senders who ask for it are told of a delay."""

    max_age: float = 432_000.0
    initial: float = 60.0
    maximum: float = 14_400.0
    delay_notice: float | None = None


class ReplyRule(Document):
    """Says what a peer's reply means. `code` is "451" or "4xx", `enhanced_code` "4.7.1", "x.7.x" or several with |; "" fits every reply."""

    name: str
    code: str = ""
    enhanced_code: str = ""
    pattern: str = ""
    classification: Class
    action: Action | None = None


class Thresholds(Document):
    """At which value a signal alerts, slows down and pauses; None: it never does."""

    alert: float | None = Field(default=None, gt=0)
    slow: float | None = Field(default=None, gt=0)
    pause: float | None = Field(default=None, gt=0)


class Reputation(Document):
    """Outgoing spam control of a pool. Shares in percent, `volume` in times the usual; nothing is judged below `minimum_recipients`.

    The defaults are of the CRD. What providers say of complaints: below 0.1 % is good, from 0.3 % mail is refused.
    """

    enforcement: Literal["Enforce", "Observe", "Off"] = "Enforce"
    minimum_recipients: int = Field(default=100, ge=1)
    pause_hours: int = Field(default=4, ge=1)
    slow_messages_per_hour: int = Field(default=100, ge=1)
    hard_bounces: Thresholds = Thresholds(alert=5, slow=10, pause=20)
    complaints: Thresholds = Thresholds(alert=0.1, slow=0.3, pause=1)
    spam: Thresholds = Thresholds(alert=5, slow=10, pause=30)
    volume: Thresholds = Thresholds(alert=5, slow=20)


class Pool(Document):
    """A SendingPool as delivery needs it; `name` is namespace/name."""

    kind: Literal["pool"] = "pool"
    name: str
    retry: Retry = Retry()
    limits: PoolLimits = PoolLimits()
    tenant_rates: Rates = Rates()
    destination_limits: tuple[DestinationLimit, ...] = (DestinationLimit(name="default", match=("*",)),)
    routes: tuple[Route, ...] = ()
    reply_rules: tuple[ReplyRule, ...] = ()
    tenant_limits: Limits = Limits()  # of each tenant's mail through this pool; only the counts per hour and day

    tls_rules: tuple[TlsRule, ...] = ()
    reputation: Reputation = Reputation()


AnyDocument = Annotated[Domain | SenderDomain | Certificate | KeySet | Pool, Field(discriminator="kind")]
ADAPTER: TypeAdapter[AnyDocument] = TypeAdapter(AnyDocument)
