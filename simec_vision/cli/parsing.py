"""From the command line to a command: options from its signature, one clear line for a user's mistake."""

import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from simec_vision.items import InputError, OwnInputError, nearest

Command = Callable[..., None]


def make_parser(command: Command, defaults: dict[str, Any] | None = None) -> Any:
    """Make the parser of a command: ``--config``, the command's arguments, and every Trainer option.

    Args:
        command: A function whose signature and docstring are the options; ``trainer`` among its arguments becomes the
            options of Lightning's Trainer, ``argv``'s parsed configuration arrives as ``config``.
        defaults: Option → default, where it differs from the signature's.
    """
    from jsonargparse import ArgumentParser

    import simec_vision.datamodules
    import simec_vision.encoders
    import simec_vision.similarities  # noqa: F401  # so that classes are known by their short names

    summary = (command.__doc__ or "").split("\n")[0]
    parser = ArgumentParser(description=summary, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_function_arguments(command, skip={"trainer", "config"}, fail_untyped=True)
    if "trainer" in command.__annotations__:
        _add_trainer(parser)
    parser.set_defaults(defaults or {})
    return parser


def _add_trainer(parser: Any) -> None:
    import pytorch_lightning as pl

    from simec_vision.cli.hardware import best_precision

    parser.add_class_arguments(
        pl.Trainer, "trainer", skip={"logger", "callbacks", "default_root_dir"}, instantiate=False
    )
    parser.set_defaults({"trainer.precision": best_precision(), "trainer.enable_model_summary": False})


def run_command(command: Command, defaults: dict[str, Any] | None = None, argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run the command, and give its exit code.

    A user's mistake ends in one line on stderr and exit code 2.
    """
    from simec_vision.cli.runs import first_process

    try:
        run_here(command, defaults, list(sys.argv[1:] if argv is None else argv))
    except Exception as error:
        line = user_mistake(error)
        if line is None:
            raise
        if first_process() or isinstance(error, OwnInputError):
            print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


def run_here(command: Command, defaults: dict[str, Any] | None, argv: list[str]) -> None:
    """Parse arguments and run the command; a user's mistake is raised.

    Raises:
        InputError: if the arguments are wrong.
    """
    from simec_vision.cli.hardware import keep_memory, quiet

    quiet()
    keep_memory()
    parser = make_parser(command, defaults)
    argv = continued(argv)
    configs = read_configs(argv)
    argv = with_shoes(argv, parser, configs)
    check_names(named_classes(argv, configs))
    try:
        parsed = parser.parse_args(argv)
        ready = instantiate(parser, parsed)
    except Exception as error:
        raise explained(error, parser) from error
    config = parser.dump(repeatable(parsed), skip_none=True)
    arguments = {name: ready[name] for name in command.__annotations__ if name in ready}
    if "config" in command.__annotations__:
        arguments["config"] = config
    command(**arguments)


def repeatable(parsed: Any) -> Any:
    """Leave out what only belongs to this one run: the folder it writes to, and the one it goes on in."""
    options = parsed.clone()
    for name in ("out", "resume"):
        if name in options:
            options[name] = None
    return options


def instantiate(parser: Any, parsed: Any) -> Any:
    """Build the objects that a parsed configuration describes."""
    import torch

    seed = parsed.get("seed")
    torch.manual_seed(seed if isinstance(seed, int) else 0)  # an encoder among the options draws its weights now
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # the name before jsonargparse 4.49
    return build(parsed)


def continued(argv: list[str]) -> list[str]:
    """Turn ``--resume RUN`` into that run's own options, with ``RUN`` as the run folder.

    Raises:
        InputError: if the folder holds no run.
    """
    given = [(place, word) for place, word in enumerate(argv) if word.split("=")[0] == "--resume"]
    if not given:
        return argv
    place, word = given[0]
    run = word.split("=", 1)[1] if "=" in word else argv[place + 1] if place + 1 < len(argv) else ""
    if not (Path(run) / "config.yaml").is_file():
        raise InputError(f"Expected --resume to name a run folder, but there is no {Path(run) / 'config.yaml'}")
    return ["--config", str(Path(run) / "config.yaml"), *argv, "--out", run]


def with_shoes(argv: list[str], parser: Any, configs: Sequence[dict[str, Any]] = ()) -> list[str]:
    """Name the drawn shoes as the source of images where pretraining is told of no other.

    A parser's default would not do: options that two sources share would keep the shoes' values for the other one.
    """
    required = any(action.dest == "data" and action.required for action in parser._actions)
    given = any(word == "--data" or word.startswith("--data=") for word in argv)
    given |= any("data" in config for config in configs)
    return ["--data", "DrawnShoes", *argv] if required and not given else argv


def read_configs(argv: list[str]) -> list[dict[str, Any]]:
    """Read the YAML files that ``--config`` names.

    Raises:
        InputError: naming the file that is missing or holds no options.
    """
    return [_read_config(path) for option, path in _with_values(argv) if option == "--config"]


def _with_values(argv: list[str]) -> list[tuple[str, str]]:
    """Pair each word with what may be its value: what follows its ``=``, or else the next word."""
    split = (word.split("=", 1) if "=" in word else (word, following) for word, following in pairwise([*argv, ""]))
    return [(option, value) for option, value in split]


def _read_config(path: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"Expected a YAML file of options for --config at {path}: {reason}") from error
    if not isinstance(content, dict):
        raise InputError(f"Expected options, one `name: value` a line, in the YAML file {path}, got {content!r:.80}")
    return content


def named_classes(argv: list[str], configs: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Give the options that the command line and the YAML files set, each with what may be the name of a class."""
    named = _with_values(argv)
    for config in configs:
        similarities = config.get("similarities") or {}
        heads = similarities.items() if isinstance(similarities, dict) else ()
        values = [("--data", config.get("data")), ("--encoder", config.get("encoder"))]
        values += [(f"--similarities.{head}", value) for head, value in heads]
        named += [(option, _class_of(value)) for option, value in values]
    return named


def _class_of(value: Any) -> str:
    """Give the class that a value in YAML names, without the path of this package."""
    name = str((value.get("class_path") if isinstance(value, dict) else value) or "null")
    return name.rpartition(".")[2] if name.startswith("simec_vision.") else name


def user_mistake(error: BaseException) -> str | None:
    """Give the line for an error that the user caused, or None for one that is the program's own."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}. Check that the folder exists, may be written to, and has space left"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}. Check that the disk has space left"
    if isinstance(error, InputError | MisconfigurationException):
        return " ".join(str(error).split())
    return None


def explained(error: Exception, parser: Any) -> Exception:
    """Turn a parser's error into one line that names the nearest known option or name."""
    from jsonargparse import ArgumentError

    if isinstance(error, InputError) or not isinstance(error, ArgumentError | ValueError | TypeError | KeyError):
        return error
    message = " ".join(str(error).split())
    return InputError(message + _suggestion(message, parser))


def _suggestion(message: str, parser: Any) -> str:
    """Say what was probably meant by an option or class name that is not known."""
    unknown = re.search(
        r"nrecognized arguments: --(\S+)|Option '(\S+)' is not accepted|Key '(\S+)' is not expected", message
    )
    if unknown:
        name = next(filter(None, unknown.groups())).split("=")[0]
        return f". Unknown option {name!r}: {_nearest_option(name, parser, message)}"
    return ""


def _nearest_option(name: str, parser: Any, message: str) -> str:
    from difflib import get_close_matches

    known = [action.dest for action in parser._actions]
    accepted = re.search(r"class_path '([\w.]+)'", message)
    if accepted:
        known = _init_arguments(accepted[1])
    close = get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(close)}?" if close else "see --help"


def _init_arguments(class_path: str) -> list[str]:
    import inspect
    from importlib import import_module

    module, _, name = class_path.rpartition(".")
    return list(inspect.signature(getattr(import_module(module), name)).parameters)


def check_names(named: Sequence[tuple[str, str]]) -> None:
    """Make sure that classes named by their short names are known.

    Args:
        named: Option and the name that it is given, from :func:`named_classes`.

    Raises:
        InputError: naming the nearest known class.
    """
    for option, name in named:
        known = _class_names(option)
        if known and name.isidentifier() and name not in known and name not in ("null", "None"):
            raise InputError(f"Expected the name of a class for {option}, got {name!r}: {nearest(name, known)}")


def _class_names(option: str) -> list[str]:
    """Give the known class names of an option that takes one."""
    from simec_vision import similarities
    from simec_vision.datamodules import SOURCES
    from simec_vision.encoders import ENCODERS

    if re.fullmatch(r"--similarities\.\w+", option):
        kinds = [value for value in vars(similarities).values() if isinstance(value, type)]
        return [kind.__name__ for kind in kinds if issubclass(kind, similarities.Similarity)]
    return {"--data": list(SOURCES), "--encoder": list(ENCODERS)}.get(option, [])
