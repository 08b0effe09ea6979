"""Rules about files that no other tool checks."""

import re
import tomllib
from urllib.parse import urlsplit

from e2e.conftest import ORDER

from postroom_cli import clusterpage, clustertest
from postroom_core import settings
from postroom_delivery.settings import Settings as DeliverySettings
from postroom_ingress.settings import Settings as IngressSettings
from postroom_operator.settings import Settings as OperatorSettings
from postroom_signer.settings import Settings as SignerSettings

from architecture.tree import ROOT, files

# A path in ARCHITECTURE.md: in backticks, with a folder, and with the ending of a file or of a folder.
_PATH = re.compile(r"`([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*(?:/|\.(?:py|sql|proto|md|toml|yaml|json|sh)))`")
# Built in pieces, so that this file does not name a registry itself.
_REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("crates", "io"),
        ("deb.debian", "org"),
        ("proxy.golang", "org"),
        ("repo.maven.apache", "org"),
        ("repo1.maven", "org"),
    )
]


def test_files_named_in_architecture_md_exist() -> None:
    named = [path for path in _PATH.findall((ROOT / "ARCHITECTURE.md").read_text()) if "/" in path]
    assert named, "ARCHITECTURE.md names no file"
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_operator_is_no_package() -> None:
    """It would hide Python's own `operator`; so would tests below it, by way of pytest's sys.path."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert [path for path in files() if path.is_relative_to(ROOT / "operator") and path.name.startswith("test_")] == []


def test_the_known_settings_are_those_of_the_services() -> None:
    services = (DeliverySettings, IngressSettings, OperatorSettings, SignerSettings, clusterpage.Settings, clustertest.Settings)
    fields = {name for service in services for name in service.model_fields}
    expected = {settings.PREFIX + name.upper() for name in fields} | {"POSTROOM_DATA_DIR", "POSTROOM_LIFELINE"}
    assert expected == set(settings.KNOWN)


def test_no_file_names_the_host_of_a_package_registry() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    ours = {urlsplit(package["source"]["registry"]).hostname for package in lock["package"] if "registry" in package["source"]}
    hosts = [*_REGISTRIES, *(host for host in ours if host)]
    naming = [str(path.relative_to(ROOT)) for path in files() if any(host.encode() in path.read_bytes() for host in hosts)]
    assert naming == []


def test_every_locked_package_has_its_pin() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {f"{package['name']}=={package['version']}" for package in lock["package"] if "registry" in package["source"]}
    pins = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"])
    assert locked == pins, "run `uv run python scripts/pin_versions.py`"


def test_the_images_differ_in_their_names_alone() -> None:
    places = {name: f"services/{name}" for name in ("ingress", "signer", "delivery")} | {"operator": "operator", "cli": "cli"}
    bodies = set()
    for name, place in places.items():
        text = (ROOT / place / "Dockerfile").read_text()
        bodies.add(text.replace(f"postroom-{name}", "NAME").replace(f"postroom_{name}", "NAME").replace(f"{place}/Dockerfile", "PLACE"))
    assert len(bodies) == 1


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    homes = [b"/" + home + b"/" for home in (b"work/main", b"root/.pyenv", b"home/runner")]
    assert [str(path.relative_to(ROOT)) for path in files() if any(home in path.read_bytes() for home in homes)] == []


def test_the_steps_of_each_schema_are_numbered_without_a_gap_or_a_twin() -> None:
    """A step with the number of another is never run where that one was."""
    for folder in (ROOT / "services/delivery/src/postroom_delivery/spool/migrations").iterdir():
        numbers = sorted(int(path.name[:4]) for path in folder.glob("*.sql"))
        assert numbers == list(range(1, len(numbers) + 1)), folder.name


def test_every_end_to_end_test_has_its_place_in_the_order() -> None:
    """One that has none would stop the collection of all tests."""
    assert {path.stem for path in (ROOT / "tests/e2e").glob("test_*.py")} == set(ORDER)
