"""Helpers around a model: freezing, counting, a summary, and checkpoints for loops that are written by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddle import nn
from paddle.optimizer import Optimizer

from dowdyboy_core import ConfigError
from dowdyboy_core.model_util import FlopCount, Uncounted, keep, summaries, weight_files

from ._backend import PaddleBackend
from ._trial import (
    check_model,
    count_trial,
    hook_outputs,
    is_trainable,
    make_trial,
    own_parameters,
    set_trainable,
    undisturbed,
)

__all__ = [
    "FlopCount",
    "Uncounted",
    "count_flops",
    "count_params",
    "exchange_table",
    "freeze",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
    "save_checkpoint_unique",
    "save_weights",
    "summary",
    "unfreeze",
]


# ---- freezing


def freeze(model: nn.Layer, *patterns: str) -> list[str]:
    """Turns gradients off, of all parameters or of those that a pattern picks, and names what changed.

    A pattern is a path or a glob (``*`` for any text, dots too, ``?`` for one character, ``[ab]`` for one of these;
    case matters). It picks a parameter if it matches its path or that of a module that the parameter stands in:
    ``'features'`` picks ``features.0.weight`` but not ``features2.weight``, and ``'*.bias'`` picks every bias.
    A shared parameter goes by each of its paths, and is named by the first.

    The gradient that a frozen parameter had is dropped, so that no optimizer goes on with it. Modes stay: a BatchNorm
    in training mode still moves its running statistics.

    Args:
        model: the model.
        *patterns: what to freeze; everything without one.

    Returns:
        The paths of the parameters that had gradients on until now, in the order of the model.

    Raises:
        ConfigError: a pattern picks no parameter; nothing was changed.
    """
    return _set_trainable(model, patterns, False)


def unfreeze(model: nn.Layer, *patterns: str) -> list[str]:
    """Turns gradients on again, of all parameters or of those that a pattern picks, and names what changed.

    Args:
        model: the model.
        *patterns: what to unfreeze, as in ``freeze``; everything without one.

    Returns:
        The paths of the parameters that had gradients off until now, in the order of the model.

    Raises:
        ConfigError: a pattern picks no parameter; nothing was changed.
    """
    return _set_trainable(model, patterns, True)


def _set_trainable(model: nn.Layer, patterns: Sequence[str], trainable: bool) -> list[str]:
    named = summaries.parameters(check_model(model), own_parameters)
    return [path for path, item in summaries.select(named, patterns).items() if set_trainable(item, trainable)]


# ---- counting


def count_params(model: nn.Layer, trainable_only: bool = False) -> int:
    """How many numbers the parameters of a model hold, shared ones counted once; buffers are not among them.

    Args:
        model: the model.
        trainable_only: leave out those that are frozen.
    """
    if not isinstance(trainable_only, bool):
        raise ConfigError(f"trainable_only={trainable_only!r:.80} is not True or False.")
    found = summaries.first_places(summaries.parameters(check_model(model), own_parameters)).values()
    return summaries.count_elements(item for item in found if is_trainable(item) or not trainable_only)


def count_flops(model: nn.Layer, input_size: Any) -> FlopCount:
    """What a forward pass costs, in multiply-accumulates (``macs``) and operations (``flops``, twice as many).

    Counted, for the whole input with all its samples, in evaluation mode:

    * convolutions: kernel size * input channels / groups, for each element of the output; transposed ones: kernel
      size * output channels / groups, for each element of the input;
    * linear and recurrent layers (also as single cells): each weight once at each position or time step;
    * multi-head attention: its four projections, the scores and the weighted sums;
    * normalizations: one scaling and shift for each element.

    All else is free here, by definition: biases, activations and the products inside recurrent gates, pooling and
    interpolation, look-ups, softmax, dropout, the statistics of a normalization, sums and products by element.

    What should be counted and could not be stands in ``uncounted``, with its path, never as a silent zero: modules
    with parameters in them but no rule, or whose forward isn't called, and modules that multiply matrices or convolve
    by functions in their own forward. A subclass goes by its parent's rule unless it has a forward of its own.

    The model runs once, as a copy, without gradients and not compiled: it is left as it was, and so are the random
    streams. The count is done here and not by paddle.flops, which fails under numpy 2.4, passes over attention and
    recurrent layers, and leaves buffers in what it counts.

    Args:
        model: the model.
        input_size: the shape of the input with the batch axis, such as (1, 3, 32, 32), filled with ones in the type of
            the model's weights; or an example, a tensor; or for a model with several inputs a list of these.

    Raises:
        ConfigError: the input is none, or the model can't be copied or run on it.
    """
    trial, inputs = make_trial(check_model(model), input_size)
    tally = count_trial(trial, inputs)
    return tally.result(count_params(trial))


# ---- the summary


def summary(model: nn.Layer, input_size: Any = None) -> str:
    """A table of a model's modules, with their parameters, and the totals below it, as text.

    A line for each module, in the order of the model: its path, its class, the shape of its output (the last one, if
    it is called again; ``-`` if it isn't called), and the parameters that stand in it itself, so that the column adds
    up to the total. What is shared counts where it stands first.

    Args:
        model: the model. It is left as it was: with an ``input_size`` a copy runs once, in evaluation mode.
        input_size: the input, as for ``count_flops``; without it there are no output shapes.

    Raises:
        ConfigError: the input is none, or the model can't be copied or run on it.
    """
    plain = check_model(model)
    shapes: dict[str, str] | None = None
    if input_size is not None:
        shapes = {}
        trial, inputs = make_trial(plain, input_size)
        hook_outputs(trial, shapes)
        with undisturbed(trial):
            summaries.run(trial, inputs)
    return summaries.table(plain, own_parameters, is_trainable, shapes)


# ---- checkpoints


def save_checkpoint(
    step: int,
    dir_path: str | os.PathLike[str],
    model_list: Sequence[nn.Layer],
    optimizer_list: Sequence[Optimizer] | None = None,
    max_keep_num: int = 10,
) -> Path:
    """Saves models and optimizers to ``dir_path/chk_step_{step}`` and clears away the oldest of these.

    The oldest is the one that was saved first, whatever its step and the clock: each checkpoint notes its place in the
    order of saving. One that is saved again is the newest. Others' folders are left alone, also where they have such a
    name. With many processes call it in one of them.

    The weights are in model_0.safetensors, model_1.safetensors, …, the state of the optimizers in optimizer_0.json with
    optimizer_0.safetensors, …: nothing in it is a pickle. The folder is there whole or not at all, and old ones go only
    after it. Learning rate schedulers are not saved.

    Args:
        step: the number in the name, at least 0.
        dir_path: the folder of the checkpoints, made if it is not there.
        model_list: the models.
        optimizer_list: the optimizers of these models.
        max_keep_num: how many to keep, at least 1.

    Returns:
        The folder that was written.

    Raises:
        ConfigError: an argument is not acceptable.
        UnsupportedError: an optimizer has state that can't be saved.
        CheckpointError: it can't be written; the older ones stay.
    """
    return keep.save_numbered(PaddleBackend(), step, dir_path, model_list, optimizer_list, max_keep_num)


def save_checkpoint_unique(
    step: int,
    dir_path: str | os.PathLike[str],
    model_list: Sequence[nn.Layer],
    optimizer_list: Sequence[Optimizer] | None = None,
    label: str = "unique",
) -> Path:
    """Saves models and optimizers to ``dir_path/chk_{label}_step_{step}``, the only one with this label.

    Others with the same label go once the new one is there; other labels and ``chk_step_N`` are left alone. The rest is
    as in ``save_checkpoint``.

    Args:
        step: the number in the name, at least 0.
        dir_path: the folder of the checkpoints, made if it is not there.
        model_list: the models.
        optimizer_list: the optimizers of these models.
        label: letters, digits, ``_``, ``-`` and ``.``, beginning with a letter or digit; "step" may be no word of it.

    Returns:
        The folder that was written.

    Raises:
        ConfigError: an argument is not acceptable.
        UnsupportedError: an optimizer has state that can't be saved.
        CheckpointError: it can't be written; the older one stays.
    """
    return keep.save_labelled(PaddleBackend(), step, dir_path, model_list, optimizer_list, label)


def load_checkpoint(
    resume_dir: str | os.PathLike[str],
    model_list: Sequence[nn.Layer],
    optimizer_list: Sequence[Optimizer] | None = None,
) -> None:
    """Puts a checkpoint into models and optimizers, the first saved into the first of the list, and so on.

    It takes those of ``save_checkpoint`` and ``save_checkpoint_unique``, and those of the Trainer. The models are
    changed only after everything was found to fit.

    Args:
        resume_dir: the folder of one checkpoint, such as ``dir_path/chk_step_100``.
        model_list: as many models as were saved.
        optimizer_list: as many optimizers as were saved; None leaves what was saved of them alone.

    Raises:
        ConfigError: an argument is not acceptable.
        CheckpointError: it is missing, damaged, or doesn't fit; the message lists every difference.
    """
    keep.load(PaddleBackend(), resume_dir, model_list, optimizer_list)


# ---- weights


def save_weights(model: nn.Layer, path: str | os.PathLike[str]) -> Path:
    """Writes the weights and buffers of a model to one safetensors file, with what they are in its header.

    Any reader of safetensors opens it; ``load_weights`` of either backend knows from the header how each tensor lies.
    What is tied is stored once.

    Args:
        model: the model.
        path: the file, which is there whole or not at all; folders above it are made.

    Returns:
        The file.

    Raises:
        ConfigError: an argument is not acceptable.
        CheckpointError: something can't be stored, or the disk won't have it.
    """
    return weight_files.save(PaddleBackend(), model, path)


def load_weights(
    model: nn.Layer,
    path: str | os.PathLike[str],
    *,
    names: Mapping[str, str] | Callable[[str], str] | None = None,
    source: str | None = None,
) -> None:
    """Puts the weights of a safetensors file into a model, whichever framework they are of: all of them or none.

    Args:
        model: the model.
        path: a file of ``save_weights``, or one that others made.
        names: what paths in the file begin with, and what they do in the model: ``{"backbone.": "encoder."}``; or a
            function from path to path.
        source: for a file that doesn't say what its tensors are the framework that they are of, ``'torch'`` or
            ``'paddle'``: they are taken to lie as its layer of the same kind keeps them.

    Raises:
        ConfigError: an argument is not acceptable, or the file needs ``source``.
        CheckpointError: it can't be read, is a pickle, or doesn't fit; the message lists all that doesn't.
    """
    weight_files.load(PaddleBackend(), model, path, names, source)


def exchange_table(
    model: nn.Layer,
    path: str | os.PathLike[str],
    *,
    names: Mapping[str, str] | Callable[[str], str] | None = None,
    source: str | None = None,
    number: int = 0,
) -> str:
    """What of a file or a checkpoint would be paired with what of a model, and what has no pair; nothing is loaded.

    Args:
        model: the model.
        path: a file, as for ``load_weights``, or the folder of a checkpoint of either framework.
        names: as for ``load_weights``.
        source: as for ``load_weights``.
        number: which of the models in a checkpoint.

    Returns:
        A line for each tensor: kind of its layer, role, where it lies there and here.

    Raises:
        ConfigError: an argument is not acceptable, or the file needs ``source``.
        CheckpointError: it can't be read, or a checkpoint doesn't say what its tensors are.
    """
    return weight_files.table(PaddleBackend(), model, path, names, source, number)
