"""One API server for all tests of this folder, with the CRDs of this tree; each test has namespaces of its own."""

import pathlib
import secrets
from collections.abc import Callable, Iterator

import pytest
import yaml

from integration.operator import apiserver
from integration.operator.apiserver import ApiServer

ROOT = pathlib.Path(__file__).parents[3]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = pathlib.Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if not apiserver.BINARY.exists():
        pytest.skip(f"no Kubernetes binary at {apiserver.BINARY}; POSTROOM_KUBE names one")
    with apiserver.running(tmp_path_factory.mktemp("apiserver")) as server:
        apiserver.install_crds(server, [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))])
        yield server


@pytest.fixture
def namespace(api: ApiServer) -> Callable[[str], str]:
    """Makes a namespace with a random ending; its name."""

    def make(name: str) -> str:
        full = f"{name}-{secrets.token_hex(3)}"
        status, _ = api.request("POST", "/api/v1/namespaces", {"metadata": {"name": full, "labels": {"test": name}}})
        assert status == 201
        return full

    return make
