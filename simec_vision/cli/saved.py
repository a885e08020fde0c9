"""Coming back to a pretraining run: its model and its images."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from simec_vision.cli.runs import newest_run
from simec_vision.items import InputError


def pretrained_run(model: str | None) -> Path:
    """Find the run folder of a pretraining: the given one, the newest, or a first one that is made now.

    Raises:
        InputError: if the given folder is no finished pretraining run.
    """
    if model is not None:
        return _checked(Path(model))
    run = newest_run("pretrain")
    if run is None:
        print("No pretraining run under runs/ yet: pretraining one first, with the defaults", flush=True)
        _pretrain_first()
        run = newest_run("pretrain")
    assert run is not None
    print(f"Using {run}")
    return run


def _pretrain_first() -> None:
    code = "import sys; from simec_vision.cli.main import main; sys.exit(main('pretrain', ['--heatmaps', 'false']))"
    subprocess.run([sys.executable, "-c", code], check=True)


def _checked(run: Path) -> Path:
    if not (run / "model" / "model.json").is_file():
        raise InputError(
            f"Expected --model to name the run folder of a finished pretraining, "
            f"but there is no {run / 'model' / 'model.json'}"
        )
    return run


def run_options(run: Path) -> Any:
    """Build the options of a pretraining run again from its ``config.yaml``; ``data`` and ``similarities`` among them.

    Raises:
        InputError: if that file is missing or is no configuration of a pretraining.
    """
    from simec_vision.cli.main import DEFAULTS
    from simec_vision.cli.parsing import explained, instantiate, make_parser
    from simec_vision.cli.pretrain import pretrain

    config = run / "config.yaml"
    if not config.is_file():
        raise InputError(f"Expected the options of the run in {config}, which is missing; give --data instead")
    parser = make_parser(pretrain, DEFAULTS["pretrain"])
    try:
        options = parser.parse_args(["--config", str(config)])
        options.encoder = None  # it lies in model/; to build it here could mean to download its weights again
        return instantiate(parser, options)
    except Exception as error:
        raise explained(error, parser) from error
