"""How long a frame takes from one host to another: one way, in seconds, before loss and queues.

A model knows hosts by name only and keeps no clock. What is fixed for a host or a pair (a place in
the plane, a draw) follows from the model's seed and the names, so it is the same whoever sends
first and in every process. What differs from frame to frame comes from the `Random` of each call.

`parse_latency` reads a model from a word on a command line or in a configuration.
"""

from __future__ import annotations

import csv
import hashlib
import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Protocol, Self

import msgspec

from meshwalk.errors import InvalidArgument

DELAY_S_MAX = 60.0  # guess: a longer delay is a mistake in the unit; TCP gives up dials before
JITTER = 0.1  # guess: queues in routers add up to a tenth
CLUSTERS_MAX = 10_000  # guess: more clusters than that is a plane without clusters
CLUSTER_SPREAD = 0.05  # guess: hosts of one cluster lie within a twentieth of the plane's width
# The side of the plane stands for 10,000 km: 50 ms of fibre at 200,000 km/s, and cables are about
# twice as long as the straight line (guess).
SECONDS_PER_UNIT = 0.1
LAST_MILE_S = (0.001, 0.010)  # guess: fibre to the home at the low end, DSL at the high end
TABLE_BYTES_MAX = 1 << 20  # guess: 256 regions with delays of a dozen characters fill 0.8 MiB
REGIONS_MAX = 256  # guess: ten times the regions of a large cloud provider

_MASK = (1 << 64) - 1  # arithmetic of 64 bits
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s)")
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class Latency(Protocol):
    """A model of the time that a frame is on its way."""

    def delay_s(self, from_host: str, to_host: str, rng: Random) -> float:
        """Seconds from the one host to the other, for one frame sent now."""
        ...


class Constant:
    """Every frame takes the same time."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        """Raises `InvalidArgument` unless `seconds` is from 0 to 60."""
        self.seconds = _checked_delay_s(seconds, "the delay")

    def delay_s(self, from_host: str, to_host: str, rng: Random) -> float:
        """Always `seconds`."""
        return self.seconds


class Uniform:
    """A fresh draw for each frame: no place is near any other, and frames overtake one another.

    (On one pipe they do not: the world keeps their order.)
    """

    __slots__ = ("_span_s", "least_s", "most_s")

    def __init__(self, least_s: float, most_s: float) -> None:
        """Raises `InvalidArgument` unless 0 <= `least_s` <= `most_s` <= 60."""
        self.least_s, self.most_s = _checked_range_s(least_s, most_s)
        self._span_s = most_s - least_s

    def delay_s(self, from_host: str, to_host: str, rng: Random) -> float:
        """From `least_s` to `most_s`, each as likely as any other."""
        return self.least_s + self._span_s * rng.random()


class Pairwise:
    """Each pair of hosts has a delay of its own, the same both ways; jitter lengthens it.

    The draws obey no triangle inequality: a detour may be shorter, as it is at times on the
    Internet. `jitter` is the share by which a frame may take longer.
    """

    __slots__ = ("_hashes", "_seed", "_span_s", "jitter", "least_s", "most_s")

    def __init__(
        self, least_s: float, most_s: float, seed: int = 0, *, jitter: float = JITTER
    ) -> None:
        """Raises `InvalidArgument` for a range as in `Uniform`, or a jitter not from 0 to 1."""
        self.least_s, self.most_s = _checked_range_s(least_s, most_s)
        self.jitter = _checked_jitter(jitter)
        self._span_s = most_s - least_s
        self._seed = seed
        self._hashes: dict[str, int] = {}  # one number a host, where a table would have one a pair

    def base_s(self, one_host: str, other_host: str) -> float:
        """What the pair has drawn: the delay without jitter, in seconds."""
        hashes = self._hashes
        try:
            mixed = hashes[one_host] + hashes[other_host]
        except KeyError:
            for host in (one_host, other_host):
                hashes[host] = _hash(self._seed, host)
            mixed = hashes[one_host] + hashes[other_host]
        # The sum does not tell (a, b) from (b, a). The rest is the finalizer of SplitMix64
        # (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
        mixed &= _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return self.least_s + self._span_s * ((mixed ^ (mixed >> 31)) >> 11) * 2**-53

    def delay_s(self, from_host: str, to_host: str, rng: Random) -> float:
        """The pair's own delay, and up to `jitter` of it more."""
        return self.base_s(from_host, to_host) * (1.0 + self.jitter * rng.random())


