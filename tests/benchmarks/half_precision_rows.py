# SPDX-License-Identifier: Apache-2.0
"""Error of class weights whose stored rows are rounded, against dense float64 SGD on all rows.

    PYTHONPATH=tests python tests/benchmarks/half_precision_rows.py

400 instances, the 64 most recent in the softmax, momentum 0.9, weight decay 1e-3, warm-up and
cosine. Error: norm of the difference of all class weights over the norm of the class weights.
"""
import math

import numpy as np
import torch

from toys.dense import D, Dense, Sampled, cosine_loss

N, K, BATCH, STEPS = 400, 64, 16, 2000
SGD = dict(momentum=0.9, weight_decay=1e-3)


def train(dtype):
    """Largest and last relative error."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N, D))
    dense, sampled = Dense(N, K, SGD), Sampled(N, K, SGD, room=0, dtype=dtype)
    errors = []
    for step in range(STEPS):
        ids = (rng.integers(0, 100, BATCH) + step // 20 * 4) % N  # a window that moves on
        features = torch.from_numpy(centres[ids] + rng.normal(size=(BATCH, D)))
        active, targets = dense.sample(ids)
        places = sampled.sample(ids)
        cosine_loss(features, dense.weight[active], targets).backward()
        cosine_loss(features.float(), sampled.active, places).backward()
        lr = 0.3 * min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / STEPS)))
        for trained in (dense, sampled):
            trained.optimizer.param_groups[0]['lr'] = lr
        dense.optimizer.step()
        sampled.optimizer.step()
        for trained in (dense, sampled):
            trained.optimizer.zero_grad()
        if step % 50 == 49:
            rows = sampled.rows(np.arange(N)).double()
            expected = dense.weight.detach()
            errors.append(float((rows - expected).norm() / expected.norm()))
    return max(errors), errors[-1]


def main():
    torch.set_num_threads(1)
    print(f'{"stored as":10} {"largest error":>14} {f"after {STEPS} steps":>18}')
    for dtype in ('float32', 'float16', 'bfloat16'):
        largest, last = train(dtype)
        print(f'{dtype:10} {largest:14.1e} {last:18.1e}', flush=True)


if __name__ == '__main__':
    main()
