"""Tensors of rows, in memory up to a budget, then on disk."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from csreft_core.files import storage_errors

RowTensors = dict[str, Tensor]


class RowStore:
    """Keeps the tensors of rows until `clear`.

    Args:
        budget_bytes: Memory; what is beyond goes to `folder`.
        folder: Is emptied; made when it is needed. None keeps everything in memory.
    """

    def __init__(self, budget_bytes: int = 0, folder: Path | None = None) -> None:
        self.n_bytes, self.n_files = 0, 0
        self._budget_bytes, self._folder = budget_bytes, folder
        self._in_memory: dict[str, RowTensors] = {}
        self._on_disk: dict[str, Path] = {}
        self._empty_folder()

    def __contains__(self, row: str) -> bool:
        return row in self._in_memory or row in self._on_disk

    def __getitem__(self, row: str) -> RowTensors:
        if row in self._in_memory:
            return self._in_memory[row]
        with safe_open(self._on_disk[row], framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(f"{row}/")]  # noqa: SIM118
            return {name.partition("/")[2]: file.get_tensor(name) for name in names}

    def put(self, rows: Mapping[str, RowTensors]) -> None:
        """Keep rows, all in memory or all in one file."""
        size = sum(tensor.nbytes for tensors in rows.values() for tensor in tensors.values())
        if self._folder is None or self.n_bytes + size <= self._budget_bytes:
            self.n_bytes += size
            self._in_memory.update(rows)
            return
        path = self._folder / f"{self.n_files}.safetensors"
        together = {f"{row}/{name}": t for row, one in rows.items() for name, t in one.items()}
        with storage_errors(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(together, path)
        self._on_disk.update(dict.fromkeys(rows, path))
        self.n_files += 1

    def clear(self) -> None:
        """Forget everything, in memory and on disk."""
        self._in_memory.clear()
        self._on_disk.clear()
        self._empty_folder()

    def _empty_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
