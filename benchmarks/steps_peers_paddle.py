"""The same loop with PaddlePaddle's own high-level interface."""

from __future__ import annotations

from typing import Any

import paddle
from steps_cases import Block, Job, contender
from steps_paddle import parts


def hapi(job: Job, *, shown: bool) -> Block:
    network, optimizer, loss_func, batches = parts(job)
    model = paddle.Model(network)
    model.prepare(optimizer, loss_func)

    class Mark(paddle.callbacks.Callback):
        def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
            job.mark()

    return lambda: model.fit(batches, epochs=1, verbose=1 if shown else 0, shuffle=False, callbacks=[Mark()])


@contender("paddle.Model, silent")
def hapi_silent(job: Job) -> Block:
    return hapi(job, shown=False)


@contender("paddle.Model: bar with the loss")
def hapi_bar(job: Job) -> Block:
    return hapi(job, shown=True)
