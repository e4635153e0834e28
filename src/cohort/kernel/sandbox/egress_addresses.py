"""Which addresses are somewhere on the public internet, and the one look-up of a name.

The lists are those of IANA's special-purpose registries, read strictly: what is not plainly public is refused. Addresses that carry an
IPv4 address within (NAT64) are judged by that; mapped, compatible, 6to4 and Teredo ones have no business here and are refused.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from cohort.base.errors import CohortError, Retry
from cohort.kernel.sandbox.egress_names import AllowList, Target

ADDRESSES_MAX = 16
NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers, and some clouds' metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's platform services
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)
GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
NOT_PUBLIC_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address, as the resolver writes it, is on the public internet; not for anything that is no address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in NOT_PUBLIC_V4)
    if parsed.scope_id is not None:
        return False
    if parsed in NAT64:
        return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
    return parsed in GLOBAL_V6 and not any(parsed in network for network in NOT_PUBLIC_V6)


def resolve_public(host: str, port: int, *, private: Sequence[str] = ()) -> tuple[str, ...]:
    """The addresses of `host`, asked for once: dial these and never the name, or a second answer could be another.

    One address that is not public refuses them all, unless `private` (patterns `host:port`, from the configuration) names the host.
    Takes as long as the system's resolver may.

    Raises:
        CohortError EGRESS_REFUSED: not a public place. EGRESS_FAILED: the name has no address, or no resolver answers.
    """
    target = Target(host, port, literal=_is_address(host))
    addresses = look_up(target)
    if AllowList.of(private).permits(target):
        return addresses
    bad = next((address for address in addresses if not is_public(address)), None)
    if bad is not None:
        hint = "If it is meant to be reached, the configuration has to name it as private."
        raise CohortError("EGRESS_REFUSED", f"{target} is at {bad}, which is not on the public internet", hint=hint)
    return addresses


def plainly_private(host: str, port: int, private: Sequence[str] = ()) -> bool:
    """Whether no look-up is needed to know that `host` is not on the public internet: it is such an address.

    `private`: as for `resolve_public`. Errors: FIELD_INVALID, for a line of `private`.
    """
    return _is_address(host) and not is_public(host) and not AllowList.of(private).permits(Target(host, port, literal=True))


def look_up(target: Target) -> tuple[str, ...]:
    """Every address of a host, in the resolver's order. Errors: EGRESS_FAILED."""
    if target.literal:
        return (target.host,)
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise CohortError("EGRESS_FAILED", f"{target} cannot be resolved: {error}", retry=Retry.SAFE, hint="Check the name.") from None
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:ADDRESSES_MAX]
    if not addresses:
        raise CohortError("EGRESS_FAILED", f"{target} has no address", retry=Retry.SAFE, hint="Check the name.")
    return addresses


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
