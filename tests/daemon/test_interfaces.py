from __future__ import annotations

import ifaddr
import pytest

from decaf_node.daemon.interfaces import Address, announced, best_first, chosen, speaking, usable_addresses
from decaf_node.settings import DiscoverySection

LAN = Address("enp1s0", 2, "192.168.1.5", 24)
LAN_TWICE = Address("enp1s0", 2, "192.168.1.6", 24)
LAN_V6 = Address("enp1s0", 2, "fd00::5", 64)
LAN_LINK = Address("enp1s0", 2, "fe80::5", 64)
WIFI = Address("wlan0", 3, "10.0.0.5", 8)
WIFI_LINK = Address("wlan0", 3, "fe80::5", 64)
DOCKER = Address("docker0", 4, "172.17.0.1", 16)
LOOPBACK = Address("lo", 1, "127.0.0.1", 8)
HOST = (LAN, LAN_TWICE, LAN_V6, LAN_LINK, WIFI, WIFI_LINK, DOCKER, LOOPBACK)


def adapters() -> list[ifaddr.Adapter]:
    return [
        ifaddr.Adapter(
            address.interface,
            address.interface,
            [ifaddr.IP(address.ip if address.is_v4 else (address.ip, 0, 0), address.prefix, address.interface)],
            address.index,
        )
        for address in HOST
    ]


@pytest.mark.parametrize(
    ("interfaces", "expected"),
    [
        ((), {LAN, LAN_TWICE, LAN_V6, LAN_LINK, WIFI, WIFI_LINK}),
        (("127.0.0.1",), {LOOPBACK}),
        (("wlan0",), {WIFI, WIFI_LINK}),
        (("docker0", "192.168.1.5"), {DOCKER, LAN}),
        (("enp9s0",), set()),
    ],
    ids=["default", "loopback", "by-name", "named-though-skipped", "not-there"],
)
def test_interfaces_are_chosen_by_name_or_address_or_all_but_the_skipped(
    interfaces: tuple[str, ...], expected: set[Address]
) -> None:
    assert chosen(DiscoverySection(interfaces=interfaces), adapters()) == expected


def test_each_interface_speaks_once_by_each_kind_of_ip() -> None:
    assert speaking(HOST[:6]) == [LAN, WIFI, LAN_LINK], "one link-local address at two interfaces counts once"
    assert speaking([LAN_V6]) == [], "a global IPv6 address alone cannot speak to the link"


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("0.0.0.0", ["192.168.1.5", "127.0.0.1", "10.0.0.5"]),
        ("::", ["192.168.1.5", "127.0.0.1", "10.0.0.5", "fd00::5"]),
        ("10.0.0.5", ["10.0.0.5"]),
        ("fd00::5", ["fd00::5"]),
        ("localhost", ["127.0.0.1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("192.0.2.1", []),
    ],
)
def test_only_addresses_that_the_server_listens_on_are_announced(listen: str, expected: list[str]) -> None:
    assert announced([LAN, LAN_V6, WIFI, LOOPBACK], listen) == expected


def test_a_link_local_address_is_announced_where_there_is_no_other() -> None:
    assert announced([LAN, LAN_LINK, WIFI_LINK], "::") == ["192.168.1.5", "fe80::5"]
    assert announced([LAN, LAN_LINK], "::") == ["192.168.1.5"]


def test_a_peers_addresses_in_a_network_that_we_share_come_first() -> None:
    ips = ["172.20.1.1", "fe80::9", "fe80::9%2", "fd00::9", "2001:db8::9", "192.168.1.9", "192.168.1.9", "172.20.1.1"]
    assert best_first(ips, HOST[:4]) == [
        "192.168.1.9",
        "fd00::9",
        "fe80::9%2",
        "172.20.1.1",
        "2001:db8::9",
    ]


def test_this_host_has_a_loopback_address() -> None:
    (address,) = usable_addresses(DiscoverySection(interfaces=("127.0.0.1",)))
    assert (address.interface, address.ip, address.prefix) == ("lo", "127.0.0.1", 8)
