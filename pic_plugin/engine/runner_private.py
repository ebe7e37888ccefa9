# SPDX-License-Identifier: Apache-2.0
"""The private parts of mmengine that the plugin relies on, in one place.

mmengine 0.10 has no public way to any of it. tests/engine/test_runner_private.py runs with every
version of mmengine that setup.py allows.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader


def is_training(runner: Runner) -> bool:
    """Whether ``runner.train()`` is under way or done; its training loop is built only then."""
    # runner.train_loop would build a loop that is still a config.
    return not (runner._train_loop is None or isinstance(runner._train_loop, dict))


def iterations_done(runner: Runner) -> int:
    """Training iterations done; 0 where ``runner.val()`` is called without training."""
    return runner._train_loop.iter if is_training(runner) else 0


def has_loaded(runner: Runner) -> bool:
    """Whether ``load_from`` or a checkpoint to resume has been read."""
    return runner._has_loaded


def resumes(runner: Runner) -> bool:
    """Whether the run is to continue from a checkpoint, and not to start."""
    return runner._resume


def load_from(runner: Runner) -> str | None:
    """The checkpoint that the run was told to start or continue from."""
    return runner._load_from


def launcher(runner: Runner) -> str:
    """The launcher of several processes, 'none' for one."""
    return runner._launcher


def train_loader_config(runner: Runner) -> dict | None:
    """Config of the training's loader; None once that has been built."""
    return runner._train_dataloader if isinstance(runner._train_dataloader, dict) else None


def replace_train_loader(runner: Runner, loader: DataLoader) -> None:
    """Give a runner that has not begun to train its loader."""
    runner._train_dataloader = loader


def ranks_draw_differently(runner: Runner) -> bool:
    """Whether each process has a seed of its own (``randomness.diff_rank_seed``)."""
    return runner._randomness_cfg.get('diff_rank_seed', False)


def count_epoch(loop: EpochBasedTrainLoop) -> None:
    """Count an epoch that the loop's own ``run_epoch`` has not run."""
    loop._epoch += 1


def accumulative_counts(optim_wrapper: Any) -> int:
    """Iterations whose gradients make up one optimizer step."""
    wrappers = (optim_wrapper.values() if hasattr(optim_wrapper, 'optim_wrappers')
                else [optim_wrapper])
    # Wrappers of other frameworks (DeepSpeed) do not say.
    return max(getattr(wrapper, '_accumulative_counts', 1) for wrapper in wrappers)


def set_inner_count(optim_wrapper: OptimWrapper, count: int) -> None:
    """Set the number of iterations that a wrapper believes to have seen."""
    optim_wrapper._inner_count = count


def clip_gradients(optim_wrapper: OptimWrapper) -> None:
    """Clip as the wrapper's ``clip_grad`` says."""
    optim_wrapper._clip_grad()


def update_scale(optim_wrapper: AmpOptimWrapper) -> None:
    """Adapt the loss scale after a step, as the wrapper's ``loss_scale`` says."""
    optim_wrapper.loss_scaler.update(optim_wrapper._scale_update_param)


def find_wrapper(runner: Runner, weight: nn.Parameter) -> Any:
    """The wrapper of the optimizer that holds a parameter.

    Raises:
        ValueError: If none does.
    """
    wrapper = runner.optim_wrapper
    for one in wrapper.values() if hasattr(wrapper, 'optim_wrappers') else [wrapper]:
        for group in one.optimizer.param_groups:
            if any(parameter is weight for parameter in group['params']):
                return one
    raise ValueError('no optimizer holds the class weights (head.weight): do not freeze the head, '
                     'and train with DistributedDataParallel or one process; FSDP and DeepSpeed '
                     'flatten or replace parameters and are not supported.')


def wrap_method(runner: Runner, name: str, replacement: Callable) -> None:
    """Put a function around one of the runner's methods.

    Args:
        runner (Runner): Whose method is replaced; others of its class keep theirs.
        name (str): 'save_checkpoint', 'load_checkpoint' or 'resume'.
        replacement (Callable): Called with the method as it was, then with its arguments.
    """
    method = getattr(runner, name)
    setattr(runner, name, lambda *args, **kwargs: replacement(method, *args, **kwargs))


