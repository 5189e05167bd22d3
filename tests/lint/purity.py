"""Find what would let two replicas compute two answers: floats, hashes, identities, set order.

Run as `python -m tests.lint.purity`; it reads the pure files and prints `file:line: rule`. Their
imports are import-linter's business, but for modules that compute in floats. It goes by names and
annotations, those of all pure files together, and does not infer types.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.lint.setnames import SetNames, inner_scopes, scope_nodes, shared_names, unquoted
from tests.lint.sources import ROOT, Finding, pure_files

INTEGER_MATH = frozenset({"isqrt", "gcd", "lcm", "comb", "perm", "factorial"})
FLOAT_MODULES = frozenset({"math", "cmath", "decimal", "statistics", "numpy"})
BANNED_CALLS = {
    "hash": "hash() differs from process to process",
    "id": "id() differs from process to process",
    "float": "float() rounds",
    "complex": "complex() rounds",
    "open": "open() reads what is not an input",
    "input": "input() reads what is not an input",
    "eval": "eval() runs what nobody checked",
    "exec": "exec() runs what nobody checked",
}
FLOAT = "a float rounds; count in integer units"
DIVISION = "/ makes a float; use div_floor or div_ceil"
POWER = "a negative power is a float"
SET_ORDER = "the order of a set is not defined; sort it first"
SET_TIES = "equal keys keep the order of the set; sort it before"
SET_POP = "pop() of a set takes any element"

# Their result does not show in which order they took the elements.
ORDERLESS = frozenset({"len", "sum", "any", "all", "set", "frozenset", "bool", "isinstance"})
ORDERLESS_WITHOUT_KEY = frozenset({"sorted", "min", "max"})
ORDER_SHOWS = frozenset(
    {"list", "tuple", "iter", "next", "enumerate", "zip", "map", "filter", "reversed", "deque",
     "bytes", "bytearray", "dict", "OrderedDict", "Counter", "str", "repr", "chain"}
)  # fmt: skip
ORDER_SHOWS_METHODS = frozenset({"extend", "extendleft", "join", "fromkeys", "from_iterable"})
COMPREHENSIONS = (ast.ListComp, ast.DictComp, ast.GeneratorExp)


def check_source(path: str, source: str) -> list[Finding]:
    """Return what breaks a rule in `source`, by line."""
    return check_sources({path: source})


def check_sources(sources: Mapping[str, str]) -> list[Finding]:
    """Return what breaks a rule in any of `sources`, which know each other's annotations."""
    trees = {path: ast.parse(source, path) for path, source in sources.items()}
    shared = shared_names(trees.values())
    return [finding for path, tree in trees.items() for finding in _check(path, tree, shared)]


def _check(path: str, tree: ast.Module, shared: SetNames) -> list[Finding]:
    known = SetNames(set(), set(shared.attributes), set(shared.containers), set(shared.functions))
    for scope in _scopes(tree):  # attributes are known through the whole file
        SetNames(set(), known.attributes, known.containers, known.functions).learn(scope)
    known.learn(tree)
    found = {Finding(path, line, rule) for line, rule in _float_faults(tree)}
    found |= {Finding(path, line, rule) for line, rule in _call_faults(tree)}
    found |= {Finding(path, line, rule) for line, rule in _order_faults(tree, known)}
    return sorted(found)


def _scopes(tree: ast.AST) -> Iterator[ast.AST]:
    yield tree
    for inner in inner_scopes(tree):
        yield from _scopes(inner)


