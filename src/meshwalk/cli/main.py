"""The argument tree, the exit codes, and the door through which every error leaves.

    0    fine; for `up` and `chat` also: ended because it was told to
    1    the operation failed; one line on stderr says why
    2    wrong usage: an unknown command or option, or a value that can never work
    130  interrupted from the keyboard

Reading the arguments only picks an *action*; what it needs is imported when it runs, so that
`--help` is quick. MESHWALK_DEBUG=1 shows tracebacks and the library's log.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer

from meshwalk.cli import sim

if TYPE_CHECKING:
    from meshwalk.cli.options import NodeOptions

OK: Final = 0  # as documented above; 130 is 128 + SIGINT, what shells report
FAILED: Final = 1  # as above
WRONG_USAGE: Final = 2  # as above, and click's own
INTERRUPTED: Final = 130  # as above

DEMO_NODES: Final = 30  # guess: one screen of a terminal
DEMO_KILL: Final = "40%"
JOIN_TIMEOUT_S: Final = 15.0  # as net/node.py, which would take long to import here
PINGS_MAX: Final = 1000  # guess: minutes
DIFFICULTY_MAX: Final = 1_000_000  # guess: at 10**6 hashes a second, 20 minutes for a short line

Action = Callable[[], int]
_Value = TypeVar("_Value")

app = typer.Typer(
    name="meshwalk",
    help="Peer-to-peer networks that build and mend themselves.",
    epilog="MESHWALK_DEBUG=1 shows the log and tracebacks.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(sim.app)


class Common:
    """The options that stand before the command, or come from the environment."""

    def __init__(
        self,
        data: str | None,
        listen: str | None,
        network: str | None,
        secret_file: Path | None,
    ) -> None:
        self.data = data
        self.listen = listen
        self.network = network
        self.secret_file = secret_file


# The texts name the variables, since those after a command do not know of them; see `_options`.
_DATA: Final = "The node's folder: identity, known peers, history. Also MESHWALK_DATA."
_LISTEN: Final = "Where to listen; port 0 is any free one. Also MESHWALK_LISTEN."
_NETWORK: Final = "Which network; an invite brings its own. Also MESHWALK_NETWORK."
_FILE: Final = "A file with the network's secret. Also MESHWALK_SECRET_FILE."
_DIFFICULTY: Final = "Proof of work here: hashes per byte; all must agree on it. 0: none."
_TRACE: Final = "Record the node to a new FILE; messages too. For `meshwalk sim replay FILE`."

Data = Annotated[str | None, typer.Option("--data", metavar="DIR", help=_DATA)]
Listen = Annotated[str | None, typer.Option("--listen", metavar="HOST:PORT", help=_LISTEN)]
NetworkName = Annotated[str | None, typer.Option("--network", metavar="NAME", help=_NETWORK)]
SecretFile = Annotated[Path | None, typer.Option("--secret-file", metavar="FILE", help=_FILE)]
Difficulty = Annotated[
    int, typer.Option("--difficulty", metavar="N", min=0, max=DIFFICULTY_MAX, help=_DIFFICULTY)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
Entry = Annotated[str, typer.Argument(metavar="ENTRY", help="An invite or HOST:PORT.")]


def _version(wanted: bool) -> None:
    if wanted:
        _print_version()
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _common(
    ctx: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="DIR", envvar="MESHWALK_DATA", show_envvar=False, help=_DATA
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            envvar="MESHWALK_LISTEN",
            show_envvar=False,
            help=_LISTEN,
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network", metavar="NAME", envvar="MESHWALK_NETWORK", show_envvar=False, help=_NETWORK
        ),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--secret-file",
            metavar="FILE",
            envvar="MESHWALK_SECRET_FILE",
            show_envvar=False,
            help=_FILE,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    ctx.obj = Common(data, listen, network, secret_file)
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit


# Commands that run a node.


@app.command(help="Talk with everyone in a network.")
def chat(
    ctx: typer.Context,
    entry: Annotated[
        str | None, typer.Argument(metavar="ENTRY", help="An invite or HOST:PORT.")
    ] = None,
    data: Data = None,
    listen: Listen = None,
    network: NetworkName = None,
    secret_file: SecretFile = None,
    room: Annotated[
        str, typer.Option("--room", metavar="ROOM", help="Begin in this room, not the main one.")
    ] = "",
    difficulty: Difficulty = 0,
) -> Action:
    given = Common(data, listen, network, secret_file)

    def action() -> int:
        from meshwalk.cli.chat import chat as run_chat

        options = _options(ctx.obj, given, [entry] if entry else [], difficulty)
        return _run(run_chat(options, entry, room))

    return action


@app.command(help="Run a node until Ctrl-C or `meshwalk stop`.")
def up(
    ctx: typer.Context,
    entries: Annotated[
        list[str] | None,
        typer.Argument(metavar="ENTRY", help="Invites or HOST:PORT; tried again and again."),
    ] = None,
    data: Data = None,
    listen: Listen = None,
    network: NetworkName = None,
    secret_file: SecretFile = None,
    difficulty: Difficulty = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help='Print only "ready".')] = False,
    trace: Annotated[Path | None, typer.Option("--trace", metavar="FILE", help=_TRACE)] = None,
) -> Action:
    given = Common(data, listen, network, secret_file)

    def action() -> int:
        from meshwalk.cli.up import up as run_up

        options = _options(ctx.obj, given, entries or [], difficulty)
        return _run(run_up(options, entries or [], quiet=quiet, trace=trace))

    return action


@app.command(help="Watch a network on this machine mend itself.")
def demo(
    nodes: Annotated[int, typer.Option("--nodes", min=2, max=100, help="How many.")] = DEMO_NODES,
    kill: Annotated[
        str, typer.Option("--kill", metavar="PERCENT", help="How many to kill: 40 or 40%.")
    ] = DEMO_KILL,
    as_json: AsJson = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Make the same choices again.")] = None,
) -> Action:
    kill_percent = _percent(kill)

    def action() -> int:
        from meshwalk.cli.demo import demo as run_demo

        return run_demo(nodes, kill_percent, as_json, seed)

    return action


# Commands that ask a running node.


@app.command(help="Show how the running node fares.")
def status(ctx: typer.Context, data: Data = None, as_json: AsJson = False) -> Action:
    return lambda: _run(_queries().status(_folder(ctx.obj, data), as_json=as_json))


@app.command(help="List the peers that the running node knows.")
def peers(ctx: typer.Context, data: Data = None, as_json: AsJson = False) -> Action:
    return lambda: _run(_queries().peers(_folder(ctx.obj, data), as_json=as_json))


@app.command("id", help="Show the node's PeerId.")
def show_id(ctx: typer.Context, data: Data = None, as_json: AsJson = False) -> Action:
    return lambda: _run(_queries().show_id(_folder(ctx.obj, data), as_json=as_json))


@app.command(help="Show what others need to join.")
def invite(ctx: typer.Context, data: Data = None, as_json: AsJson = False) -> Action:
    return lambda: _run(_queries().invite(_folder(ctx.obj, data), as_json=as_json))


@app.command(help="Measure the round trip to a peer or an address.")
def ping(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="A neighbour's PeerId, its start, or HOST:PORT."),
    ],
    count: Annotated[
        int, typer.Option("--count", "-c", min=1, max=PINGS_MAX, help="How often.")
    ] = 1,
    data: Data = None,
    as_json: AsJson = False,
) -> Action:
    return lambda: _run(_queries().ping(_folder(ctx.obj, data), target, count, as_json=as_json))


@app.command(help="Have the running node join a network.")
def join(
    ctx: typer.Context,
    entry: Entry,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=600, help="How long.")
    ] = JOIN_TIMEOUT_S,
    data: Data = None,
    as_json: AsJson = False,
) -> Action:
    return lambda: _run(_queries().join(_folder(ctx.obj, data), entry, timeout, as_json=as_json))


@app.command(help="Show which way a broadcast takes, and how long.")
def trace(
    ctx: typer.Context,
    entry: Annotated[
        str | None,
        typer.Option("--join", metavar="ENTRY", help="Join by this first, if no node runs here."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0.1, max=600, help="How long to wait."),
    ] = None,
    data: Data = None,
    listen: Listen = None,
    network: NetworkName = None,
    secret_file: SecretFile = None,
    difficulty: Difficulty = 0,
    as_json: AsJson = False,
) -> Action:
    given = Common(data, listen, network, secret_file)

    def action() -> int:
        from meshwalk.cli.traces import trace as run_trace

        options = _options(ctx.obj, given, [entry] if entry else [], difficulty)
        return _run(run_trace(options, entry, timeout, as_json=as_json))

    return action


@app.command(help="Stop the running node.")
def stop(ctx: typer.Context, data: Data = None) -> Action:
    return lambda: _run(_queries().stop(_folder(ctx.obj, data)))


@app.command(help="Show the version.")
def version() -> Action:
    def action() -> int:
        _print_version()
        return OK

    return action


# What the commands share.


def _run(main: Coroutine[Any, Any, int]) -> int:
    from meshwalk.net.loop import run

    return run(main)


def _queries() -> ModuleType:
    from meshwalk.cli import queries

    return queries


def _folder(before: Common, after: str | None) -> Path:
    from meshwalk.cli.options import default_data_folder
    from meshwalk.errors import InvalidArgument

    given = _first(after, before.data)
    if given is None:
        return default_data_folder()
    if not given:
        raise InvalidArgument("--data is empty; name a folder")  # "$UNSET" is not this folder
    # Absolute, so that messages and the control socket mean the same from everywhere.
    return Path(given).expanduser().absolute()


def _options(
    before: Common, after: Common, entries: Sequence[str], difficulty: int = 0
) -> NodeOptions:
    """What stands after the command wins over what stands before it or in the environment."""
    from meshwalk.cli.options import NodeOptions, read_secret
    from meshwalk.identity.network import DEFAULT_NETWORK

    network = _first(after.network, before.network, _network_of(entries), DEFAULT_NETWORK)
    assert network is not None
    return NodeOptions(
        data=_folder(before, after.data),
        listen=_first(after.listen, before.listen),
        network=network,
        secret=read_secret(_first(after.secret_file, before.secret_file)),
        difficulty=difficulty,
    )


def _first(*values: _Value | None) -> _Value | None:
    """The first that was given; an empty text was given too, and is refused by who takes it."""
    return next((value for value in values if value is not None), None)


def _network_of(entries: Sequence[str]) -> str | None:
    """The network that the first invite names, if there is an invite."""
    from meshwalk.wire.address import Invite

    invites = (entry for entry in entries if entry.strip().startswith("meshwalk:"))
    return next((Invite.parse(text).network for text in invites), None)


def _percent(text: str) -> int:
    digits = text.strip().removesuffix("%")
    if not (digits.isascii() and digits.isdigit()) or int(digits[:4]) > 100:
        why = "write a percentage from 0 to 90, such as 40 or 40%"
        raise typer.BadParameter(why, param_hint="'--kill'")
    return int(digits)


def _print_version() -> None:
    from meshwalk.version import __version__

    print(f"meshwalk {__version__}")


# The door.


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    raise SystemExit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command; the exit code. Whatever goes wrong becomes one line on stderr."""
    is_debugging = os.environ.get("MESHWALK_DEBUG", "") not in ("", "0")
    log_shown = _log_handler(is_debugging)
    logging.getLogger().addHandler(log_shown)
    try:
        picked = typer.main.get_command(app).main(
            list(arguments), prog_name="meshwalk", standalone_mode=False
        )
        code = picked() if callable(picked) else int(picked or OK)
        sys.stdout.flush()  # now, while an error can still be told
    except (Exception, KeyboardInterrupt) as error:  # door: the top of the process
        if is_debugging:
            logging.getLogger("meshwalk").critical("", exc_info=error)
        line, code = _explained(error)
        _complain(line)
    finally:
        logging.getLogger().removeHandler(log_shown)
    return code


