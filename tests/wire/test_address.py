"""Addresses and invites as text: from people, and from strangers."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import InvalidAddress, InvalidArgument, InvalidInvite
from meshwalk.identity.network import Network
from meshwalk.wire.address import (
    ADDRESS_CHARACTERS_MAX,
    DEFAULT_PORT,
    HOST_CHARACTERS_MAX,
    INVITE_CHARACTERS_MAX,
    Address,
    Invite,
    encode_network_name,
)
from meshwalk.wire.frames import SHORT_TEXT_CHARACTERS_MAX
from meshwalk.wire.peerid import PeerId

PEER = PeerId(bytes(range(32)))
LONGEST_HOST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])

labels = st.from_regex(r"[a-z0-9_][a-z0-9_-]{0,20}", fullmatch=True)
names = st.builds(
    lambda first, last: ".".join([*first, "x" + last]), st.lists(labels, max_size=3), labels
)
ips = st.ip_addresses().map(lambda ip: str(getattr(ip, "ipv4_mapped", None) or ip))
addresses = st.builds(Address, names | ips, st.integers(0, 65535))
network_names = st.text(
    st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=50
)  # at most 200 bytes
nearly_addresses = st.text("tcp://[]:.%@,-_xX0189afAF ٣\u017f\x00\ud800", max_size=40)


# Addresses.


@given(addresses)
def test_address_round_trip(address: Address) -> None:
    assert Address.parse(str(address)) == address
    assert Address.parse(address.host_and_port, default_port=None) == address


@given(st.lists(st.integers(0, 300).map(str) | st.sampled_from(["00", "01", "", "٣"]), max_size=5))
def test_dotted_numbers_are_addresses_as_the_standard_library_reads_them(parts: list[str]) -> None:
    host = ".".join(parts)
    try:
        wanted = str(ipaddress.IPv4Address(host))
    except ValueError:
        with pytest.raises(InvalidAddress):
            Address.parse(host + ":1")
    else:
        assert Address.parse(host + ":1") == Address(wanted, 1)


@given(st.ip_addresses(), st.booleans())
def test_unspecified_as_the_standard_library_says(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, is_long: bool
) -> None:
    assert Address(ip.exploded if is_long else str(ip), 1).is_unspecified == ip.is_unspecified


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0:0::0", "0000::", "::%eth0"])
def test_unspecified_hosts(host: str) -> None:
    assert Address(host, 1).is_unspecified


@given(st.text(max_size=300) | nearly_addresses)
def test_any_text_is_an_address_or_invalid(text: str) -> None:
    try:
        address = Address.parse(text)
    except InvalidAddress as error:
        str(error).encode()  # can be printed
        return
    assert Address.parse(str(address), default_port=None) == address
    assert 0 <= address.port <= 65535
    assert address.host.isascii()
    assert address.host.isprintable()
    assert len(str(address)) <= ADDRESS_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://192.0.2.1:80", "192.0.2.1", 80),
        ("192.0.2.1", "192.0.2.1", DEFAULT_PORT),
        ("192.0.2.1:", "192.0.2.1", DEFAULT_PORT),
        ("Example.COM:1", "example.com", 1),
        ("localhost", "localhost", DEFAULT_PORT),
        ("a_b-c.x1:65535", "a_b-c.x1", 65535),
        ("h:0", "h", 0),
        ("h:00080", "h", 80),
        (" \th:1\r\n", "h", 1),
        ("[::1]:5", "::1", 5),
        ("tcp://[::1]", "::1", DEFAULT_PORT),
        ("::1", "::1", DEFAULT_PORT),
        ("[2001:DB8:0:0:0:0:0:1]:5", "2001:db8::1", 5),
        ("[::ffff:192.0.2.1]:5", "192.0.2.1", 5),
        ("[::ffff:c000:201]:5", "192.0.2.1", 5),
        ("[::ffff:192.0.2.1%eth0]:5", "192.0.2.1", 5),
        ("[fe80::1%eth0]:5", "fe80::1%eth0", 5),
        ("[192.0.2.1]:5", "192.0.2.1", 5),
        ("3com.example:5", "3com.example", 5),
        ("0x7g:5", "0x7g", 5),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ":", ":80", "[]:80", "[", "[::1", "::1]", "[::1]80", "[::1]x:80", "[:::]:1"),
        *("tcp://", "tcp:///", "udp://h:1", "TCP://h:1", "tcp://tcp://h:1", "http://h"),
        *("h:65536", "h:99999", "h:100000", "h:000080", "h:" + "9" * 200, "h:-1", "h:+1"),
        *("h:1_0", "h: 1", "h:1 2", "h:٣", "h:²", "h:1.0", "h:0x50", "h:http", "h:1:2"),
        *("a b:1", "h/x:1", "h@x:1", "h,i:1", "h?:1", "h%:1", "-h:1", ".h:1", "h..i:1"),
        *("é:1", "\u017f:1", "h\x00:1", "h\n:1", "\x1fh:1", "h:1\x00", "\u2003h:1", "h\ud800:1"),
        *("a" * 64 + ":1", LONGEST_HOST + "d:1", "x" * 300, ":" * 200),
        # What a resolver reads as an IPv4 address, though it is not written like one.
        *("0:1", "1:1", "127.1:1", "0x7f.1:1", "0X7F000001:1", "2130706433:1", "010.0.0.1:1"),
        *("192.0.2.1.:1", "192.0.2.256:1", "1.2.3.4.5:1", "h.1:1", "h.0x:1", "0x:1"),
        *("[fe80::1%]:1", "[fe80::1%a%b]:1", "[fe80::1%a b]:1", "[fe80::1%\x00]:1"),
        *("[fe80::1%a,b]:1", "[fe80::1%a@b]:1", "[fe80::1%\ud800]:1", f"[fe80::1%{'a' * 33}]:1"),
        *("[::ffff:192.0.2.1%\x00]:1", "[::1/128]:1", "192.0.2.1/24:1", "١٢.0.2.1:1"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        Address.parse(text)
    str(caught.value).encode()  # can be printed: no surrogates
    assert str(caught.value).isprintable()


def test_a_port_may_be_demanded() -> None:
    for text in ("h", "h:", "[::1]", "::1"):
        with pytest.raises(InvalidAddress):
            Address.parse(text, default_port=None)
    assert Address.parse("h", default_port=7) == Address("h", 7)


def test_longest_address_fits_where_addresses_travel() -> None:
    address = Address(LONGEST_HOST, 65535)
    assert len(LONGEST_HOST) == HOST_CHARACTERS_MAX
    assert len(str(address)) == ADDRESS_CHARACTERS_MAX == SHORT_TEXT_CHARACTERS_MAX
    assert Address.parse(str(address)) == address


@given(st.ip_addresses(v=4))
def test_one_host_has_one_name(ip: ipaddress.IPv4Address) -> None:
    assert Address.parse(f"[::ffff:{ip}]:1") == Address.parse(f"{ip}:1")


def test_kinds_of_host() -> None:
    def at(host: str) -> Address:
        return Address.parse(f"[{host}]:1")

    assert all(at(host).is_loopback for host in ("127.0.0.1", "127.9.9.9", "::1"))
    assert at("::ffff:127.0.0.1").is_loopback
    assert not any(at(host).is_loopback for host in ("192.0.2.1", "::2", "localhost"))
    assert all(at(host).is_unspecified for host in ("0.0.0.0", "::", "::ffff:0.0.0.0"))
    assert not any(at(host).is_unspecified for host in ("127.0.0.1", "example.com"))
    assert at("example.com").ip is None


# Invites.


@given(network_names, st.lists(addresses, min_size=1, max_size=8))
def test_invite_round_trip(network: str, places: list[Address]) -> None:
    invite = Invite(network, PEER, tuple(places))
    text = str(invite)
    assert text.isascii()
    assert Invite.parse(f"\n{text} ") == invite


@given(st.text(max_size=50), nearly_addresses, st.text(max_size=50), st.text(max_size=50))
def test_any_text_is_an_invite_or_invalid(any_text: str, place: str, name: str, end: str) -> None:
    for text in (
        any_text,
        f"meshwalk://{any_text}",
        f"meshwalk://{PEER}@{place}/{name}",
        f"meshwalk://{PEER}@h:1/{name}%{end}",
    ):
        try:
            invite = Invite.parse(text)
        except InvalidInvite as error:
            str(error).encode()  # can be printed
            continue
        assert Invite.parse(str(invite)) == invite
        assert 1 <= len(invite.addresses) <= 8
        assert Network(invite.network).name == invite.network


@pytest.mark.parametrize(
    "text",
    [
        "",
        "meshwalk",
        "meshwalk://",
        f"meshwalk:{PEER}@h:1/net",
        f"http://{PEER}@h:1/net",
        f"meshwalk://{PEER}/net",
        f"meshwalk://{PEER}@h:1",
        f"meshwalk://{PEER}@h:1/",
        f"meshwalk://{PEER}@/net",
        f"meshwalk://{PEER}@h/net",
        f"meshwalk://{PEER}@h:1,/net",
        f"meshwalk://{PEER}@tcp://h:1/net",
        f"meshwalk://{PEER}@{','.join(['h:1'] * 9)}/net",
        f"meshwalk://{PEER.text[:-1]}@h:1/net",
        "meshwalk://@h:1/net",
        f"meshwalk://{PEER}@h:1/{'n' * 201}",
        f"meshwalk://{PEER}@h:1/{'é' * 101}",
        f"meshwalk://{PEER}@h:1/%00",
        f"meshwalk://{PEER}@h:1/a%0Ab",
        f"meshwalk://{PEER}@h:1/a%1B[2J",
        f"meshwalk://{PEER}@h:1/%C2%85",
        f"meshwalk://{PEER}@h:1/%FF",
        f"meshwalk://{PEER}@h:1/%ED%A0%80",
        f"meshwalk://{PEER}@h:1/\ud800",
        f"meshwalk://{PEER}@h:1/net" + " " * INVITE_CHARACTERS_MAX,
    ],
)
def test_what_is_no_invite(text: str) -> None:
    with pytest.raises(InvalidInvite) as caught:
        Invite.parse(text)
    str(caught.value).encode()


def test_invite_at_its_bounds() -> None:
    invite = Invite("\U0001f310" * 50, PEER, (Address(LONGEST_HOST, 65535),) * 8)
    assert len(str(invite)) <= INVITE_CHARACTERS_MAX
    assert Invite.parse(str(invite)) == invite


# Network names.


@given(st.text(max_size=210))
def test_invites_and_networks_agree_on_names(name: str) -> None:
    try:
        encode_network_name(name)
    except InvalidArgument:
        with pytest.raises(InvalidArgument):
            Network(name)
        return
    assert Network(name).name == name
    assert Invite.parse(str(Invite(name, PEER, (Address("h", 1),)))).network == name


@pytest.mark.parametrize("name", ["", "\x00", "a\nb", "\x7f", "\x85", "\ud800", "é" * 101])
def test_what_is_no_network_name(name: str) -> None:
    with pytest.raises(InvalidArgument):
        Network(name)


def test_names_and_secrets_do_not_run_into_each_other() -> None:
    pairs = [("ab", b""), ("a", b"b"), ("a", b""), ("", b"ab")]
    ids = {Network(name, secret).network_id for name, secret in pairs if name}
    assert len(ids) == 3
    with pytest.raises(InvalidArgument):
        Network("a", bytes(4097))


def test_a_name_typed_on_two_keyboards_is_one_network() -> None:
    assert encode_network_name("cafe\u0301") == encode_network_name("caf\u00e9") == b"caf\xc3\xa9"