def resume_on_host(runner: Runner) -> None:
    """Let the runner read a checkpoint that it resumes from to the host, not to its device.

    mmengine reads it to the GPU, which then holds everything twice, and torch leaves AdamW's
    number of steps where it was read to: each step would wait for it, once for each parameter.

    Raises:
        ValueError: If ``resume`` is a path, which mmengine takes for True: without a checkpoint in
            the work folder the run would begin anew.
    """
    if isinstance(resumes(runner), str):
        raise ValueError(f'resume={resumes(runner)!r} in the config: resume is True or False. '
                         'Set resume=True, and load_from to the checkpoint.')

    def resume(method: Callable, filename: str, resume_optimizer: bool = True,
               resume_param_scheduler: bool = True, map_location: Any = 'default') -> None:
        method(filename, resume_optimizer, resume_param_scheduler,
               'cpu' if map_location == 'default' else map_location)

    wrap_method(runner, 'resume', resume)


@contextmanager
def only_hook(runner: Runner, hook: Hook) -> Iterator[None]:
    """Call no hook of the runner but this one."""
    # The list itself stays as it is: the runner may be going through it at this moment.
    hooks, runner._hooks = runner._hooks, [hook]
    try:
        yield
    finally:
        runner._hooks = hooks


def forget_workers(loader: DataLoader) -> None:
    """Let the loader start its workers, if they persist, as if it had not been used yet.

    It draws their seed from torch's generator when it starts them, so that workers left over would
    change every random number after the first validation.
    """
    if getattr(loader, '_iterator', None) is not None:
        loader._iterator = None


def reseed_loader(runner: Runner, sampler_seed: int | None) -> None:
    """Let sampler and workers of a resumed run draw what the saved run would have drawn.

    A run without a seed in its config has drawn one, which is in the checkpoint; the loader was
    built before that was read.
    """
    loader = runner.train_dataloader
    if sampler_seed is not None and hasattr(loader.sampler, 'seed'):
        loader.sampler.seed = sampler_seed
    keywords = getattr(loader.worker_init_fn, 'keywords', {})
    if 'seed' in keywords:
        keywords['seed'] = runner.seed
    restart_workers(runner)


def restart_workers(runner: Runner) -> None:
    """Let workers that an iteration-based loop started when it was built start again.

    They have fetched samples already, from the data set and with the seed as they were then.
    """
    iterator = getattr(runner.train_loop, 'dataloader_iterator', None)
    if iterator is not None:
        loader = runner.train_dataloader
        # Workers that persist would be taken again. New ones draw a seed, which is not to change
        # the weights that are initialised next.
        with torch.random.fork_rng([], enabled=loader.persistent_workers):
            forget_workers(loader)
            runner.train_loop.dataloader_iterator = type(iterator)(loader)


def end_workers(runner: Runner) -> None:
    """Let data workers end with the training: those that persist, and those of an endless loader.

    They hold memory while they live, and torch has to wait for them if the Runner becomes garbage
    first, five seconds for each: the queue by which it tells them to end is closed by then.
    """
    for loop in (runner._train_loop, runner._val_loop):
        loader = getattr(loop, 'dataloader', None)
        if loader is not None:
            forget_workers(loader)
        endless = getattr(loop, 'dataloader_iterator', None)
        if endless is not None:
            endless._iterator = None


def last_checkpoint_file(runner: Runner) -> Path:
    """The file in which mmengine notes the newest checkpoint."""
    return Path(runner.work_dir) / 'last_checkpoint'


def last_checkpoint(runner: Runner) -> str | None:
    """The newest checkpoint, in the work folder as it is now; None if none was saved.

    The path is kept in checkpoints, and so may be of a folder that has been moved or copied since.
    """
    saved = runner.message_hub.get_info('last_ckpt')
    here = Path(runner.work_dir) / Path(saved or '').name
    return str(here) if here.is_file() else saved


def is_lazy_config(file: Path) -> bool:
    """Whether a config file is one of mmengine's lazy ones, which import their types."""
    return Config._is_lazy_import(str(file))


def fill_in_predefined(file: Path, copy: Path) -> None:
    """Copy a config file with mmengine's ``{{ fileDirname }}`` and the like filled in."""
    Config._substitute_predefined_vars(str(file), str(copy))


def gives_rgb(preprocessor: Any) -> bool:
    """Whether a data preprocessor hands on RGB, as mmengine's and mmpretrain's say it."""
    return bool(getattr(preprocessor, '_channel_conversion',
                        getattr(preprocessor, 'to_rgb', True)))
