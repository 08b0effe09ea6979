"""Settings of the operator: names, limits, defaults, reasons."""

import pathlib
import re

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from postroom_core.settings import PREFIX, CommaList, split_list


class Settings(BaseSettings):
    """See the descriptions. The chart sets them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    platform_namespace: str = Field(min_length=1, max_length=63, description="where the services, the pools' workloads and the directory are")
    key_namespace: str = Field(min_length=1, max_length=63, description="where the DKIM keys are; only signer and operator may read there")
    watch_namespaces: CommaList = Field(default=(), description="namespaces of the resources; empty is all")
    release: str = Field(default="postroom", min_length=1, max_length=40, description="name of the installation: the Lease, and pods' labels")
    instance: str = Field(default="", max_length=128, description="this process's name in the Lease; empty is the host's")
    delivery_image: str = Field(min_length=1, description="image of delivery")
    delivery_service_account: str = Field(default="", max_length=253, description="ServiceAccount of the pools' pods; empty is RELEASE-delivery")
    delivery_environment: CommaList = Field(default=(), description="NAME=VALUE,… for delivery, such as POSTROOM_REMOTE_SMTP_PORT=2525")
    image_pull_policy: str = Field(default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", description="of the pools' pods")
    image_pull_secrets: CommaList = Field(default=(), description="names of Secrets for the pools' pods")
    storage_class: str = Field(default="", description="StorageClass of a SQLite spool's volume; empty is the cluster's default")
    storage_size: str = Field(default="10Gi", description="size of that volume")
    platform_ca_secret: str = Field(
        default="", description="Secret of the platform's own CA, made by the operator; empty: certificates are made by others"
    )
    page_token_secret: str = Field(default="", max_length=253, description="Secret of the page's tokens, made when absent; empty: there is no page")
    grpc_tls: pathlib.Path | None = Field(
        default=None, description="folder with tls.crt, tls.key, ca.crt, to ask the signers; written when the operator makes them"
    )
    signer_service: str = Field(default="", description="headless Service of the signers; empty is RELEASE-signer")
    signer_port: int = Field(default=7443, ge=1, le=65535, description="its gRPC port")
    ingress_service: str = Field(default="", description="Service of ingress, whose pods are asked what is in force; empty is RELEASE-ingress")
    ingress_http_port: int = Field(default=2580, ge=1, le=65535, description="their port of metrics and health")
    ingress_hostname: str = Field(default="localhost", max_length=253, description="name in the listeners' own certificate")
    egress_addresses: CommaList = Field(default=(), description="addresses that mail leaves from, for the SPF record of return paths")
    resolvers: CommaList = Field(default=(), description="ADDRESS:PORT of DNS resolvers; empty is the system's")
    dns_check_seconds: float = Field(default=30.0, gt=0, description="between two looks at a record that is waited for")
    dns_settle_seconds: float = Field(default=600.0, ge=0, description="how long a new record waits at least, because resolvers remember its absence")
    rotations_per_hour: int = Field(default=60, ge=1, description="key rotations begun in an hour over the whole platform; bounds what a fault does")
    lease_seconds: int = Field(default=15, ge=3, description="a crashed leader is replaced after this; renewed within two thirds of it")
    http: str = Field(default="", description="where metrics and health are served: ADDRESS:PORT; empty is nowhere")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="least level that is logged")
    failpoint: int = Field(default=0, ge=0, description="for tests: the process dies right after this many writes; 0 is never")

    @property
    def signers(self) -> str:
        """Name of the signers' headless Service."""
        return self.signer_service or f"{self.release}-signer"

    @property
    def ingresses(self) -> str:
        """Name of ingress's Service."""
        return self.ingress_service or f"{self.release}-ingress"

    @field_validator("delivery_environment", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """A comma begins a new setting only where NAME= follows: values may have commas of their own."""
        return tuple(part for part in re.split(r",(?=[A-Z][A-Z0-9_]*=)", value) if part) if isinstance(value, str) else value

    @field_validator("watch_namespaces", "image_pull_secrets", "resolvers", "egress_addresses", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)
