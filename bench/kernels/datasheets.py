"""What GPUs can do by their vendors' data sheets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Datasheet:
    """One GPU.

    Args:
        name: as people say it.
        named: how the driver's name for it begins. Where several rows fit, the longest beginning counts.
        bytes_per_s: bandwidth of its memory.
        multiprocessors: streaming multiprocessors, or compute units on AMD.
        hertz: boost clock.
        lanes: lanes of all instructions that a multiprocessor issues in one cycle.
    """

    name: str
    named: tuple[str, ...]
    bytes_per_s: float
    multiprocessors: int
    hertz: float
    lanes: int = 128

    @property
    def instructions_per_s(self) -> float:
        """Instructions of single lanes that the GPU can issue."""
        return self.multiprocessors * self.lanes * self.hertz


_ROWS = (
    ("T4", ("Tesla T4",), 320, 40, 1.59, 64),
    ("L4", ("NVIDIA L4",), 300, 58, 2.04, 128),
    ("A10", ("NVIDIA A10",), 600, 72, 1.695, 128),
    ("RTX 3090", ("NVIDIA GeForce RTX 3090",), 936, 82, 1.695, 128),
    ("RTX 4090", ("NVIDIA GeForce RTX 4090",), 1008, 128, 2.52, 128),
    ("A100 40 GB", ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 1555, 108, 1.41, 128),
    ("A100 PCIe", ("NVIDIA A100 80GB PCIe", "NVIDIA A100-PCIE-80GB"), 1935, 108, 1.41, 128),
    ("A100 SXM", ("NVIDIA A100-SXM4-80GB",), 2039, 108, 1.41, 128),
    ("H100 PCIe", ("NVIDIA H100 PCIe",), 2000, 114, 1.755, 128),
    ("H100 SXM", ("NVIDIA H100 80GB HBM3",), 3350, 132, 1.98, 128),
    ("H200", ("NVIDIA H200",), 4800, 132, 1.98, 128),
    ("B200", ("NVIDIA B200",), 7700, 148, 1.965, 128),
    ("MI300X", ("AMD Instinct MI300X",), 5300, 304, 2.1, 64),
    ("MI355X", ("AMD Instinct MI355X",), 8000, 256, 2.4, 64),
)
# NVIDIA's and AMD's data sheets and architecture white papers. On an sm_75 each of the four schedulers issues for 16
# lanes in a cycle, since then for 32. A compute unit of CDNA 3 and 4 has four SIMDs of 16 lanes.
DATASHEETS = {row[0]: Datasheet(row[0], row[1], 1e9 * row[2], row[3], 1e9 * row[4], row[5]) for row in _ROWS}
# The GPU that a forecast for a target is about, where none is named.
TYPICAL = {
    "sm_80": "A100 SXM",
    "sm_86": "A10",
    "sm_89": "RTX 4090",
    "sm_90": "H100 SXM",
    "sm_100": "B200",
    "gfx942": "MI300X",
    "gfx950": "MI355X",
}


def datasheet_of(device_name: str) -> Datasheet | None:
    """Return the data sheet of a GPU by the name that its driver gives. None: it is not in the table.

    Example:
        >>> datasheet_of("NVIDIA H100 80GB HBM3").name, datasheet_of("NVIDIA A100-SXM4-80GB").name
        ('H100 SXM', 'A100 SXM')
        >>> datasheet_of("a GPU of tomorrow") is None, datasheet_of("NVIDIA A1000") is None
        (True, True)
    """
    fits = [
        (len(begin), sheet)
        for sheet in DATASHEETS.values()
        for begin in sheet.named
        if device_name == begin or device_name.startswith((begin + " ", begin + "G"))
    ]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None
