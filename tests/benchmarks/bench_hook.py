# SPDX-License-Identifier: Apache-2.0
"""Share of a training step that InstanceBankHook takes, through the real Runner.

    PYTHONPATH=tests python tests/benchmarks/bench_hook.py
    PYTHONPATH=tests python tests/benchmarks/bench_hook.py --num-negatives 4096

The network is two small linear layers, so that the step is that of the head: the hook's share of a
training with a real backbone is smaller. Everything the hook does is counted: gathering ids,
choosing classes, moving rows, counting steps, scalars for the log.
"""
import argparse
import statistics
import tempfile
import time

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from pic_plugin.bank import SampledClassWeights
from pic_plugin.engine import InstanceBankHook
from toys.training import make_config, train

METHODS = ((InstanceBankHook, 'before_train_iter'), (InstanceBankHook, 'after_train_iter'),
           (SampledClassWeights, 'sample'),  # which the loss calls for the hook
           (SampledClassWeights, '_before_step'), (SampledClassWeights, '_after_step'))


@HOOKS.register_module()
class StepTimes(Hook):
    """Seconds of each iteration, from the hook's start to the end of the optimizer's step."""

    priority = 'HIGHEST'

    def __init__(self):
        self.steps, self.hook = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.start, self.inside = time.perf_counter(), 0.0

    def after_train_epoch(self, runner):
        runner.step_times = self

    def finish(self):
        self.steps.append(time.perf_counter() - self.start)
        self.hook.append(self.inside)


def count_time(times):
    """Let the methods of the hook, and those around the optimizer step, add their time."""
    for cls, name in METHODS:
        setattr(cls, name, timed(getattr(cls, name), times))


def timed(method, times):
    """A method that adds its seconds to those of the step."""
    def wrapper(self, *args, **kwargs):
        begin = time.perf_counter()
        result = method(self, *args, **kwargs)
        times().inside += time.perf_counter() - begin
        if method.__name__ == 'after_train_iter':
            times().finish()
        return result

    return wrapper


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--num-negatives', type=int, default=65536)
    parser.add_argument('--batch-size', type=int, default=256)
    parser.add_argument('--feat-dim', type=int, default=128)
    parser.add_argument('--steps', type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    # As many images as fill the softmax, and then some for the steps that are measured.
    fill = -(-args.num_negatives // args.batch_size) + 4
    num_images = (fill + args.steps) * args.batch_size
    with tempfile.TemporaryDirectory() as folder:
        holder = []
        count_time(lambda: holder[0])
        original = StepTimes.__init__

        def remember(self):
            original(self)
            holder.append(self)

        StepTimes.__init__ = remember
        options = dict(seed=0, num_images=num_images, batch_size=args.batch_size, augment=False,
                       feat_dim=args.feat_dim, max_epochs=1,
                       head=dict(num_negatives=args.num_negatives))
        loader = make_config(folder, **options)['train_dataloader']
        # Each image once: every step brings in a whole batch of rows, and sends one out.
        loader['sampler'].update(window_size=num_images, stride=num_images)
        hooks = [dict(type='StepTimes'), dict(type='InstanceBankHook')]
        train(folder, train_dataloader=loader, custom_hooks=hooks, **options)
    steps, hook = holder[0].steps[-args.steps:], holder[0].hook[-args.steps:]
    step_ms, hook_ms = 1e3 * statistics.median(steps), 1e3 * statistics.median(hook)
    print(f'K={args.num_negatives}, B={args.batch_size}, d={args.feat_dim}: a step takes '
          f'{step_ms:.1f} ms, of which InstanceBankHook {hook_ms:.2f} ms, '
          f'{100 * hook_ms / step_ms:.1f} %')


if __name__ == '__main__':
    main()
