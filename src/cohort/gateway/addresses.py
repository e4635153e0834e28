"""Which addresses of upstreams may be dialled. Pure.

Whoever may create a release chooses where the gateway connects. So addresses that only this machine or its network reaches are refused
unless the installation allows them (`private_upstreams`), and those of cloud metadata services always.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK_ONLY = ("127.0.0.0/8", "::1/128")
"""What a default installation allows: models on this machine, such as Ollama."""
NETWORKS_MAX = 200
METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")
)
"""Where clouds hand out credentials to whoever asks (AWS, Google, Azure, Oracle, ECS, Alibaba)."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Raises ValueError naming the one that is no network."""
    return tuple(ipaddress.ip_network(text) for text in texts)


class AddressGuard:
    """Decides on addresses. `allowed`: networks that may be reached though they are not public."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed

    def permits(self, text: str) -> bool:
        """Whether the address that a name led to may be dialled; text with a zone (`fe80::1%eth0`) never may."""
        try:
            address = inner(ipaddress.ip_address(text))
        except ValueError:
            return False
        if address in METADATA:
            return False
        return is_public(address) or any(address.version == network.version and address in network for network in self._allowed)


def is_near(text: str) -> bool:
    """Whether an address is on this machine or its private network, and not where a cloud hands out credentials."""
    try:
        address = inner(ipaddress.ip_address(text))
    except ValueError:
        return False
    odd = address.is_multicast or address.is_unspecified or address.is_link_local or (address.is_reserved and not address.is_loopback)
    return not (address in METADATA or is_public(address) or odd)


def is_public(address: Address) -> bool:
    """Reachable on the internet: neither private, loopback, link-local, shared, multicast, reserved nor unspecified."""
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local  # RFC 3879 gave them up; networks may have them
    return address.is_global and not (site_local or address.is_multicast or address.is_reserved or address.is_unspecified)


def inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, compatible, 6to4, Teredo, NAT64); else the address."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    low = int(address) & 0xFFFFFFFF
    return ipaddress.IPv4Address(low) if address in _NAT64 or (address in _COMPATIBLE and low > 1) else address
