"""The options that every command which runs a node shares, and the node that they describe."""

from __future__ import annotations

from pathlib import Path

import msgspec
import platformdirs

from meshwalk.config import BroadcastConfig, Config
from meshwalk.errors import InvalidArgument, StoreError
from meshwalk.identity.network import DEFAULT_NETWORK, SECRET_BYTES_MAX
from meshwalk.net.node import Node


class NodeOptions(msgspec.Struct, frozen=True):
    """Which node: its folder, where it listens, and its network."""

    data: Path
    listen: str | None = None
    network: str = DEFAULT_NETWORK
    secret: bytes = b""
    difficulty: int = 0
    """Proof of work that broadcasts need in this network."""


def default_data_folder() -> Path:
    """Where a node keeps its things unless told otherwise."""
    return Path(platformdirs.user_data_dir("meshwalk", appauthor=False))


def read_secret(path: Path | None) -> bytes:
    """The secret in a file, without the line end. Raises `InvalidArgument` or `StoreError`."""
    if path is None:
        return b""
    try:
        with path.open("rb") as file:
            secret = file.read(SECRET_BYTES_MAX + 2).rstrip(b"\r\n")
    except OSError as error:
        raise StoreError(f"cannot read the secret file {path}: {error.strerror}") from error
    if not secret:
        raise InvalidArgument(f"the secret file {path} is empty; put the network's secret into it")
    if len(secret) > SECRET_BYTES_MAX:
        raise InvalidArgument(f"the secret file {path} is longer than {SECRET_BYTES_MAX} bytes")
    return secret


def make_node(options: NodeOptions, *, is_passing: bool = False) -> Node:
    """The node that the options describe, not yet started; a passing one keeps nothing."""
    return Node(
        network=options.network,
        secret=options.secret,
        listen=options.listen,
        data=None if is_passing else options.data,
        config=Config(broadcast=BroadcastConfig(difficulty=options.difficulty)),
    )