class Plane:
    """Hosts lie in clusters in a square; the delay is the distance and a last mile at each end.

    That last mile is the height of Vivaldi's coordinates (Dabek, Cox, Kaashoek, Morris: Vivaldi, a
    decentralized network coordinate system, SIGCOMM 2004): nobody comes nearer than it. `jitter`
    is the share by which a frame may take longer.
    """

    __slots__ = ("_centres", "_places", "_seed", "jitter", "last_mile_s", "seconds_per_unit")

    def __init__(
        self,
        clusters: int,
        seed: int = 0,
        *,
        seconds_per_unit: float = SECONDS_PER_UNIT,
        last_mile_s: tuple[float, float] = LAST_MILE_S,
        jitter: float = JITTER,
    ) -> None:
        """The square's side is 1 unit; each host draws its last mile from the range `last_mile_s`.

        Raises `InvalidArgument` for fewer than one cluster or more than 10,000, and for delays
        that are not from 0 to 60 s.
        """
        if not 1 <= clusters <= CLUSTERS_MAX:
            raise InvalidArgument(f"a plane has 1 to {CLUSTERS_MAX:,} clusters, not {clusters}")
        self.seconds_per_unit = _checked_delay_s(seconds_per_unit, "seconds_per_unit")
        self.last_mile_s = _checked_range_s(*last_mile_s)
        self.jitter = _checked_jitter(jitter)
        self._seed = seed
        draw = Random(f"{seed}/centres")  # Random hashes text with SHA-512, not with hash()
        self._centres = [(draw.random(), draw.random()) for _ in range(clusters)]
        self._places: dict[str, tuple[float, float, float]] = {}

    def position(self, host: str) -> tuple[float, float]:
        """Where the host lies: x and y in units of the square's side."""
        return self._place(host)[:2]

    def delay_s(self, from_host: str, to_host: str, rng: Random) -> float:
        """Distance and two last miles, and up to `jitter` of them more."""
        places = self._places
        from_x, from_y, from_mile_s = places.get(from_host) or self._place(from_host)
        to_x, to_y, to_mile_s = places.get(to_host) or self._place(to_host)
        x, y = from_x - to_x, from_y - to_y
        # A square root is the same on every machine, which the functions of libm need not be.
        base_s = math.sqrt(x * x + y * y) * self.seconds_per_unit + from_mile_s + to_mile_s
        return base_s * (1.0 + self.jitter * rng.random())

    def _place(self, host: str) -> tuple[float, float, float]:
        place = self._places.get(host)
        if place is None:
            draw = Random(f"{self._seed}/host/{host}")
            x, y = self._centres[int(draw.random() * len(self._centres))]
            x += (2 * draw.random() - 1) * CLUSTER_SPREAD
            y += (2 * draw.random() - 1) * CLUSTER_SPREAD
            place = self._places[host] = (x, y, draw.uniform(*self.last_mile_s))
        return place


