# SPDX-License-Identifier: Apache-2.0
"""What 1600 epochs of PIC do to norms and to half precision, compressed to a few thousand steps.

The authors' code "may become NaN" there. This trains a small network with PIC's projection and all
its class weights in the authors' ImageNet setting, with time compressed, under several precisions
and orders of visits, and prints what became of the norms. See docs/numerical_health.md.

    python tests/benchmarks/long_training_health.py

The compression, from 10,008 steps of 128 images in an epoch of ImageNet to a handful (factor k):

* class weights: learning rate as it is, weight decay times k. A class still meets the same pull
  once an epoch and the same decay in between.
* network: learning rate and weight decay times sqrt(k) each. Decay over the run, and the norm
  (learning rate / weight decay) ** 0.25 at which noise and decay balance, stay as they are.
"""
from __future__ import annotations

import argparse
import math
from typing import Any, Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pic_plugin.losses import cosine_softmax

TEMPERATURE = 0.2
BATCH = 128
BASE_LR = 0.03 * BATCH / 256
FINAL_LR = 1e-6
WEIGHT_DECAY = 1e-4
IMAGENET_STEPS_PER_EPOCH = 1281167 // BATCH
IMAGE_DIM, HIDDEN_DIM, FEAT_DIM = 64, 256, 128


def half(x: Tensor) -> Tensor:
    """Round to float16 and back; its gradient is rounded the same way (and overflows)."""
    return x.half().float()


def normalize_half(x: Tensor) -> Tensor:
    """F.normalize computed in float16 with sums in float32, as a GPU does.

    Written out because torch 2.1 has no float16 arithmetic on the CPU. F.normalize's eps, 1e-12,
    is 0 in float16.
    """
    x = half(x)
    norm = half(torch.linalg.vector_norm(x, dim=1, keepdim=True))
    return half(x / norm.clamp_min(float(torch.tensor(1e-12).half())))


