"""What a scanner of TLS finds: nothing. sslyze is installed by .ci/run; where it is not, this is skipped."""

import asyncio
import json
import os
import pathlib
import shutil
from typing import Any

import pytest

from integration.ingress.running import Running, run

_CACHED = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "postroom-ci" / "sslyze" / "bin" / "sslyze"
SSLYZE = shutil.which("sslyze") or (str(_CACHED) if _CACHED.exists() else None)
SCANS = ["sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "reneg", "heartbleed", "robot", "openssl_ccs", "compression", "fallback"]


async def scan(where: str, *extra: str) -> dict[str, Any]:
    assert SSLYZE is not None
    process = await asyncio.create_subprocess_exec(
        *(SSLYZE, "--json_out=-", *(f"--{name}" for name in SCANS), *extra, where), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(150):
        out, _ = await process.communicate()
    (server,) = json.loads(out)["server_scan_results"]
    assert server["connectivity_status"] == "COMPLETED", server
    return {name: found["result"] for name, found in server["scan_result"].items() if found["status"] == "COMPLETED"}


@pytest.mark.timeout(400)
@pytest.mark.skipif(SSLYZE is None, reason="sslyze is not installed (.ci/run installs it)")
@pytest.mark.parametrize(("where", "extra"), [("submission", ["--starttls=smtp"]), ("tls", [])])
def test_a_scanner_finds_no_old_version_no_weak_cipher_and_no_known_hole(tmp_path: pathlib.Path, where: str, extra: list[str]) -> None:
    async def scenario(running: Running) -> None:
        found = await scan(getattr(running.settings, f"listen_{where}"), *extra)
        for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
            assert found[f"{old}_cipher_suites"]["accepted_cipher_suites"] == [], old
        for version in ("1_2", "1_3"):
            names = [suite["cipher_suite"]["name"] for suite in found[f"tls_{version}_cipher_suites"]["accepted_cipher_suites"]]
            assert names, version
            assert all("GCM" in name or "POLY1305" in name for name in names), names
            assert version == "1_3" or all(name.startswith("TLS_ECDHE_") for name in names), names
        assert not found["heartbleed"]["is_vulnerable_to_heartbleed"]
        assert not found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"]
        assert not found["tls_compression"]["supports_compression"]
        assert found["robot"]["robot_result"].startswith("NOT_VULNERABLE")
        assert not found["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"]
        assert found["session_renegotiation"]["supports_secure_renegotiation"]
        assert found["tls_fallback_scsv"]["supports_fallback_scsv"]

    run(tmp_path, scenario, error_seconds=0.0)
