"""The README's code blocks run, and its commands are commands that the scripts understand."""

import re
import shlex
from pathlib import Path

import pytest

from simec_vision.cli.main import DEFAULTS, command_function, with_task
from simec_vision.cli.parsing import make_parser, with_shoes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", blocks("python"), ids=range(len(blocks("python"))))
def test_python_blocks_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def commands():
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line[line.index("python scripts/") :] for line in lines if "python scripts/" in line]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, script, *options = shlex.split(command, comments=True)
    assert (ROOT / script).is_file()
    name, options = with_task(Path(script).stem, options)
    parser = make_parser(command_function(name), DEFAULTS[name])
    if not any(option.endswith("help") for option in options):
        parser.parse_args(with_shoes(options, parser))


LINK = r"\]\(([^)#]+)\)"


def test_every_file_it_links_to_exists():
    for target in re.findall(LINK, README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_file_that_other_pages_link_to_exists(page):
    for target in re.findall(LINK, page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_first_screen_holds_command_and_figure():
    first = README.splitlines()[:30]
    assert any("python scripts/pretrain.py" in line for line in first)
    assert any("docs/heel.png" in line for line in first)
