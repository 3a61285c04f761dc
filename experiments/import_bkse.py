"""Turn the published weights of the blur encoder into a file that needs no PyTorch.

python -m experiments.import_bkse --weights=GOPRO_wVAE.pth --output=checkpoints/bkse.npz
python -m experiments.restore --task=bkse_deblur --bkse_weights=checkpoints/bkse.npz ...
"""

import pathlib

from absl import flags

from cvsa_jax.importers import bkse
from experiments import common

flags.DEFINE_string("weights", None, "The PyTorch file.", required=True)
flags.DEFINE_string("output", None, "The .npz file to write.", required=True)
FLAGS = flags.FLAGS


def main() -> None:
    with common.user_errors():
        output = pathlib.Path(FLAGS.output)
        if output.suffix != ".npz":
            raise ValueError(f"--output must end in .npz, got {output}")
        if output.exists():
            raise ValueError(f"--output={output} exists")
        params = bkse.load(FLAGS.weights)
        output.parent.mkdir(parents=True, exist_ok=True)
        bkse.save(output, params)
    print(f"the blur encoder is in {output}")


if __name__ == "__main__":
    common.run(main)
