"""Turn published PyTorch weights into a file that needs no PyTorch.

    python -m experiments.import_weights --network=bkse --weights=GOPRO_wVAE.pth --output=bkse.npz
    python -m experiments.import_weights --network=inception --weights=pt_inception-2015-12-05-6726825d.pth --output=...
    python -m experiments.import_weights --network=lpips --weights=alexnet-owt-7be5be79.pth,alex.pth --output=...

The result goes to --bkse_weights of experiments.restore, or --inception_weights and --lpips_weights of
experiments.evaluate, which take the PyTorch files as well.
"""

import pathlib

from absl import flags

from cvsa_jax.importers import arrays, bkse, quality
from experiments import common

NETWORKS = {
    "bkse": bkse.load,
    "inception": quality.load_inception,
    "lpips": lambda paths: quality.load_perceptual(paths)[1],
}
flags.DEFINE_enum("network", None, list(NETWORKS), "Which network they are of.", required=True)
flags.DEFINE_string("weights", None, "The PyTorch file; of lpips two, CLASSIFIER,LINEAR.",
                    required=True)  # fmt: skip
flags.DEFINE_string("output", None, "The .npz file to write.", required=True)
FLAGS = flags.FLAGS


def main() -> None:
    with common.user_errors():
        output = pathlib.Path(FLAGS.output)
        if output.suffix != ".npz":
            raise ValueError(f"--output must end in .npz, got {output}")
        if output.exists():
            raise ValueError(f"--output={output} exists")
        params = NETWORKS[FLAGS.network](FLAGS.weights)
        output.parent.mkdir(parents=True, exist_ok=True)
        arrays.save_tree(output, params)
    print(f"the weights are in {output}")


if __name__ == "__main__":
    common.run(main)
