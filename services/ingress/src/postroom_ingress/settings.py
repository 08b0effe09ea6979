"""Settings of ingress: names, limits, defaults, reasons."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from postroom_core.settings import CommaList, ServiceSettings, check_networks, split_list


class Settings(ServiceSettings):
    """See the descriptions. Listeners are ADDRESS:PORT; empty is off."""

    listen_submission: str = Field(default="", description="submission with STARTTLS (RFC 6409)")
    listen_tls: str = Field(default="", description="submission with implicit TLS (RFC 8314)")
    listen_relay: str = Field(default="", description="relay for clients known by their address, or by AUTH")
    listen_http: str = Field(default="", description="submission by HTTP, ADDRESS:PORT or unix:PATH; in clear only where nobody else can listen in")
    signer_target: str = Field(description="gRPC target of the signer")
    delivery_target: str = Field(default="", description="gRPC target of delivery, for domains that name none")
    max_message_bytes: int = Field(
        default=64 * 1024 * 1024, ge=65536, description="64 MiB: what large providers take is less, attachments of 50 MB fit"
    )
    max_connections: int = Field(default=1000, ge=1, description="256 KiB of buffer each at the worst: 250 MiB")
    max_connections_per_address: int = Field(
        default=500, ge=1, description="of one IPv4 address or one IPv6 /64: half of all, so that none can shut out the rest"
    )
    max_connections_per_minute: int = Field(
        default=0, ge=0, le=60_000, description="new ones from one address; 0 is any number: applications may open one for each message"
    )
    repair_line_ends: CommaList = Field(
        default=(), description="which of submission, tls, relay make CRLF of bare CR and LF in content; the others refuse such messages"
    )
    proxy_listeners: CommaList = Field(default=(), description="which of submission, tls, relay are behind a load balancer that sends PROXY headers")
    proxy_networks: CommaList = Field(default=(), description="CIDRs of the load balancers; those listeners refuse everybody else")
    max_recipients: int = Field(default=1000, ge=100, description="per message; RFC 5321 section 4.5.3.1.8 asks for 100 at least")

    ingress_processes: int = Field(default=1, ge=1, le=64, description="processes on the same ports, one for each core that mail may use")
    ingress_worker: int = Field(default=0, ge=0, description="which of the processes that postroom_ingress started itself this is; 0 is none")
    ingress_headcount: str = Field(default="", description="the file in which those processes count connections together")
    idle_seconds: float = Field(default=300.0, gt=0, description="silence before a command; RFC 5321 section 4.5.3.2.7 asks for 5 minutes")
    session_seconds: float = Field(default=14_400.0, gt=0, description="the whole session: pools of connections reconnect a few times a day")
    proxy_seconds: float = Field(default=5.0, gt=0, description="a PROXY header: load balancers send it with the first packet")
    tls_seconds: float = Field(default=30.0, gt=0, description="a TLS handshake: two round trips and a slow phone")
    content_seconds: float = Field(default=3600.0, gt=0, description="the content of one message: 64 MiB at 150 kbit/s")
    grace_seconds: float = Field(default=60.0, gt=0, description="after which content must have come at least_rate on average")
    least_rate: int = Field(default=256, ge=1, description="octets per second of content; slower clients only hold a place")
    error_seconds: float = Field(default=1.0, ge=0, description="what each error over the first ten and each wrong password costs")
    greeting_seconds: float = Field(
        default=0.0, ge=0, le=60, description="how long strangers of the relay port wait for the greeting; who talks before it is cut"
    )
    max_hold_seconds: int = Field(
        default=30 * 86_400, ge=0, le=366 * 86_400, description="FUTURERELEASE: 30 days; a message that waits longer is better kept by its sender"
    )

    token_issuer: str = Field(default="", description="whose ServiceAccount tokens count as passwords: its `iss`, an https URL; empty is nobody's")
    token_audience: str = Field(default="postroom", min_length=1, description="the `aud` that such a token must have")
    token_keys: str = Field(default="", description="path or URL of the issuer's keys (JWKS); empty finds them by OIDC discovery")
    token_ca_file: str = Field(default="", description="CA bundle that verifies the server of the keys; empty is the system's")
    token_bearer_file: str = Field(default="", description="file with a token to ask for the keys with, as Kubernetes wants it")

    @field_validator("proxy_listeners", "proxy_networks", "repair_line_ends", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value)

    @field_validator("proxy_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_networks(value)

    @field_validator("proxy_listeners", "repair_line_ends")
    @classmethod
    def _listeners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - {"submission", "tls", "relay"}:
            raise ValueError(f"{', '.join(sorted(unknown))} is none of submission, tls, relay")
        return value

    @model_validator(mode="after")
    def _proxies(self) -> "Settings":
        if self.proxy_listeners and not self.proxy_networks:
            raise ValueError("POSTROOM_PROXY_LISTENERS needs POSTROOM_PROXY_NETWORKS: from where PROXY headers are believed")
        return self

    @field_validator("listen_http")
    @classmethod
    def _http(cls, value: str) -> str:
        return value if value.startswith("unix:") else cls._address(value)

    @model_validator(mode="after")
    def _one_socket(self) -> "Settings":
        if self.listen_http.startswith("unix:") and self.ingress_processes > 1:
            raise ValueError("POSTROOM_LISTEN_HTTP as a unix socket is for one process; give it an ADDRESS:PORT")
        return self

    @field_validator("listen_submission", "listen_tls", "listen_relay")
    @classmethod
    def _address(cls, value: str) -> str:
        _, _, port = value.rpartition(":")
        if value and (not port.isdigit() or int(port) > 65535):
            raise ValueError(f"{value} is not ADDRESS:PORT")
        return value
