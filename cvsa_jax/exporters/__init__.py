"""The formats in which a prior can be taken elsewhere, by name."""

from cvsa_jax.exporters import diffusers, own
from cvsa_jax.exporters.base import Export, Format

FORMATS: dict[str, Format] = {"safetensors": own.SAFETENSORS, "diffusers": diffusers.DIFFUSERS}

__all__ = ["FORMATS", "Export", "Format"]
