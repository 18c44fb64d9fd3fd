"""Draws the plots that experiments describe, with matplotlib: SVG or PNG, all in one style.

The only file that imports matplotlib, and only when something is drawn: it comes with the extra
`sim`. Figures are objects, never pyplot's global state. The same plot gives the same SVG, byte for
byte, under the same version of matplotlib. Colours are those of Okabe and Ito, "Color Universal
Design" (2008), which people with any colour vision can tell apart; markers differ as well.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from io import BytesIO
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any, Final

from meshwalk.errors import InvalidArgument, LocalError
from meshwalk.sim.experiment import Kind, Plot, Series, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES: Final = 8.0  # 800 pixels at 100 dots per inch, the width of a README's column
HEIGHT_INCHES: Final = 4.5  # 16 : 9, for a title and a legend of one row each; more make it taller
ROW_INCHES: Final = 0.27  # 14 points of letters and their leading
DOTS_PER_INCH: Final = 200  # PNG only: twice 800 pixels, for screens with fine dots
BARS_WIDTH: Final = 0.8  # of the room of a category; looked at
BINS: Final = 30  # guess: enough for a shape, few enough to see each
BINS_OF_INTEGERS_MAX: Final = 80  # guess: up to here each whole number has a bin; 10 pixels each
LEGEND_ROW: Final = 78  # characters in one row above the plot; measured at 11 points
TITLE_ROW: Final = 60  # likewise, at 14 points and bold
Y_LABEL_ROW: Final = 40  # along the height of the axes and a little more; measured at 12 points
MARKERS_MAX: Final = 15  # guess: with more points, markers stand apart evenly, not on each point
MARKER_DISTANCE: Final = 0.06  # of the diagonal of the axes; looked at

LINES: Final = ("-", "-.", ":")  # full ones first; dashed ones are for comparison
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#4D4D4D")
_MARKERS: Final = ("o", "s", "^", "D", "v", "p", "h")
_INK: Final = "#24292F"
_FAINT: Final = "#D8DEE4"
_GREY: Final = "#6E7781"

_SETTINGS: Final[Any] = {
    "svg.hashsalt": "meshwalk",  # else identifiers are random
    "svg.fonttype": "path",  # the same letters on every machine
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 12,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "grid.color": _FAINT,
    "grid.linewidth": 0.8,
    "text.color": _INK,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.15,  # inches
    "figure.constrained_layout.h_pad": 0.12,
    "axes.facecolor": "white",
    "lines.linewidth": 2.2,
    "lines.markersize": 7,
    "lines.markeredgewidth": 0.8,
}


class Format(enum.StrEnum):
    """File formats, by the ending of their names."""

    SVG = "svg"
    PNG = "png"


class NoMatplotlib(LocalError):
    """Drawing needs matplotlib, which is not installed."""

    def __init__(self) -> None:
        super().__init__('plots need matplotlib: pip install "meshwalk[sim]"')


def require_matplotlib() -> None:
    """Raise `NoMatplotlib` unless it can be imported: to be told before a long run, not after."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise NoMatplotlib from error


def draw(plot: Plot, file_format: Format = Format.SVG) -> bytes:
    """The plot as the content of a file.

    Raises `NoMatplotlib`, and `InvalidArgument` for series that do not fit together.
    """
    _check(plot)
    require_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user has set up for pictures of their own
        matplotlib.rcParams.update(_SETTINGS)
        title = wrap(plot.title, TITLE_ROW)
        legend_columns, legend_rows = _legend_shape(plot.series)
        more_rows = len(title) + legend_rows - 2
        height = HEIGHT_INCHES + ROW_INCHES * max(0, more_rows)
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _PAINTERS[plot.kind](axes, plot)
        _scales(axes, plot)
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(fill(plot.y_label, Y_LABEL_ROW))
        axes.set_title("\n".join(title), pad=12 + 72 * ROW_INCHES * legend_rows)
        if legend_rows:
            _legend(axes, legend_columns)
        out = BytesIO()
        # Without these, both formats hold the date, or the version of matplotlib, or both.
        nothing = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
        figure.savefig(
            out, format=file_format.value, dpi=DOTS_PER_INCH, metadata=nothing[file_format.value]
        )
    return out.getvalue()


def _check(plot: Plot) -> None:
    for series in plot.series:
        count, where = len(series.xs), f"plot {plot.name!r}, series {series.label!r}"
        is_plain = plot.kind is Kind.HISTOGRAM and not series.ys
        if len(series.ys) != count and not is_plain:
            raise InvalidArgument(f"{where}: {count} xs and {len(series.ys)} ys")
        for band in (series.low, series.high):
            if (band and len(band) != count) or bool(series.low) != bool(series.high):
                raise InvalidArgument(f"{where}: low and high are as many as xs, or none")
    if not any(series.xs for series in plot.series):
        raise InvalidArgument(f"plot {plot.name!r} has no values; leave it out")


# The kinds of plots.


