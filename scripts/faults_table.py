"""Print the table of scripts/faults from the lines of JSON that its scenarios left; exit status 1 on any loss."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FIGURES = ("runs", "answered", "delivered", "repeated", "lost", "buried", "dropped")


def table_of(rows: list[dict[str, Any]]) -> str:
    """One line for each scenario, and one for all."""
    total = {"scenario": "all", **{name: sum(row[name] for row in rows) for name in FIGURES}}
    total["books"] = "balance" if all(row["books"] == "balance" for row in rows) else "DO NOT BALANCE"
    width = max(len(row["scenario"]) for row in [total, *rows])
    return "\n".join(
        [
            f"{'scenario':{width}}  " + "  ".join(f"{name:>9}" for name in FIGURES) + "  books",
            *(_line(row, width) for row in rows),
            _line(total, width),
        ]
    )


def well(rows: list[dict[str, Any]]) -> bool:
    """Nothing was lost but what the promises except aloud, and all books balance."""
    return bool(rows) and all((not row["lost"] or row["excepted"]) and row["books"] == "balance" for row in rows)


def _line(row: dict[str, Any], width: int) -> str:
    figures = "  ".join(f"{row[name]:9}" for name in FIGURES)
    return f"{row['scenario']:{width}}  {figures}  {row['books']}  {row.get('excepted', '')}".rstrip()


if __name__ == "__main__":
    found = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    print(table_of(found) if found else "No scenario came to its end.")
    sys.exit(not well(found))
