"""The command line: `python -m jaxgear COMMAND`, and what experiments share of one.

Each command is a module of `jaxgear.commands`.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jaxgear.commands import check, compare, evaluate, export, predict, prepare, report, serve
from jaxgear.errors import GearError, UsageError
from jaxgear.paths import expanded

EPILOG = """\
python -m jaxgear COMMAND --help shows the flags of a command, python -m experiments.scratch --help
those of an experiment. An error is one line on stderr; --debug shows a traceback.

exit codes:
  0 done; 2 usage or config; 3 training diverged; 4 data; 5 checkpoint, bundle or weights;
  130 Ctrl-C; 143 SIGTERM; 1 anything else

environment variables:
  JAXGEAR_CACHE                  folder for decoded images, features, weights and compiled programs,
                                 which may be deleted (default: ~/.cache/jaxgear; XDG_CACHE_HOME)
  JAX_COMPILATION_CACHE_DIR      another folder for compiled programs
  HF_ENDPOINT                    where weights named as on Hugging Face come from
  GLIBC_TUNABLES, XLA_FLAGS      experiments add glibc.malloc.hugetlb=1 (Linux) and a flag of XLA's
                                 CPU compiler where you set none; glibc.malloc.hugetlb=0: no
"""
COMMANDS = (check, evaluate, predict, report, compare, export, serve, prepare)
C = TypeVar("C")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `jaxgear`."""
    parser = argparse.ArgumentParser(
        prog="jaxgear",
        description="Classify photographs of gear.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback on errors")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for module in COMMANDS:
        name, summary = module.__name__.rpartition(".")[2], module.__doc__.splitlines()[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    exit_with(lambda: arguments.run(_with_paths(arguments)), arguments.debug)


def _with_paths(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments, with `~` and variables in each path replaced."""
    for name, value in vars(arguments).items():
        if isinstance(value, Path):
            setattr(arguments, name, _expanded(value))
        elif isinstance(value, list):
            value[:] = [_expanded(one) if isinstance(one, Path) else one for one in value]
    return arguments


def _expanded(path: Path) -> Path:
    return Path(expanded(str(path)))


def run_experiment(experiment: Callable[[C], Path], config: type[C]) -> NoReturn:
    """Runs an experiment's `main` with a config made from the command line."""
    argv = sys.argv[1:]
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
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
    """Runs it on the hosts of `config`, of which the first speaks."""
    if config.hosts == 1:
        return _within_memory(experiment, config)
    from jaxgear.machine import devices

    devices.join(config.hosts, config.host_id, config.coordinator)
    with contextlib.ExitStack() as stack:
        if not devices.first_host():
            silent = stack.enter_context(Path(os.devnull).open("w", errors="replace"))
            stack.enter_context(contextlib.redirect_stdout(silent))
        try:
            return _within_memory(experiment, config)
        except (RuntimeError, ValueError) as error:
            if lost := devices.lost_host(error):
                raise lost from error
            raise


def _leave(code: int) -> None:
    """Ends a process that is one of several hosts at once: JAX would wait for the others, which
    wait for this one.
    """
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _within_memory(experiment: Callable[[C], Path], config: C) -> Path:
    """Runs it; when the device has too little memory, says which flag helps."""
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


def parse(config: type[C], argv: Sequence[str]) -> C:
    """A config from flags; under `--resume`, that of the run, with which flags must agree.

    Raises:
        UsageError: an unknown flag (with the nearest name), a bad value, or a flag that the resumed
            run has another value for.
    """
    from jaxgear.experiment.config import check_resumed, stored_config

    chosen = _parse(config, argv, None)
    if chosen.resume:
        stored = stored_config(config, chosen.resume)
        chosen = check_resumed(_parse(config, argv, stored), stored)
    chosen.check()
    return chosen


def _parse(config: type[C], argv: Sequence[str], default: C | None) -> C:
    import tyro

    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(config, args=list(argv), default=default or config()).expanded()
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UsageError(_one_line(heard.getvalue()) + _to_edit(config, argv)) from None


# What an experiment file decides, as people write it for a flag -> how its line begins there.
DECISIONS = {
    "optimizer": r"\s*optimizer=",
    "optim": r"\s*optimizer=",
    "model": r"\s*model = |\s*model=",
    "network": r"\s*model = |\s*model=",
    "arch": r"\s*model = |\s*model=",
    "layers": r"\s*model = |\s*model=",
    "loss": r"\s*loss=",
    "lr": r"\s*rate=",
    "learning-rate": r"\s*rate=",
    "schedule": r"\s*rate=",
    "scheduler": r"\s*rate=",
    "augment": r"\s*augment=",
    "augmentation": r"\s*augment=",
}


def _to_edit(config: type, argv: Sequence[str]) -> str:
    """Where to change what is no flag but a line of the experiment file; "" for anything else."""
    known = {field.name for field in dataclasses.fields(config)}
    names = [word[2:].partition("=")[0].replace("_", "-") for word in argv if word[:2] == "--"]
    file = getattr(sys.modules.get(config.__module__), "__file__", None)
    for name in names:
        if name.replace("-", "_") in known or name not in DECISIONS or file is None:
            continue
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        place = next((n for n, line in enumerate(lines, 1) if re.match(DECISIONS[name], line)), 1)
        return f"; --{name} is no flag: change it in {file}, line {place}"
    return ""


def _one_line(box: str) -> str:
    """tyro's framed message as one line: what is wrong, and the nearest flag."""
    lines = [line.strip("╭╮╰╯│─ \n") for line in box.splitlines()]
    lines = [line for line in lines[1:] if line]
    message = lines[0] if lines else "bad flags"
    for line, following in itertools.pairwise(lines):
        if line.startswith("Perhaps you meant"):
            message += f"; perhaps you meant {following.split()[0]}"
    return message


def exit_with(command: Callable[[], Any], debug: bool = False) -> NoReturn:
    """Runs `command` and exits with its code; an error is one line on stderr."""

    def terminate(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    for stream in (sys.stdout, sys.stderr):
        # A name may hold what the terminal's encoding lacks; None: the stream is closed.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, terminate)
    # Shells start background jobs with SIGINT ignored; who sends it all the same means it.
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
        if debug or not (lacking := _lacking(error)):
            raise
        print(f"error: {lacking}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # whoever read our output has seen enough
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
    """Whether standard output cannot be written, as on a full disk; an empty line tells."""
    try:
        if sys.stdout is not None:
            print(flush=True)
    except OSError:
        return True
    return False


def _drop_stdout() -> None:
    """Lets what waits in standard output go nowhere; Python would try once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _lacking(error: Exception) -> str | None:
    """What the machine lacks for which an error was raised, and what to do; None for others."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError):
        return f"not enough memory{_limit()} ({text or 'for what was asked for'})"
    if "RESOURCE_EXHAUSTED" in text:
        return f"not enough memory on the device, try a smaller --batch-size ({text[:200]})"
    if "can't start new thread" in text:
        return f"no thread can be started: too many processes (ulimit -u), or memory{_limit()}"
    if isinstance(error, ImportError):
        return f"a library cannot be loaded ({text}); install it as README says"
    jax = sys.modules.get("jax")
    if jax is None or not jax.config.jax_platforms:
        return None
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as missing:  # which of them depends on the platform
        reason = str(missing).partition("\n")[0][:200] or "no such devices, or no plugin for them"
        return f"JAX_PLATFORMS={jax.config.jax_platforms}: not on this machine ({reason})"
    return None


def _limit() -> str:
    """The limit of a process' memory that batch systems set, if there is one."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return ""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if limit == resource.RLIM_INFINITY else f" within ulimit -v {limit >> 10}"
