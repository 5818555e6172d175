"""The house rules that no linter knows: who imports whom, who prints, what happens at import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "separator"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}

FRONT_ENDS = {"cli", "web"}  # nothing imports them
RULES = {  # what these may import of the package, besides themselves
    "errors": set(),
    "audio": {"errors"},
    "stft": {"errors"},
    "bands": {"errors"},
    "networks": {"errors", "stft", "bands", "masks"},
    "segments": {"errors"},
    "inference": {"errors", "segments"},
    "spool": {"errors"},
    "runner": {"errors"},
    "ensemble": {"errors", "stft", "masks"},
    "tracks": {"errors", "audio"},
    "datasets": {"errors", "audio", "zoo"},
}
OPTIONAL = {
    "gradio",
    "lightning",
    "torchaudio",
    "museval",
    "matplotlib",
    "onnxruntime",
    "ray",
    "librosa",
}


def component(path: Path) -> str:
    """Name the part of the house that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of imported modules, `a.b` for `from a import b` too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows() -> dict[str, set[str]]:
    """Map each part to those that it imports, also inside functions."""
    parts: dict[str, set[str]] = {component(path): set() for path in MODULES}
    for path, tree in TREES.items():
        if path == PACKAGE / "__init__.py":
            continue  # its names are resolved when they are used
        for name in imports(tree):
            if name.startswith("separator.") and (part := name.split(".")[1]) in parts:
                parts[component(path)].add(part)
    return {part: found - {part} for part, found in parts.items()}


def test_parts_import_only_what_they_may():
    found = arrows()
    for part, allowed in RULES.items():
        assert found.get(part, set()) <= allowed, part


def test_nothing_imports_the_front_ends():
    for part, found in arrows().items():
        if part not in FRONT_ENDS | {"__main__"}:
            assert not found & FRONT_ENDS, part


def test_imports_point_one_way():
    waiting = arrows()
    while waiting:
        free = {part for part, found in waiting.items() if not found & waiting.keys()}
        assert free, f"a circle among {sorted(waiting)}"
        waiting = {part: found for part, found in waiting.items() if part not in free}


def test_spectrograms_become_estimates_in_one_module():
    """Who has a front end takes what applies its predictions from masks, or inherits it."""
    front_ends = 0
    for path in MODULES:
        found = set(imports(TREES[path]))
        if component(path) == "networks" and "separator.stft.STFT" in found:
            front_ends += 1
            inherits = "separator.networks.tfc_tdf.MappedSpectrogram" in found
            assert inherits or any(name.startswith("separator.masks.") for name in found), path
    assert front_ends >= 8


def called(node: ast.AST) -> str:
    """Return the dotted name of what is called, or nothing."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints_or_exits(path):
    if component(path) == "cli":
        return
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write"}
    for node in ast.walk(TREES[path]):
        assert called(node) not in forbidden, f"line {node.lineno}"
        if isinstance(node, ast.Raise) and node.exc:
            assert "SystemExit" not in ast.unparse(node.exc), f"line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_happens_at_import(path):
    """A bare call may only concern something that the module itself defines."""
    tree = TREES[path]
    imported = {name.split(".")[-1] for name in imports(tree)} | {
        alias.asname
        for node in ast.walk(tree)
        for alias in getattr(node, "names", [])
        if isinstance(alias, ast.alias) and alias.asname
    }
    for node in tree.body:
        if isinstance(node, ast.Expr) and (name := called(node.value)):
            assert name.split(".")[0].split("(")[0] not in imported, f"line {node.lineno}: {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_optional_libraries_are_imported_where_they_are_used(path):
    if component(path) in {"training", "web"}:
        return  # these parts are optional themselves
    top = ast.Module([node for node in TREES[path].body if not isinstance(node, ast.If)], [])
    at_top = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {name.split(".")[0] for name in imports(ast.Module(at_top, []))}
    assert not found & OPTIONAL


def test_help_is_fast_and_loads_nothing_heavy():
    code = """
import sys
sys.argv = ["separator", "--help"]
import separator
from separator.cli import main
try:
    main()
except SystemExit as end:
    print("ended", end.code or 0)
heavy = {"torch", "numpy", "pydantic", "yaml", "av", "soundfile", "librosa", "gradio"}
print("heavy", sorted(heavy & set(sys.modules)))
print("seconds", sum(__import__("os").times()[:2]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "separate" in done.stdout
    assert "ended 0\nheavy []\n" in done.stdout
    # the processor's time, for other tests may keep the machine busy
    assert float(done.stdout.split()[-1]) < 0.4
