"""The seam: what a framework implements, and all that it is written in terms of.

A backend subclasses ``Backend`` and imports nothing else of the core but the names below; docs/new-backend.md leads
through them, and says what is promised about them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .arrays import Array, is_looking, leaves_out_unmade
from .dealt import loaders_within
from .devices import DeviceRequest
from .failures import is_consequence
from .forks import wait_until_still
from .layouts import Layout, OwnTensor, norm_role, original_role
from .loaders import EpochLoader, MapParts, StreamParts, open_loader
from .orders import (
    Batching,
    FixedSizeBatches,
    Isolate,
    Order,
    SampledBatches,
    SamplerOrder,
    SequentialOrder,
    ShuffledOrder,
    SingleIndices,
    WeightedOrder,
    known_length,
)
from .points import Drawn, LocalTracker, Point, Tracker
from .pool import WorkerWatch
from .random_streams import RandomStreams
from .rules import Rules, describe_layers
from .seam import Backend
from .sent_errors import Failure
from .shares import Share, deal
from .streams import StreamSource
from .together import check_process_count, end_together
from .trees import check_entries, check_groups, decode, describe_differences, encode
from .vocabulary import Vocabulary
from .weights import Weights
from .words import ModelWords, OptimizerWords, Place, ScheduleWords, Slot
from .worker_signals import WorkerInit
from .workers import Workers

if TYPE_CHECKING:
    from .nested import map_leaves
    from .own_loaders import OwnReading, close_generator, note_reader, reads_for_itself
    from .reading import BatchKey, ReadBatch
    from .replicas import (
        Exchange,
        Exchanges,
        Replica,
        exchanges_of,
        replicate,
        unsynchronised,
        unused_parameters,
        unwrap,
    )
    from .spawning import ProcessFailure, Work, run_spawned, wait_for_spawned
    from .versions import require_version
    from .viewer_files import Frame, append_whole, as_float32, cut_file, mend_file, read_records

__all__ = [
    "Array",
    "Backend",
    "BatchKey",
    "Batching",
    "DeviceRequest",
    "Drawn",
    "EpochLoader",
    "Exchange",
    "Exchanges",
    "Failure",
    "FixedSizeBatches",
    "Frame",
    "Isolate",
    "Layout",
    "LocalTracker",
    "MapParts",
    "ModelWords",
    "OptimizerWords",
    "Order",
    "OwnReading",
    "OwnTensor",
    "Place",
    "Point",
    "ProcessFailure",
    "RandomStreams",
    "ReadBatch",
    "Replica",
    "Rules",
    "SampledBatches",
    "SamplerOrder",
    "ScheduleWords",
    "SequentialOrder",
    "Share",
    "ShuffledOrder",
    "SingleIndices",
    "Slot",
    "StreamParts",
    "StreamSource",
    "Tracker",
    "Vocabulary",
    "WeightedOrder",
    "Weights",
    "Work",
    "WorkerInit",
    "WorkerWatch",
    "Workers",
    "append_whole",
    "as_float32",
    "check_entries",
    "check_groups",
    "check_process_count",
    "close_generator",
    "cut_file",
    "deal",
    "decode",
    "describe_differences",
    "describe_layers",
    "encode",
    "end_together",
    "exchanges_of",
    "is_consequence",
    "is_looking",
    "known_length",
    "leaves_out_unmade",
    "loaders_within",
    "map_leaves",
    "mend_file",
    "norm_role",
    "note_reader",
    "open_loader",
    "original_role",
    "read_records",
    "reads_for_itself",
    "replicate",
    "require_version",
    "run_spawned",
    "unsynchronised",
    "unused_parameters",
    "unwrap",
    "wait_for_spawned",
    "wait_until_still",
]

# What only a backend needs, and a script that imports the core alone doesn't wait for.
_LATER = {
    "BatchKey": "reading",
    "Exchange": "replicas",
    "Exchanges": "replicas",
    "Frame": "viewer_files",
    "OwnReading": "own_loaders",
    "ProcessFailure": "spawning",
    "ReadBatch": "reading",
    "Replica": "replicas",
    "Work": "spawning",
    "append_whole": "viewer_files",
    "as_float32": "viewer_files",
    "close_generator": "own_loaders",
    "cut_file": "viewer_files",
    "exchanges_of": "replicas",
    "map_leaves": "nested",
    "mend_file": "viewer_files",
    "note_reader": "own_loaders",
    "read_records": "viewer_files",
    "reads_for_itself": "own_loaders",
    "replicate": "replicas",
    "require_version": "versions",
    "run_spawned": "spawning",
    "unsynchronised": "replicas",
    "unused_parameters": "replicas",
    "unwrap": "replicas",
    "wait_for_spawned": "spawning",
}


def __getattr__(name: str) -> Any:
    """Imports what is needed by backends alone when one asks for it."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    return value
