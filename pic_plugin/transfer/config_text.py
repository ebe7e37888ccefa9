# SPDX-License-Identifier: Apache-2.0
"""Read one value out of the config text that mmengine keeps in a checkpoint, without running it."""
from __future__ import annotations

import ast
from typing import Any, Optional


def value_in_config(text: str, name: str) -> Optional[Any]:
    """A variable of a config that was written by ``Config.pretty_text``.

    Reading it with ``Config.fromstring`` would execute what a downloaded file says.

    Args:
        text (str): Assignments of ``dict(...)`` calls and literals.
        name (str): Variable to look for.

    Returns:
        Any: Its value, or None if it is not there or is no literal.
    """
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and any(
                    isinstance(target, ast.Name) and target.id == name
                    for target in statement.targets):
                return _literal(statement.value)
    except (SyntaxError, ValueError):
        pass
    return None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict' or node.args or any(
                keyword.arg is None for keyword in node.keywords):
            raise ValueError(f'{ast.dump(node.func)} is called')
        return {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError('a dict is unpacked')
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values)
                if key is not None}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_literal(value) for value in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)
