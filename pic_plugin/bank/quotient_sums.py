# SPDX-License-Identifier: Apache-2.0
"""Sums of c_n / (r + x_n) over many n, from few terms: AdamW's steps on a row without gradient.

1 / (r + x_n) is a logistic curve in log x_n, whatever r, and so a smooth function of the step n: it
is interpolated by a polynomial at a few Chebyshev nodes, the c_n are summed up onto these, and an
element costs one division for each node (6 with torch's default betas, 29 with b2 = 0.95) instead
of one for each step (220 or 293).
"""
from __future__ import annotations

from functools import lru_cache

import numpy as np

# What is left out or interpolated away, relative to the largest step that the row could have taken.
# Rows are float32, whose own rounding is 60 times as large.
TOLERANCE = 1e-9


def sum_of_quotients(r: np.ndarray, c: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sum over j of c_j / (r + x_j).

    Args:
        r (np.ndarray): (R, d) float64.
        c (np.ndarray): (R, M) float64.
        x (np.ndarray): (R, M) float64, positive.

    Returns:
        np.ndarray: (R, d) float64.
    """
    total = c[:, :1] / (r + x[:, :1])
    quotient = np.empty_like(r)
    for j in range(1, c.shape[1]):
        np.add(r, x[:, j, None], out=quotient)
        np.divide(c[:, j, None], quotient, out=quotient)
        total += quotient
    return total


def num_nodes(num_steps: int, log_growth: float, first_step: int) -> int:
    """Chebyshev nodes for 1 / (r + x) as a function of the step, see :data:`TOLERANCE`.

    What is nearest to the interval of steps among the places where the function is not analytic
    says how fast interpolation converges (Trefethen, Approximation Theory and Approximation
    Practice, chapter 8): poles where log x is log r plus or minus i pi, and step 0, where q is 0.
    """
    half = (num_steps - 1) / 2
    if half <= 0:
        return num_steps
    by_poles = np.arcsinh(np.pi / (half * log_growth)) if log_growth > 0 else np.inf
    by_start = np.arccosh(1 + (first_step + 1) / half)
    return 1 + int(np.ceil(-np.log(TOLERANCE) / min(by_poles, by_start)))


@lru_cache(maxsize=4)
def chebyshev(num_steps: int, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes among the steps 1 to ``num_steps``, and the polynomials that are 1 at one of them.

    Returns:
        tuple[np.ndarray, np.ndarray]: (M,) float64 nodes, and (num_steps, M) float64 values at the
        steps of the polynomials of the nodes.
    """
    angles = (np.arange(num_nodes) + 0.5) * (np.pi / num_nodes)
    degrees = np.arange(num_nodes)[:, None]
    weights = np.cos(degrees * angles) * (2 / num_nodes)
    weights[0] /= 2
    middle, half = (num_steps + 1) / 2, (num_steps - 1) / 2
    places = np.arccos(np.clip((np.arange(1, num_steps + 1) - middle) / half, -1, 1))
    return middle + half * np.cos(angles), np.cos(degrees * places).T @ weights
