"""Skips where there is no cluster, and never touches one that is not for tests."""

import pathlib
import shutil
import time
from collections.abc import Iterator

import pytest
from e2e.installation import DOMAIN, Installation, installation
from e2e.world import READY, this_is_a_test_cluster, until

# An installation that is upgraded; then another from its beginning to its end. What stops the API server comes late: a cluster's own parts, such as
# what makes volumes, may not come back from it.
ORDER = ("test_upgrade", "test_first_mail", "test_chart", "test_operator", "test_faults", "test_uninstall")
MEASURED = pytest.StashKey[dict[str, float]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps every other test where it is."""
    here = pathlib.Path(__file__).parent
    ours = [index for index, item in enumerate(items) if item.path.parent == here]
    for index, item in zip(ours, sorted((items[index] for index in ours), key=lambda item: ORDER.index(item.path.stem)), strict=True):
        items[index] = item


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if measured := config.stash.get(MEASURED, {}):
        terminalreporter.section("measured")
        for what, value in measured.items():
            terminalreporter.write_line(f"{what}: {value}")


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    missing = [command for command in ("kubectl", "helm", "named") if shutil.which(command) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not this_is_a_test_cluster():
        pytest.skip("the current context is no test cluster; E2E_CONTEXT can name it")


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> dict[str, float]:
    """What was seen on the way, for the summary of the run."""
    return pytestconfig.stash.setdefault(MEASURED, {})


@pytest.fixture(scope="session")
def postroom(tmp_path_factory: pytest.TempPathFactory, measured: dict[str, float]) -> Iterator[Installation]:
    """Installed with the defaults, with a pool on SQLite and a domain that is ready."""
    with installation(pathlib.Path(tmp_path_factory.mktemp("world"))) as made:
        made.measured = measured
        began = time.monotonic()
        made.install()
        made.pool()
        made.domain()
        made.publish()
        until("the MailDomain is ready", lambda: made.condition("maildomain", DOMAIN).get("status") == "True", READY)
        until("the SendingPool is ready", lambda: made.condition("sendingpool", "main").get("status") == "True", READY)
        until("every pod is ready", lambda: made.ready("operator", "ingress", "signer", "delivery"), READY)
        made.measured["helm install to a domain that sends"] = round(time.monotonic() - began, 1)
        yield made
