"""Reading what drivers leave in files, and what vendors' tools print."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TOOL = 10.0
"""Seconds that a vendor's tool may take."""


def tool(*command: str) -> str:
    """What the tool prints. Raises OSError when it fails or hangs, FileNotFoundError when it is not installed."""
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(command[0])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL, check=False)
    except subprocess.TimeoutExpired as e:
        raise OSError(f"{command[0]} does not answer") from e
    if done.returncode != 0:
        raise OSError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout


def rows(text: str, *under: str) -> list[dict[str, Any]]:
    """The objects of a JSON list, itself or under one of these keys. Raises ValueError when there is none."""
    content = json.loads(text)
    if isinstance(content, dict):
        content = next((content[key] for key in under if key in content), None)
    if not isinstance(content, list):
        raise ValueError("no list of devices in it")
    return [row for row in content if isinstance(row, dict)]


def figure(row: Mapping[str, Any], *names: str) -> float | None:
    """The first number in the first of these cells that has one ("38 W", "40.98°C"); None without one."""
    for name in names:
        if (found := re.search(r"-?\d+(\.\d+)?", str(row.get(name, "")))) is not None:
            return float(found.group())
    return None


def number(path: Path) -> float | None:
    """The number in a file; None where the driver has no such file or will not say."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def text(path: Path) -> str:
    """The text of a file, empty without one."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value * by


def numbered(directory: Path, pattern: str) -> list[int]:
    """The numbers of the entries of `directory` that `pattern`'s one group finds, in order."""
    try:
        names = [path.name for path in directory.iterdir()]
    except OSError:
        return []
    return sorted(int(found.group(1)) for name in names if (found := re.fullmatch(pattern, name)))
