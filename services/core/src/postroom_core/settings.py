"""Settings of a service: one frozen class each, read from POSTROOM_* once, at the start. No other module reads the environment.

A misspelt name stops the start. On one machine all services share one environment, so every known name is listed here, and a test holds
the list equal to the fields of the classes.
"""

import ipaddress
import os
import pathlib
import re
import socket
import sys
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, Self, TypeVar

import structlog
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

log = structlog.get_logger(__name__)
PREFIX = "POSTROOM_"

# One a line, so that two changes meet only where they concern the same name.
_NAMES = """
ALLOWED_MX_NETWORKS
ANALYTICS
CAMPAIGN_HEADER
CA_FILE
CONTENT_SECONDS
DATA_DIR
DELIVERY_ENVIRONMENT
DELIVERY_IMAGE
DELIVERY_SERVICE_ACCOUNT
DELIVERY_TARGET
DIRECTORY
DNS_CHECK_SECONDS
DNS_SETTLE_SECONDS
DRAIN_SECONDS
EGRESS_ADDRESSES
ERROR_SECONDS
FAILPOINT
GRACE_SECONDS
GREETING_SECONDS
GRPC_TLS
HOSTNAME
HTTP
IDLE_SECONDS
IMAGE_PULL_POLICY
IMAGE_PULL_SECRETS
INGRESS_HEADCOUNT
INGRESS_HOSTNAME
INGRESS_HTTP_PORT
INGRESS_PROCESSES
INGRESS_SERVICE
INGRESS_WORKER
INSTANCE
KEY_NAMESPACE
LEASE_SECONDS
LEAST_RATE
LIFELINE
LISTEN
LISTEN_HTTP
LISTEN_RELAY
LISTEN_SUBMISSION
LISTEN_TLS
LOG_ADDRESSES
LOG_LEVEL
MAX_CONNECTIONS
MAX_CONNECTIONS_PER_ADDRESS
MAX_CONNECTIONS_PER_MINUTE
MAX_HOLD_SECONDS
MAX_MESSAGE_BYTES
MAX_RECIPIENTS
MTA_STS_PORT
PAGE_POOL
PAGE_TOKENS
PAGE_TOKEN_SECRET
PLATFORM_CA_SECRET
PLATFORM_NAMESPACE
PROXY_LISTENERS
PROXY_NETWORKS
PROXY_SECONDS
REFUSED_MX_NETWORKS
RELEASE
REMOTE_SMTP_PORT
REPAIR_LINE_ENDS
RESOLVERS
ROTATIONS_PER_HOUR
SESSION_SECONDS
SIGNER_PORT
SIGNER_SERVICE
SIGNER_TARGET
SPOOL_URL
SPOOL_URL_FILE
STORAGE_CLASS
STORAGE_SIZE
TEST_ADDRESS
TEST_IMPLICIT_TLS
TEST_SECRETS
TEST_SUBMISSION
TLS_REPORT_SENDER
TLS_SECONDS
TOKEN_AUDIENCE
TOKEN_BEARER_FILE
TOKEN_CA_FILE
TOKEN_ISSUER
TOKEN_KEYS
WATCH_NAMESPACES
"""
KNOWN = frozenset(PREFIX + name for name in _NAMES.split())
S = TypeVar("S", bound=BaseSettings)


def data_dir(environment: Mapping[str, str]) -> pathlib.Path:
    """Where spool, keys and sockets live on one machine: POSTROOM_DATA_DIR, else the platform's data folder."""
    if configured := environment.get("POSTROOM_DATA_DIR"):
        return pathlib.Path(configured).absolute()
    base = environment.get("XDG_DATA_HOME") or str(pathlib.Path.home() / ".local" / "share")
    return pathlib.Path(base) / "postroom"


class ServiceSettings(BaseSettings):
    """What every service has."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    directory: str = Field(min_length=1, description="this service's compiled documents: a folder, or kubernetes:NAMESPACE?SELECTOR")
    grpc_tls: pathlib.Path | None = Field(default=None, description="folder with tls.crt, tls.key, ca.crt; without it gRPC uses unix sockets only")
    hostname: str = Field(default_factory=socket.getfqdn, min_length=1, max_length=253, description="EHLO name, Received, Reporting-MTA")
    http: str = Field(default="", description="where metrics and health are served: ADDRESS:PORT or unix:PATH; empty is nowhere")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="least level that is logged")
    log_addresses: bool = Field(default=False, description="whether mail addresses may be logged above debug")

    @field_validator("hostname")
    @classmethod
    def _hostname(cls, value: str) -> str:
        if not value.isascii() or any(character.isspace() for character in value):
            raise ValueError("must be an ASCII host name")
        return value.rstrip(".").lower()

    @field_validator("directory")
    @classmethod
    def _directory(cls, value: str) -> str:
        if value.startswith("kubernetes:") and not re.fullmatch(r"kubernetes:[a-z0-9-]{1,63}\?\S+", value):
            raise ValueError(f"{value} is not kubernetes:NAMESPACE?SELECTOR")
        return value

    @model_validator(mode="after")
    def _no_plain_tcp(self) -> Self:
        for name in ("listen", "signer_target", "delivery_target"):
            target = getattr(self, name, "")
            if target and not target.startswith("unix:") and self.grpc_tls is None:
                raise ValueError(f"{target} is neither unix:PATH nor secured: set POSTROOM_GRPC_TLS; plain TCP is refused")
        return self


def split_list(value: Any) -> Any:
    """A comma-separated setting as a tuple of its parts."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


CommaList = Annotated[tuple[str, ...], NoDecode]


def check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError for what is no CIDR."""
    for part in value:
        ipaddress.ip_network(part)
    return value


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    """The POSTROOM_* names that no service knows."""
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in KNOWN)


def load(settings: type[S]) -> S:
    """The settings of a service. Prints one line per fault and exits with 2 when there are any."""
    faults = [f"{name} is not a setting; known: {', '.join(sorted(KNOWN))}" for name in unknown_names(os.environ)]
    if not faults:
        try:
            return settings()
        except ValidationError as error:
            faults = [f"{PREFIX}{'_'.join(str(part) for part in item['loc']).upper() or '…'}: {item['msg']}" for item in error.errors()]
    stop(faults)


def stop(faults: list[str]) -> NoReturn:
    """Ends the process with one line per fault."""
    for fault in faults:
        print(f"postroom: {fault}", file=sys.stderr)
    raise SystemExit(2)
