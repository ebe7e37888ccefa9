# SPDX-License-Identifier: Apache-2.0
"""The formats of stored rows: float32 as they are, or half the space."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

DTYPES = ('float32', 'float16', 'bfloat16')

Fields = dict[str, np.ndarray]

# The largest element of a float16 row is put below 2**15, one power of two under the type's end.
_FLOAT16_EXPONENT = 15
# Squares below this are kept as zero: they would lose bits of their root as float32.
_SMALLEST_SQUARE = np.float32(2.0**-120)


class RowCodec:
    """Turns rows of P x d float32 into what is kept of them, and back.

    ``float16`` rounds each element to 11 bits of the largest one of its row and tensor, whose power
    of two is kept beside it: momentum buffers are far below float16's own range. ``bfloat16``
    rounds each element to 8 bits of its own magnitude. Both round to nearest even, and encoding
    what was decoded changes nothing more, so a row that is saved and restored keeps its bits.

    AdamW's second moments are squares: those of one row span twice as many decades as its
    gradients, more than float16 has below the row's largest, and one that is rounded to zero makes
    a step of first moment / eps. ``float16`` therefore keeps the root of such a tensor;
    ``bfloat16`` has float32's range.

    Args:
        dtype (str): 'float32', 'float16' or 'bfloat16'.
        squares (Sequence[int]): Which of the tensors hold squares, none of them negative.
            Defaults to none.

    Raises:
        ValueError: If the dtype is another one.
    """

    def __init__(self, dtype: str, squares: Sequence[int] = ()) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'rows cannot be kept as {dtype!r}: choose one of '
                             f'{", ".join(DTYPES)}.')
        self.dtype = dtype
        self.squares = list(squares)

    def fields(self, num_tensors: int, feat_dim: int) -> list[tuple]:
        """Fields of a numpy record that holds an encoded row."""
        code = dict(float32='<f4', float16='<f2', bfloat16='<u2')[self.dtype]
        fields: list[tuple] = [('values', code, (num_tensors, feat_dim))]
        if self.dtype == 'float16':
            fields.append(('exponents', '<i2', (num_tensors, )))
        return fields

    def encode(self, values: np.ndarray) -> Fields:
        """Rows as they are kept.

        Args:
            values (np.ndarray): (R, P, d) float32.

        Returns:
            dict[str, np.ndarray]: ``values`` (R, P, d) in the kept type (bfloat16 as uint16 bits)
            and, for float16, ``exponents`` (R, P) int16.
        """
        if self.dtype == 'float32':
            return dict(values=values)
        if self.dtype == 'bfloat16':
            rounded = torch.from_numpy(np.array(values)).to(torch.bfloat16)
            return dict(values=rounded.view(torch.int16).numpy().view(np.uint16))
        if self.squares:
            values = values.copy()
            squares = values[:, self.squares]
            values[:, self.squares] = np.sqrt(np.where(squares < _SMALLEST_SQUARE, 0, squares))
        mantissa, exponents = np.frexp(np.abs(values).max(axis=2, initial=0))
        # A largest element that rounds up to the next power of two belongs to that one: decoded
        # and encoded again it would else get another exponent.
        exponents = exponents + (mantissa.astype(np.float16) == 1)
        scaled = np.ldexp(values, (_FLOAT16_EXPONENT - exponents)[..., None])
        return dict(values=scaled.astype(np.float16), exponents=exponents.astype(np.int16))

    def decode(self, fields: Fields) -> np.ndarray:
        """The rows again.

        Args:
            fields (dict[str, np.ndarray]): Of :meth:`encode`.

        Returns:
            np.ndarray: (R, P, d) float32.
        """
        values = fields['values']
        if self.dtype == 'float32':
            return values
        if self.dtype == 'bfloat16':
            bits = torch.from_numpy(np.array(values).view(np.int16))
            return bits.view(torch.bfloat16).float().numpy()
        exponents = fields['exponents'].astype(np.int32) - _FLOAT16_EXPONENT
        values = np.ldexp(values.astype(np.float32), exponents[..., None])
        if self.squares:
            values[:, self.squares] **= 2
        return values
