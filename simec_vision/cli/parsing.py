"""From the command line to a command: options from its signature, one clear line for a user's mistake."""

import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from simec_vision.items import InputError, nearest

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
    from simec_vision.cli.hardware import quiet

    quiet()
    try:
        _run(command, defaults, list(sys.argv[1:] if argv is None else argv))
    except Exception as error:
        line = user_mistake(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


def _run(command: Command, defaults: dict[str, Any] | None, argv: list[str]) -> None:
    parser = make_parser(command, defaults)
    argv = with_shoes(continued(argv), parser)
    check_names(argv)
    try:
        parsed = parser.parse_args(argv)
        ready = instantiate(parser, parsed)
    except Exception as error:
        raise explained(error, parser) from error
    config = parser.dump(parsed, skip_none=True)
    arguments = {name: ready[name] for name in command.__annotations__ if name in ready}
    if "config" in command.__annotations__:
        arguments["config"] = config
    command(**arguments)


def instantiate(parser: Any, parsed: Any) -> Any:
    """Build the objects that a parsed configuration describes."""
    import torch

    torch.manual_seed(parsed.get("seed") or 0)  # an encoder among the options draws its weights now
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


def with_shoes(argv: list[str], parser: Any) -> list[str]:
    """Name the drawn shoes as the source of images where pretraining is told of no other.

    A parser's default would not do: options that two sources share would keep the shoes' values for the other one.
    """
    required = any(action.dest == "data" and action.required for action in parser._actions)
    given = any(word == "--data" or word.startswith("--data=") for word in argv)
    return ["--data", "DrawnShoes", *argv] if required and not given and not _config_names_data(argv) else argv


def _config_names_data(argv: list[str]) -> bool:
    import yaml

    words = [word.split("=", 1) for word in argv]
    paths = [pair[1] for pair in words if pair[0] == "--config" and len(pair) == 2]
    paths += [argv[place + 1] for place, word in enumerate(argv[:-1]) if word == "--config"]
    try:
        contents = [yaml.safe_load(Path(path).read_text()) for path in paths]
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return False  # the parser will say what is wrong with the file
    return any(isinstance(content, dict) and "data" in content for content in contents)


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


def check_names(argv: list[str]) -> None:
    """Make sure that the classes named on the command line by their short names are known.

    Raises:
        InputError: naming the nearest known class.
    """
    words = [word.split("=", 1) if "=" in word else [word, following] for word, following in pairwise([*argv, ""])]
    for option, name in words:
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
