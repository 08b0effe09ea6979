"""Skips where there is no cluster, and never touches one that is not for tests."""

import pathlib
import shutil
import time
from collections.abc import Iterator

import pytest
from e2e.installation import DOMAIN, Installation, installation
from e2e.world import READY, this_is_a_test_cluster, until


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    missing = [command for command in ("kubectl", "helm", "named") if shutil.which(command) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not this_is_a_test_cluster():
        pytest.skip("the current context is no test cluster; E2E_CONTEXT can name it")


@pytest.fixture(scope="session")
def postroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Installed with the defaults, with a pool on SQLite and a domain that is ready."""
    with installation(pathlib.Path(tmp_path_factory.mktemp("world"))) as made:
        began = time.monotonic()
        made.install()
        made.pool()
        made.domain()
        made.publish()
        until("the MailDomain is ready", lambda: made.condition("maildomain", DOMAIN).get("status") == "True", READY)
        until("the SendingPool is ready", lambda: made.condition("sendingpool", "main").get("status") == "True", READY)
        until("every pod is ready", lambda: made.ready("operator", "ingress", "signer", "delivery"), READY)
        made.seconds["helm install to a domain that sends"] = round(time.monotonic() - began, 1)
        yield made
        print(f"\nmeasured: {made.seconds}")
