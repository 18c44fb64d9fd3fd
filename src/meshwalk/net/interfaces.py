"""At which of its own addresses this machine would speak to the world. Sends nothing."""

from __future__ import annotations

import socket

# RFC 5737 and RFC 3849: addresses for documentation, which nobody has.
_SOMEWHERE_ELSE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def hosts_of_this_machine() -> list[str]:
    """The hosts, IPv4 first, that the machine's routes lead out from; empty when there are none.

    Connecting a datagram socket only looks up a route: no packet leaves.
    """
    found: list[str] = []
    for family, elsewhere in _SOMEWHERE_ELSE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))  # RFC 863: discard, should it ever be sent to
                host = str(probe.getsockname()[0]).partition("%")[0]
        except OSError:  # no such family, or no route: then nobody elsewhere can dial it either
            continue
        found.append(host)
    return found
