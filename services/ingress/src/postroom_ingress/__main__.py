"""Starts ingress: settings, logs, the app."""

from postroom_core import lifecycle, logs, settings
from postroom_ingress import app
from postroom_ingress.settings import Settings


def main() -> None:
    """Exits with 2 for wrong settings, 3 for a port that is taken."""
    configured = settings.load(Settings)
    logs.configure("ingress", configured.log_level, addresses=configured.log_addresses)
    lifecycle.run(lambda stopping: app.run(configured, stopping))


if __name__ == "__main__":
    main()
