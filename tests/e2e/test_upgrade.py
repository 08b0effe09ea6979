"""From the previous chart and its images to these, while mail flows.

scripts/e2e.sh unpacks the previous chart and builds its images; E2E_PREVIOUS names the commit.
"""

import os
import pathlib
from collections.abc import Iterator

import pytest
from e2e.installation import DOMAIN, Installation, Load, installation
from e2e.world import PATIENCE, READY, items, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
RATE = 5.0
SETTLED = 180 * PATIENCE


@pytest.fixture
def previous(tmp_path: pathlib.Path, measured: dict[str, float]) -> Iterator[Installation]:
    """An installation of the previous chart, with a domain that sends."""
    chart = os.environ.get("E2E_PREVIOUS_CHART")
    if chart is None:
        pytest.skip("E2E_PREVIOUS_CHART names no chart; scripts/e2e.sh does")
    with installation(tmp_path) as made:
        made.measured = measured
        made.install(pathlib.Path(chart), **{"image.tag": "e2e-previous"})
        made.pool()
        made.domain()
        made.publish()
        until("the MailDomain is ready", lambda: made.condition("maildomain", DOMAIN).get("status") == "True", READY)
        until("every pod is ready", lambda: made.ready("operator", "ingress", "signer", "delivery"), READY)
        yield made


def images(where: Installation) -> set[str]:
    """Tags of the images that run."""
    pods = [pod for component in ("operator", "ingress", "signer", "delivery") for pod in where.pods(component)]
    return {container["image"].rpartition(":")[2] for pod in pods for container in pod["spec"]["containers"]}


def keys(where: Installation) -> set[str]:
    return {item["metadata"]["name"] for item in items("secret", where.keys) if item["type"] == "mail.postroom.dev/dkim-key"}


def test_an_upgrade_while_mail_flows_loses_nothing_and_rotates_nothing(previous: Installation) -> None:
    """The pool on SQLite has one pod: while that is replaced clients hear 451 and send again."""
    before = keys(previous)
    assert images(previous) == {"e2e-previous"}
    with Load(previous, RATE) as load:
        until("mail flows", lambda: len(load.accepted) > 50, SETTLED)
        previous.install()
        until("every pod is of the new chart", lambda: images(previous) == {"e2e"}, SETTLED)
        until("every pod is ready", lambda: previous.ready("operator", "ingress", "signer", "delivery"), SETTLED)
        count = len(load.accepted)
        until("mail flows on", lambda: len(load.accepted) > count + 50, SETTLED)
    until("all that was accepted", lambda: not load.missing(), SETTLED)
    twice = sum(load.arrived().values()) - len(load.arrived())
    numbers = {"accepted": len(load.accepted), "twice": twice, "sent again": load.retried}
    previous.measured |= {f"while upgrading: {name}": number for name, number in numbers.items()}
    assert twice <= load.retried  # who was cut before the reply sends again
    assert keys(previous) == before
    until("the MailDomain is ready", lambda: previous.condition("maildomain", DOMAIN).get("status") == "True", READY)
