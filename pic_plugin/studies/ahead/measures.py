# SPDX-License-Identifier: Apache-2.0
"""Why PIC gains or loses: rows, features and losses by absence and by visit.

Every visit of a training is recorded on the device; the means are taken at its end.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .objectives import Pic, Step
from .schedule import repeat_absence, returned_after, visit_numbers, visits
from .setting import Setting

#: Steps: bounds of the classes of absence and of age.
EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Recorder:
    """Numbers of each visit.

    Args:
        setting (Setting): Of a training of PIC.
        device (torch.device): Of its tensors.
    """

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self.setting = setting
        shape = (setting.steps, setting.step_images)
        self.tables = {name: torch.zeros(shape, device=device) for name in (
            'cosine', 'target_cosine', 'loss', 'turn', 'gradient', 'length')}
        self.mass = torch.zeros(setting.steps, len(EDGES) + 1, device=device)
        self.edges = torch.tensor(EDGES, device=device)
        self.probes: list[dict[str, Any]] = []

    @torch.no_grad()
    def record(self, objective: Pic, step: Step, grad: Tensor) -> None:
        """After an optimizer step.

        Args:
            objective (Pic): With what it saw in the step.
            step (Step): The step.
            grad (Tensor): (N + 1, d) gradient of the class weights.
        """
        seen, number = objective.seen, step.number
        after = objective.class_weights[step.ids]
        values = dict(
            cosine=F.cosine_similarity(seen['row'], seen['features']),
            target_cosine=F.cosine_similarity(seen['target'], seen['features']),
            loss=seen['loss'],
            turn=torch.rad2deg(torch.acos(F.cosine_similarity(seen['target'], after)
                                          .clamp(-1, 1))),
            gradient=grad[step.ids].norm(dim=1) * len(step.ids),
            length=seen['target'].norm(dim=1))
        for name, value in values.items():
            self.tables[name].index_copy_(0, number, value[None])
        # The softmax's mass on other classes, by the steps since their image was visited.
        others = seen['softmax'].scatter(1, step.ids[:, None], 0).sum(dim=0)  # (N,)
        age = number - objective.last_position // len(step.ids)
        never = objective.last_position < 0
        which = torch.bucketize(age, self.edges).masked_fill(never, len(EDGES))
        mass = torch.zeros(len(EDGES) + 1, device=others.device).scatter_add_(0, which, others)
        self.mass.index_copy_(0, number, (mass / others.sum())[None])

    @torch.no_grad()
    def probe(self, objective: Pic, features: Tensor, number: int) -> None:
        """Between steps: how far all rows are from where the network sees their images now.

        Args:
            objective (Pic): The method.
            features (Tensor): (N, d) projected features of the plain training images.
            number (int): Steps taken.
        """
        cosine = F.cosine_similarity(objective.class_weights[:-1], features)
        age = (number - 1 - objective.last_position // self.setting.step_images).cpu().numpy()
        visited = (objective.last_position >= 0).cpu().numpy()
        means = _by_class(age[visited], cosine.cpu().numpy()[visited])
        self.probes.append(dict(step=number, never=int((~visited).sum()), cosine_by_age=means))

    def summary(self) -> dict[str, Any]:
        """Means by absence, by visit and by time, as plain numbers."""
        setting = self.setting
        stride = max(round(setting.window_size / setting.visits), 1) if setting.window_size else 0
        visit = visits(setting.steps, setting.step_images, setting.images, setting.window_size,
                       stride, setting.seed)
        absence = repeat_absence(visit)
        away = returned_after(setting.window_size, setting.step_images, setting.images,
                              setting.away)
        numbers = visit_numbers(absence, visit.ids, away)
        tables = {name: table.cpu().numpy() for name, table in self.tables.items()}
        late = np.arange(setting.steps) >= setting.steps // 2  # the first half sees images anew
        seen = (absence <= setting.steps) & late[:, None]
        result: dict[str, Any] = dict(edges=list(EDGES), probes=self.probes)
        result['cosine_by_absence'] = _by_class(absence[seen], tables['cosine'][seen])
        result['by_visit'] = [
            dict(visit=number, count=int(here.sum()),
                 **{name: float(table[here].mean()) for name, table in tables.items()})
            for number in range(1, 2 * setting.visits + 1)
            if (here := (numbers == number) & late[:, None]).any()]
        eighths = np.array_split(np.arange(setting.steps), 8)
        result['by_time'] = [
            dict(step=int(steps[-1]) + 1,
                 **{name: float(table[steps].mean()) for name, table in tables.items()})
            for steps in eighths if len(steps)]
        mass = self.mass.cpu().numpy()
        result['negative_mass_by_age'] = [float(value) for value in mass[late].mean(axis=0)]
        return result


def _by_class(keys: np.ndarray, values: np.ndarray) -> list[dict[str, float]]:
    """Mean and count of values for each class of absence that occurs."""
    which = np.searchsorted(np.array(EDGES), keys)
    return [dict(up_to=float(EDGES[number]) if number < len(EDGES) else -1.0,
                 mean_steps=float(keys[which == number].mean()),
                 count=int((which == number).sum()), mean=float(values[which == number].mean()))
            for number in np.unique(which)]