class Table:
    """Mean delays between regions, as measured between data centres; row is from, column is to.

    A host belongs to the region of the longest of `prefixes` that its name starts with, at a dot:
    "10.1" and "10.1." take 10.1.0.9 and leave 10.10.0.9. Hosts without one take turns by their
    IP address as a number, so that neighbouring addresses are in different regions; other names
    by a hash. A frame takes the mean, more or less the share `jitter`.
    """

    __slots__ = ("_means_s", "_prefixes", "_regions_by_host", "jitter", "regions")

    def __init__(
        self,
        regions: Sequence[str],
        means_s: Sequence[Sequence[float]],
        prefixes: Mapping[str, str] | None = None,
        *,
        jitter: float = JITTER,
    ) -> None:
        """Raises `InvalidArgument` unless the matrix is square, its delays are from 0 to 60 s, the
        regions' names differ, and each prefix names one of them."""
        if not 1 <= len(regions) <= REGIONS_MAX:
            raise InvalidArgument(f"a table has 1 to {REGIONS_MAX} regions, not {len(regions)}")
        self.regions = tuple(regions)
        if len(set(regions)) != len(regions) or "" in regions:
            raise InvalidArgument("the regions of a table need names that differ")
        if len(means_s) != len(regions):
            raise InvalidArgument(f"{len(regions)} regions need as many rows, not {len(means_s)}")
        for name, row in zip(regions, means_s, strict=True):
            if len(row) != len(regions):
                raise InvalidArgument(
                    f"the row of {name!r} needs {len(regions)} delays, not {len(row)}"
                )
            for mean_s in row:
                _checked_delay_s(mean_s, f"a delay in the row of {name!r}")
        self._means_s = tuple(tuple(map(float, row)) for row in means_s)
        self._prefixes: list[tuple[str, int]] = []
        for prefix, region in sorted((prefixes or {}).items(), key=lambda item: -len(item[0])):
            if region not in self.regions:
                raise InvalidArgument(f"prefix {prefix!r} names {region!r}, which is no region")
            self._prefixes.append((prefix.rstrip(".") + ".", self.regions.index(region)))
        self.jitter = _checked_jitter(jitter)
        self._regions_by_host: dict[str, int] = {}

    @classmethod
    def read(cls, path: str | Path, *, jitter: float = JITTER) -> Self:
        """A table from a file of at most 1 MiB: CSV, or JSON when the name ends in `.json`.

        CSV: a first line with a cell to ignore and the regions' names; then a line for each region
        in the same order, its name and its delays in milliseconds. Blank lines and lines that start
        with `#` are skipped. JSON: `{"regions": [names], "means_ms": [[delays]], "prefixes":
        {prefix: region}}`, where `prefixes` may be missing.
        Raises `InvalidArgument`; the message names the file, and the line where there is one.
        """
        text = _read_text(Path(path))
        try:
            if str(path).endswith(".json"):
                regions, means_s, prefixes = _parse_json(text)
            else:
                regions, means_s, prefixes = *_parse_csv(text), {}
            return cls(regions, means_s, prefixes, jitter=jitter)
        except InvalidArgument as error:
            raise InvalidArgument(f"{path}: {error}") from None

    def region_of(self, host: str) -> str:
        """The name of the region to which the host belongs."""
        return self.regions[self._index(host)]

    def delay_s(self, from_host: str, to_host: str, rng: Random) -> float:
        """The mean between the two hosts' regions, give or take `jitter` of it."""
        mean_s = self._means_s[self._index(from_host)][self._index(to_host)]
        return mean_s * (1.0 + self.jitter * (2.0 * rng.random() - 1.0))

    def _index(self, host: str) -> int:
        index = self._regions_by_host.get(host)
        if index is None:
            dotted = host + "."
            matching = (at for prefix, at in self._prefixes if dotted.startswith(prefix))
            index = next(matching, None)
            if index is None:
                index = _number_of(host) % len(self.regions)
            self._regions_by_host[host] = index
        return index


def parse_latency(text: str, seed: int = 0) -> Latency:
    """The model that a short text names; `seed` fixes what it draws for hosts and pairs.

    `constant:20ms`, `uniform:5ms-50ms`, `pairs:10ms-100ms`, `plane:5` (that many clusters) or
    `table:FILE` (see `Table.read`). Durations are a number and `us`, `ms` or `s`.
    Raises `InvalidArgument`.
    """
    kind, _, rest = text.partition(":")
    if kind == "constant":
        return Constant(parse_duration_s(rest))
    if kind in ("uniform", "pairs"):
        least, dash, most = rest.partition("-")
        if not dash:
            raise InvalidArgument(f"{text!r} lacks a range; write {kind}:5ms-50ms")
        least_s, most_s = parse_duration_s(least), parse_duration_s(most)
        return Uniform(least_s, most_s) if kind == "uniform" else Pairwise(least_s, most_s, seed)
    if kind == "plane":
        if not (rest.isascii() and rest.isdigit() and len(rest) <= 9):
            raise InvalidArgument(f"{text!r} lacks a number of clusters; write plane:5")
        return Plane(int(rest), seed)
    if kind == "table" and rest:
        return Table.read(rest)
    raise InvalidArgument(
        f"{text!r} is no latency; write constant:20ms, uniform:5ms-50ms, pairs:10ms-100ms, plane:5"
        " or table:FILE"
    )


