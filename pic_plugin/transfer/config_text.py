# SPDX-License-Identifier: Apache-2.0
"""Read values out of the config text that mmengine keeps in a checkpoint, without running it."""
from __future__ import annotations

import ast
from typing import Any


def dicts_of_training(content: dict, *names: str) -> dict[str, dict]:
    """The dicts that the config in a checkpoint has under these names; what else is left out."""
    meta = content.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    found = {name: value_in_config(text, name) for name in names} if isinstance(text, str) else {}
    return {name: value for name, value in found.items() if isinstance(value, dict)}


def value_in_config(text: str, name: str) -> Any | None:
    """A variable of a config that was written by ``Config.pretty_text``.

    Reading it with ``Config.fromstring`` would execute what a downloaded file says.

    Args:
        text (str): Assignments of ``dict(...)`` calls and literals.
        name (str): Variable to look for.

    Returns:
        Any: Its value, or None if it is not there or is not a literal.
    """
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and any(
                    isinstance(target, ast.Name) and target.id == name
                    for target in statement.targets):
                return ast.literal_eval(_DictCalls().visit(statement.value))
    except (SyntaxError, ValueError, TypeError):
        pass
    return None


class _DictCalls(ast.NodeTransformer):
    """Turns ``dict({'a.b': 1}, key=value)`` into ``{'a.b': 1, 'key': value}``, a literal."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        keys: list[ast.expr | None] = []
        values: list[ast.expr] = []
        for argument in node.args[:1]:
            if isinstance(argument, ast.Dict):
                keys, values = list(argument.keys), list(argument.values)
        is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict'
        if not is_dict or (node.args and not keys):
            return node  # literal_eval refuses it
        return ast.Dict([*keys, *(None if keyword.arg is None else ast.Constant(keyword.arg)
                                for keyword in node.keywords)],
                        [*values, *(keyword.value for keyword in node.keywords)])
