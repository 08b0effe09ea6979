"""Keeps the pins in pyproject.toml: one `name==version` per package of the lock, between two marker lines. `make lock` runs it.

uv.lock itself names a package registry's host on every line and is not committed; the pins, as constraints, make `uv sync` resolve to the same
versions on every machine. `--upgrade` resolves anew, without pins, in a temporary copy; without it the pins are written from the present lock.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN = "# pins: begin; written by scripts/pin_versions.py, never by hand"
END = "# pins: end"
MEMBERS = ("pyproject.toml", "protos", "services", "operator", "cli")


def locked(lock: str) -> list[str]:
    """`name==version` of every package that comes from a registry, sorted. Raises ValueError when one has two versions."""
    packages = [package for package in tomllib.loads(lock)["package"] if "registry" in package["source"]]
    versions: dict[str, str] = {}
    for package in packages:
        if versions.setdefault(package["name"], package["version"]) != package["version"]:
            raise ValueError(f"{package['name']} is locked at {versions[package['name']]} and at {package['version']}; a pin must be one version")
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def with_pins(project: str, pins: list[str]) -> str:
    """The text of pyproject.toml with its pins replaced. Raises ValueError when the markers are not there once each."""
    if project.count(BEGIN) != 1 or project.count(END) != 1:
        raise ValueError(f"pyproject.toml must hold the lines {BEGIN!r} and {END!r} once each")
    before, rest = project.split(BEGIN)
    _, after = rest.split(END)
    lines = "".join(f'    "{pin}",\n' for pin in pins)
    return f"{before}{BEGIN}\nconstraint-dependencies = [\n{lines}]\n{END}{after}"


def resolve_anew(root: pathlib.Path) -> str:
    """The text of a lock resolved without pins. Raises subprocess.CalledProcessError when uv cannot."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for name in MEMBERS:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
            else:
                shutil.copy(source, copy / name)
        project = copy / "pyproject.toml"
        project.write_text(with_pins(project.read_text(), []))
        subprocess.run(["uv", "lock", "--upgrade"], cwd=copy, check=True)
        return (copy / "uv.lock").read_text()


def main() -> int:
    """Writes the pins; 1 with a line on stderr when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="resolve anew instead of reading uv.lock")
    upgrade = parser.parse_args().upgrade
    project = ROOT / "pyproject.toml"
    try:
        lock = resolve_anew(ROOT) if upgrade else (ROOT / "uv.lock").read_text()
        project.write_text(with_pins(project.read_text(), locked(lock)))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"pin_versions: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