def _float_faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=float() | complex()):
                yield node.lineno, FLOAT
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield node.lineno, DIVISION
            case ast.BinOp(op=ast.Pow(), right=ast.UnaryOp(op=ast.USub())):
                yield node.lineno, POWER
            case (
                ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation)
            ):
                if _mentions_float(annotation):
                    yield annotation.lineno, FLOAT
            case ast.FunctionDef(returns=ast.expr() as annotation):
                if _mentions_float(annotation):
                    yield annotation.lineno, FLOAT
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.partition(".")[0] in FLOAT_MODULES:
                        yield node.lineno, f"{alias.name} computes in floats"
            case ast.ImportFrom(module=str() as module, names=names):
                if module.partition(".")[0] in FLOAT_MODULES:
                    for alias in names:
                        if module != "math" or alias.name not in INTEGER_MATH:
                            yield node.lineno, f"{module}.{alias.name} computes in floats"


def _mentions_float(annotation: ast.expr) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id in {"float", "complex"}
        for node in ast.walk(unquoted(annotation))
    )


def _call_faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
                yield node.lineno, BANNED_CALLS[name]
            case ast.Call(func=ast.Attribute(attr="__hash__")):
                yield node.lineno, BANNED_CALLS["hash"]
            case ast.keyword(arg="key", value=ast.Name(id="hash" | "id" as name)):
                yield node.value.lineno, BANNED_CALLS[name]
            case ast.Call(func=ast.Name(id="map"), args=[ast.Name(id="hash" | "id" as name), *_]):
                yield node.lineno, BANNED_CALLS[name]


def _order_faults(scope: ast.AST, known: SetNames) -> Iterator[tuple[int, str]]:
    """Yield where the order of a set shows in `scope` and the scopes inside it."""
    nodes = list(scope_nodes(scope))
    harmless = _harmless(nodes)
    for node in nodes:
        if node in harmless:
            continue
        for value, rule in _ordered_uses(node):
            if known.is_set(value):
                yield value.lineno, rule
    for inner in inner_scopes(scope):
        yield from _order_faults(inner, known.within(inner))


def _harmless(nodes: list[ast.AST]) -> set[ast.AST]:
    """Return the comprehensions and stars that are given whole to what shows no order."""
    harmless: set[ast.AST] = set()
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id=name), args=args) if name in ORDERLESS:
                harmless.update(args)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                if name in ORDERLESS_WITHOUT_KEY and not _has_key(keywords):
                    harmless.update(args)
            case ast.Set(elts=elements):
                harmless.update(elements)
    return harmless


def _has_key(keywords: list[ast.keyword]) -> bool:
    return any(keyword.arg == "key" for keyword in keywords)


def _ordered_uses(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Yield each expression whose order `node` shows, if it is a set, and what to say of it."""
    match node:
        case ast.For(iter=value) | ast.Starred(value=value) | ast.YieldFrom(value=value):
            yield value, SET_ORDER
        case ast.ListComp(generators=loops) | ast.GeneratorExp(generators=loops):
            yield from ((loop.iter, SET_ORDER) for loop in loops)
        case ast.DictComp(generators=loops):
            yield from ((loop.iter, SET_ORDER) for loop in loops)
        case ast.Assign(targets=[ast.Tuple() | ast.List()], value=value):
            yield value, SET_ORDER
        case ast.FormattedValue(value=value):
            yield value, SET_ORDER
        case ast.Call(func=ast.Attribute(value=value, attr="pop"), args=[]):
            yield value, SET_POP
        case ast.Call(func=ast.Attribute(attr=method), args=args):
            if method in ORDER_SHOWS_METHODS:
                yield from ((value, SET_ORDER) for value in args)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            if name in ORDER_SHOWS:
                yield from ((value, SET_ORDER) for value in args)
            elif name in ORDERLESS_WITHOUT_KEY and _has_key(keywords):
                yield from ((value, SET_TIES) for value in args)


def pure_sources(root: Path) -> dict[str, str]:
    """Return the text of every pure file below `root`, by its path."""
    return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in pure_files(root)}


def main() -> int:
    """Check every pure file; print what was found and return the exit status."""
    sources = pure_sources(ROOT)
    findings = check_sources(sources)
    for finding in findings:
        print(finding)
    print(f"purity: {len(findings)} findings in {len(sources)} files")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
