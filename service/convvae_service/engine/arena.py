"""The memory arenas of ONNX Runtime: memory that a graph keeps between runs.

A graph has one arena on each device that it uses. An arena keeps the memory of the largest run for the next.
"""

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["DEFAULT_ARENAS", "ArenaUse", "Arenas"]

ArenaUse = Literal["keep", "off"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arenas:
    """The arena settings of each graph.

    Attributes:
        use: `keep` keeps memory for the next run. `off` uses no arena on the CPU; a GPU always has one.
        max_gpu_bytes: Maximum bytes of one graph's arena on a GPU; 0 means no limit.
    """

    use: ArenaUse = "keep"
    max_gpu_bytes: int = 0

    def provider_options(self) -> dict[str, str]:
        """Return the options of the CUDA provider."""
        return {"gpu_mem_limit": str(self.max_gpu_bytes)} if self.max_gpu_bytes else {}

    def configure(self, options: Any) -> None:
        """Set the arena options of a session."""
        options.enable_cpu_mem_arena = self.use != "off"


DEFAULT_ARENAS = Arenas()
