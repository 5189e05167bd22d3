"""Order flow: files of it (`read`, `chunks`) and a seeded generator (`generator.generate`)."""

from ops.flow.event import Chunk, FlowError, FlowEvent
from ops.flow.files import chunks, read

__all__ = ["Chunk", "FlowError", "FlowEvent", "chunks", "read"]
