"""Which device nodes and which files of the driver a GPU needs, and what a machine lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.sandbox import gpu

LISTING = """1234 libs found in cache `/etc/ld.so.cache'
\tlibnvidia-nvvm.so.4 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libnvidia-nvvm.so.4
\tlibnvidia-glcore.so.580.65 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libnvidia-glcore.so.580.65
\tlibcuda.so.1 (libc6) => /usr/lib/i386-linux-gnu/libcuda.so.1
\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1
\tlibcuda.so.1 (libc6,x86-64) => /opt/old/libcuda.so.1
\tlibcuda.so (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so
\tlibcudart.so.12 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcudart.so.12
"""
VERSION = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:00:31 UTC 2025\n"
)


def machine(root: Path, *nodes: str) -> Path:
    for path in (*(root / "dev" / name for name in nodes), root / "proc/driver/nvidia/version"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(VERSION)
    return root


def test_the_drivers_own_libraries_are_taken_and_the_images_cuda_is_not_replaced():
    assert gpu.libraries(LISTING) == {
        "libcuda.so.1": "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        "libnvidia-nvvm.so.4": "/usr/lib/x86_64-linux-gnu/libnvidia-nvvm.so.4",
    }


def test_every_gpu_of_the_machine_is_found_with_its_driver(tmp_path):
    there = ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "null")
    found = gpu.find(machine(tmp_path, *there), lambda: LISTING)
    assert str(found) == "2 with the driver 580.65.06"
    assert sorted(found.devices) == ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidia1",
                                     "/dev/nvidiactl"]  # fmt: skip
    cuda = found.libraries[f"{gpu.LIBRARIES}/libcuda.so.1"]
    assert cuda == tmp_path / "usr/lib/x86_64-linux-gnu/libcuda.so.1"


@pytest.mark.parametrize(
    ("nodes", "listing", "says"),
    [
        (["null"], LISTING, "no device /dev/nvidia0"),
        (["nvidiactl", "nvidia-uvm"], LISTING, "no device /dev/nvidia0"),
        (["nvidia0", "nvidiactl"], LISTING, r"no /dev/nvidia-uvm \(`nvidia-modprobe"),
        (["nvidia0", "nvidiactl", "nvidia-uvm"], "", r"knows no libcuda\.so\.1"),
    ],
    ids=["none", "no card", "no unified memory", "no driver"],
)
def test_what_a_machine_lacks_is_named(tmp_path, nodes, listing, says):
    with pytest.raises(BuilderError, match=rf"{says}.*; install the driver .* leave out --gpus"):
        gpu.find(machine(tmp_path, *nodes), lambda: listing)
