"""Settings: what is allowed, what is said of what is not, files, and classes with the fields of several."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import settings
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.settings import Settings, setting

NAMES = {"apple": 1, "pear": 2}


def read_number(path: str) -> np.ndarray:
    """A number from a text file; a stand-in for kernels and masks."""
    try:
        return np.array(float(open(path).read()))
    except OSError as error:
        raise ValueError(f"cannot read {path}") from error


@dataclasses.dataclass(frozen=True)
class Fruit(Settings):
    """One field of each kind."""

    count: int = setting(3, "How many.", low=2, high=9)
    share: float = setting(0.5, "Which part.", "of one", low=0, below=1)
    weight: float = setting(1.0, "How heavy.", "grams", above=0)
    size: int | None = setting(None, "How large.", low=3, odd=True, otherwise="of no size")
    free: float = setting(0.0, "Any number.")
    sort: str = setting("pear", "Which one.", choices=NAMES)
    sorts: tuple[str, ...] = setting(("pear",), "Which ones.", choices=NAMES)
    own: str | None = setting(None, "A file.", reads=read_number)
    hidden: int = setting(1, "Not for programs.", flag=False)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 1, "count must be at least 2 and at most 9, got 1"),
        ("count", 10, "count must be at least 2 and at most 9, got 10"),
        ("count", 2.5, "count must be a whole number, got 2.5"),
        ("count", "many", "count must be a number, got 'many'"),
        ("count", "3", "count must be a number, got '3'"),
        ("share", 1.0, "share must be at least 0 and below 1 of one, got 1.0"),
        ("share", -0.1, "share must be at least 0 and below 1 of one, got -0.1"),
        ("weight", 0.0, "weight must be positive grams, got 0.0"),
        ("weight", float("inf"), "weight must be positive grams, got inf"),
        ("weight", np.array([1.0, -1.0]), "weight must be positive grams, got"),
        ("size", 4, "size must be odd and at least 3, got 4"),
        ("size", 1, "size must be odd and at least 3, got 1"),
        ("free", float("nan"), "free must be finite, got nan"),
        ("sort", "apples", "sort must be one of apple, pear, got 'apples'; did you mean apple?"),
        ("sort", "kiwi", "sort must be one of apple, pear, got 'kiwi'"),
        ("sorts", ("pear", "appel"), "sorts must be one of apple, pear, got 'appel'; did you mean apple?"),
    ],
)
def test_values_out_of_range_are_refused(name, value, message):
    with pytest.raises(ValueError) as caught:
        Fruit(**{name: value})
    assert str(caught.value).startswith(message)
    assert "kiwi" not in str(value) or "did you mean" not in str(caught.value)


def test_values_in_range_are_kept_as_they_are():
    """The bounds themselves, numbers of every type, None where it is the default, functions in place of names."""
    for name, allowed in {
        "count": (2, 9, np.int32(4), jnp.asarray(5)),
        "share": (0.0, 0.999),
        "weight": (1e-9, 1, np.float32(2), np.array([1.0, 2.0])),
        "size": (None, 3, 5),
        "free": (-1e9, 0),
        "sort": ("apple", len),
        "sorts": ((), ("apple", "pear")),
    }.items():
        for value in allowed:
            assert getattr(Fruit(**{name: value}), name) is value


def test_choices_are_a_live_registry(monkeypatch):
    """What is registered later is allowed from then on."""
    with pytest.raises(ValueError, match="got 'plum'"):
        Fruit(sort="plum")
    monkeypatch.setitem(NAMES, "plum", 3)
    assert Fruit(sort="plum").sort == "plum"


def test_numbers_that_are_not_known_yet_pass():
    """A setting may be an argument of a compiled function."""
    assert float(jax.jit(lambda w: Fruit(weight=w).weight * 2)(3.0)) == 6


def test_fields_are_described():
    found = {field.name: field for field in settings.fields(Fruit)}
    assert list(found) == [f.name for f in dataclasses.fields(Fruit)]
    assert [found[name].kind for name in ("count", "share", "size", "sort", "sorts", "own")] == [
        int, float, int, str, tuple, str,
    ]  # fmt: skip
    described = {name: field.setting.describe() for name, field in found.items()}
    assert described["share"] == "at least 0 and below 1"
    assert described["weight"] == "positive"
    assert described["size"] == "odd and at least 3"
    assert described["free"] == ""
    assert described["sort"] == "one of apple, pear"
    assert found["weight"].default == 1.0
    assert (found["weight"].setting.help, found["weight"].setting.unit) == ("How heavy.", "grams")
    assert "hidden" not in settings.values(Fruit())
    assert settings.values(Fruit(count=7))["count"] == 7


def test_files_are_read_once(tmp_path):
    """A name becomes what the file holds; what is no name, or is read already, stays."""
    (tmp_path / "a").write_text("7.5")
    assert settings.read_files(Fruit()).own is None
    read = settings.read_files(Fruit(own=str(tmp_path / "a"), count=4))
    assert (float(read.own), read.count) == (7.5, 4)
    assert settings.read_files(read) is read
    with pytest.raises(ValueError, match="cannot read"):
        settings.read_files(Fruit(own=str(tmp_path / "b")))


@dataclasses.dataclass(frozen=True)
class Basket(Settings):
    """Another class with one field of the same name and meaning."""

    count: int = settings.like(Fruit, "count")
    handles: int = setting(2, "How many handles.")


@dataclasses.dataclass(frozen=True)
class Crowd(Settings):
    """A class that means something else by a name."""

    count: int = setting(3, "How many people.", low=2, high=9)


@dataclasses.dataclass(frozen=True)
class Pair(Settings):
    """The same field with another default."""

    count: int = settings.like(Fruit, "count", 2)


def test_classes_are_joined():
    """Each field once, with its checks; those that differ in meaning or in default are refused."""
    joined = settings.join("Joined", (Basket, Fruit))
    assert [f.name for f in settings.fields(joined)][:3] == ["count", "handles", "share"]
    assert len(settings.fields(joined)) == len(settings.fields(Fruit)) + 1
    assert joined(handles=5).handles == 5
    assert settings.fields(joined)[0] == settings.fields(Fruit)[0]
    with pytest.raises(ValueError, match="count must be at least 2"):
        joined(count=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        joined().count = 4
    assert Pair().count == 2
    with pytest.raises(ValueError, match="count must be at least 2"):
        Pair(count=1)
    for other in (Crowd, Pair):
        with pytest.raises(ValueError, match="two different settings are called count"):
            settings.join("Joined", (Fruit, other))


def test_built_from_what_is_given():
    """Of many values, those that the class has; over other defaults."""
    assert settings.build(Basket, {"count": 5, "sort": "pear"}, handles=1) == Basket(count=5, handles=1)
    assert settings.build(Basket, {"handles": 3}, handles=1).handles == 3


@pytest.mark.parametrize("value", [0.05, 1e-5, 1e22, 1 / 3, 100.0, -0.0, np.float64(0.1), float("inf"), 2.5e-310])
def test_numbers_survive_as_text(value):
    """A flag made of a setting is read as the same number, to the last bit."""
    assert float(settings.text_of(value)) == value
    assert settings.text_of((value, 2)).split(",")[1] == "2"


def test_text_is_what_flags_take():
    assert [settings.text_of(v) for v in (100.0, 0.05, 3, True, False, "pear")] == [
        "100", "0.05", "3", "true", "false", "pear",
    ]  # fmt: skip
    assert settings.text_of(("a", 1.0, True)) == "a,1,true"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": None}, "num_steps must be a number, got None"),
        ({"num_steps": 50.0}, "num_steps must be a whole number, got 50.0"),
        ({"time_grid": None}, "time_grid must be one of uniform"),
        ({"guidance": ["covariance"]}, "guidance must be one of"),
    ],
)
def test_what_is_no_value_of_a_setting_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SamplerSettings(**changes)
