"""Sessions, roles and proofs of the page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_web.login import SESSION_MS, Gate, Role, Session

GATE = Gate({Role.VIEWER: "look", Role.OPERATOR: "act"}, b"k" * 32)


def admitted(token: str) -> Session:
    session = GATE.admit(token, 1000)
    assert session is not None
    return session


def test_each_token_gives_its_role_and_no_other_text_gives_any() -> None:
    assert (admitted("look").role, admitted(" act\n").role) == (Role.VIEWER, Role.OPERATOR)
    assert (admitted("look").may_act, admitted("act").may_act) == (False, True)
    assert [GATE.admit(token, 0) for token in ("", "loo", "LOOK", "é")] == [None] * 4


def test_a_cookie_is_good_until_its_end_and_for_this_process_alone() -> None:
    session = admitted("act")
    cookie = GATE.cookie(session)
    assert GATE.session(cookie, 1000 + SESSION_MS - 1) == session
    assert GATE.session(cookie, 1000 + SESSION_MS) is None
    assert Gate({Role.OPERATOR: "act"}).session(cookie, 1000) is None


@given(st.text(max_size=80))
def test_no_cookie_that_we_did_not_make_is_a_session(cookie: str) -> None:
    assert GATE.session(cookie, 0) is None


def test_a_viewer_cannot_make_itself_an_operator() -> None:
    assert GATE.session(GATE.cookie(admitted("look")).replace("viewer", "operator"), 1000) is None


def test_the_proof_of_a_form_belongs_to_one_session() -> None:
    first, second = admitted("act"), admitted("act")
    assert GATE.proves(first, GATE.proof(first))
    assert not GATE.proves(second, GATE.proof(first))
    assert not GATE.proves(first, "")


@pytest.mark.parametrize("role", Role)
def test_a_token_never_stands_in_what_the_browser_keeps(role: Role) -> None:
    token = {Role.VIEWER: "look", Role.OPERATOR: "act"}[role]
    assert token not in GATE.cookie(Session(role, 5, "name")).split(".")