def _explained(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    from meshwalk.errors import InvalidArgument, MeshwalkError

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return "nobody reads the output any more", FAILED
    if isinstance(error, InvalidArgument):
        return _one_line(str(error)), WRONG_USAGE
    if isinstance(error, MeshwalkError):
        return _one_line(str(error)), FAILED
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename else ""
        return _one_line(f"{error.strerror or error}{place}"), FAILED
    # typer brings its own copy of click, or uses click itself, by its version: both have this.
    usage = getattr(error, "format_message", None)
    if usage is not None:
        text = _one_line(" ".join(str(usage()).split())).rstrip(".")
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "meshwalk"
        return f"{text}; see `{command} --help`", WRONG_USAGE
    return (
        _one_line(
            f"this is a defect of meshwalk ({type(error).__name__}: {error});"
            " run again with MESHWALK_DEBUG=1 and report what it shows"
        ),
        FAILED,
    )


def _one_line(text: str) -> str:
    from meshwalk.cli.render import printable

    return printable(text) or "failed, and did not say why"


def _complain(line: str) -> None:
    try:
        print(f"meshwalk: {line}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:
        # Nobody listens. Else the interpreter would fail once more when it flushes at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())


class _OneLine(logging.Handler):
    """Warnings of the library and of what it uses, a line each, on whatever stderr is now."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f": {type(error).__name__}: {error}"
        _complain(_one_line(text))


def _log_handler(is_debugging: bool) -> logging.Handler:
    if not is_debugging:
        return _OneLine(logging.WARNING)
    logging.getLogger().setLevel(logging.DEBUG)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    return handler
