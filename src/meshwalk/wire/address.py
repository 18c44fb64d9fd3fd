"""Addresses (`tcp://host:port`) and invites (`meshwalk://PEER@host:port/NETWORK`) as text.

Both come from people and from strangers, so parsing is strict and bounded.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Self
from urllib.parse import quote, unquote

import msgspec

from meshwalk.errors import InvalidAddress, InvalidArgument, InvalidInvite
from meshwalk.wire.peerid import PeerId

DEFAULT_PORT = 55555  # seed 000: the port its program tries first
HOST_CHARACTERS_MAX = 253  # RFC 1035 section 2.3.4: 255 octets, of which two are not written
ADDRESS_CHARACTERS_MAX = 265  # "tcp://", a host, ":65535"
INVITE_ADDRESSES_MAX = 8  # guess: loopback, LAN and public, each in IPv4 and IPv6, and two to spare
INVITE_CHARACTERS_MAX = 4096  # guess: eight long addresses and a long network name
NETWORK_NAME_BYTES_MAX = 200  # guess; it is only an input to a key derivation

PORT_MAX = 65535  # RFC 9293 section 3.1: 16 bits

_BLANKS = " \t\r\n"  # what copying adds; not every control character that Unicode calls a space
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}")  # as `ipaddress` writes it; ten times as quick
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
# The system's resolver reads 127.1, 0x7f.1, 2130706433 and 0 as IPv4 addresses, so that "0:80"
# would be this machine and not look like it. WHATWG URL, "ends in a number checker".
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,32}")  # names of interfaces; `ipaddress` allows nearly all
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # Unicode category Cc


class Address(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place where a node listens: a host name or IP address, and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = DEFAULT_PORT) -> Self:
        """Read `tcp://host:port`, `host:port` or `host`; IPv6 hosts stand in brackets.

        `default_port` fills in for a missing port; with None a port must be given.
        Raises `InvalidAddress`.
        """
        if len(text) > ADDRESS_CHARACTERS_MAX:
            raise InvalidAddress(f"an address has at most {ADDRESS_CHARACTERS_MAX} characters")
        rest = text.strip(_BLANKS).removeprefix("tcp://")
        host, port = _split(rest, text)
        if port == "":
            if default_port is None:
                raise InvalidAddress(f"{text!r} lacks a port; write HOST:PORT")
            return cls(_checked_host(host, text), default_port)
        # isdigit() alone also takes "٣", and int() alone "+1", "1_0" and " 1".
        if not (port.isascii() and port.isdigit() and len(port) <= 5) or int(port) > PORT_MAX:
            raise InvalidAddress(f"{text!r} has no port from 0 to {PORT_MAX} after its last colon")
        return cls(_checked_host(host, text), int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether the host is an IP address of this machine alone."""
        address = self.ip
        return address is not None and address.is_loopback

    @property
    def is_unspecified(self) -> bool:
        """Whether the host stands for every interface (`0.0.0.0`, `::`): not to be dialled."""
        if not self.host.startswith(("0", ":")):
            return False  # nearly always; reading an address takes 4 µs
        address = self.ip
        return address is not None and address.is_unspecified

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address; None when it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"tcp://{self.host_and_port}"

    @property
    def host_and_port(self) -> str:
        """`host:port`, with brackets round an IPv6 host."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _split(rest: str, text: str) -> tuple[str, str]:
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise InvalidAddress(f"{text!r} opens a bracket and does not close it before the port")
        return host, port[1:]
    if rest.count(":") > 1:
        try:
            ipaddress.IPv6Address(rest)
        except ValueError:
            raise InvalidAddress(f"{text!r} is no address; write [IPV6]:PORT") from None
        return rest, ""
    host, _, port = rest.partition(":")
    return host, port


def _checked_host(host: str, text: str) -> str:
    if _IPV4.fullmatch(host):
        return host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        is_name = len(host) <= HOST_CHARACTERS_MAX and _HOST_NAME.fullmatch(host)
        if is_name and not _ENDS_IN_NUMBER.fullmatch(host):
            return host.lower()
        raise InvalidAddress(f"{text!r} is no address; write HOST:PORT") from None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.scope_id is not None and not _ZONE.fullmatch(address.scope_id):
        raise InvalidAddress(f"{text!r} names no network interface after its percent sign")
    # A dual-stack socket reports IPv4 peers as ::ffff:a.b.c.d; one host must have one name.
    return str(address.ipv4_mapped or address)


def encode_network_name(name: str) -> bytes:
    """A network's name in UTF-8, as a key is derived from it: in Unicode's composed form, so that
    "é" typed on two keyboards is one network. Raises `InvalidArgument` for what cannot be a name.
    """
    if _CONTROL.search(name):
        raise InvalidArgument("a network name has no control characters")
    try:
        encoded = unicodedata.normalize("NFC", name).encode()
    except UnicodeEncodeError:
        raise InvalidArgument("a network name is text that UTF-8 can write") from None
    if not 0 < len(encoded) <= NETWORK_NAME_BYTES_MAX:
        raise InvalidArgument(f"a network name has 1 to {NETWORK_NAME_BYTES_MAX} bytes")
    return encoded


class Invite(msgspec.Struct, frozen=True):
    """All that a stranger needs to find a network, but for its secret if it has one."""

    network: str
    peer: PeerId
    addresses: tuple[Address, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `meshwalk://PEER@host:port[,host:port…]/NETWORK`. Raises `InvalidInvite`."""
        if len(text) > INVITE_CHARACTERS_MAX:
            raise InvalidInvite(f"an invite has at most {INVITE_CHARACTERS_MAX} characters")
        scheme, found, rest = text.strip(_BLANKS).partition("://")
        if scheme != "meshwalk" or not found:
            raise InvalidInvite("an invite begins with meshwalk://; copy the whole of it")
        peer, at, rest = rest.partition("@")
        places, slash, network = rest.partition("/")
        if not at or not slash:
            raise InvalidInvite("an invite reads meshwalk://PEER@HOST:PORT/NETWORK")
        try:
            name = unquote(network, errors="strict")
            encode_network_name(name)
            addresses = tuple(
                Address.parse(place, default_port=None)
                for place in places.split(",")[: INVITE_ADDRESSES_MAX + 1]
            )
            identity = PeerId.parse(peer)
        except (InvalidArgument, UnicodeDecodeError) as error:
            raise InvalidInvite(f"the invite is damaged: {error}") from error
        if len(addresses) > INVITE_ADDRESSES_MAX:
            raise InvalidInvite(f"an invite has at most {INVITE_ADDRESSES_MAX} addresses")
        return cls(name, identity, addresses)

    def __str__(self) -> str:
        places = ",".join(address.host_and_port for address in self.addresses)
        return f"meshwalk://{self.peer.text}@{places}/{quote(self.network, safe='')}"
