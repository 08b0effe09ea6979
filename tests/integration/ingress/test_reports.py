"""The return path at the relay port: anybody may bring a report there, and nothing else anywhere (P5)."""

import pathlib

import pytest

from integration.ingress.running import Running, domain, run

PATH = "reports@bounce.d.example"
REPORT = b"From: MAILER-DAEMON@x.example\r\nSubject: Undelivered\r\n\r\nbody\r\n"


def scenario_of(tmp_path: pathlib.Path, scenario: object) -> None:
    run(tmp_path, scenario, domain().model_copy(update={"return_path": PATH}))  # type: ignore[arg-type]


def test_a_stranger_brings_a_report_which_is_read_and_never_sent_on(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay", "127.0.0.77")
        for sender in ("", "fbl@provider.example"):
            assert (await client.ask(f"MAIL FROM:<{sender}>")).startswith("250")
            assert (await client.ask(f"RCPT TO:<{PATH.title()}>")).startswith("250")
            assert (await client.message_data(REPORT)).startswith("250 2.0.0 Ok: the report was read")
        assert running.suppression.reports == [REPORT, REPORT]
        assert running.spool.messages == []

    scenario_of(tmp_path, scenario)


def test_a_return_path_that_names_a_recipient_counts_only_with_delivery_s_word(tmp_path: pathlib.Path) -> None:
    mine = "reports-01m86swk2qp69zz8fxm8g2t3q0-1-abcdefghijklm234@bounce.d.example"

    async def scenario(running: Running) -> None:
        running.suppression.proven = mine
        client = await running.connect("relay", "127.0.0.77")
        assert (await client.ask("MAIL FROM:<>")).startswith("250")
        assert (await client.ask(f"RCPT TO:<{mine.replace('234', '235')}>")).startswith("550 5.1.1 This return path is not one of ours")
        assert (await client.ask(f"RCPT TO:<{mine.replace('bounce', 'else')}>")).startswith("550 5.7.1")
        assert (await client.ask(f"RCPT TO:<{mine.upper()}>")).startswith("250")
        assert (await client.ask(f"RCPT TO:<{PATH}>")).startswith("452 4.5.3")
        assert (await client.message_data(REPORT)).startswith("250")
        assert (running.suppression.reports, running.suppression.asked) == ([REPORT], 2)
        assert [path.lower() for path in running.suppression.return_paths] == [mine]

    scenario_of(tmp_path, scenario)


def test_a_report_comes_in_chunks_too(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay", "127.0.0.77")
        for command in ("MAIL FROM:<>", f"RCPT TO:<{PATH}>"):
            assert (await client.ask(command)).startswith("250")
        client.send(b"BDAT %d LAST\r\n%s" % (len(REPORT), REPORT))
        assert (await client.reply()).startswith("250")
        assert running.suppression.reports == [REPORT]

    scenario_of(tmp_path, scenario)


@pytest.mark.parametrize(
    "where", ["b@x.example", "other@bounce.d.example", "reports@d.example", "reports@bounce.e.example", "reports@x.bounce.d.example"]
)
def test_a_stranger_reaches_nobody_else_before_or_behind_the_return_path(tmp_path: pathlib.Path, where: str) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay", "127.0.0.77")
        assert (await client.ask("MAIL FROM:<a@d.example>")).startswith("250")
        assert (await client.ask(f"RCPT TO:<{where}>")).startswith("550 5.7.1")
        assert (await client.ask(f"RCPT TO:<{PATH}>")).startswith("250")
        assert (await client.ask(f"RCPT TO:<{where}>")).startswith("550 5.7.1")
        assert (await client.message_data(REPORT)).startswith("250")
        assert running.spool.messages == []

    scenario_of(tmp_path, scenario)


def test_a_long_report_is_cut_and_without_delivery_it_is_for_later(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay", "127.0.0.77")
        assert (await client.message(REPORT + b"x" * 70 + b"\r\n", recipient=PATH, sender="x@y.example")).startswith("250")
        assert (await client.message(REPORT + (b"y" * 78 + b"\r\n") * 10_000, recipient=PATH, sender="x@y.example")).startswith("250")
        assert [len(report) for report in running.suppression.reports] == [len(REPORT) + 72, 512 * 1024]

    scenario_of(tmp_path, scenario)


def test_without_a_return_path_there_is_no_such_door(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("relay", "127.0.0.77")
        assert (await client.message(REPORT, recipient=PATH, sender="x@y.example")).startswith("550 5.7.1")

    run(tmp_path, scenario)


def test_a_submission_port_has_no_such_door(tmp_path: pathlib.Path) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect("submission")
        assert (await client.message(REPORT, recipient=PATH, sender="x@y.example")).startswith("530")

    scenario_of(tmp_path, scenario)
