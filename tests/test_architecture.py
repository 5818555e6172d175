"""The house rules that no linter knows: who imports whom, who prints, what happens at import."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "separator"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}

# What each part may import of the package, besides itself: a row for every part of the house.
RULES = {
    "errors": "",
    "files": "",
    "heap": "",
    "version": "",
    "usdr": "",
    "words": "errors",
    "resources": "errors",
    "spectral": "errors",
    "synthesis": "errors",
    "schema": "errors words",
    "audio": "errors files words resources",
    "networks": "errors words spectral",
    "datasets": "errors files words resources audio",
    "stream": "errors words spectral audio",
    "checkpoints": "errors words schema spectral networks",
    "zoo": "errors files words version resources schema networks checkpoints",
    "ensemble": "errors words spectral stream zoo",
    "training": "errors files words usdr heap resources schema spectral networks audio "
    "checkpoints zoo datasets stream synthesis",
    "api": "errors words heap resources audio stream zoo ensemble",
    "batch": "errors files words version audio stream zoo ensemble api",
    "evaluation": "errors files words usdr heap resources schema spectral audio datasets stream "
    "zoo ensemble api",
    "web": "errors files words usdr heap version resources schema audio checkpoints stream zoo "
    "ensemble api",
    "cli": "errors words heap version resources schema audio datasets checkpoints stream zoo "
    "ensemble api training batch evaluation web",
    "__main__": "cli",
    "__init__": "version api zoo",
}
OPTIONAL = {
    "gradio",
    "lightning",
    "torchaudio",
    "museval",
    "matplotlib",
    "onnxruntime",
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
        for name in imports(tree):
            if name.startswith("separator.") and (part := name.split(".")[1]) in parts:
                parts[component(path)].add(part)
    return {part: found - {part} for part, found in parts.items()}


def test_every_part_has_its_rule_and_keeps_it():
    found = arrows()
    assert found.keys() == RULES.keys()
    broken = {part: found[part] - set(RULES[part].split()) for part in found}
    assert not {part: more for part, more in broken.items() if more}


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
        if component(path) == "networks" and "separator.spectral.stft.STFT" in found:
            front_ends += 1
            inherits = "separator.networks.tfc_tdf.MappedSpectrogram" in found
            assert inherits or any(
                name.startswith("separator.spectral.masks.") for name in found
            ), path
    assert front_ends >= 8


def test_networks_touch_no_files():
    for path in MODULES:
        if component(path) == "networks":
            assert not {"pathlib.Path", "os", "io", "shutil"} & set(imports(TREES[path])), path
            assert "open" not in {called(node) for node in ast.walk(TREES[path])}, path


def test_every_package_is_installed():
    settings = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    listed = set(re.findall(r'^  "(separator[\w.]*)",$', settings, re.MULTILINE))
    data = {name for name in listed if name.startswith("separator._")} | {"separator.web.static"}
    folders = {path.parent for path in PACKAGE.rglob("__init__.py")}
    assert listed - data == {".".join(f.relative_to(PACKAGE.parent).parts) for f in folders}


def called(node: ast.AST) -> str:
    """Return the dotted name of what is called, or nothing."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def test_only_the_command_line_prints_or_exits():
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write"}
    for path in MODULES:
        if component(path) == "cli":
            continue
        for node in ast.walk(TREES[path]):
            assert called(node) not in forbidden, f"{path}:{node.lineno}"
            if isinstance(node, ast.Raise) and node.exc:
                assert "SystemExit" not in ast.unparse(node.exc), f"{path}:{node.lineno}"


def test_nothing_happens_at_import():
    """A bare call may only concern something that the module itself defines."""
    for path in MODULES:
        tree = TREES[path]
        imported = {name.split(".")[-1] for name in imports(tree)} | {
            alias.asname
            for node in ast.walk(tree)
            for alias in getattr(node, "names", [])
            if isinstance(alias, ast.alias) and alias.asname
        }
        for node in tree.body:
            if isinstance(node, ast.Expr) and (name := called(node.value)):
                first = name.split(".")[0].split("(")[0]
                assert first not in imported, f"{path}:{node.lineno}: {name}"


def test_optional_libraries_are_imported_where_they_are_used():
    for path in MODULES:
        if component(path) in {"training", "web"}:
            continue  # these parts are optional themselves
        top = ast.Module([node for node in TREES[path].body if not isinstance(node, ast.If)], [])
        at_top = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
        found = {name.split(".")[0] for name in imports(ast.Module(at_top, []))}
        assert not found & OPTIONAL, path


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


# Names that parts still define apart, to be given names of their own; none may be added.
SHARED = {
    *("Block", "Job", "Library", "Plan", "Recipe", "Report", "Result", "Segment"),
    *("Stream", "Track", "Gate", "draw", "log"),
}


def test_a_public_name_means_one_thing():
    """Networks name their parts alike, commands are called after what they run, pages are built."""
    places: dict[str, set[str]] = {}
    for path, tree in TREES.items():
        if component(path) in ("networks", "cli") or "pages" in path.parts:
            continue
        for node in tree.body:
            for name in defined(node):
                places.setdefault(name, set()).add(str(path.relative_to(PACKAGE)))
    twice = {name: sorted(found) for name, found in places.items() if len(found) > 1}
    assert not {name: found for name, found in twice.items() if name not in SHARED}


def defined(node: ast.stmt) -> Iterator[str]:
    """Yield the public names that a statement of a module defines."""
    names = [getattr(node, "name", "")]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
    yield from (name for name in names if name and not name.startswith("_"))
