"""The machine's addresses, as its kernel tells of them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from meshwalk.net import interfaces as asked
from meshwalk.net.interfaces import Interface, hosts_of_this_machine, interfaces


def test_known_ones_last_and_only_those_that_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = hosts_of_this_machine()
    monkeypatch.setattr(asked, "interfaces", list)
    found = hosts_of_this_machine(["127.0.0.1", "192.0.2.77"])
    assert found[-1] == "127.0.0.1"
    assert set(found[:-1]) <= set(routes)


def test_one_of_each_family_for_each_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "_SOMEWHERE_ELSE", ((socket.AF_INET, "127.0.0.9"),))
    given = [
        Interface(is_bridge=False, hosts=["127.0.0.1", "127.0.0.2", "fd00::1", "fd00::2"]),
        Interface(is_bridge=True, hosts=["172.17.0.1"]),
        Interface(is_bridge=False, hosts=["10.8.0.3", "10.8.0.4"]),
    ]
    monkeypatch.setattr(asked, "interfaces", lambda: given)
    found = hosts_of_this_machine()
    assert found[1:] == [h for h in ("127.0.0.1", "fd00::1", "10.8.0.3") if h != found[0]]


def test_what_means_nothing_to_others_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def address(host: str, family: int = socket.AF_INET) -> SimpleNamespace:
        return SimpleNamespace(family=family, address=host)

    addresses = {
        "up": [
            address("10.8.0.3"),
            address("fd00::3", socket.AF_INET6),
            address("fe80::1%up", socket.AF_INET6),
            address("169.254.0.1"),
            address("02:42:ac:11:00:02", -1),
            address("nonsense"),
        ],
        "down": [address("10.9.0.3")],
        "lo": [address("127.0.0.1"), address("::1", socket.AF_INET6)],
        "gone": [address("10.10.0.3")],
    }
    states = {name: SimpleNamespace(isup=name != "down") for name in ("up", "down", "lo")}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: states)
    assert interfaces() == [Interface(is_bridge=False, hosts=["10.8.0.3", "fd00::3"])]


def test_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise PermissionError("not for you")

    monkeypatch.setattr(psutil, "net_if_addrs", fails)
    assert interfaces() == []


def fails_with(number: int) -> Callable[..., Any]:
    def fails(*_: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fails


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_a_free_file_descriptor_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Else every address had gone, and every link with it."""
    with monkeypatch.context() as patch:
        patch.setattr(asked, "interfaces", list)
        patch.setattr(socket, "socket", fails_with(number))
        for known in ((), ("127.0.0.1",)):
            with pytest.raises(OSError, match=os.strerror(number)):
                hosts_of_this_machine(known)
    monkeypatch.setattr(psutil, "net_if_stats", fails_with(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        hosts_of_this_machine()


def test_only_an_address_that_is_not_available_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "interfaces", list)
    monkeypatch.setattr(asked, "_SOMEWHERE_ELSE", ())
    for number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", fails_with(number))
            assert hosts_of_this_machine(["127.0.0.1"]) == []
    monkeypatch.setattr(socket, "socket", fails_with(errno.EPERM))
    with pytest.raises(PermissionError):
        hosts_of_this_machine(["127.0.0.1"])


def test_no_route_is_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "interfaces", list)
    monkeypatch.setattr(socket.socket, "connect", fails_with(errno.ENETUNREACH), raising=False)
    assert hosts_of_this_machine() == []


def test_where_the_system_does_not_tell_the_known_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "net_if_addrs", fails_with(errno.EACCES))
    assert "127.0.0.1" in hosts_of_this_machine(["127.0.0.1"])


def test_of_the_real_machine_nothing_is_loopback_or_of_one_link() -> None:
    addresses, states = psutil.net_if_addrs(), psutil.net_if_stats()
    assert addresses, "there is a loopback at least"
    families = (socket.AF_INET, socket.AF_INET6)
    told = {
        address.address
        for name, found in addresses.items()
        for address in found
        if address.family in families and name in states and states[name].isup
    }
    local = {
        host for host in told if host == "::1" or host.startswith(("127.", "169.254.", "fe80"))
    }
    assert {host for interface in interfaces() for host in interface.hosts} == told - local
