"""What PyTorch alone needs so that several processes end as they should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dowdyboy_torch import spawn
from dowdyboy_torch._distributed import gather, join, until_released

ROUNDS = 300


def exchange(out: str) -> None:
    """Counts the collectives after which a thread of gloo's still held the tensor."""
    join(torch.device("cpu"))
    one, other = torch.ones(3), torch.ones(3)
    held = sys.getrefcount(one)
    plain = waited = 0
    for _ in range(ROUNDS):
        dist.all_reduce(one)
        plain += sys.getrefcount(one) > held
        with until_released(other):
            dist.all_reduce(other)
        waited += sys.getrefcount(other) > held
    counts = gather({"rank": dist.get_rank(), "plain": plain, "waited": waited})
    Path(out, f"{dist.get_rank()}.json").write_text(json.dumps(counts), encoding="utf-8")


@pytest.mark.distributed
def test_no_tensor_of_a_collective_is_held_after_it(tmp_path: Path) -> None:
    # In a program of its own: a process that starts afresh can import no module of the tests.
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, timeout=100)
    counts = json.loads((tmp_path / "0.json").read_text(encoding="utf-8"))
    assert counts == json.loads((tmp_path / "1.json").read_text(encoding="utf-8"))
    assert [count["rank"] for count in counts] == [0, 1]
    assert [count["waited"] for count in counts] == [0, 0]
    # Without waiting some are: else this would show nothing, and the waiting could go.
    assert sum(count["plain"] for count in counts) > 0


if __name__ == "__main__":
    spawn(exchange, 2, (sys.argv[1],))
