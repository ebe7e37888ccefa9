# SPDX-License-Identifier: Apache-2.0
"""Which class the ``type`` of a config means, in whatever way it is given."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def type_name(cfg: Mapping[str, Any]) -> str:
    """Name of the class that a config is of; '' if it does not say.

    Args:
        cfg (Mapping): Whose ``type`` is a name, one behind a scope or a path
            (``'mmpretrain.ResNet'``), or the class itself, as in mmengine's new style.
    """
    kind = cfg.get('type') or ''
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def is_pretrained(init_cfg: Any) -> bool:
    """Whether an ``init_cfg`` takes the weights of a file."""
    # The class is registered by another name than its own.
    return isinstance(init_cfg, Mapping) and type_name(init_cfg) in ('Pretrained', 'PretrainedInit')
