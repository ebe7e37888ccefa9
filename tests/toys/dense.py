# SPDX-License-Identifier: Apache-2.0
"""Dense SGD on all rows, and the sampled class weights that are compared with it."""
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F

from pic_plugin.bank import SampledClassWeights, Storage, initial_rows

D = 6


def cosine_loss(features, weights, targets):
    return F.cross_entropy(F.normalize(features) @ F.normalize(weights).t() / 0.2, targets)


class Dense:
    """The oracle: float64, all N rows in the optimizer, recency as an ordered dict."""

    def __init__(self, num_instances, num_negatives, options):
        start = initial_rows(np.arange(num_instances), D, seed=3)
        self.weight = torch.nn.Parameter(torch.from_numpy(start).double())
        self.optimizer = torch.optim.SGD([self.weight], lr=1.0, **options)
        self.recent = OrderedDict() if num_negatives < num_instances else OrderedDict.fromkeys(
            range(num_instances))
        self.num_negatives = num_negatives

    def sample(self, ids):
        for i in ids.tolist():
            self.recent[i] = None
            self.recent.move_to_end(i)
        while len(self.recent) > self.num_negatives:
            self.recent.popitem(last=False)
        active = list(self.recent)
        return active, torch.tensor([active.index(i) for i in ids.tolist()])


class Sampled(SampledClassWeights):
    """The class under test, with a parameter and an optimizer of its own."""

    def __init__(self, num_instances, num_negatives, options, room, correction=None, **storage):
        num_slots = num_instances if num_negatives >= num_instances else num_negatives + room
        weight = torch.nn.Parameter(torch.empty(num_slots, D))
        optimizer = torch.optim.SGD([weight], lr=1.0, **options)
        super().__init__(weight, optimizer, num_instances, num_negatives, 3, correction,
                         Storage(**storage))
        self.start()
