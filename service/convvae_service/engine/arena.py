"""ONNX Runtime's arenas: what graphs hold of memory between their runs.

A graph has an arena on each device that it uses, which keeps the memory of its largest run for the next.
"""

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["DEFAULT_ARENAS", "ArenaUse", "Arenas"]

ArenaUse = Literal["keep", "shrink", "off"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arenas:
    """How each graph's arenas are used.

    Args:
        use: `keep` keeps memory for the next run, `shrink` gives it back after each. `off` uses no arena for
            memory of the CPU; a GPU's always has one, and keeps it.
        max_gpu_bytes: Most bytes of one graph's arena on a GPU; 0 for no limit.
    """

    use: ArenaUse = "keep"
    max_gpu_bytes: int = 0

    def provider_options(self) -> dict[str, str]:
        """Return the options of the CUDA provider."""
        return {"gpu_mem_limit": str(self.max_gpu_bytes)} if self.max_gpu_bytes else {}

    def configure(self, options: Any) -> None:
        """Set what a session's options say of arenas."""
        options.enable_cpu_mem_arena = self.use != "off"
        if self.use == "shrink":
            # What lies beside weights in an arena could not be given back.
            options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")

    def configure_run(self, options: Any, *, gpu: str | None) -> None:
        """Set what a run's options say of arenas; `gpu` is the index of its GPU, None on the CPU."""
        if self.use == "shrink":
            devices = "cpu:0" if gpu is None else f"cpu:0;gpu:{gpu}"
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", devices)


DEFAULT_ARENAS = Arenas()