def _lines(axes: Axes, plot: Plot) -> None:
    number = 0
    for series in plot.series:
        xs, ys = list(series.xs), list(series.ys)
        if series.style is Style.DASHED:
            axes.plot(xs, ys, "--", color=_GREY, linewidth=1.8, label=series.label, zorder=1.5)
            continue
        # When the colours are used up, they come again with other markers on lines of another kind.
        again = number // len(_COLOURS)
        colour, marker = _colour(number), _MARKERS[(number + again) % len(_MARKERS)]
        number += 1
        if series.style is Style.POINTS:
            axes.scatter(
                xs, ys, 22, colour, marker=marker, alpha=0.7, linewidths=0, label=series.label
            )
            continue
        if series.low:
            axes.fill_between(xs, series.low, series.high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(
            xs,
            ys,
            color=colour,
            linestyle=LINES[again % len(LINES)],
            marker=marker,
            markeredgecolor="white",
            markevery=MARKER_DISTANCE if len(xs) > MARKERS_MAX else None,
            label=series.label,
            zorder=3,
        )
    if plot.x_log:
        axes.set_xscale("log")
    axes.margins(x=0.03)


def _bars(axes: Axes, plot: Plot) -> None:
    """Bars of one category touch; categories keep the order in which the series name them."""
    categories = list(dict.fromkeys(x for series in plot.series for x in series.xs))
    if all(isinstance(x, int | float) for x in categories):
        categories.sort()
    place = {category: index for index, category in enumerate(categories)}
    width = BARS_WIDTH / len(plot.series)
    tops: list[tuple[float, float, float]] = []
    for number, series in enumerate(plot.series):
        shift = (number - (len(plot.series) - 1) / 2) * width
        xs = [place[x] + shift for x in series.xs]
        errors: Any = None
        if series.low:
            errors = [
                [y - low for y, low in zip(series.ys, series.low, strict=True)],
                [high - y for y, high in zip(series.ys, series.high, strict=True)],
            ]
        axes.bar(
            xs,
            list(series.ys),
            width * 0.94,
            color=_colour(number),
            label=series.label,
            yerr=errors,
            error_kw={"ecolor": _INK, "elinewidth": 1.2, "capsize": 3},
        )
        tops += zip(xs, series.ys, series.high or series.ys, strict=True)
    axes.set_xticks(range(len(categories)), [_category(x) for x in categories])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    if len(tops) <= 16:  # guess: values written above more bars would touch
        for x, y, top in tops:
            axes.annotate(
                f"{y:.3g}" if abs(y) < 1000 else f"{y:,.0f}",
                (x, top),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=10,
            )
        axes.margins(y=0.1)


def _histogram(axes: Axes, plot: Plot) -> None:
    """All series in the same bins: outlines with a light filling, so that each can be seen."""
    edges = _bins([float(x) for series in plot.series for x in series.xs], is_log=plot.x_log)
    for number, series in enumerate(plot.series):
        axes.hist(
            [float(x) for x in series.xs],
            bins=edges,
            weights=list(series.ys) or None,
            histtype="stepfilled",
            facecolor=(_colour(number), 0.25),
            edgecolor=_colour(number),
            linewidth=1.8,
            label=series.label,
        )
    if plot.x_log:
        axes.set_xscale("log")
    axes.grid(visible=False, axis="x")


_PAINTERS: Final = {Kind.LINES: _lines, Kind.BARS: _bars, Kind.HISTOGRAM: _histogram}


def _bins(values: Sequence[float], *, is_log: bool) -> list[float]:
    """Edges: around each whole number if there are only such and few, else equally wide."""
    low, high = min(values), max(values)
    if is_log:
        if low <= 0:
            raise InvalidArgument("a logarithmic histogram needs values above zero")
        high = high if high > low else low * 2
        return [*(low * (high / low) ** (step / BINS) for step in range(BINS)), high]
    if high - low < BINS_OF_INTEGERS_MAX and all(value == int(value) for value in values):
        return [whole - 0.5 for whole in range(int(low), int(high) + 2)]
    if low == high:
        return [low - 0.5, low + 0.5]
    return [low + (high - low) * step / BINS for step in range(BINS + 1)]


# What all kinds share.


def _scales(axes: Axes, plot: Plot) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if plot.y_log:
        axes.set_yscale("log")
        axes.margins(y=0.08)
    elif plot.y_from_zero:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if _goes_below_zero(plot) else 0.0)
    for axis, is_log in ((axes.xaxis, plot.x_log), (axes.yaxis, plot.y_log)):
        if axis is axes.xaxis and plot.kind is Kind.BARS:
            continue
        axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        if is_log:
            low, high = sorted(axis.get_view_interval())
            # Less than two decades show one or two powers of ten: too few to read a value from.
            steps = (1.0, 2.0, 5.0) if high < low * 100 else (1.0,)
            axis.set_major_locator(LogLocator(subs=steps))
            axis.set_minor_formatter(NullFormatter())
        else:
            axis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10]))


def _legend_shape(series: Sequence[Series]) -> tuple[int, int]:
    """Columns and rows; none for a series that is alone."""
    if len(series) < 2:
        return 0, 0
    longest = max(len(one.label) for one in series) + 6  # the sample of the line, and the space
    columns = max(1, min(len(series), LEGEND_ROW // longest))
    return columns, -(-len(series) // columns)


def _legend(axes: Axes, columns: int) -> None:
    """Above the plot, between title and frame, where it hides no value."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        borderaxespad=0.3,
        handlelength=1.8,
        columnspacing=1.6,
    )


def _goes_below_zero(plot: Plot) -> bool:
    return any(y < 0 for series in plot.series for y in (*series.ys, *series.low))


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _category(value: float | str) -> str:
    return value if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    """As people write it: 0.05, 2.5, 1,000, 250,000, 2M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.6g}M"
    if abs(value) >= 1000:
        return f"{value:,.10g}"
    return f"{value:.6g}"
