"""DANE against a real signed zone, a real validating resolver and Postfix's own verdict, in a network namespace: see dane_world.py."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", "")
TOOLS = ("named", "unbound", "dnssec-signzone", "dnssec-keygen", "unshare", "ip")
# name → (what the hop comes to, words of its story)
EXPECTED = {
    "ee": ("Session", "verified by DANE"),
    "ee512": ("Session", "verified by DANE"),
    "wrong": ("Deferred", "matches no TLSA record"),
    "old": ("Session", "verified by DANE"),  # DANE-EE: neither its name nor its dates count
    "ta": ("Session", "verified by DANE"),
    "taname": ("Deferred", "not for taname.signed.test"),
    "taabsent": ("Deferred", "matches no TLSA record"),
    "unusable": ("Session", "not verified (DANE, no usable record)"),
    "unusableclear": ("Deferred", "does not offer TLS"),
    "clear": ("Deferred", "does not offer TLS"),
    "bogus": ("Deferred", "cannot be told"),
    "alias": ("Session", "verified by DANE"),
    "none": ("Session", "certificate not verified"),
    "unsigned": ("Session", "certificate not verified"),  # a zone without DNSSEC: its TLSA record is as good as none
}


# name → (kind of policy, result type of RFC 8460 section 4.3, "" is success)
REPORTED = {
    "ee": ("tlsa", ""),
    "ee512": ("tlsa", ""),
    "wrong": ("tlsa", "validation-failure"),
    "old": ("tlsa", ""),
    "ta": ("tlsa", ""),
    "taname": ("tlsa", "certificate-host-mismatch"),
    "taabsent": ("tlsa", "validation-failure"),
    "unusable": ("tlsa", "tlsa-invalid"),
    "unusableclear": ("tlsa", "starttls-not-supported"),
    "clear": ("tlsa", "starttls-not-supported"),
    "bogus": ("tlsa", "dnssec-invalid"),
    "alias": ("tlsa", ""),
    "none": ("no-policy-found", ""),
    "unsigned": ("no-policy-found", ""),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the world of dane_world.py came to, once for all tests."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_PATH) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    unshare = ["unshare", "-mn"] if os.geteuid() == 0 else ["unshare", "-rmn"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    tests = pathlib.Path(__file__).parents[2]
    command = [*unshare, sys.executable, str(pathlib.Path(__file__).with_name("dane_world.py")), str(tmp_path_factory.mktemp("dane"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False, env={"PYTHONPATH": str(tests), "PATH": _PATH})
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_a_host_of_a_signed_zone_gets_mail_as_its_tlsa_records_say(results: dict[str, dict[str, str]], name: str) -> None:
    kind, words = EXPECTED[name]
    assert results[name]["kind"] == kind, results[name]
    assert words in results[name]["ours"]


@pytest.mark.parametrize("name", EXPECTED)
def test_postfix_comes_to_the_same_verdict(results: dict[str, dict[str, str]], name: str) -> None:
    ours, postfix = results[name]["ours"], results[name]["postfix"]
    if postfix == "absent":
        pytest.skip("needs posttls-finger")
    assert ("verified by DANE" in ours) == ("Verified TLS connection" in postfix), postfix
    assert ("cannot be told" in ours) == ("TLSA lookup error" in postfix), postfix
    assert ("does not offer TLS" in ours) <= ("TLS connection established" not in postfix), postfix
    assert ("matches no TLSA record" in ours) == ("no matching DANE TLSA" in postfix), postfix


@pytest.mark.parametrize("name", EXPECTED)
def test_a_report_about_tls_tells_the_session_by_its_type(results: dict[str, dict[str, str]], name: str) -> None:
    assert (results[name]["policy"], results[name]["result"]) == REPORTED[name]
