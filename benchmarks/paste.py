"""Puts the tables of the last run into docs/performance.md.

    python benchmarks/paste.py            # after run_all.py --out benchmarks/results
    python benchmarks/paste.py --check    # changes nothing, and fails where the page says something else

A table's place is between ``<!-- results: NAME -->`` and ``<!-- end -->``; it gets ``benchmarks/results/NAME.md``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PLACE = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def pasted(page: str) -> str:
    """The page with the tables of the last run in their places."""

    def fill(place: re.Match[str]) -> str:
        result = (RESULTS / f"{place[2]}.md").read_text(encoding="utf-8")
        return f"{place[1]}\n{result}\n{place[3]}"

    return PLACE.sub(fill, page)


def main() -> None:
    before = PAGE.read_text(encoding="utf-8")
    after = pasted(before)
    if sys.argv[1:] == ["--check"]:
        if before != after:
            sys.exit(f"{PAGE} doesn't say what {RESULTS} says. Run this without --check.")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        PAGE.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
