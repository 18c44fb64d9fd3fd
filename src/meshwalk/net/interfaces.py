"""At which of its own addresses others can reach this machine. Sends nothing to anybody."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil

# RFC 5737 and RFC 3849: addresses for documentation, which nobody has.
_SOMEWHERE_ELSE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_INTERFACES = Path("/sys/class/net")  # Linux: Documentation/ABI/testing/sysfs-class-net
# POSIX.1-2017, bind() and socket(): an address that is not this machine's, or of a family that the
# system does not have. Whatever else goes wrong says nothing about the address.
_NOT_OURS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
# Likewise: no file descriptor or no memory is free, so that nothing can be asked now. Windows has
# numbers of its own for sockets.
_EXHAUSTED = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, getattr(errno, "WSAEMFILE", 0)}
) - {0}


class Interface(msgspec.Struct):
    """One that is up and has a cable, and is not the loopback."""

    is_bridge: bool
    """A switch within this machine, such as containers and virtual machines hang on. Told by Linux
    alone."""
    hosts: list[str]
    """Addresses that mean something beyond the link, as numbers."""


def hosts_of_this_machine(known: Iterable[str] = ()) -> list[str]:
    """The hosts, IPv4 first, that the machine's routes lead out from; then one of each family for
    every other interface that is up; then those of `known` that it still has, up or not.

    Bridges that no route leads out from are left out: the networks within this machine, to which
    nobody else comes.

    Connecting a datagram socket only looks up a route, and binding one only that the address is
    ours: no packet leaves. Raises `OSError` when the system cannot be asked now, as when no file
    descriptor is free: then nothing is known, not even that an address has gone.
    """
    found: dict[str, None] = {}
    for family, elsewhere in _SOMEWHERE_ELSE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))  # RFC 863: discard, should it ever be sent to
                host = str(probe.getsockname()[0]).partition("%")[0]
        except OSError as error:
            if error.errno in _EXHAUSTED:
                raise
            continue  # no such family, or no route: then nobody elsewhere can dial it either
        # A link-local one is dialled with the name of the dialler's interface (RFC 4007 section 6).
        if family == socket.AF_INET or not ipaddress.ip_address(host).is_link_local:
            found[host] = None
    for interface in interfaces():
        kinds = {":" in host for host in interface.hosts if host in found}
        for host in interface.hosts:
            if not interface.is_bridge and (":" in host) not in kinds:
                kinds.add(":" in host)
                found[host] = None
    for host in known:
        if host not in found and _is_ours(host):
            found[host] = None
    return list(found)


def interfaces() -> list[Interface]:
    """Those of this machine, in the order of their names; empty where the system does not tell.

    Raises `OSError` when it cannot tell now.
    """
    try:
        addresses, states = psutil.net_if_addrs(), psutil.net_if_stats()
    except psutil.Error:
        return []
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return []
    found: list[Interface] = []
    for name in sorted(addresses):
        if name in states and states[name].isup:
            hosts = [a.address for a in addresses[name] if _is_told(a.family, a.address)]
            if hosts:
                found.append(Interface((_INTERFACES / name / "bridge").exists(), hosts))
    return found


def _is_told(family: int, host: str) -> bool:
    """Whether an address of an interface means something to others."""
    if family not in (socket.AF_INET, socket.AF_INET6) or "%" in host:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _is_ours(host: str) -> bool:
    """Whether this machine has the address. Raises `OSError` when that cannot be told now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        return False
    return True
