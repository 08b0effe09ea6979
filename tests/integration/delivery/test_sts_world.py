"""MTA-STS policies of one zone and its policy hosts, as we find them and as postfix-mta-sts-resolver finds them: see sts_world.py."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from integration.delivery.sts_world import CASES

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", "")
# What the other finds and RFC 8461 does not say, or says otherwise. Name → (ours, the other's).
DIFFERENT: dict[str, tuple[bool, bool]] = {
    "badid": (False, True),  # section 3.1: an id has letters and digits only
    "longage": (True, False),  # section 3.2 has a greatest value; we take it for that, the domain wants the policy to last
    "badmx": (False, True),  # section 3.2: an mx is a host name or a wildcard
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the world of sts_world.py came to, once for all tests."""
    missing = [tool for tool in ("unshare", "ip") if shutil.which(tool, path=_PATH) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    unshare = ["unshare", "-mn"] if os.geteuid() == 0 else ["unshare", "-rmn"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    tests = pathlib.Path(__file__).parents[2]
    command = [*unshare, sys.executable, str(pathlib.Path(__file__).with_name("sts_world.py")), str(tmp_path_factory.mktemp("sts"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False, env={"PYTHONPATH": str(tests), "PATH": _PATH})
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", [name for name in CASES if name not in DIFFERENT])
def test_the_foreign_resolver_finds_the_same_policy(results: dict[str, dict[str, Any]], name: str) -> None:
    assert results[name]["ours"] == results[name]["foreign"]


@pytest.mark.parametrize("name", DIFFERENT)
def test_where_it_does_not_the_standard_decides(results: dict[str, dict[str, Any]], name: str) -> None:
    found = results[name]
    assert (found["ours"] is not None, found["foreign"] is not None) == DIFFERENT[name]


def test_the_cases_are_worth_something(results: dict[str, dict[str, Any]]) -> None:
    """Policies and refusals are both among them, and each refusal has its kind for the reports about TLS."""
    assert sum(found["ours"] is not None for found in results.values()) >= 10
    troubles = {name: found["trouble"] for name, found in results.items() if found["trouble"]}
    expected = {"missing": "sts-policy-fetch-error", "wrongname": "sts-webpki-invalid", "expired": "sts-webpki-invalid", "nomx": "sts-policy-invalid"}
    assert troubles.items() >= expected.items()
    assert results["longage"]["ours"]["max_age"] == 31_557_600
