"""What the architecture tests look at: the root of the tree and the files that are, or would be, committed."""

import functools
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


@functools.cache
def files() -> tuple[pathlib.Path, ...]:
    """Every file that git tracks or would add, without generated code and without what was deleted."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return tuple(sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file()))


def python_files() -> tuple[pathlib.Path, ...]:
    """Python written by people."""
    return tuple(path for path in files() if path.suffix == ".py" and not path.is_relative_to(ROOT / "protos" / "gen"))
