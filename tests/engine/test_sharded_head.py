# SPDX-License-Identifier: Apache-2.0
"""Gradients of which a part is spread over processes are clipped as those of one process are."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from pic_plugin.engine.sharded_head import check_elementwise, clip_grad_norm_over_shards
from toys import sharded
from toys.processes import run_ranks

CASES = [(norm_type, max_norm, with_others, bad)
         for norm_type in (2.0, 1.0, 3.0, math.inf)
         for max_norm, with_others, bad in ((1.0, True, False), (1e6, True, False),
                                            (0.1, False, False), (1.0, True, True))]


def inputs(norm_type, max_norm, with_others, bad):
    generator = torch.Generator().manual_seed(3)
    grads = [torch.randn(4, 3, generator=generator), torch.randn(5, generator=generator)]
    shard = torch.randn(7, 3, generator=generator)
    if bad:
        shard[1, 0] = math.inf  # held by the second process alone
    return norm_type, max_norm, grads if with_others else [], shard


@pytest.fixture(scope='module')
def ranks():
    results = run_ranks(sharded.work, 3, ('clip_cases', [inputs(*case) for case in CASES]))
    for result in results:
        assert isinstance(result, list), result
    return [result[0] for result in results]


@pytest.mark.parametrize('index', range(len(CASES)), ids=lambda i: str(CASES[i]))
def test_clips_as_torch_does_in_one_process(ranks, index):
    norm_type, max_norm, grads, shard = inputs(*CASES[index])
    parameters = [nn.Parameter(torch.zeros_like(grad)) for grad in (*grads, shard)]
    for parameter, grad in zip(parameters, (*grads, shard)):
        parameter.grad = grad
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
    for rank, results in enumerate(ranks):
        got_norm, got, got_shard = results[index]
        np.testing.assert_allclose(got_norm, norm, rtol=1e-5)  # float32, another order
        expected = [parameter.grad for parameter in parameters]
        for one, other in zip((*got, got_shard), (*expected[:-1], expected[-1][rank::3])):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_norm_that_is_not_finite_is_an_error_on_demand():
    shard = nn.Parameter(torch.zeros(2))
    shard.grad = torch.tensor([1.0, math.nan])
    with pytest.raises(RuntimeError, match='nan'):
        clip_grad_norm_over_shards(shard)([shard], 1.0, error_if_nonfinite=True)


def test_optimizers_that_look_at_whole_parameters():
    from mmpretrain.engine.optimizers import LARS
    parameter = nn.Parameter(torch.zeros(2, 2))
    check_elementwise(torch.optim.AdamW([parameter]))
    with pytest.raises(ValueError, match='LARS may look at the norm'):
        check_elementwise(LARS([parameter], lr=0.1))
