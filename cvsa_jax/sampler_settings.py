"""The settings of one restoration loop."""

import dataclasses
from collections.abc import Callable

from cvsa_jax.diffusion import SMALLEST_TIME, TIME_GRIDS
from cvsa_jax.guidance import GUIDANCES
from cvsa_jax.samplers import SAMPLERS
from cvsa_jax.settings import Settings, require_known, setting

NOISE, GUESS, SOLUTION, COARSE = "noise", "guess", "solution", "coarse"
STARTS = (NOISE, GUESS, SOLUTION, COARSE)


@dataclasses.dataclass(frozen=True)
class SamplerSettings(Settings):
    """How the reverse process runs; `restore` and `guided_sampler` take its fields as keyword arguments.

    Args:
      num_steps: reverse steps, one network evaluation each.
      sampler: a name in SAMPLERS, or your own (cld, times) -> Sampler. 'decoupled' has the least error;
        'ancestral_multistep' has the posterior's spread.
      guidance: a name in GUIDANCES, or your own Problem -> Solution.
      time_grid: a name in TIME_GRIDS.
      t_start, t_end: the first and the last time at which the prior is asked, 0 < t_end < t_start <= 1.
      num_corrections: Langevin steps at each noise level before the sampler's own, one evaluation each.
      num_particles: of 'particles', which returns all of them, (P, H, W, C).
      start: 'noise'; or 'guess', the operator's own first guess, diffused to t_start; or 'solution', that guess, or
        where the operator has none the regularised linear solution, diffused; or 'coarse', for pixels that are seen or
        not: an image of at least twice the side that the prior knows is begun with a small one of that side, restored
        from the same measurement by as many steps, then enlarged and diffused; others at noise.
      data_weight: the power w of p(x) p(y | x)^w, > 0. 1 is Bayes' rule. A network is smoother than
        photographs are; about 2 makes up for that (Bissiri, Holmes, Walker (2016), A general framework
        for updating belief distributions).

    Raises:
      ValueError: if a name is unknown or a number is out of range.
    """

    sampler: str | Callable = setting("decoupled", "The reverse-time sampler.", choices=SAMPLERS)
    guidance: str | Callable = setting(
        "spectral_covariance", "The form of the observation velocity score.", choices=GUIDANCES
    )
    num_steps: int = setting(100, "Reverse steps of a sample; one network evaluation each.", low=2)
    num_corrections: int = setting(0, "Langevin steps at each noise level; one evaluation each.", low=0)
    time_grid: str = setting("logarithmic", "How the times are spaced.", choices=TIME_GRIDS)
    t_start: float = setting(1.0, "The first time of the grid.", above=0, high=1)
    t_end: float = setting(SMALLEST_TIME, "The last time at which the network is asked.", above=0, below=1)
    start: str = setting(
        NOISE,
        "Begin at noise, or, diffused to --t_start, at the operator's own guess (blind tasks: at a search), at the "
        "linear solution, or a large image at a restored small one (for holes).",
        choices=STARTS,
    )
    data_weight: float = setting(
        1.0, "The power of the likelihood; 1 is Bayes' rule, also where --sampler or --guidance is given.", above=0
    )
    num_particles: int | None = setting(None, "The particles of a population.", low=2, flag=False)

    def __post_init__(self):
        super().__post_init__()
        require_known(self, "num_steps", "num_corrections", "num_particles", "t_start", "t_end")
        if not self.t_end < self.t_start:
            raise ValueError(f"t_end must be below t_start, got {self.t_end} and {self.t_start}")
