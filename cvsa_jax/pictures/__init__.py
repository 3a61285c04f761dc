"""Picture files as people have them: read at their full depth, written in the form that is asked for."""

from cvsa_jax.pictures.picture import Carried, Picture
from cvsa_jax.pictures.reading import read_picture

__all__ = ["Carried", "Picture", "read_picture"]
