"""Which IP addresses a task may be sent to: the public ones, unless the setting says otherwise. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_NAT64: Final = ip_network("64:ff9b::/96")
# What the standard library calls global though it is not: protocol assignments and a cloud's metadata service in public space.
_SPECIAL: Final = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # IETF protocol assignments, a metadata service among them
            "168.63.129.16/32",  # a platform's virtual public address: metadata and DNS of its machines
            "64:ff9b:1::/48",  # local-use translation
            "100::/64",  # discard
            "2001::/23",  # Teredo and other tunnels: the real address is inside
            "3fff::/20",  # documentation
            "fec0::/10",  # site-local, the former private addresses
        ),
    )
)


def is_public(address: str) -> bool:
    """Whether an address (text) is one of the open internet; anything unclear is not.

    Loopback, private, link-local (cloud metadata), carrier-grade NAT, multicast and reserved addresses are not public, nor are
    IPv6 addresses that carry such an IPv4 address inside (mapped, NAT64, 6to4).
    """
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and (inner := _carried(ip)) is not None:
        ip = inner
    if any(ip in network for network in _SPECIAL if network.version == ip.version):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def _carried(ip: IPv6Address) -> IPv4Address | None:
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour
