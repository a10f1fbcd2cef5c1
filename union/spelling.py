# SPDX-License-Identifier: GPL-2.0-only
"""An example as text that people can read and change, and back: calls of the very classes it is made of.

    Example(
        lowers=(Directory({'a': File(b'lower')}),),
        after=(Rename(path='t/a', to='t/b'),),
    )
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final, get_args

from datasets import tree
from union import operations
from union.errors import UsageError
from union.history import SPECIAL
from union.names import Name
from union.playable import Playable

_CLASSES: Final[dict[str, Callable[..., Any]]] = {
    kind.__name__: kind
    for kind in (*vars(tree).values(), *vars(operations).values(), *SPECIAL, *get_args(Playable))
    if isinstance(kind, type) and is_dataclass(kind)
}
_WIDTH: Final = 100
_NAMES: Final = ("path", "to")
_LONG: Final = 64  # bytes of one value from which on it is said how many there are


def spelled(example: Playable) -> str:
    """The example or history as text, what is as usual left out."""
    return f"{_spelled(example, '')}\n"


def _spelled(value: object, indent: str) -> str:
    flat = _flat(value)
    if len(indent) + len(flat) <= _WIDTH:
        return flat
    inner = f"{indent}    "
    match value:
        case tuple():
            parts, ends = [_spelled(one, inner) for one in value], "()"
        case Mapping():
            parts, ends = [f"{key!r}: {_spelled(one, inner)}" for key, one in value.items()], "{}"
        case _ if is_dataclass(value):
            told = [f"{name}={_spelled(one, inner)}" for name, one in _unusual(value)]
            parts, ends = told, (f"{type(value).__name__}(", ")")  # type: ignore[assignment]
        case _:
            return flat
    body = "".join(f"{inner}{part},\n" for part in parts)
    return f"{ends[0]}\n{body}{indent}{ends[1]}"


def _flat(value: object) -> str:
    match value:
        case tuple():
            return f"({', '.join(map(_flat, value))}{',' if len(value) == 1 else ''})"
        case Mapping():
            return f"{{{', '.join(f'{key!r}: {_flat(one)}' for key, one in value.items())}}}"
        case bytes():
            return _bytes(value)
        case _ if is_dataclass(value):
            return f"{type(value).__name__}({', '.join(f'{name}={_flat(one)}' for name, one in _unusual(value))})"
        case _:
            return repr(value)


def _bytes(value: bytes) -> str:
    """Long runs of one byte as products."""
    parts = re.findall(rb"(?s)((.)\2{%d,}|(?:(?!(.)\3{%d,}).)+)" % (_LONG, _LONG), value)
    words = [f"{one!r} * {len(run)}" if one and len(run) > _LONG else repr(run) for run, one, _ in parts]
    return " + ".join(words) or "b''"


def _unusual(value: Any) -> list[tuple[str, object]]:
    """The fields that are not as they are by default."""
    found = []
    for field in fields(value):
        usual = field.default_factory() if field.default_factory is not MISSING else field.default
        if field.init and getattr(value, field.name) != usual:
            found.append((field.name, getattr(value, field.name)))
    return found


def read(text: str) -> Playable:
    """The example or history of a text; UsageError if it is none."""
    try:
        example = _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise UsageError(f"no example: {error}") from error
    if not isinstance(example, Playable):
        names = ", ".join(f"{kind.__name__}(" for kind in get_args(Playable))
        raise UsageError(f"no example: it begins with one of {names}")
    return example


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.Tuple(elements):
            return tuple(map(_value, elements))
        case ast.Dict(keys, values):
            return {_value(key): _value(one) for key, one in zip(keys, values, strict=True) if key}
        case ast.BinOp(left, ast.Add(), right):
            return _value(left) + _value(right)
        case ast.BinOp(left, ast.Mult(), right):
            return _value(left) * _value(right)
        case ast.UnaryOp(ast.USub(), operand):
            return -_value(operand)
        case ast.Call(ast.Name(name), arguments, keywords) if name in _CLASSES:
            named = {word.arg: _value(word.value) for word in keywords if word.arg}
            if issubclass(_CLASSES[name], operations.Operation):  # type: ignore[arg-type]
                named |= {key: Name(named[key]) for key in _NAMES if key in named}
            return _CLASSES[name](*map(_value, arguments), **named)
    raise ValueError(f"line {node.lineno}: {ast.unparse(node)}")
