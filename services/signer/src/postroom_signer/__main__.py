"""Starts signer: settings, logs, the app."""

import os

from postroom_core import lifecycle, logs, settings, telemetry
from postroom_signer import app
from postroom_signer.settings import Settings


def main() -> None:
    """Exits with 2 for wrong settings, 3 for a socket that cannot be bound."""
    configured = settings.load(Settings)
    logs.configure("signer", configured.log_level, addresses=configured.log_addresses)
    telemetry.configure("signer", os.environ)
    lifecycle.run(lambda stopping: app.run(configured, stopping))


if __name__ == "__main__":
    main()
