"""Starts ingress: settings, logs, the app."""

import os

from postroom_core import lifecycle, logs, settings, telemetry
from postroom_ingress import app, processes
from postroom_ingress.settings import Settings


def main() -> None:
    """Exits with 2 for wrong settings, 3 for a port that is taken."""
    configured = settings.load(Settings)
    logs.configure("ingress", configured.log_level, addresses=configured.log_addresses)
    telemetry.configure("ingress", os.environ)
    if configured.ingress_processes > 1 and not configured.ingress_worker:
        lifecycle.run(lambda stopping: processes.run(configured, stopping))
    else:
        lifecycle.run(lambda stopping: app.run(configured, stopping))


if __name__ == "__main__":
    main()
