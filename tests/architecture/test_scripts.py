"""Every shell script can be read by the shell: a merge that left half a loop in .ci/run is seen here, not on the machine that runs it."""

import pathlib
import subprocess

import pytest

from architecture.tree import ROOT


def scripts() -> list[pathlib.Path]:
    return sorted([ROOT / ".ci" / "run", *ROOT.glob("scripts/*.sh")])


@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.name)
def test_the_shell_can_read(script: pathlib.Path) -> None:
    read = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
