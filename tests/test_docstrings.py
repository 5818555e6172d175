"""How the package is described: classes as things, attributes as phrases that stand alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "separator"
TEXTS = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}

#: Orders with which descriptions of classes began; none is a noun, too.
VERBS = set(
    re.findall(
        r"\w+",
        """
        Add Alternate Analyse Apply Attend Call Choose Clip Compare Compose Compress Convolve
        Decode Describe Do Draw Encode Estimate Find Give Hit Hold Iterate Keep Know Learn
        Lengthen Let Look Make Multiply Name Normalise Normalize Pass Play Predict Put Raise
        Read Reduce Refine Render Replace Resample Return Run Say Scale Separate Serve Shorten
        Shuffle Stack Stand Stop Store Swap Take Tell Train Translate Turn Validate Weigh Write
        """,
    )
)
UNFINISHED = re.compile(r"^ +\*{0,2}\w+: (of|that|which|them|those|say|tell|hold)\b", re.IGNORECASE)
RAISED = re.compile(r"^ +[A-Z]\w+(, [A-Z]\w+)*: [a-z]")


def docstrings() -> list[tuple[str, ast.AST, str]]:
    """List the docstrings of the package with their places."""
    found = []
    for path, text in TEXTS.items():
        for node in ast.walk(ast.parse(text)):
            kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module
            if isinstance(node, kinds) and (said := ast.get_docstring(node)):
                name = getattr(node, "name", "")
                found.append((f"{path.relative_to(PACKAGE)}:{name}", node, said))
    return found


def test_classes_are_things_not_orders() -> None:
    first = {
        place: said.split(maxsplit=1)[0].strip(",.:")
        for place, node, said in docstrings()
        if isinstance(node, ast.ClassDef)
    }
    assert len(first) > 300
    assert not {place: word for place, word in first.items() if word in VERBS}


def test_attributes_and_arguments_stand_alone() -> None:
    lines = [(place, line) for place, _, said in docstrings() for line in said.splitlines()]
    assert not [found for found in lines if UNFINISHED.match(found[1])]


def test_what_is_raised_begins_with_a_capital() -> None:
    wrong = []
    for place, _, said in docstrings():
        _, _, after = said.partition("Raises:\n")
        lines = after.split("\n\n")[0].splitlines()
        wrong += [(place, line) for line in lines if RAISED.match(line)]
    assert not wrong
