"""The form of return paths that name a recipient."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_core.ids import new_message_id
from postroom_core.returnpath import ReturnPath, parse


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**50 - 1))
def test_what_is_written_is_read_in_either_case_and_fits_a_local_part(now: int, recipient: int) -> None:
    path = ReturnPath("reports@bounce.d.example", new_message_id(now), recipient, "abcdefghijklm234")
    for text in (str(path), str(path).upper()):
        assert parse(text) == path
        assert len(text.rpartition("@")[0]) <= 64


@pytest.mark.parametrize(
    "address",
    [
        "reports@bounce.d.example",
        "reports-01m86swk2qp69zz8fxm8g2t3q0-1@bounce.d.example",
        "reports-01m86swk2qp69zz8fxm8g2t3q0-1-abcdefghijklm23@bounce.d.example",
        "reports-01m86swk2qp69zz8fxm8g2t3q0-1-abcdefghijklm2345@bounce.d.example",
        "reports-01m86swk2qp69zz8fxm8g2t3q0--abcdefghijklm234@bounce.d.example",
        "re-ports-01m86swk2qp69zz8fxm8g2t3q0-1-abcdefghijklm234@bounce.d.example",
        '"reports-01m86swk2qp69zz8fxm8g2t3q0-1-abcdefghijklm234"@bounce.d.example',
        "",
    ],
)
def test_other_addresses_are_none(address: str) -> None:
    assert parse(address) is None
