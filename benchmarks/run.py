"""Run the benchmarks and write their results; or render the committed table.

python benchmarks/run.py [--device auto] [--only imports,adamo_step,stacked_runs,entk,ppo] [--out FOLDER]
python benchmarks/run.py --table
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

import torch
from bench import RESULTS, record

from dyniso.study.runner import resolve_device

ALL = ("imports", "adamo_step", "stacked_runs", "entk", "ppo")


def number(value: float) -> str:
    """1,234 or 12.34 or 0.0012."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def missed(row: dict[str, float], kind: str, aim: float) -> str:
    """What the table says beside the aim of a result that is on its wrong side; else nothing."""
    result = row.get("ratio", row.get("value", 0.0))
    return ", missed" if (result > aim if kind == "aim_at_most" else result < aim) else ""


def table() -> str:
    """Markdown of all committed results, a row a measurement."""
    lines = ["| measurement | machine | result | range over rounds | aim |", "|---|---|--:|---|---|"]
    for path in sorted(RESULTS.glob("*.json"), key=lambda p: (ALL.index(p.stem.rpartition("-")[0]), p.stem)):
        content = json.loads(path.read_text())
        made_by = content["made_by"]
        machine = f"{made_by['hardware']}, torch {made_by['torch']}, commit {made_by['commit']}"
        for row in content["rows"]:
            unit = "x" if "ratio" in row else ""
            result = number(row.get("ratio", row.get("value"))) + unit
            spread = f"{number(row['low'])} to {number(row['high'])}" if "low" in row else ""
            aims = [(k, v) for k, v in row.items() if k.startswith("aim") and v]
            aim = next((f"{k[4:].replace('_', ' ')} {v:,g}{unit}{missed(row, k, v)}" for k, v in aims), "")
            extra = f" (the flow moved them by {row['moved']:.2g})" if "moved" in row else ""
            lines.append(f"| {row['what']}{extra} | {machine} | {result} | {spread} | {aim} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the call and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", default=",".join(ALL))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="store_true", help="print the table of committed results")
    options = parser.parse_args()
    if options.table:
        print(table(), end="")
        return
    unknown = set(options.only.split(",")) - set(ALL)
    if unknown:
        parser.error(f"unknown benchmark {sorted(unknown)}; allowed are {', '.join(ALL)}")
    device = resolve_device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    for name in options.only.split(","):
        record(name, device, importlib.import_module(name).rows(device), options.out)


if __name__ == "__main__":
    main()
