# SPDX-License-Identifier: Apache-2.0
"""One training of a grid: train, or go on, measure the features, write the result.

``python -m pic_plugin.studies.ablation.training FOLDER`` trains what ``FOLDER/config.py`` says and
leaves ``FOLDER/result.json``. Nothing in it depends on how often it was interrupted, but for what
it cost: seconds and memory up to the last checkpoint count.
"""
from __future__ import annotations

import json
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

import pic_plugin
from pic_plugin.evaluation.knn import knn_predict, normalise
from pic_plugin.evaluation.linear_probe import linear_accuracy
from pic_plugin.files import write_atomically
from pic_plugin.models.pooling import pooled
from pic_plugin.studies.ablation.window_phase import WindowPhaseHook

RESULT = 'result.json'
CONFIG = 'config.py'
TOPK = (20, 200)


class _Meter(Hook):
    """Counts what a training costs, across resumes.

    Forward passes are images times calls of a backbone, whether a gradient follows or not.
    Seconds are this process's own on the CPU, so that others on the machine do not count (what
    contention slows down itself does).
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.counts: dict[str, Any] = dict(images=0, passes=0, seconds=0.0, peak_bytes=0)

    def before_train(self, runner: Runner) -> None:
        """Take over the counts of the run that is resumed, and watch every backbone."""
        if runner.iter:
            self.counts = {name: runner.message_hub.get_info(name) for name in self.counts}
        self._handles = [backbone.register_forward_hook(self._count)
                         for backbone in backbones(runner.model)]

    def _count(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if module.training:
            self.counts['passes'] += len(inputs[0])

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self._clock = time.process_time()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Count images."""
        assert data_batch is not None
        self.counts['images'] += len(data_batch['data_samples'])
        now = time.process_time()
        self.counts['seconds'] += now - self._clock
        self._clock = now

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Into the message hub of the checkpoint, whatever has been written there before."""
        hub = checkpoint.get('message_hub')
        assert hub is not None, 'CheckpointHook saves it'
        self._update_peak()
        hub['runtime_info'].update(self.counts)

    def after_train(self, runner: Runner) -> None:
        """Before the evaluation, which has passes and takes memory of its own."""
        self._update_peak()
        for handle in self._handles:
            handle.remove()

    def _update_peak(self) -> None:
        self.counts['peak_bytes'] = max(self.counts['peak_bytes'], peak_memory())


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak


def backbones(model: nn.Module) -> Iterable[nn.Module]:
    """The backbone and copies of it (MoCo's second encoder)."""
    kind = type(model.backbone)
    return [module for module in model.modules() if type(module) is kind]


def train(folder: Path) -> dict:
    """Train what is in a folder, from its newest checkpoint if there is one.

    Args:
        folder (Path): With ``config.py``.

    Returns:
        dict: The result, also in ``result.json``.
    """
    cfg = Config.fromfile(folder / CONFIG)
    cfg.work_dir = str(folder / 'work')
    cfg.resume = (folder / 'work' / 'last_checkpoint').is_file()
    meter = _Meter()
    base_bytes = peak_memory()
    cfg.val_cfg = cfg.val_evaluator = None
    val_dataloader, cfg.val_dataloader = cfg.val_dataloader, None
    # Two of one name and second would share a visualizer, and with it a folder that may be gone.
    cfg.experiment_name = folder.name
    runner = Runner.from_cfg(cfg)
    # A third faster on a CPU, and equal for all algorithms.
    runner.model.to(memory_format=torch.channels_last)
    runner.register_hook(meter)
    loader = runner.build_dataloader(val_dataloader)
    phases = None
    if 'window_phase' in cfg:
        phases = WindowPhaseHook(lambda model: evaluate(model, loader)['knn20_train'],
                                 **cfg.window_phase)
        runner.register_hook(phases)
    runner.train()
    cost = meter.counts
    result = dict(
        **evaluate(runner.model, loader),
        **(phases.means() if phases else {}),
        images=cost['images'],
        passes=cost['passes'],
        ms_per_image=1000 * cost['seconds'] / max(1, cost['images']),
        peak_mb=cost['peak_bytes'] / 2**20,
        base_mb=base_bytes / 2**20,
        steps=runner.iter,
        pic_plugin=pic_plugin.__version__,
        torch=torch.__version__,
        machine=platform.machine())
    write_atomically(folder / RESULT, json.dumps(result, indent=1))
    shutil.rmtree(folder / 'work')
    return result


@torch.no_grad()
def evaluate(model: Any, loader: Iterable[dict]) -> dict[str, float]:
    """Accuracies of pooled backbone features, percent.

    Args:
        model (BaseSelfSupervisor): With ``data_preprocessor`` and ``extract_feat``, as mmpretrain's
            self-supervised algorithms have them.
        loader (Iterable): References, marked, and other samples, all with labels.

    Returns:
        dict[str, float]: ``knn20`` and ``knn200``, of the unmarked samples by the references;
        ``knn20_train``, of the references by each other (for tuning, as it leaves the others
        unseen); ``linear``, of the unmarked samples by logistic regression on the references.
    """
    model.eval()
    parts: dict[str, list[Tensor]] = dict(feats=[], labels=[], marks=[])
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        inputs = data['inputs']
        feats = model.extract_feat(inputs[0] if isinstance(inputs, (list, tuple)) else inputs)
        parts['feats'].append(pooled(feats).float())
        parts['labels'].append(torch.tensor([int(s.gt_label) for s in data['data_samples']]))
        parts['marks'].append(torch.tensor([bool(s.get('reference', False))
                                            for s in data['data_samples']]))
    feats, labels, marks = (torch.cat(parts[name]) for name in ('feats', 'labels', 'marks'))
    if not torch.isfinite(feats).all():
        raise ValueError('features are not finite: the network gives no usable ones.')
    if not marks.any() or marks.all():
        raise ValueError(f'{int(marks.sum())} of {len(marks)} samples are marked as references: '
                         'both kinds are needed.')
    unit = normalise(feats)
    predicted = knn_predict(unit[~marks], unit[marks], labels[marks], TOPK)
    correct = (predicted == labels[~marks, None]).double().mean(dim=0) * 100
    return dict(
        knn20=float(correct[0]),
        knn200=float(correct[1]),
        knn20_train=leave_one_out(unit[marks].float(), labels[marks]),
        linear=linear_accuracy(feats[marks], labels[marks], feats[~marks], labels[~marks]))


def leave_one_out(feats: Tensor, labels: Tensor, k: int = 20, temperature: float = 0.07) -> float:
    """kNN accuracy of each sample by all others, percent.

    Args:
        feats (Tensor): (N, d) of unit length.
        labels (Tensor): (N,) int64.
        k (int): Neighbours. Defaults to 20.
        temperature (float): Temperature of the votes. Defaults to 0.07.

    Returns:
        float: Percent.
    """
    votes = torch.zeros(len(feats), int(labels.max()) + 1, dtype=torch.float64)
    for rows in torch.arange(len(feats)).split(512):
        similarity = feats[rows] @ feats.T
        similarity[torch.arange(len(rows)), rows] = -2  # less than any cosine
        nearest = similarity.topk(min(k, len(feats) - 1), dim=1)
        votes[rows] = votes[rows].scatter_add(
            1, labels[nearest.indices], (nearest.values.double() / temperature).exp())
    return float((votes.argmax(dim=1) == labels).double().mean() * 100)


def main() -> None:
    """Command line entry."""
    torch.set_num_threads(1)
    train(Path(sys.argv[1]))


if __name__ == '__main__':
    main()
