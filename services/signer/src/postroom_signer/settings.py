"""Settings of the signer."""

from pydantic import Field

from postroom_core.settings import ServiceSettings


class Settings(ServiceSettings):
    """See the descriptions."""

    listen: str = Field(description="gRPC target, unix:PATH or ADDRESS:PORT with mTLS")
