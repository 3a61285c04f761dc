"""Restoration jobs without a command line: `resolve` makes one of given values, `prepare` checks it."""

from cvsa_jax.jobs.methods import register_baseline
from cvsa_jax.jobs.prepared import Prepared
from cvsa_jax.jobs.run import check_job, prepare
from cvsa_jax.jobs.settings import RestorationJob, command, resolve

__all__ = ["Prepared", "RestorationJob", "check_job", "command", "prepare", "register_baseline", "resolve"]
