"""Settings of ingress: names, limits, defaults, reasons."""

from pydantic import Field, field_validator

from postroom_core.settings import ServiceSettings


class Settings(ServiceSettings):
    """See the descriptions. Listeners are ADDRESS:PORT; empty is off."""

    listen_submission: str = Field(default="", description="submission with STARTTLS (RFC 6409)")
    listen_tls: str = Field(default="", description="submission with implicit TLS (RFC 8314)")
    listen_relay: str = Field(default="", description="relay for clients known by their address, or by AUTH")
    signer_target: str = Field(description="gRPC target of the signer")
    delivery_target: str = Field(description="gRPC target of delivery")
    max_message_bytes: int = Field(
        default=64 * 1024 * 1024, ge=65536, description="64 MiB: what large providers take is less, attachments of 50 MB fit"
    )
    max_connections: int = Field(default=1000, ge=1, description="256 KiB of buffer each at the worst: 250 MiB")
    max_recipients: int = Field(default=1000, ge=100, description="per message; RFC 5321 section 4.5.3.1.8 asks for 100 at least")

    @field_validator("listen_submission", "listen_tls", "listen_relay")
    @classmethod
    def _address(cls, value: str) -> str:
        _, _, port = value.rpartition(":")
        if value and (not port.isdigit() or int(port) > 65535):
            raise ValueError(f"{value} is not ADDRESS:PORT")
        return value
