"""The import contracts of pyproject.toml hold, and they speak of every package."""

import pathlib
import shutil
import subprocess
import sys
import tomllib

from architecture.tree import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def packages() -> set[str]:
    found = {path.parent.name for path in ROOT.glob("*/src/postroom_*/__init__.py")}
    return found | {path.parent.name for path in ROOT.glob("services/*/src/postroom_*/__init__.py")}


def test_imports_only_go_down_the_layers() -> None:
    command = shutil.which("lint-imports", path=str(pathlib.Path(sys.executable).parent))
    assert command is not None
    result = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert result.returncode == 0, result.stdout


def test_every_package_is_linted() -> None:
    assert packages() | {"postroom.v1"} == set(CONTRACTS["root_packages"])


def test_every_package_with_more_than_one_module_has_exhaustive_layers() -> None:
    exhaustive = {name for contract in CONTRACTS["contracts"] if contract.get("exhaustive") for name in contract["containers"]}
    sources = [*ROOT.glob("*/src/postroom_*"), *ROOT.glob("services/*/src/postroom_*")]
    grown = {source.name for source in sources if len(list(source.rglob("*.py"))) > 1}
    assert grown - exhaustive == set()
