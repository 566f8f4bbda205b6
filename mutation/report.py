"""Says what was found: a table of the modules, the mutants that survived without a reason, and their share.

``python mutation/report.py`` prints it and fails if more than 5 % of the survivors are unexplained; with names of
modules it looks at these alone. With ``--write`` it puts the tables into docs/mutation.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / ".mutation/results.json"
EXPLAINED = ROOT / "mutation/explained"
PAGE = ROOT / "docs/mutation.md"
LIMIT = 0.05
KINDS = {
    "equivalent",  # nothing that can be observed differs
    "speed",  # only how long it takes
    "text",  # only the words for a person
    "platform",  # differs on another system or version of Python than the one it was run on
}
LIVING = ("survived", "no test", "impossible")
COLUMNS = {
    "mutants": ["all"],
    "only of texts": ["text"],
    "killed": ["killed", "timeout"],
    "survived": ["explained", "unexplained"],
    "explained": ["explained"],
    "all tests tried": ["by all"],
    "the quickest tried": ["by some"],
    "no test here": ["untested"],
}
"""The columns of the table, and which figures each adds up."""


class Reasons:
    """The reasons in explained/, by the text of the lines that a mutant changes.

    A file holds for the module that it is named after, rules.toml for all. A ``[[rule]]`` explains every mutant whose
    ``before => after`` its expression fits as a whole; a ``[[survivor]]`` those of one function whose lines it quotes.
    """

    def __init__(self, folder: Path) -> None:
        self.rules: list[tuple[str, re.Pattern[str], dict[str, Any]]] = []
        self.single: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self.used: set[int] = set()
        for path in sorted(folder.glob("*.toml")):
            module = "" if path.stem == "rules" else path.stem
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            for entry in table.get("rule", []) + table.get("survivor", []):
                entry["module"] = module
                assert entry["kind"] in KINDS, entry
            self.rules += [(module, re.compile(rule["change"], re.DOTALL), rule) for rule in table.get("rule", [])]
            for entry in table.get("survivor", []):
                for after in [entry["after"]] if isinstance(entry["after"], str) else entry["after"]:
                    self.single[module, entry["function"], entry["before"], after] = entry

    def of(self, result: dict[str, Any]) -> dict[str, Any] | None:
        """The reason of a mutant, if there is one."""
        change = f"{result['before']} => {result['after']}"
        found = self.single.get((result["module"], result["function"], result["before"], result["after"]))
        if found is None:
            fitting = [rule for _, expression, rule in self._rules_of(result["module"]) if expression.fullmatch(change)]
            found = fitting[0] if fitting else None
        if found is not None:
            self.used.add(id(found))
        return found

    def _rules_of(self, module: str) -> list[tuple[str, re.Pattern[str], dict[str, Any]]]:
        return [rule for rule in self.rules if rule[0] in ("", module)]

    def idle(self, modules: set[str]) -> list[str]:
        """The entries that fit no survivor of the modules that were run."""
        entries = {id(entry): entry for entry in self.single.values()}
        entries.update((id(rule), rule) for module, _, rule in self.rules if module)
        return [
            f"{entry['module']} {entry.get('function', 'rule')}: {entry.get('before', entry.get('change'))}"
            for at, entry in entries.items()
            if at not in self.used and entry["module"] in modules
        ]


def load() -> tuple[dict[str, dict[str, Any]], Reasons]:
    """The results of the runs and the reasons."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return results, Reasons(EXPLAINED)


def main(arguments: list[str]) -> int:
    """Prints the report, and writes the page if asked to."""
    results, reasons = load()
    names = [argument for argument in arguments if not argument.startswith("--")]
    results = {key: result for key, result in results.items() if not names or result["module"] in names}
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    why: dict[str, list[str]] = defaultdict(list)
    unexplained = []
    for key, result in sorted(results.items()):
        row = rows[result["module"]]
        row["all"] += 1
        row[result["status"]] += 1
        if result["status"] in LIVING:
            reason = reasons.of(result)
            row["explained" if reason else "unexplained"] += 1
            if reason is None:
                unexplained.append(f"{result['status']:9} {key}")
                row[_how_far(result)] += 1
            else:
                why[reason["kind"]].append(key)
    print("\n".join(unexplained))
    survivors = sum(row["explained"] + row["unexplained"] for row in rows.values())
    tried = sum(row["all"] - row["text"] for row in rows.values())
    share = len(unexplained) / max(survivors, 1)
    print(table(rows))
    print({kind: len(keys) for kind, keys in why.items()})
    print(f"{tried} tried, {survivors} survived, {len(unexplained)} of them unexplained: {share:.1%} of the survivors")
    for entry in reasons.idle(set(rows)):
        print(f"explains nothing: {entry}")
    if "--write" in arguments:
        write_page(table(rows), explained_table(results, reasons))
    return int(share > LIMIT)


def table(rows: dict[str, Counter[str]]) -> str:
    """The figures of each module, as Markdown."""
    lines = [f"| {' | '.join(['module', *COLUMNS])} |", "| - " + "| -: " * len(COLUMNS) + "|"]
    total: Counter[str] = Counter()
    for name, row in sorted(rows.items()):
        total += row
        lines.append(_line(f"`{name}`", row))
    lines.append(_line("all", total))
    return "\n".join(lines)


def _line(name: str, row: Counter[str]) -> str:
    return "| " + " | ".join([name, *(str(sum(row[part] for part in parts)) for parts in COLUMNS.values())]) + " |"


def _how_far(result: dict[str, Any]) -> str:
    """How far an unexplained survivor was tried."""
    if result["status"] != "survived":
        return "untested"
    return "by all" if result["all"] else "by some"


def explained_table(results: dict[str, dict[str, Any]], reasons: Reasons) -> str:
    """Every reason with the mutants that it explains, as Markdown."""
    found: dict[tuple[str, str], Counter[tuple[str, str, str]]] = defaultdict(Counter)
    for _, result in sorted(results.items()):
        if result["status"] in LIVING and (reason := reasons.of(result)):
            place = f"`{result['module']}` `{result['function']}`"
            found[reason["kind"], reason["why"]][place, result["before"], result["after"]] += 1
    parts = []
    for (kind, why), places in sorted(found.items()):
        parts.append(f"\n**{kind}** ({sum(places.values())}): {why}\n")
        for (place, before, after), count in sorted(places.items()):
            times = f" ({count} times)" if count > 1 else ""
            parts.append(f"- {place}{times}: {_code(before)} → {_code(after)}")
    return "\n".join(parts)


def _code(text: str) -> str:
    shown = text if len(text) <= 160 else text[:157] + "..."
    return f"`` {shown} ``" if shown else "nothing"


def write_page(figures: str, survivors: str) -> None:
    """Puts the tables between the marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, value in (("figures", figures), ("survivors", survivors)):
        before, _, rest = text.partition(f"<!-- {name} -->")
        _, _, after = rest.partition(f"<!-- end of {name} -->")
        text = f"{before}<!-- {name} -->\n\n{value}\n\n<!-- end of {name} -->{after}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
