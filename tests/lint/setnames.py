"""Know which expressions of one file are sets, by annotation, assignment and syntax alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SET_TYPES = frozenset({"set", "frozenset", "Set", "AbstractSet", "MutableSet", "FrozenSet"})
SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
WRAPPERS = frozenset({"Final", "ClassVar", "Optional", "Annotated"})
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def name_of(node: ast.expr) -> str | None:
    """Return `x` for the name x and for any attribute .x, None for what has no such name."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return None


def unquoted(node: ast.expr) -> ast.expr:
    """Return what a quoted annotation says, or the annotation itself."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return ast.parse(node.value, mode="eval").body
        except SyntaxError:
            return node
    return node


def is_set_type(annotation: ast.expr) -> bool:
    """Tell whether an annotation names a set at its top: `set[int]`, `Final[set[int]]`."""
    node = unquoted(annotation)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return is_set_type(node.left) or is_set_type(node.right)
    if isinstance(node, ast.Subscript):
        if name_of(node.value) in WRAPPERS:
            return is_set_type(node.slice)
        node = node.value
    return name_of(node) in SET_TYPES


def holds_sets(annotation: ast.expr) -> bool:
    """Tell whether an annotation is a container whose values are sets: `dict[int, set[int]]`."""
    node = unquoted(annotation)
    if not isinstance(node, ast.Subscript) or is_set_type(node):
        return False
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return bool(parts) and is_set_type(parts[-1])


@dataclass
class SetNames:
    """What is bound to a set, or to a container of sets, as seen from one scope.

    Attributes are known by name through the whole file, whoever's they are; names by scope.
    """

    names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    containers: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return name in self.names
            case ast.Attribute(attr=name):
                return name in self.attributes
            case ast.Call(func=func):
                return self._is_set_call(func)
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, SET_OPERATORS):
                return any(self.is_set(side) or _is_view(side) for side in (left, right))
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_set(body) or self.is_set(orelse)
            case ast.BoolOp(values=values):
                return any(map(self.is_set, values))
            case ast.NamedExpr(value=value):
                return self.is_set(value)
            case ast.Subscript(value=value):
                return name_of(value) in self.containers
            case _:
                return False

    def _is_set_call(self, func: ast.expr) -> bool:
        match func:
            case ast.Name(id=name):
                return name in {"set", "frozenset"} or name in self.functions
            case ast.Attribute(value=value, attr=method):
                if method in {"get", "pop", "setdefault"} and name_of(value) in self.containers:
                    return True
                if method in SET_METHODS and self.is_set(value):
                    return True
                return method in self.functions
            case _:
                return False

    def within(self, function: ast.AST) -> SetNames:
        """Return what is known inside `function`: its own bindings hide the outer ones."""
        own = set(_bound_names(function))
        inner = SetNames(self.names - own, self.attributes, self.containers, self.functions)
        inner.learn(function)
        return inner

    def learn(self, scope: ast.AST) -> None:
        """Read the bindings of `scope`, again and again while one teaches of another."""
        before = -1
        while before != self._size():
            before = self._size()
            for node in scope_nodes(scope):
                self._learn_one(node, in_class=isinstance(scope, ast.ClassDef))

    def _size(self) -> int:
        return sum(map(len, (self.names, self.attributes, self.containers, self.functions)))

    def _learn_one(self, node: ast.AST, *, in_class: bool) -> None:
        match node:
            case ast.AnnAssign(target=target, annotation=annotation):
                self._annotate(target, annotation, in_class=in_class)
            case ast.arg(arg=name, annotation=ast.expr() as annotation):
                self._annotate(ast.Name(name), annotation, in_class=False)
            case ast.Assign(targets=targets, value=value) if self.is_set(value):
                for one in targets:
                    self._bind(one, in_class=in_class)
            case ast.NamedExpr(target=ast.Name(id=name), value=value) if self.is_set(value):
                self.names.add(name)
            case ast.FunctionDef(name=name, returns=ast.expr() as returns):
                if is_set_type(returns):
                    self.functions.add(name)
                    self.attributes.add(name)  # a property reads like an attribute

    def _annotate(self, target: ast.expr, annotation: ast.expr, *, in_class: bool) -> None:
        name = name_of(target)
        if is_set_type(annotation):
            self._bind(target, in_class=in_class)
        elif name is not None and holds_sets(annotation):
            self.containers.add(name)

    def _bind(self, target: ast.expr, *, in_class: bool) -> None:
        match target:
            case ast.Name(id=name):
                (self.attributes if in_class else self.names).add(name)
            case ast.Attribute(attr=name):
                self.attributes.add(name)


def shared_names(trees: Iterable[ast.AST]) -> SetNames:
    """Return what the annotations of all `trees` agree on: a name that is a set in each of them.

    A name that is also something else somewhere is left out; its own file still knows it.
    """
    kinds: dict[str, set[str]] = {}
    functions: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.AnnAssign(target=target, annotation=annotation):
                    name = name_of(target)
                case ast.FunctionDef(name=name, returns=ast.expr() as annotation):
                    functions.add(name)
                case _:
                    continue
            if name is not None:
                kinds.setdefault(name, set()).add(_kind(annotation))
    sets = {name for name, found in kinds.items() if found == {"set"}}
    containers = {name for name, found in kinds.items() if found == {"container"}}
    return SetNames(set(), sets, containers, sets & functions)


def _kind(annotation: ast.expr) -> str:
    if is_set_type(annotation):
        return "set"
    return "container" if holds_sets(annotation) else "other"


def _is_view(node: ast.expr) -> bool:
    """Tell whether `node` is a dictionary's view, which set operators turn into a set."""
    match node:
        case ast.Call(func=ast.Attribute(attr="keys" | "items"), args=[]):
            return True
        case _:
            return False


def scope_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of one scope in order; of an inner function or class only its own node."""
    pending: list[ast.AST] = list(ast.iter_child_nodes(scope))[::-1]
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            pending.extend(list(ast.iter_child_nodes(node))[::-1])


def inner_scopes(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the functions and classes that stand directly inside `scope`."""
    return (n for n in scope_nodes(scope) if isinstance(n, (*FUNCTIONS, ast.ClassDef)))


def _bound_names(function: ast.AST) -> Iterable[str]:
    for node in scope_nodes(function):
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name
