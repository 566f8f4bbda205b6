"""How the processes of a job talk: each has a line to process 0, which tells all of them what it hears from each.

A message is a tree, of the kind that checkpoints hold. On the line it is its length in 8 bytes, the length of its JSON
in 8 bytes, the JSON, and the bytes of the arrays in it. Reading one builds numbers, texts and arrays, and runs nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dowdyboy_core import SetupError
from dowdyboy_core.backend import Array, decode, encode

JOINING = 300.0
"""Seconds that processes wait for one another at the begin."""


class Group:
    """The processes of a job; making it waits until all have come.

    Args:
        rank: the number of this process.
        world_size: how many there are.
        master: where process 0 listens, as ``(host, port)``.

    Raises:
        SetupError: some have not come.
    """

    def __init__(self, rank: int, world_size: int, master: tuple[str, int]) -> None:
        self._rank = rank
        self._world_size = world_size
        self._lines: dict[int, _Line] = {}
        # In the workers of a loader, say: a line that they keep open would hide that this process is gone.
        os.register_at_fork(after_in_child=self.close)
        try:
            if rank:
                self._lines[0] = _call(master)
                self._lines[0].send(_pack([rank, world_size]))
            else:
                self._answer(master)
        except SetupError:
            self.close()
            raise
        except (EOFError, OSError) as error:
            self.close()
            raise SetupError(
                f"Process {rank} of {world_size} has not met the others at {master[0]}:{master[1]} in {JOINING:g} s: "
                f"{error}. Start as many processes as DOWDYBOY_WORLD_SIZE says, with the same DOWDYBOY_MASTER."
            ) from error

    def _answer(self, master: tuple[str, int]) -> None:
        latest = time.monotonic() + JOINING
        with socket.create_server(master, backlog=self._world_size) as server:
            while len(self._lines) < self._world_size - 1:
                server.settimeout(max(latest - time.monotonic(), 0.001))
                line = _Line(server.accept()[0])
                rank, world_size = _unpack(line.receive())
                if rank in self._lines or not 0 < rank < self._world_size or world_size != self._world_size:
                    line.close()
                    raise SetupError(
                        f"Process {rank} of {world_size} has come to a job of {self._world_size} that has met the "
                        f"processes {[0, *self._lines]} so far. Give each of them a DOWDYBOY_RANK of its own."
                    )
                self._lines[rank] = line

    def exchange(self, kind: str, value: Any) -> list[Any]:
        """A value of every process, in the order of the ranks, in all of them.

        Args:
            kind: what it is for, which has to be the same in all processes.
            value: a tree.

        Raises:
            SetupError: a process has ended, or has come elsewhere.
        """
        kinds, values = zip(*map(_unpack, self._relay(_pack([kind, value]))), strict=True)
        for rank, other in enumerate(kinds):
            if other != kind:
                raise SetupError(
                    f"Process {self._rank} has come to an exchange of {kind}, and process {rank} to one of {other}. "
                    "Let every process of a job take the same steps."
                )
        return list(values)

    def _relay(self, own: bytes) -> list[bytes]:
        """The messages of all processes; what this one has to say is ``own``."""
        if self._rank:
            with self._waiting_for(0):
                self._lines[0].send(own)
                return [self._lines[0].receive() for _ in range(self._world_size)]
        messages = [own]
        for rank in range(1, self._world_size):
            with self._waiting_for(rank):
                messages.append(self._lines[rank].receive())
        for rank, line in self._lines.items():
            with self._waiting_for(rank):
                for message in messages:
                    line.send(message)
        return messages

    @contextmanager
    def _waiting_for(self, rank: int) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            who = f"Process {rank}, or another one that it waited for," if self._rank else f"Process {rank}"
            raise SetupError(
                f"{who} has ended while process {self._rank} was waiting for it. Its own error says why."
            ) from error

    def close(self) -> None:
        """Hangs up."""
        for line in self._lines.values():
            line.close()


class _Line:
    """A connection to another process."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self.close = connection.close

    def send(self, message: bytes) -> None:
        self._connection.sendall(len(message).to_bytes(8, "little") + message)

    def receive(self) -> bytes:
        return self._read(int.from_bytes(self._read(8), "little"))

    def _read(self, size: int) -> bytes:
        content = bytearray()
        while len(content) < size:
            part = self._connection.recv(min(size - len(content), 2**20))
            if not part:
                raise EOFError
            content += part
        return bytes(content)


def _call(master: tuple[str, int]) -> _Line:
    """A line to process 0, once that listens."""
    latest = time.monotonic() + JOINING
    while True:
        try:
            connection = socket.create_connection(master, timeout=JOINING)
            if connection.getsockname() != connection.getpeername():
                return _Line(connection)
            connection.close()  # where nobody listens, a socket may happen to meet itself
        except ConnectionRefusedError:  # not yet
            if time.monotonic() > latest:
                raise
        time.sleep(0.02)


def _pack(tree: Any) -> bytes:
    value, arrays = encode(tree, "a message")
    described = {key: [array.dtype, array.shape, memoryview(array.data).nbytes] for key, array in arrays.items()}
    head = json.dumps([value, described]).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(bytes(array.data) for array in arrays.values())


def _unpack(message: bytes) -> Any:
    place = 8 + int.from_bytes(message[:8], "little")
    value, described = json.loads(message[8:place])
    arrays = {}
    for key, (dtype, shape, size) in described.items():
        arrays[key] = Array(dtype, tuple(shape), message[place : place + size])
        place += size
    return decode(value, arrays)