def parse_duration_s(text: str) -> float:
    """Seconds from a number and its unit: `250us`, `5ms`, `1.5s`. Raises `InvalidArgument`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"{text!r} is no duration; write a number and us, ms or s: 5ms")
    return float(found[1]) * _UNITS_S[found[2]]


# Files.


class _TableFile(msgspec.Struct, forbid_unknown_fields=True):
    regions: list[str]
    means_ms: list[list[float]]
    prefixes: dict[str, str] = {}


def _read_text(path: Path) -> str:
    if not path.is_file():  # a pipe or a device might never end
        raise InvalidArgument(f"{path}: there is no such file; name a CSV or JSON file")
    try:
        with path.open("rb") as file:
            data = file.read(TABLE_BYTES_MAX + 1)
        if len(data) > TABLE_BYTES_MAX:
            raise InvalidArgument(
                f"{path}: more than {TABLE_BYTES_MAX:,} bytes; no table is so big"
            )
        return data.decode("utf-8-sig")  # spreadsheets write a byte order mark
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidArgument(f"{path}: line {line}: not UTF-8; save it as plain text") from None


def _parse_csv(text: str) -> tuple[list[str], list[list[float]]]:
    regions: list[str] = []
    rows: list[list[float]] = []
    number = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
        except csv.Error as error:
            raise InvalidArgument(f"line {number}: not CSV: {error}") from None
        if not regions:
            regions = cells[1:]
            if not 1 <= len(regions) <= REGIONS_MAX:
                raise InvalidArgument(
                    f"line {number}: expected an empty cell and then 1 to {REGIONS_MAX} names of"
                    " regions, with commas between"
                )
            continue
        if len(rows) == len(regions):
            raise InvalidArgument(f"line {number}: expected no more than {len(regions)} rows")
        name = regions[len(rows)]
        if cells[0] != name:
            raise InvalidArgument(
                f"line {number}: expected the row of {name!r}, in the order of the first line,"
                f" not {cells[0][:40]!r}"
            )
        if len(cells) - 1 != len(regions):
            raise InvalidArgument(
                f"line {number}: expected {len(regions)} delays, not {len(cells) - 1}"
            )
        rows.append([_parse_cell_s(cell, number) for cell in cells[1:]])
    if len(rows) != len(regions) or not regions:
        raise InvalidArgument(
            f"line {number}: the file ends after {len(rows)} rows; expected a first line with the"
            " regions' names and then a row for each"
        )
    return regions, rows


def _parse_cell_s(cell: str, number: int) -> float:
    # float() alone also takes "nan", "1_0" and "٣".
    if not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", cell) or float(cell) > 1e3 * DELAY_S_MAX:
        raise InvalidArgument(
            f"line {number}: expected a delay from 0 to {1e3 * DELAY_S_MAX:.0f} milliseconds,"
            f" not {cell[:40]!r}"
        )
    return float(cell) * 1e-3


def _parse_json(text: str) -> tuple[list[str], list[list[float]], dict[str, str]]:
    try:
        table = msgspec.json.decode(text, type=_TableFile)
    except (msgspec.DecodeError, RecursionError) as error:
        found = re.search(r"\(byte (\d+)\)", str(error))
        line = text.encode().count(b"\n", 0, int(found[1])) + 1 if found else 1
        raise InvalidArgument(f"line {line}: {error}; expected regions and means_ms") from None
    return (
        table.regions,
        [[mean_ms * 1e-3 for mean_ms in row] for row in table.means_ms],
        table.prefixes,
    )


# Checks and hashes.


def _checked_delay_s(seconds: float, what: str) -> float:
    if not 0.0 <= seconds <= DELAY_S_MAX:  # false for NaN, too
        raise InvalidArgument(f"{what} must be from 0 to {DELAY_S_MAX:g} seconds, not {seconds}")
    return float(seconds)


def _checked_range_s(least_s: float, most_s: float) -> tuple[float, float]:
    _checked_delay_s(least_s, "the least delay")
    _checked_delay_s(most_s, "the greatest delay")
    if least_s > most_s:
        raise InvalidArgument(f"the least delay, {least_s} s, is above the greatest, {most_s} s")
    return float(least_s), float(most_s)


def _checked_jitter(jitter: float) -> float:
    if not 0.0 <= jitter <= 1.0:
        raise InvalidArgument(f"the jitter is a share of the delay from 0 to 1, not {jitter}")
    return jitter


def _hash(seed: int, host: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{host}".encode(), digest_size=8).digest(), "big")


def _number_of(host: str) -> int:
    try:
        return int(ipaddress.ip_address(host))
    except ValueError:
        return _hash(0, host)
