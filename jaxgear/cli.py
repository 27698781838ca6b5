"""The command line: `python -m jaxgear COMMAND`, and how experiments run and exit.

Each command is a module of `jaxgear.commands`.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jaxgear import __version__
from jaxgear.commands.models import evaluate, export, predict
from jaxgear.commands.models import next as choose
from jaxgear.commands.pages import review, serve
from jaxgear.commands.runs import compare, new, report, study
from jaxgear.commands.sets import check, clean, get, prepare
from jaxgear.errors import GearError
from jaxgear.machine.huge_pages import restart_with_huge_pages
from jaxgear.machine.lacking import lacking
from jaxgear.machine.process import set_up_process
from jaxgear.paths import expanded

EPILOG = """\
python -m jaxgear COMMAND --help shows the flags of a command.
python -m jaxgear.experiments.scratch trains a network from scratch, python -m
jaxgear.experiments.transfer a classifier on a pretrained ResNet; --help shows their flags.
An error is one line on stderr; --debug shows a traceback.

exit codes:
  0 done; 2 usage or config; 3 training diverged; 4 data; 5 checkpoint, bundle or weights;
  130 Ctrl-C; 143 SIGTERM; 1 anything else

environment variables:
  JAXGEAR_CACHE                  folder for decoded images, features, weights and compiled programs;
                                 you may delete it (default: ~/.cache/jaxgear; XDG_CACHE_HOME)
  JAX_COMPILATION_CACHE_DIR      another folder for compiled programs
  HF_ENDPOINT                    server for weights with Hugging Face names
  GLIBC_TUNABLES, XLA_FLAGS      experiments add glibc.malloc.hugetlb=1 (Linux) and a flag of XLA's
                                 CPU compiler, unless you set them; glibc.malloc.hugetlb=0 turns
                                 huge pages off
"""
DEBUG = "show a traceback on errors"
COMMANDS = (
    *(check, clean, evaluate, predict, report, compare, study),
    *(export, serve, choose, review, prepare, get, new),
)
C = TypeVar("C")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `jaxgear`."""
    parser = parser_of()
    arguments, others = parser.parse_known_args(argv)
    if arguments.passed_on is not None:
        arguments.flags = arguments.passed_on(others)
    elif others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    exit_with(lambda: arguments.run(_with_paths(arguments)), arguments.debug)


def parser_of() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="jaxgear" if Path(sys.argv[0]).stem == "jaxgear" else "python -m jaxgear",
        description="Classify photographs of gear.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jaxgear {__version__}")
    parser.add_argument("--debug", action="store_true", help=DEBUG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for module in COMMANDS:
        name, summary = module.__name__.rpartition(".")[2], module.__doc__.splitlines()[0]
        passes = hasattr(module, "passed_on")  # flags that it does not know
        command = commands.add_parser(
            name, help=summary, description=summary, allow_abbrev=not passes
        )
        module.add_arguments(command)
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG)
        command.set_defaults(run=module.run, passed_on=getattr(module, "passed_on", None))
    return parser


def _with_paths(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments, with `~` and variables in each path replaced."""
    for name, value in vars(arguments).items():
        if isinstance(value, Path):
            setattr(arguments, name, _expanded(value))
        elif isinstance(value, list):
            value[:] = [_expanded(item) if isinstance(item, Path) else item for item in value]
    return arguments


def _expanded(path: Path) -> Path:
    return Path(expanded(str(path)))


def run_experiment(experiment: Callable[[C], Path], config: type[C]) -> NoReturn:
    """Runs an experiment's `main` with a config made from the command line."""
    argv = sys.argv[1:]
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    from jaxgear.experiment.flags import parse

    try:
        exit_with(lambda: _on_hosts(experiment, parse(config, argv)), debug)
    except SystemExit as stop:
        if stop.code and stop.code < 128:
            _leave(stop.code)
        raise
    except BaseException:
        traceback.print_exc()
        _leave(1)
        sys.exit(1)


def _on_hosts(experiment: Callable[[C], Path], config: C) -> Path:
    """Runs an experiment on the hosts of `config`; only the first host prints."""
    if type(config).__module__ == "__main__" and hasattr(sys.modules["__main__"], "__file__"):
        # The file of a user was run. experiments/__init__.py does this for ours, before imports.
        set_up_process()
        restart_with_huge_pages()
    if config.hosts == 1:
        return _within_memory(experiment, config)
    from jaxgear.machine import devices, hosts

    hosts.join(config.hosts, config.host_id, config.coordinator)
    with contextlib.ExitStack() as stack:
        if not devices.first_host():
            silent = stack.enter_context(Path(os.devnull).open("w", errors="replace"))
            stack.enter_context(contextlib.redirect_stdout(silent))
        try:
            return _within_memory(experiment, config)
        except (RuntimeError, ValueError) as error:
            if lost := hosts.lost_host(error):
                raise lost from error
            raise


def _leave(code: int) -> None:
    """Ends this process at once if it is one of several hosts: JAX would wait for the others, and
    they wait for this one.
    """
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _within_memory(experiment: Callable[[C], Path], config: C) -> Path:
    """Runs an experiment; if the device runs out of memory, the error names flags that help."""
    try:
        return experiment(config)
    except RuntimeError as error:  # jax.errors.JaxRuntimeError, without importing jax for it
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        size = config.batch_size
        part = next(part for part in range(max(1, size // 4), 0, -1) if size % part == 0)
        raise GearError(
            f"--batch-size {size} did not fit in the device's memory; try --batch-size "
            f"{max(1, size // 2)} or --microbatch {part}, or a smaller --image-size"
        ) from error


def exit_with(command: Callable[[], Any], debug: bool = False) -> NoReturn:
    """Runs `command` and exits with its code; prints an error as one line on stderr."""

    def terminate(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    for stream in (sys.stdout, sys.stderr):
        # A name may have characters that the terminal's encoding lacks. None: a closed stream.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, terminate)
    # Shells start background jobs with SIGINT ignored, but an explicit SIGINT should still work.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except GearError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (MemoryError, RuntimeError, AssertionError, ImportError) as error:
        if debug or not (lack := lacking(error)):
            raise
        print(f"error: {lack}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone
        _drop_stdout()
        sys.exit(1)
    except OSError as error:
        if debug or error.filename is not None or not _stdout_fails():
            raise
        print(f"error: standard output cannot be written ({error.strerror})", file=sys.stderr)
        _drop_stdout()
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _stdout_fails() -> bool:
    """Whether writing an empty line to standard output fails, for example on a full disk."""
    try:
        if sys.stdout is not None:
            print(flush=True)
    except OSError:
        return True
    return False


def _drop_stdout() -> None:
    """Discards unwritten standard output, which Python would try to write again on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
