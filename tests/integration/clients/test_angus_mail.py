"""Jakarta Mail (Angus, Java): STARTTLS and implicit TLS with a verified certificate, PLAIN and LOGIN, RET, NOTIFY, ENVID (it has no ORCPT)."""

import pathlib

import pytest

from integration.clients.postroom import ENVID, HOST, PASSWORD, SENDER, USERNAME, Postroom, dsn_arrived_unchanged, new_recipient, run, tool

FOLDER = pathlib.Path(__file__).parent / "angus"
LIBRARIES = FOLDER / "target" / "lib"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled program."""
    if not list(LIBRARIES.glob("jakarta.mail-*.jar")):
        pytest.skip("Angus Mail is not installed; mvn dependency:copy-dependencies in tests/integration/clients/angus")
    folder = tmp_path_factory.mktemp("java")
    run(tool("javac"), "-encoding", "utf-8", "-cp", f"{LIBRARIES}/*", "-d", folder, FOLDER / "Send.java")
    return folder


@pytest.mark.parametrize(("mechanism", "implicit"), [("PLAIN", False), ("LOGIN", True)])
def test_it_delivers_and_dsn_parameters_arrive(
    postroom: Postroom, classes: pathlib.Path, tmp_path: pathlib.Path, mechanism: str, implicit: bool
) -> None:
    store = tmp_path / "trust.p12"
    run(tool("keytool"), "-importcert", "-noprompt", "-file", postroom.ca, "-keystore", store, "-storetype", "PKCS12", "-storepass", "password")
    recipient = new_recipient()
    port, way = (postroom.tls, "implicit") if implicit else (postroom.submission, "starttls")
    trust = (f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=password", "-Djava.net.preferIPv4Stack=true")
    run(
        *(tool("java"), "-XX:TieredStopAtLevel=1", *trust, "-cp", f"{classes}:{LIBRARIES}/*", "Send"),
        *(HOST, str(port), USERNAME, PASSWORD, SENDER, recipient, way, mechanism, ENVID),
    )
    dsn_arrived_unchanged(postroom.arrival(recipient), orcpt=None)
