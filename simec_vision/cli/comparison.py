"""What a benchmark writes: figures with their spread, ratios, and what it ran on, as JSON and as a table."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from simec_vision.cli.runs import write_text
from simec_vision.cli.timing import ratios, spread
from simec_vision.files import write_json


@dataclass
class Comparison:
    """Figures that were measured side by side.

    Args:
        task: What was compared.
        setting: How: precision, memory format, batch size and the like.
        figures: Name → one value a turn.
        units: Name → unit of the figure.
        ratios: Name → one value a turn.
        notes: What a reader must know.
    """

    task: str
    setting: dict[str, Any]
    figures: dict[str, list[float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, values: Sequence[float], unit: str) -> None:
        """Take in a figure, one value a turn."""
        self.figures[name], self.units[name] = [float(value) for value in values], unit

    def relate(self, name: str, figure: str, other: str) -> None:
        """Take in the ratio of two figures, turn by turn."""
        self.ratios[name] = ratios(self.figures[figure], self.figures[other])

    def summary(self) -> dict[str, Any]:
        """Give what ``summary.json`` holds: the median of each ratio by its name, and everything with its spread."""
        figures = {
            name: {**spread(values), "unit": self.units[name], "values": values}
            for name, values in self.figures.items()
        }
        spreads = {name: {**spread(values), "values": values} for name, values in self.ratios.items()}
        medians = {name: parts["median"] for name, parts in spreads.items()}
        own = {"figures": figures, "ratios": spreads, "notes": self.notes}
        return {"task": self.task, **medians, **self.setting, **machine(), **own}

    def markdown(self) -> str:
        """Write the table: figures, then ratios, then what it ran on."""
        lines = [f"**{self.task}**", "", "| figure | median | min | max | unit |", "|---|---:|---:|---:|---|"]
        lines += [_row(name, values, self.units[name]) for name, values in self.figures.items()]
        lines += [_row(name, values, "ratio") for name, values in self.ratios.items()]
        facts = {**machine(), **self.setting}
        told = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())
        return "\n".join([*lines, "", f"- {told}", *(f"- {note}" for note in self.notes), ""])

    def write(self, folder: Path, config: str) -> str:
        """Write ``config.yaml``, ``summary.json`` and ``table.md``, and give the table with its place."""
        write_text(folder / "config.yaml", config)
        write_json(folder / "summary.json", self.summary())
        write_text(folder / "table.md", self.markdown())
        return f"{self.markdown()}\nSaved {folder}"


def _row(name: str, values: list[float], unit: str) -> str:
    cells = " | ".join(f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}" for value in spread(values).values())
    return f"| {name} | {cells} | {unit} |"


def machine() -> dict[str, Any]:
    """Say what this runs on."""
    gpu = torch.cuda.is_available()
    return {
        "machine": f"{platform.system()} {platform.machine()}, {processor()}",
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "torch": torch.__version__,
    }


def processor() -> str:
    """Give the processor's name, from Linux's ``/proc/cpuinfo`` where there is one, and how many cores may be used."""
    import os

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or 'unknown processor'}, {os.cpu_count()} cores"
