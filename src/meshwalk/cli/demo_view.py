"""How the demonstration looks: pure functions from a `Scene` to what rich draws.

In 80 x 24 characters: the network on an ellipse, beside it the phases and the numbers, below it
the news. Links are drawn in braille dots, two by four to a character.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH_MIN, HEIGHT_MIN = 80, 24  # the smallest terminal in common use (VT100)
WIDTH_MAX, HEIGHT_MAX = 110, 36  # guess: more only spreads the same picture
SIDE_WIDTH = 33  # the longest line of the phases
FRESH_S = 0.7  # guess: a new link is bright for so long
FLASH_S = 0.35  # guess: and a node that a broadcast has reached
# Part of the drawing that links may fill before only their ends are drawn: looked at, 30 nodes.
INK_MAX = 0.25
NEWS_LINES = 3  # what is left of 24 when the phases and the numbers have their places
BARS_MIN, BARS_MAX = 2, 6  # lines of the histogram: as many as are left beside the drawing

# Dots of a braille character (Unicode 15, block 2800) by column and row, as bits.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800  # the block's first character: no dots


class NodeState(enum.Enum):
    """How a node is drawn: glyph and style."""

    WAITING = ("·", "bright_black")
    SHORT = ("●", "yellow")
    ENOUGH = ("●", "green")
    KILLED = ("✕", "red")


class PhaseState(enum.Enum):
    """How a phase is drawn."""

    WAITING = ("·", "bright_black")
    RUNNING = ("▸", "bold cyan")
    OK = ("✓", "green")
    FAILED = ("✗", "bold red")


class Phase(msgspec.Struct):
    """A step of the demonstration."""

    title: str
    state: PhaseState = PhaseState.WAITING
    seconds: float | None = None


class Claim(msgspec.Struct, frozen=True):
    """One thing that the demonstration is to show, and whether it did."""

    claim: str
    wanted: str
    seen: str
    ok: bool
    seconds: float | None = None


class Scene(msgspec.Struct):
    """One moment of the demonstration."""

    nodes: list[NodeState]
    links: Mapping[tuple[int, int], float] = {}
    """Age in seconds of each link."""
    lost: Mapping[tuple[int, int], float] = {}
    """Seconds since a link was lost."""
    flashes: Mapping[int, float] = {}
    """Seconds since a broadcast has reached a node."""
    source: int | None = None
    """Whose broadcast that was."""
    phases: Sequence[Phase] = ()
    components: Sequence[int] = ()
    """Sizes of the fragments, largest first."""
    links_min: int = 5
    links_max: int = 10
    broadcast: str = ""
    """What is to be said of the last broadcast."""
    news: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def alive(self) -> list[int]:
        """Nodes that take part."""
        out = (NodeState.WAITING, NodeState.KILLED)
        return [index for index, state in enumerate(self.nodes) if state not in out]

    def degrees(self) -> dict[int, int]:
        """Links of each node that takes part."""
        count = dict.fromkeys(self.alive, 0)
        for link in self.links:
            for end in link:
                if end in count:
                    count[end] += 1
        return count


def screen(scene: Scene, width: int = WIDTH_MIN, height: int = HEIGHT_MIN) -> RenderableType:
    """The whole picture; a line less than `height`, so that the cursor has one too."""
    width = max(WIDTH_MIN, min(width, WIDTH_MAX))
    height = max(HEIGHT_MIN, min(height, HEIGHT_MAX))
    drawing_height = height - NEWS_LINES - 4
    frame = Table(
        box=box.ROUNDED,
        width=width,
        show_header=False,
        padding=(0, 1),
        border_style="bright_black",
        title=Text(
            f"meshwalk demo · {len(scene.nodes)} nodes, each a process of its own"
            f" · {scene.seconds:.1f} s",
            style="bold",
        ),
        title_style="",
    )
    drawing_width = width - SIDE_WIDTH - 7
    frame.add_column(width=drawing_width, no_wrap=True)
    frame.add_column(width=SIDE_WIDTH, no_wrap=True)
    frame.add_row(drawing(scene, drawing_width, drawing_height), side(scene, drawing_height))
    news = list(scene.news)[-NEWS_LINES:]
    lines = [Text(f" {line}", style="bright_black", no_wrap=True) for line in news]
    lines += [Text("")] * (NEWS_LINES - len(lines))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Group(frame, *lines)


# The network.


def drawing(scene: Scene, width: int, height: int) -> Text:
    """Nodes on an ellipse and the links between them, in `height` lines of `width` characters."""
    places = positions(len(scene.nodes), width, height)

    def lines_of(links: Iterable[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        return [line(_centre(places[one]), _centre(places[other])) for one, other in links]

    old = lines_of(link for link, age_s in scene.links.items() if age_s >= FRESH_S)
    fresh = lines_of(link for link, age_s in scene.links.items() if age_s < FRESH_S)
    lost = lines_of(link for link, age_s in scene.lost.items() if age_s < FRESH_S)
    cells = _braille(_ends(old, width * height), "grey50")
    # A character has one colour: where a bright link passes, it shows that one alone.
    cells |= _braille(_ends(lost, width * height), "red")
    cells |= _braille((dot for dots in fresh for dot in dots), "bold bright_cyan")
    for index, state in enumerate(scene.nodes):
        glyph, style = state.value
        if index == 0 and state is not NodeState.KILLED:
            glyph = "◆"
        if index == scene.source or scene.flashes.get(index, FLASH_S) < FLASH_S:
            style = "bold bright_white" if index != scene.source else "bold bright_magenta"
        cells[places[index]] = glyph, style
    picture = Text(no_wrap=True)
    for row in range(height):
        for column in range(width):
            picture.append(*cells.get((column, row), (" ", "")))
        if row < height - 1:
            picture.append("\n")
    return picture


def positions(count: int, width: int, height: int) -> list[tuple[int, int]]:
    """Characters on an ellipse for so many nodes, from the top and clockwise."""
    found: list[tuple[int, int]] = []
    for index in range(count):
        angle = 2 * math.pi * index / count
        x = (width - 1) / 2 * (1 + math.sin(angle))
        y = (height - 1) / 2 * (1 - math.cos(angle))
        found.append((round(x), round(y)))
    return found


def line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots of a straight line."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    dx, dy = end[0] - start[0], end[1] - start[1]
    return [
        (start[0] + round(dx * step / steps), start[1] + round(dy * step / steps))
        for step in range(steps + 1)
    ]


def _ends(lines: Sequence[Sequence[tuple[int, int]]], cells: int) -> list[tuple[int, int]]:
    """Where all lines cross, none can be seen: so of many only both ends, which point at each other
    ("partial edge drawing", Bruckdorfer and Kaufmann 2012)."""
    ink = sum(map(len, lines)) / (cells * 8)
    part = min(0.5, INK_MAX / ink / 2) if ink else 0.5
    found: list[tuple[int, int]] = []
    for dots in lines:
        count = math.ceil(len(dots) * part)
        found += dots[:count]
        found += dots[-count:]
    return found


def _centre(place: tuple[int, int]) -> tuple[int, int]:
    return place[0] * 2, place[1] * 4 + 2


def _braille(dots: Iterable[tuple[int, int]], style: str) -> dict[tuple[int, int], tuple[str, str]]:
    bits: Counter[tuple[int, int]] = Counter()
    for x, y in dots:
        bits[x // 2, y // 4] |= _DOTS[x % 2][y % 4]
    return {place: (chr(_BRAILLE + pattern), style) for place, pattern in bits.items()}


# Beside it.


def side(scene: Scene, height: int) -> Text:
    """Phases, numbers and the histogram of degrees, in `height` lines."""
    text = Text(no_wrap=True)
    for phase in scene.phases:
        glyph, style = phase.state.value
        seconds = duration(phase.seconds) if phase.seconds is not None else ""
        text.append(f"{glyph} {phase.title:<{SIDE_WIDTH - 11}}{seconds:>9}\n", style=style)
    text.append("\n")
    degrees = scene.degrees()
    for name, value, style in numbers(scene, degrees):
        text.append(f"{name:<12}", style="bright_black")
        text.append(f"{value}\n", style=style)
    text.append("\n")
    bars = max(BARS_MIN, min(BARS_MAX, height - len(text.plain.splitlines()) - 1))
    text.append_text(histogram(degrees.values(), scene.links_min, scene.links_max, bars))
    lines = text.split("\n", allow_blank=True)
    return Text("\n", no_wrap=True).join(lines[:height])


def numbers(scene: Scene, degrees: Mapping[int, int]) -> list[tuple[str, str, str]]:
    """Names, values and styles of what is counted."""
    killed = sum(state is NodeState.KILLED for state in scene.nodes)
    alive = str(len(degrees)) + (f" of {len(scene.nodes)}" if killed else "")
    pieces = len(scene.components)
    entry = f"{degrees[0]} links" if 0 in degrees else "killed" if killed else "-"
    spread = "-"
    if degrees:
        mean = sum(degrees.values()) / len(degrees)
        spread = f"{min(degrees.values())} / {max(degrees.values())}, mean {mean:.1f}"
    return [
        ("nodes", alive, "bold"),
        ("links", str(len(scene.links)), "bold"),
        ("least/most", spread, "bold"),
        ("entry ◆", entry, "bold"),
        ("pieces", str(pieces), "bold green" if pieces == 1 else "bold yellow"),
        ("broadcast", scene.broadcast or "-", "bold"),
    ]


def histogram(degrees: Iterable[int], links_min: int, links_max: int, height: int) -> Text:
    """How many nodes have 0, 1, 2 … links, as bars; yellow where a node has too few or too many."""
    count = Counter(min(degree, links_max + 1) for degree in degrees)
    top = max(count.values(), default=1)
    text = Text(no_wrap=True)
    for row in range(height, 0, -1):
        for degree in range(links_max + 1):
            # In eighths of a character, and at least one where there is anybody.
            eighths = math.ceil(count[degree] * height * 8 / top) - (row - 1) * 8
            block = " ▁▂▃▄▅▆▇█"[max(0, min(8, eighths))]
            style = "green" if links_min <= degree <= links_max else "yellow"
            text.append(f"{block * 2} ", style=style)
        text.append("\n")
    for degree in range(links_max + 1):
        text.append(f"{degree:<3}", style="bright_black")
    return text


# At the end.


def duration(seconds: float) -> str:
    """`12 ms` or `1.46 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def summary(claims: Iterable[Claim], width: int = WIDTH_MIN) -> Table:
    """Every claim with what was wanted, what was seen, and the verdict."""
    width = max(40, min(width, WIDTH_MIN))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), width=width)
    table.add_column("claim", min_width=23)
    table.add_column("wanted", min_width=17)
    table.add_column("seen", min_width=18)
    table.add_column("time", justify="right", width=7)
    table.add_column("", width=6)
    for claim in claims:
        table.add_row(
            claim.claim,
            claim.wanted,
            claim.seen,
            duration(claim.seconds) if claim.seconds is not None else "",
            Text("ok", style="green") if claim.ok else Text("FAILED", style="bold red"),
        )
    return table
