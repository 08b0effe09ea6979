"""`python -m postroom_operator`: settings from the environment, Kubernetes from the pod's ServiceAccount or KUBECONFIG."""

import logging

from postroom_core import lifecycle, logs
from postroom_core.settings import load
from postroom_operator import app
from postroom_operator.settings import Settings


def main() -> None:
    settings = load(Settings)
    logs.configure("operator", settings.log_level)
    # kopf tells each handler's every step; what it cannot do it says as a warning.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    lifecycle.run(lambda stopping: app.run(settings, stopping))


if __name__ == "__main__":
    main()
