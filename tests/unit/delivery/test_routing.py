"""Where mail goes, and which addresses are never dialled (A15)."""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_delivery.routing import MOST_HOSTS, may_dial, order_mx

# A first and a last address of every block of the IANA special-purpose registries that is not globally reachable, or carries an address inside.
REGISTRIES = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24"),
    *("192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/128", "::1/128", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:2::/48", "2001:10::/28", "2001:db8::/32"),
    *("2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
)


@pytest.mark.parametrize("network", REGISTRIES)
def test_no_address_of_a_special_network_is_dialled_plain_mapped_or_translated(network: str) -> None:
    whole = ipaddress.ip_network(network)
    for address in (whole[0], whole[-1], whole[whole.num_addresses // 2]):
        assert not may_dial(str(address), ())
        if isinstance(address, ipaddress.IPv4Address):
            number = int(address)
            for carrier in (0xFFFF << 32, 0, 0x64FF9B << 96, 0x2002 << 112 | number << 80):
                assert not may_dial(str(ipaddress.IPv6Address(carrier | (number if carrier != 0x2002 << 112 | number << 80 else 0))), ())


def test_a_refused_network_is_refused_although_public_or_allowed() -> None:
    refused = [ipaddress.ip_network("34.118.224.0/20"), ipaddress.ip_network("127.0.0.0/8")]
    assert may_dial("34.118.224.1", ())
    for address in ("34.118.224.1", "::ffff:34.118.224.1", "127.0.0.1"):
        assert not may_dial(address, [ipaddress.ip_network("127.0.0.0/8")], refused)


SPECIAL = (
    *("0.0.0.0", "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.2.1"),
    *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.0.192", "192.88.99.1", "168.63.129.16"),
    *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1", "5f00::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001::1"),
)


@pytest.mark.parametrize("address", SPECIAL)
def test_an_address_of_a_special_network_is_never_dialled(address: str) -> None:
    assert not may_dial(address, ())


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_is_dialled(address: str) -> None:
    assert may_dial(address, ())


def test_an_allowed_network_may_be_dialled_also_as_a_mapped_address() -> None:
    allowed = [ipaddress.ip_network("127.0.0.0/8")]
    assert may_dial("127.0.0.1", allowed)
    assert may_dial("::ffff:127.0.0.1", allowed)
    assert not may_dial("10.0.0.1", allowed)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([f"mx{n}.test" for n in range(20)])), max_size=30), st.integers())
def test_hosts_are_tried_in_the_order_of_their_preference(records: list[tuple[int, str]], seed: int) -> None:
    """Invariant: an ordered prefix of the published hosts, bounded in number."""
    hosts = order_mx(records, "us.test", random.Random(seed))
    assert len(hosts) == min(len(records), MOST_HOSTS)
    wanted = sorted(preference for preference, _ in records)[:MOST_HOSTS]
    assert all((preference, host) in records for preference, host in zip(wanted, hosts, strict=True))


def test_hosts_behind_ourselves_are_not_tried() -> None:
    assert order_mx([(10, "a.test"), (20, "us.test"), (20, "b.test"), (30, "c.test")], "us.test", random.Random(1)) == ["a.test"]
