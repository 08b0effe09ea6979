"""Starts delivery: settings, logs, the app."""

import os

from postroom_core import lifecycle, logs, settings, telemetry
from postroom_delivery import app
from postroom_delivery.settings import Settings


def main() -> None:
    """Exits with 2 for wrong settings, 3 for a spool that cannot be used."""
    configured = settings.load(Settings)
    logs.configure("delivery", configured.log_level, addresses=configured.log_addresses)
    telemetry.configure("delivery", os.environ)
    lifecycle.run(lambda stopping: app.run(configured, stopping))


if __name__ == "__main__":
    main()
