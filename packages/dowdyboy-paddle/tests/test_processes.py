"""What a process reads in its environment about the others."""

from __future__ import annotations

import pytest

from dowdyboy_core import SetupError
from dowdyboy_paddle._distributed import from_environment

ENDPOINTS = "10.0.0.1:6170,10.0.0.1:6171,10.0.0.2:6170,10.0.0.2:6171"


@pytest.fixture(autouse=True)
def _four_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PADDLE_RANK_IN_NODE", "PADDLE_BACKUP_ENV_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    monkeypatch.setenv("PADDLE_TRAINER_ENDPOINTS", ENDPOINTS)


@pytest.mark.parametrize(("rank", "local_rank"), [(0, 0), (1, 1), (2, 0), (3, 1)])
def test_without_the_launcher_a_local_rank_is_counted_on_each_machine(
    monkeypatch: pytest.MonkeyPatch, rank: int, local_rank: int
) -> None:
    monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
    assert from_environment() == (rank, local_rank, 4)


def test_the_launcher_says_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_TRAINER_ID", "3")
    monkeypatch.setenv("PADDLE_RANK_IN_NODE", "0")
    assert from_environment() == (3, 0, 4)


def test_a_process_without_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_TRAINER_ID", "4")
    with pytest.raises(SetupError, match="PADDLE_TRAINER_ID=4 has no endpoint among the 4"):
        from_environment()


def test_the_launcher_keeps_a_very_long_list_of_endpoints_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_TRAINER_ID", "3")
    monkeypatch.setenv("PADDLE_RANK_IN_NODE", "1")
    monkeypatch.delenv("PADDLE_TRAINER_ENDPOINTS")
    with pytest.raises(SetupError, match="PADDLE_TRAINER_ENDPOINTS not"):
        from_environment()
    monkeypatch.setenv("PADDLE_BACKUP_ENV_PATH", "workers/backup_env.3.json")
    assert from_environment() == (3, 1, 4)
