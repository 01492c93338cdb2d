"""The bytes that a device has free."""

import os
from pathlib import Path

import torch

SHARE = 0.8
"""The share of the free bytes to plan with: allocators round up and fragment, and others allocate too."""
MEMINFO = Path("/proc/meminfo")
OWN_CGROUP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def free_budget(device: torch.device) -> int:
    """Return the bytes of the device that a solve may plan with, SHARE of those that are free.

    Raises ValueError if they cannot be read.
    """
    free = _free_bytes(device)
    if free is None:
        raise ValueError(
            f'gradient="auto" cannot read how much memory {device} has free: give memory_budget, a number of bytes or '
            'a string such as "2 GiB"'
        )
    return max(1, int(SHARE * free))


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # cached by torch
    if device.type == "cpu":
        return min((x for x in (_host_bytes(), _cgroup_bytes()) if x is not None), default=None)
    return None


def _host_bytes() -> int | None:
    """Return what the kernel could give to a process without swapping."""
    for line in _read(MEMINFO).splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on Windows and macOS
        return None


def _cgroup_bytes() -> int | None:
    """Return what the limits of this process's control groups leave, None without a limit."""
    left: list[int] = []
    for line in _read(OWN_CGROUP).splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        limit, usage, root = ("memory.limit_in_bytes", "memory.usage_in_bytes", CGROUPS / "memory")
        if not controllers:  # version 2
            limit, usage, root = "memory.max", "memory.current", CGROUPS
        folder = root / own.lstrip("/")
        for group in (folder, *folder.parents):  # a limit of any group above applies too
            if _read(group / limit).strip().isdigit() and _read(group / usage).strip().isdigit():
                used = int(_read(group / usage)) - _cache_bytes(group)
                left.append(max(0, int(_read(group / limit)) - used))
            if group == root:
                break
    return min(left, default=None)


def _cache_bytes(group: Path) -> int:
    """Return the bytes of cached files that the kernel drops when the group needs memory."""
    for line in _read(group / "memory.stat").splitlines():
        name, _, amount = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(amount)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