def plain_loss(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The formula as the authors write it, in the inputs' precision."""
    logits = F.normalize(z, dim=1) @ F.normalize(w, dim=1).t() / TEMPERATURE
    return F.cross_entropy(logits, y)


def half_loss(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The same with features, class weights, normalisation and logits in float16."""
    logits = half(normalize_half(z) @ normalize_half(w).t())
    return F.cross_entropy(half(logits / TEMPERATURE), y)


def our_loss(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The plugin's loss on features of the projection's own precision."""
    return cosine_softmax(z, w, y, TEMPERATURE)[0].mean()


class Precision(NamedTuple):
    network: Callable[[Tensor], Tensor]  # applied to every input, weight and output of a layer
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    feature_dtype: torch.dtype = torch.float32
    scaled: bool = True  # dynamic loss scale


def _as_is(x: Tensor) -> Tensor:
    return x


PRECISIONS = {
    'float32': Precision(_as_is, plain_loss, scaled=False),
    'half network': Precision(half, plain_loss),
    'half everything': Precision(half, half_loss),
    'plugin': Precision(half, our_loss, torch.float16),
}


class Network(nn.Module):
    """One layer with batch norm for the backbone, then PIC's projection without."""

    def __init__(self, rounded: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.backbone = nn.Linear(IMAGE_DIM, HIDDEN_DIM, bias=False)
        self.norm = nn.BatchNorm1d(HIDDEN_DIM)
        self.hidden = nn.Linear(HIDDEN_DIM, HIDDEN_DIM)
        self.projection = nn.Linear(HIDDEN_DIM, FEAT_DIM)
        self.rounded = rounded

    def forward(self, x: Tensor) -> Tensor:
        r = self.rounded

        def linear(layer: nn.Linear, x: Tensor) -> Tensor:
            bias = None if layer.bias is None else r(layer.bias)
            return r(F.linear(r(x), r(layer.weight), bias))

        x = r(F.relu(self.norm(linear(self.backbone, x))))
        return linear(self.projection, F.relu(linear(self.hidden, x)))


class LossScale:
    """apex's dynamic loss scale: halve and skip on overflow, double after a while, no minimum."""

    def __init__(self, growth_interval: int) -> None:
        self.scale, self.skipped = 2.0**16, 0
        self.growth_interval, self._good_steps = growth_interval, 0

    def unscale(self, parameters: list[Tensor]) -> bool:
        """Divide the gradients by the scale; False if the step has to be skipped."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for grad in gradients:
            grad.div_(self.scale)
        if all(bool(grad.isfinite().all()) for grad in gradients):
            self._good_steps += 1
            if self._good_steps == self.growth_interval:
                self.scale, self._good_steps = min(self.scale * 2, 2.0**24), 0
            return True
        self.scale, self._good_steps, self.skipped = self.scale / 2, 0, self.skipped + 1
        return False


def draw_batch(order: str, step: int, num_classes: int, state: dict[str, Any],
               generator: torch.Generator) -> Tensor:
    """(128,) int64 instance ids of a batch out of the first ``num_classes``.

    'epochs': a new shuffle every epoch. 'random': a fresh random subset every time, which is what
    the windows of the authors' launch script mostly are. 'first window': one tenth of the images
    for ever, the authors' code without --shuffle-per-epoch.
    """
    steps = num_classes // BATCH
    if order == 'epochs':
        if step % steps == 0 or len(state['order']) != num_classes:
            state['order'] = torch.randperm(num_classes, generator=generator)
        return state['order'][step % steps * BATCH:][:BATCH]
    if order == 'first window':
        return torch.randint(num_classes // 10, (BATCH,), generator=generator)
    return torch.randperm(num_classes, generator=generator)[:BATCH]


def simulate(precision: str,
             order: str = 'epochs',
             epochs: int = 1600,
             steps_per_epoch: int = 5,
             absent_epochs: int = 0,
             stop_epoch: int | None = None,
             seed: int = 0,
             records: int = 160) -> list[dict[str, float]]:
    """Train and record.

    Args:
        precision (str): Key of ``PRECISIONS``.
        order (str): See :func:`draw_batch`.
        epochs (int): Length of the learning-rate schedule.
        steps_per_epoch (int): Compressed steps; there are 128 times as many instance classes.
        absent_epochs (int): For so long the last fifth of the classes is neither visited nor in
            the softmax: plain SGD (and the plugin's weight correction, which equals it) then
            does nothing to them but decay.
        stop_epoch (int, optional): Stop there instead of at ``epochs``.
        seed (int): Seed.
        records (int): Number of records.

    Returns:
        list[dict[str, float]]: Per record: epoch, loss, smallest / median / largest class-weight
        norm, ``w_lr`` (lr / (1 - momentum) / median squared norm), ``projection`` (norm of the last
        layer), ``z`` (median feature norm), loss scale, share of steps skipped since the last
        record. The first and the last step are always recorded. Ends early after 40 steps in a row
        with a non-finite loss.
    """
    setting = PRECISIONS[precision]
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    num_classes = steps_per_epoch * BATCH
    factor = IMAGENET_STEPS_PER_EPOCH / steps_per_epoch
    images = torch.randn(num_classes, IMAGE_DIM, generator=generator)
    class_weights = nn.Parameter(0.01 * torch.randn(num_classes, FEAT_DIM, generator=generator))
    network = Network(setting.network)
    parameters = [*network.parameters(), class_weights]
    groups = [dict(params=list(network.parameters()), factor=math.sqrt(factor),
                   weight_decay=WEIGHT_DECAY * math.sqrt(factor)),
              dict(params=[class_weights], factor=1.0, weight_decay=WEIGHT_DECAY * factor)]
    optimizer = torch.optim.SGD(groups, lr=BASE_LR, momentum=0.9)
    scaler = LossScale(growth_interval=20)
    history: list[dict[str, float]] = []
    state: dict[str, Any] = {}
    steps, warmup, bad, skipped = epochs * steps_per_epoch, epochs * steps_per_epoch // 40, 0, 0
    last = (epochs if stop_epoch is None else stop_epoch) * steps_per_epoch - 1
    every = max((last + 1) // records, 1)
    for step in range(last + 1):
        lr = FINAL_LR + (BASE_LR - FINAL_LR) * (1 + math.cos(math.pi * step / steps)) / 2
        lr *= min(1.0, 0.01 + 0.99 * step / max(warmup, 1))
        for group in optimizer.param_groups:
            group['lr'] = lr * group['factor']
        present = num_classes
        if step < absent_epochs * steps_per_epoch:
            present -= num_classes // 5
        ids = draw_batch(order, step, present, state, generator)
        views = images[ids] + 0.5 * torch.randn(BATCH, IMAGE_DIM, generator=generator)
        z = network(views)
        loss = setting.loss(z.to(setting.feature_dtype), class_weights[:present], ids)
        optimizer.zero_grad()
        (loss * scaler.scale if setting.scaled else loss).backward()
        if not setting.scaled or scaler.unscale(parameters):
            optimizer.step()
        bad = 0 if math.isfinite(float(loss.detach())) else bad + 1
        if step % every == 0 or step == last or bad == 40:
            norms = torch.linalg.vector_norm(class_weights.detach(), dim=1)
            history.append({
                'epoch': step / steps_per_epoch, 'loss': float(loss.detach()),
                'w_min': float(norms.min()), 'w_median': float(norms.median()),
                'w_max': float(norms.max()), 'w_lr': 10 * lr / float(norms.median())**2,
                'projection': float(network.projection.weight.detach().norm()),
                'z': float(z.detach().norm(dim=1).median()), 'scale': scaler.scale,
                'skipped': (scaler.skipped - skipped) / every})
            skipped = scaler.skipped
        if bad == 40:
            break
    return history


def zero_vector_table() -> None:
    print("\nOne of 128 features is zero: loss, largest element of the features' gradient")
    print(f'{"formula":34} {"loss":>8} {"float32":>10} {"in float16":>10}')
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(640, FEAT_DIM, generator=generator)
    for name, loss_function in (('F.normalize in float32', plain_loss),
                                ('F.normalize in float16', half_loss), ('plugin', our_loss)):
        z = torch.randn(BATCH, FEAT_DIM, generator=generator.manual_seed(1))
        z[0] = 0
        z.requires_grad_()
        loss = loss_function(z, w, torch.arange(BATCH))
        loss.backward()
        assert z.grad is not None
        print(f'{name:34} {float(loss.detach()):8.3g} {float(z.grad.abs().max()):10.3g} '
              f'{float(z.grad.half().abs().max()):10.3g}')


def norm_table() -> None:
    print('\n1600 epochs: norms over time')
    print(f'{"precision":16} {"order":13} {"epoch":>6} {"loss":>6} {"w min":>8} {"w median":>8} '
          f'{"w max":>8} {"lr/|w|^2":>8} {"|W2|":>6} {"|z|":>6} {"scale":>8}')
    for precision, order in (('float32', 'epochs'), ('float32', 'random'),
                             ('float32', 'first window'), ('half network', 'epochs'),
                             ('half everything', 'epochs'), ('half everything', 'random'),
                             ('half everything', 'first window'), ('plugin', 'epochs'),
                             ('plugin', 'first window')):
        for r in simulate(precision, order, records=4):
            print(f'{precision:16} {order:13} {r["epoch"]:6.0f} {r["loss"]:6.2f} {r["w_min"]:8.2g} '
                  f'{r["w_median"]:8.2g} {r["w_max"]:8.2g} {r["w_lr"]:8.2g} '
                  f'{r["projection"]:6.2f} {r["z"]:6.2f} {r["scale"]:8.2g}', flush=True)


def absence_table() -> None:
    print('\nA fifth of the classes decays undisturbed for some epochs, then comes back for 60')
    print(f'{"absent":>6} {"precision":16} {"w before":>9} {"largest w after":>15} '
          f'{"last loss":>9} {"smallest scale":>14} {"non-finite":>10}')
    for absent in (25, 50, 75, 100, 150, 300):
        for precision in ('float32', 'half network', 'half everything', 'plugin'):
            history = simulate(precision, absent_epochs=absent, stop_epoch=absent + 60,
                               records=10**6)
            before = [r for r in history if r['epoch'] < absent]
            after = history[len(before):]
            bad = sum(not math.isfinite(r['loss']) for r in after)
            print(f'{absent:6} {precision:16} {before[-1]["w_min"]:9.2g} '
                  f'{max(r["w_max"] for r in after):15.2g} {after[-1]["loss"]:9.3g} '
                  f'{min(r["scale"] for r in after):14.2g} {bad:5}/{len(after)}', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: 1)')
    torch.set_num_threads(parser.parse_args().threads)
    # Units that ReLU has switched off decay into denormals, which are slow on a CPU alone.
    torch.set_flush_denormal(True)
    zero_vector_table()
    absence_table()
    norm_table()


if __name__ == '__main__':
    main()
