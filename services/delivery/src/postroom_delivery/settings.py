"""Settings of delivery: names, limits, defaults, reasons."""

import ipaddress
import pathlib

from pydantic import Field, field_validator, model_validator

from postroom_core.settings import CommaList, ServiceSettings, check_networks, split_list


class Settings(ServiceSettings):
    """See the descriptions."""

    listen: str = Field(description="gRPC target, unix:PATH or ADDRESS:PORT with mTLS")
    spool_url: str = Field(default="", description="sqlite:///PATH or postgresql://…")
    spool_url_file: pathlib.Path | None = Field(
        default=None, description="file that holds the URL instead, for one with a password; read anew for every connection"
    )
    resolvers: CommaList = Field(
        default=(), description="ADDRESS:PORT of DNS resolvers, whose DNSSEC verdict (AD) is believed; empty is the system's, whose is not"
    )
    drain_seconds: float = Field(
        default=20.0, ge=0, le=3600, description="a message that is being sent gets this long at the end; then it is cut off and sent again later"
    )
    remote_smtp_port: int = Field(default=25, ge=1, le=65535, description="port of remote MX hosts")
    allowed_mx_networks: CommaList = Field(
        default=(), description="CIDRs that may be dialled although private; empty, because MX records come from strangers"
    )
    signer_target: str = Field(default="", description="gRPC target of the signer, for delivery's own messages; empty leaves them unsigned")
    refused_mx_networks: CommaList = Field(
        default=(), description="CIDRs that are never dialled although public, such as a cluster's own networks where they have public addresses"
    )
    ca_file: str = Field(default="", description="CA bundle for verifying smart hosts, MX hosts and MTA-STS policy hosts; empty is certifi's")
    mta_sts_port: int = Field(default=443, ge=1, le=65535, description="HTTPS port of MTA-STS policy hosts")

    tls_report_sender: str = Field(
        default="",
        pattern=r"^$|^[!-?A-~]{1,64}@[A-Za-z0-9.-]{4,253}$",
        description="address that reports about TLS (RFC 8460) are sent from, of a MailDomain with DKIM; empty sends none and counts nothing",
    )

    analytics: bool = Field(default=True, description="whether events are counted by hour for `postroom stats --by` and the page")
    campaign_header: str = Field(
        default="X-Campaign", pattern=r"^[!-9;-~]{0,64}$", description="header field whose value analytics group by; empty is none"
    )

    @field_validator("resolvers", "allowed_mx_networks", "refused_mx_networks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @field_validator("allowed_mx_networks", "refused_mx_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_networks(value)

    @field_validator("resolvers")
    @classmethod
    def _resolvers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            address, _, port = part.rpartition(":")
            ipaddress.ip_address(address.strip("[]"))
            if not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"{part} is not ADDRESS:PORT")
        return value

    @field_validator("spool_url")
    @classmethod
    def _spool_url(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise ValueError("must be sqlite:///PATH or postgresql://…")
        return value

    @model_validator(mode="after")
    def _one_spool(self) -> "Settings":
        if bool(self.spool_url) == (self.spool_url_file is not None):
            raise ValueError("set either POSTROOM_SPOOL_URL or POSTROOM_SPOOL_URL_FILE")
        return self

    def url_of_spool(self) -> str:
        """As it is now. Raises OSError when the file cannot be read."""
        return self.spool_url if self.spool_url_file is None else self.spool_url_file.read_text().strip()
