"""`cvsa import` from a clone of the repository."""

from cvsa_jax.commands import main

if __name__ == "__main__":
    main("import")
