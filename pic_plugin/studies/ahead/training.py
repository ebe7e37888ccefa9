# SPDX-License-Identifier: Apache-2.0
"""A training whose step is recorded once and replayed: many of them share one GPU.

Small networks keep a GPU busy for a few microseconds per operation, less than it takes to start
one from Python. So the images of several steps are augmented in one go, the step itself is a CUDA
graph that reads everything that changes from tables on the device, and trainings run side by side
in streams of their own. On a CPU the same step is simply called.
"""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .augment import Augment
from .images import Images
from .measures import Recorder
from .network import FlatParameters, ResNet18
from .objectives import OBJECTIVES, Pic, Step
from .optimizers import Optimizer
from .schedule import learning_rates, recency_thresholds, returned_after, visits
from .setting import Setting

CHUNK_IMAGES = 2048  # images augmented in one go: enough to make starting operations cheap
PROBES = 8


class Training:
    """One training.

    Args:
        setting (Setting): What to train.
        images (Images): On the device.
        stream (torch.cuda.Stream, optional): To run in. Defaults to None: the current one.
        record (bool): Whether to replay a recorded step, on a GPU. Defaults to True.

    Attributes:
        refused (str): Of the class: why steps could not be recorded; then they are called.
    """

    refused = ''

    def __init__(self, setting: Setting, images: Images, stream: Any | None = None,
                 record: bool = True) -> None:
        self.setting, self.images = setting, images
        self.device = images.train.device
        self.stream, self.done = stream, 0
        self.graph: Any | None = None
        with self._in_stream():
            self._build()
            self._fill()
            if record and self.device.type == 'cuda' and not Training.refused:
                self._record()

    def _in_stream(self) -> Any:
        return torch.cuda.stream(self.stream)  # None: nothing changes

    def _build(self) -> None:
        setting, device = self.setting, self.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            self.net = ResNet18(setting.width, setting.strides)
            objective = OBJECTIVES[setting.method](self.net, setting)
        self.objective = objective.to(device)
        self.net.train()
        for module in self._modules():
            for part in module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.num_batches_tracked = None  # counting is an operation each
        self.parameters = FlatParameters([self.net, *objective.modules], channels_last=True)
        self.optimizer = Optimizer(self.parameters.values, setting.optimizer, setting.lr,
                                   setting.momentum, setting.weight_decay)
        objective.prepare(self.parameters)
        self._make_tables()
        self.chunk = min(max(CHUNK_IMAGES // setting.batch, 1), setting.steps)
        size = self.images.size
        self.views = torch.empty(self.chunk, setting.num_views * setting.step_images, size, size, 3,
                                 device=device)
        self.augment = Augment(size, self.images.mean, self.images.std, device,
                               seed=10**6 + setting.seed)
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        self.losses = torch.zeros(setting.steps, device=device)
        self.recorder = Recorder(setting, device) if setting.measure else None

    def _modules(self) -> list[nn.Module]:
        return [value for value in vars(self.objective).values() if isinstance(value, nn.Module)]

    def _make_tables(self) -> None:
        setting, device = self.setting, self.device
        stride = max(round(setting.window_size / setting.visits), 1) if setting.window_size else 0
        order = (setting.steps, setting.step_images, setting.images, setting.window_size, stride,
                 setting.seed)
        visit = visits(*order)
        self.ids = torch.from_numpy(visit.ids).to(device)
        away = returned_after(setting.window_size, setting.step_images, setting.images,
                              setting.away)
        back = torch.from_numpy(visit.is_first & (visit.absence > away)).to(device)
        self.returning = torch.where(back, self.ids, setting.images)
        self.positions = torch.arange(self.ids.numel(), device=device).view(self.ids.shape)
        thresholds = torch.zeros(setting.steps, dtype=torch.int64)
        if setting.num_negatives is not None and setting.method == 'pic':
            thresholds = torch.from_numpy(recency_thresholds(*order, setting.num_negatives))
        self.thresholds = thresholds.to(device)
        self.factors = torch.from_numpy(learning_rates(setting.steps, setting.end)).to(device)

    def _fill(self) -> None:
        """Augment the images of the next steps."""
        setting = self.setting
        ids = self.ids[self.done:self.done + self.chunk]  # (T, B)
        repeated = ids[:, None].expand(-1, setting.num_views, -1).reshape(-1)
        views = self.augment(self.images.train[repeated])
        self.views[:len(ids)] = views.view(len(ids), *self.views.shape[1:])

    def step(self) -> None:
        """One optimizer step; nothing in it depends on Python but what never changes."""
        number, objective = self.number, self.objective
        slot = torch.remainder(number, self.chunk)
        views = self.views.index_select(0, slot)[0].permute(0, 3, 1, 2)  # (V * B, 3, H, W)
        if not self.parameters.channels_last:
            views = views.contiguous()
        ids, positions, returning = (table.index_select(0, number)[0] for table in (
            self.ids, self.positions, self.returning))
        step = Step(ids, positions, returning, self.thresholds.index_select(0, number), number)
        loss = objective.loss(views, step)
        trained: list[Tensor] = list(self.parameters.parameters)
        if objective.weight is not None:
            trained.append(objective.weight)
        grads = torch.autograd.grad(loss, trained)
        factor = self.factors.index_select(0, number)
        if objective.weight_optimizer is not None:
            weight_grad = grads[-1]
            grads = grads[:-1]
            objective.weight_optimizer.step(weight_grad, factor, number)
        self.optimizer.step(self.parameters.flatten(grads), factor, number)
        with torch.no_grad():
            objective.after_step(self.parameters)
            if self.recorder is not None and isinstance(objective, Pic):
                self.recorder.record(objective, step, weight_grad)
            self.losses.index_copy_(0, number, loss.detach()[None])
            number.add_(1)

    def state(self) -> list[Tensor]:
        """Everything that a step changes."""
        state = [self.parameters.values, *self.optimizer.states, self.number, self.losses]
        state += [buffer for module in self._modules() for buffer in module.buffers()]
        state += self.objective.buffers
        if self.objective.weight_optimizer is not None:
            state += [self.objective.weight_optimizer.values,
                      *self.objective.weight_optimizer.states]
        return state

    def _record(self) -> None:
        """Try the step twice, record it, and put everything back."""
        state = self.state()
        before = [tensor.clone() for tensor in state]
        for _ in range(2):
            self.step()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.current_stream().synchronize()
        try:
            graph.capture_begin(capture_error_mode='relaxed')
            try:
                self.step()
            finally:
                graph.capture_end()
            self.graph = graph
        except RuntimeError as error:
            Training.refused = f'{type(error).__name__}: {error}'
            print(f'steps are not recorded: {Training.refused}', flush=True)
        for tensor, value in zip(state, before):
            tensor.copy_(value)

    @property
    def is_done(self) -> bool:
        """Whether all steps have been asked for."""
        return self.done >= self.setting.steps

    def advance(self, steps: int) -> None:
        """Have the next steps done; returns before the device has.

        Args:
            steps (int): How many; fewer are done where the training ends.
        """
        with self._in_stream():
            for _ in range(min(steps, self.setting.steps - self.done)):
                if self.done % self.chunk == 0 and self.done:
                    self._fill()
                if self.graph is not None:
                    self.graph.replay()
                else:
                    self.step()
                self.done += 1
                if self.done % max(self.setting.steps // PROBES, 1) == 0:
                    self._probe()

    def _probe(self) -> None:
        if self.recorder is None or not isinstance(self.objective, Pic):
            return
        features = self.features(self.images.train[:self.setting.images], self.objective.neck)
        self.recorder.probe(self.objective, features, self.done)

    @torch.no_grad()
    def features(self, images: Tensor, *heads: nn.Module) -> Tensor:
        """Features of plain images.

        Args:
            images (Tensor): (M, 3, H, W) uint8.
            *heads (nn.Module): What they pass behind the network, such as the projection.

        Returns:
            Tensor: (M, C) float32.
        """
        modules = [self.net, *heads]
        with self._in_stream():
            for module in modules:
                module.eval()
            parts = [self.objective.embed(self.images.plain(part), *modules)
                     for part in images.split(2000)]
            for module in modules:
                module.train()
            return torch.cat(parts)

    def losses_so_far(self) -> Tensor:
        """(T,) losses of the steps taken, on the CPU; waits for these steps."""
        # In the training's own stream: another one would not wait for what is under way here.
        with self._in_stream():
            return self.losses[:self.done].cpu()

    def finish(self) -> dict[str, Any]:
        """What is known at the end without labels: the course of the loss, and measures."""
        losses = self.losses_so_far()
        course = [round(float(part.mean()), 4) for part in losses.chunk(8)]
        result: dict[str, Any] = dict(loss=course, finite=bool(torch.isfinite(losses).all()))
        if self.recorder is not None and self.is_done:
            with self._in_stream():
                result['measures'] = self.recorder.summary()
        return result


