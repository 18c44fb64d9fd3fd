"""Network namespaces, as machines of their own on one cable: for root on Linux, by `ip`.

    with machines(8) as found:
        found[5].move("10.77.0.105")
        found[4].plug(1, "10.88.0.4")
        found[3].unplug()

The first one holds the bridges, so that nothing is made outside the namespaces: when those go, all
that was made goes with them. Those that a killed run has left behind go when the next one begins.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MACHINES_MAX = 8  # a bound on what a test may make of the machine under it
PREFIX = "meshwalk"
CABLES = ("10.77.0", "10.88.0")
"""The first three numbers of each one's addresses, by the number of the cable."""
COMMAND_TIMEOUT_S = 10.0  # guess: `ip` takes milliseconds


class Machine:
    """One namespace. Its interface on cable 0 is `eth0`, on cable 1 `eth1`."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.name = f"{PREFIX}-{os.getpid()}-{index}"
        self.host = f"{CABLES[0]}.{index + 1}"
        """Its address on cable 0."""

    @property
    def within(self) -> list[str]:
        """Put before a command, it runs in here."""
        return ["ip", "netns", "exec", self.name]

    def move(self, host: str) -> None:
        """Take away its address on cable 0, and give it another one."""
        self.ip("address", "del", f"{self.host}/24", "dev", "eth0")
        self.ip("address", "add", f"{host}/24", "dev", "eth0")
        self.host = host

    def plug(self, cable: int, host: str, hub: Machine) -> None:
        """Give it an interface on a cable, whose bridge is in `hub`."""
        self.ip("link", "add", f"eth{cable}", "type", "veth", "peer", f"c{cable}-{self.index}")
        self.ip("link", "set", f"c{cable}-{self.index}", "netns", hub.name)
        hub.ip("link", "set", f"c{cable}-{self.index}", "master", f"cable{cable}", "up")
        self.ip("address", "add", f"{host}/24", "dev", f"eth{cable}")
        self.ip("link", "set", f"eth{cable}", "up")

    def unplug(self) -> None:
        """The interface goes down, as when a machine sleeps or its cable is drawn."""
        self.ip("link", "set", "eth0", "down")

    def plug_again(self) -> None:
        """It comes up again, with the address that it had."""
        self.ip("link", "set", "eth0", "up")

    def ip(self, *words: str) -> None:
        """Run `ip` in here."""
        _ip("-n", self.name, *words)


def why_not() -> str:
    """Why no namespaces can be made here; "" when they can."""
    if shutil.which("ip") is None:
        return "needs ip, of iproute2"
    name = f"{PREFIX}-{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "add", "cable", "type", "bridge")
            _ip("-n", name, "link", "add", "eth", "type", "veth", "peer", "other")
        finally:
            _ip("netns", "del", name)
    except (OSError, subprocess.SubprocessError) as error:
        return f"network namespaces cannot be made here: {error}"
    return ""


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """So many namespaces on one cable. The first is the hub: its address is its bridge's.

    Stop all that runs in them before leaving: a namespace lasts as long as its last process.
    """
    assert count <= MACHINES_MAX
    _remove_those_left_behind()
    found = [Machine(index) for index in range(count)]
    hub = found[0]
    try:
        for machine in found:
            _ip("netns", "add", machine.name)
            machine.ip("link", "set", "lo", "up")
        for cable in range(len(CABLES)):
            hub.ip("link", "add", f"cable{cable}", "type", "bridge")
            hub.ip("link", "set", f"cable{cable}", "up")
        hub.ip("address", "add", f"{hub.host}/24", "dev", "cable0")
        for machine in found[1:]:
            machine.plug(0, machine.host, hub)
        yield found
    finally:
        for machine in found:
            _remove(machine.name)


def _remove_those_left_behind() -> None:
    listed = subprocess.run(
        ["ip", "netns", "list"], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
    )
    for line in listed.stdout.splitlines():
        name = line.partition(" ")[0]
        prefix, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == PREFIX and pid.isdigit() and not Path("/proc", pid).exists():
            _remove(name)


def _remove(name: str) -> None:
    with contextlib.suppress(subprocess.SubprocessError):  # it was not made, perhaps
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    try:
        subprocess.run(
            ["ip", *words], check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
