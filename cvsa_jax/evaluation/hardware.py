"""What a device can do at most, and how much memory was needed."""

import re
import sys

import jax

try:
    import resource
except ImportError:  # no Unix
    resource = None

_NVIDIA, _TPU = "https://www.nvidia.com/en-us/data-center", "https://cloud.google.com/tpu/docs"
# (pattern of JAX's `device_kind`, FLOP/s of one device in dense bfloat16, where its maker states it). NVIDIA's pages
# give twice these, for matrices of which half is zero, but for the A100, where they give both.
PEAKS = (
    (r"NVIDIA A100.*", 312e12, f"{_NVIDIA}/a100/"),
    (r"NVIDIA H100 PCIe", 756e12, f"{_NVIDIA}/h100/"),
    (r"NVIDIA H100 NVL", 835e12, f"{_NVIDIA}/h100/"),
    (r"NVIDIA H100.*", 989e12, f"{_NVIDIA}/h100/"),
    (r"NVIDIA H200 NVL", 835e12, f"{_NVIDIA}/h200/"),
    (r"NVIDIA H200.*", 989e12, f"{_NVIDIA}/h200/"),
    (r"TPU v4", 275e12, f"{_TPU}/v4"),
    (r"TPU v5( lite|e)", 197e12, f"{_TPU}/v5e"),
    (r"TPU v5p?", 459e12, f"{_TPU}/v5p"),
    (r"TPU v6( lite|e)", 918e12, f"{_TPU}/v6e"),
)


def peak(kind: str) -> tuple[float, str] | None:
    """(FLOP/s in dense bfloat16, its source) of a device by its `device_kind`; None of one that PEAKS does not know."""
    return next(((flops, source) for name, flops, source in PEAKS if re.fullmatch(name, kind)), None)


def share_of_peak(flops_per_s: float) -> float | None:
    """Of what one of the devices can do at most; None of a CPU, and of devices whose peak is not known."""
    found = peak(jax.local_devices()[0].device_kind)
    return None if found is None else round(flops_per_s / found[0], 4)


def process_peak_mib() -> float | None:
    """The most memory that this process has had until now, MiB; None where the system does not tell."""
    return None if resource is None else as_mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def as_mib(maxrss: int) -> float:
    """MiB of a `ru_maxrss`, which is in KiB, on macOS in bytes."""
    return round(maxrss / (2**20 if sys.platform == "darwin" else 2**10), 1)


def device_peak_mib() -> float | None:
    """The most memory that was in use on one of this process's devices until now, MiB; None of a CPU."""
    found = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in jax.local_devices()]
    known = [n for n in found if n is not None]
    return round(max(known) / 2**20, 1) if known else None
