"""Every row of the attack catalogue that concerns ingress has a test named after it."""

import re

from architecture.tree import ROOT

ROWS = {*range(1, 15), 20, 21}


def test_every_row_has_its_test() -> None:
    found = {
        int(number)
        for path in (ROOT / "tests" / "integration" / "ingress").glob("test_attacks_*.py")
        for name in re.findall(r"def (test_a\d\w*)", path.read_text())
        for number in re.findall(r"_a(\d+)", name)
    }
    assert ROWS - found == set()
