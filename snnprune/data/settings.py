"""What a name such as `nmnist:frames=8` says of how events become frames; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from snnprune.errors import did_you_mean, error_class_for

CUTS = {
    "frames": "frames=T, T frames of as many events each",
    "bins": "bins=T, T frames of as much time each",
    "window": "window=MS, frames of MS milliseconds: as many as a recording is long",
}
"""The ways to cut a recording, of which a name may say one."""
SIZE = "size=N, the side of the frames, or the inputs of a set without pictures"
MOST = 2**14
"""More time steps, milliseconds or places than any use has."""


@dataclass(frozen=True, kw_only=True)
class EventSettings:
    """How the events of a recording become frames."""

    cut: str
    """One of `CUTS`."""
    count: int
    """T, or the milliseconds of a window."""
    size: int
    """Places along a side, at most those of the sensor."""

    def format(self) -> str:
        """As it stands behind the colon of a name."""
        return f"{self.cut}={self.count},size={self.size}"


@dataclass(frozen=True, kw_only=True)
class EventForm:
    """What may be said of a set's events, and what holds where nothing is."""

    usual: EventSettings
    cuts: tuple[str, ...] = tuple(CUTS)
    sizes: bool = True
    """Whether frames may be smaller than the sensor, whose size is the usual one."""
    most: int = MOST
    """Time steps at most."""

    def describe(self) -> str:
        """What a name may say, for people."""
        if not self.sizes:
            return f"{self.usual.cut}=T, T at most {self.most}, {self.usual.count} as it is"
        return f"{'; '.join([*map(CUTS.__getitem__, self.cuts), SIZE])} ({self.usual.format()})"


EVENTS: Mapping[str, EventForm] = {
    "moving-mini": EventForm(
        usual=EventSettings(cut="frames", count=8, size=32),
        cuts=("frames",),
        sizes=False,
        most=16,
    ),
    "nmnist": EventForm(usual=EventSettings(cut="frames", count=8, size=34)),
    "dvs-gesture": EventForm(usual=EventSettings(cut="frames", count=16, size=128)),
    "cifar10-dvs": EventForm(usual=EventSettings(cut="frames", count=10, size=128)),
    "shd": EventForm(usual=EventSettings(cut="bins", count=100, size=700)),
    "ssc": EventForm(usual=EventSettings(cut="bins", count=100, size=700)),
}
"""The sets of events that are known by name."""


def split_name(name: str) -> tuple[str, str] | None:
    """The set and the settings of a name that has some, as `nmnist:frames=8`; else None."""
    base, _, said = name.partition(":")
    return (base, said) if base in EVENTS and said and not _is_function(said) else None


def _is_function(text: str) -> bool:
    """Whether it is a name in a module of the user's that is called as the set is."""
    return text.replace(".", "_").isidentifier()


def parse_settings(name: str, said: str, *, field: str = "--data") -> EventSettings:
    """What `said`, as `bins=50,size=140`, makes of the usual settings of the set `name`.

    Raises:
        UsageError: there is no such setting, it is said twice, or its value is out of bounds, and
            `field` is a flag.
        InputError: likewise, in a file.
    """
    form, failing = EVENTS[name], error_class_for(field)
    found: dict[str, int] = {}
    for part in filter(None, said.split(",")):
        key, _, value = part.partition("=")
        known = (*form.cuts, *(["size"] * form.sizes))
        if key not in known:
            hint = did_you_mean(key, known)
            raise failing(f"{name} has no setting {key!r}", field=field, hint=hint)
        if key in found:
            raise failing(f"{name}: {key} is said twice", field=field)
        found[key] = _parse_count(name, key, value, field)
    size, cuts = found.pop("size", form.usual.size), list(found.items())
    if len(cuts) > 1:
        said_both = " and ".join(key for key, _ in cuts)
        raise failing(f"{name}: {said_both} exclude each other", field=field, hint=form.describe())
    settings = replace(form.usual, size=size)
    if cuts:
        settings = replace(settings, cut=cuts[0][0], count=cuts[0][1])
    _require_bounds(name, settings, field)
    return settings


def _parse_count(name: str, key: str, value: str, field: str) -> int:
    if not (value.isdecimal() and value.isascii()) or not 0 < len(value) < 8 or not int(value):
        raise error_class_for(field)(
            f"{name}: {key}={value} is no whole number above 0",
            field=field,
            hint=EVENTS[name].describe(),
        )
    return int(value)


def _require_bounds(name: str, settings: EventSettings, field: str) -> None:
    form = EVENTS[name]
    bounds = ((settings.cut, settings.count, form.most), ("size", settings.size, form.usual.size))
    for key, value, most in bounds:
        if value > most:
            raise error_class_for(field)(
                f"{name}: {key}={value} is more than {most}", field=field, hint=form.describe()
            )
