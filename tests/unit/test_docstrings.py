"""Docstrings keep one grammar: everything public has a contract, and `Raises:` is a block of error types."""

import ast
import builtins
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import amago_ray

ROOT = Path(amago_ray.__file__).parent
ENTRY = re.compile(r" {4}([A-Za-z_.]+): \S.*")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documented(tree: ast.Module, name: str) -> Iterator[tuple[str, Documented]]:
    """A module, and every class and function in it that is not local to a function, with dotted paths."""
    yield name, tree
    waiting: list[tuple[str, ast.Module | ast.ClassDef]] = [(name, tree)]
    while waiting:
        path, node = waiting.pop()
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}.{child.name}", child
                if isinstance(child, ast.ClassDef):
                    waiting.append((f"{path}.{child.name}", child))


def classes_of(trees: dict[str, ast.Module]) -> dict[str, ast.ClassDef]:
    """Every class of the package by its name."""
    return {node.name: node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def inherits_contract(owner: str, method: str, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether a class, or one that it derives from, documents a method."""
    if owner not in classes:
        return False
    node = classes[owner]
    here = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == method]
    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    return any(map(ast.get_docstring, here)) or any(inherits_contract(base, method, classes) for base in bases)


def lacks_docstring(path: str, node: Documented, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether something public has no contract; a method may have that of the class it derives from."""
    *_, owner, name = ["", *path.split(".")]
    is_public = not any(part.startswith("_") for part in path.split("."))
    return is_public and not ast.get_docstring(node) and not inherits_contract(owner, name, classes)


def raised(docstring: str) -> list[str]:
    """The names of the errors in a docstring's `Raises:` block.

    Raises:
        ValueError: it is no such block.
    """
    lines = docstring.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("Raises:")]
    if not starts:
        return []
    if len(starts) > 1 or lines[starts[0]] != "Raises:":
        raise ValueError('expected one line "Raises:" with nothing behind it')
    names = []
    for line in lines[starts[0] + 1 :]:
        if not line.startswith(" "):
            break
        if line[4:5] != " ":
            entry = ENTRY.fullmatch(line)
            if entry is None:
                raise ValueError(f'expected "ErrorType: when", got "{line.strip()}"')
            names.append(entry[1])
    if not names:
        raise ValueError("expected entries below")
    return names


def error_classes(classes: dict[str, ast.ClassDef]) -> set[str]:
    """Names of Python's exceptions and of those classes that derive from them."""
    names = {name for name, kind in vars(builtins).items() if is_error(kind)}
    while more := {name for name, node in classes.items() if {*map(ast.unparse, node.bases)} & names} - names:
        names |= more
    return names


def is_error(kind: object) -> bool:
    """Whether this is a class of exceptions."""
    return isinstance(kind, type) and issubclass(kind, BaseException)


def stands_for_error(name: str, known: set[str]) -> bool:
    """Whether a name in a docstring is that of a class of exceptions; another package's come with their module."""
    module, _, attribute = name.rpartition(".")
    return is_error(getattr(importlib.import_module(module), attribute, None)) if module else name in known


def faults(trees: dict[str, ast.Module]) -> list[str]:
    """What breaks the grammar, a line each."""
    classes = classes_of(trees)
    known = error_classes(classes)
    lines = []
    for module, tree in trees.items():
        for path, node in documented(tree, module):
            if lacks_docstring(path, node, classes):
                lines.append(f"{path}: expected a docstring, got none")
            try:
                names = raised(ast.get_docstring(node) or "")
            except ValueError as error:
                lines.append(f"{path}: Raises: {error}")
                continue
            lines += [
                f"{path}: Raises: expected a class of exceptions, got {name}"
                for name in names
                if not stands_for_error(name, known)
            ]
    return lines


def test_the_package_keeps_the_grammar() -> None:
    trees = {
        ".".join(file.relative_to(ROOT.parent).with_suffix("").parts): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(ROOT.rglob("*.py"))
    }
    trees = {name.removesuffix(".__init__"): tree for name, tree in trees.items()}
    assert len(trees) > 100
    assert faults(trees) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def act(): ...", "m.act: expected a docstring, got none"),
        ("class Policy:\n  'It acts.'\n  def act(self): ...", "m.Policy.act: expected a docstring, got none"),
        ("def _act():\n  'Acts.\\n\\n  Raises: ValueError if not.'", 'Raises: expected one line "Raises:"'),
        ("def act():\n  'Acts.\\n\\n  Raises:\\n  '", "Raises: expected entries below"),
        (
            "def act():\n  'Acts.\\n\\n  Raises:\\n      if it fails\\n  '",
            'expected "ErrorType: when", got "if it fails"',
        ),
        (
            "def act():\n  'Acts.\\n\\n  Raises:\\n      Policy: not.\\n  '",
            "expected a class of exceptions, got Policy",
        ),
        (
            "def act():\n  'Acts.\\n\\n  Raises:\\n      os.path: not.\\n  '",
            "expected a class of exceptions, got os.path",
        ),
    ],
)
def test_what_breaks_it_is_said(source: str, fault: str) -> None:
    (line,) = faults({"m": ast.parse(f"'A module.'\n{source}\n")})
    assert fault in line


def test_a_method_may_have_the_contract_of_what_it_overrides() -> None:
    base = "class Base:\n  'B.'\n  def act(self):\n    'Acts.'\n"
    source = f"'A module.'\n{base}class Own(m.Base):\n  'O.'\n  def act(self): ..."
    assert faults({"m": ast.parse(source)}) == []
    assert faults({"m": ast.parse(source.replace("(m.Base)", ""))}) == ["m.Own.act: expected a docstring, got none"]


def test_a_block_may_name_errors_of_the_package_and_of_others() -> None:
    entries = ["Own: when,", "    and why.", "OSError: when.", "json.JSONDecodeError: when."]
    block = "".join(f"      {entry}\\n" for entry in entries)
    source = f"'A module.'\nclass Own(ValueError):\n  'Ours.'\ndef act():\n  'Acts.\\n\\n  Raises:\\n{block}  '\n"
    assert faults({"m": ast.parse(source)}) == []
