"""The words of a command line become the plain values of every cell. The only module that knows Hydra; free of torch.

Hydra reads the words, chooses the files of `conf/` and enumerates lists, through its public functions alone. A knob
that only some of the choices beside it have is set where it exists; one that none of them has is an error.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import hydra
import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import axes
from harness.errors import InputError, nearest
from harness.paths import CONF, NOT_KNOBS
from harness.specs import Settings
from harness.sweep.choices import meant
from harness.sweep.spelling import check_form, joined, quoted

PARTS = (*axes.GROUPS, "executor")  # groups that have a section in a composed config
GROUPS = (*PARTS, "experiment")
# These say how a sweep runs and not what it runs: they are in no cell's id, and take one value each.
SETTINGS = ("results_dir", "force", "executor", "workers", "cell_timeout", "retries", "shard_images")
SETTINGS += ("price_per_hour", "debug", "plots", "live", "tracker")
# What Hydra itself answers without a sweep. --config-path, -name and -dir bring configurations from elsewhere and
# --experimental-rerun reads a pickle: those are not taken, nor abbreviations, which argparse would complete.
ANSWERED = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--resolve", "--package", "-p")
ANSWERED += ("--shell-completion", "-sc")
IGNORED = ("--multirun", "-m")  # lists sweep with or without it
# A glob leaves these out: there is a learned plan for some models, guidance scales and calls only.
NAMED_ONLY = {"sampler": ("learned",)}
AT_ONCE = "every_choice"  # the package into which the chosen files of a group are composed side by side


@dataclass(frozen=True)
class Asked:
    """What a command line asks for. `notes`: a line each on what a reader may not expect."""

    settings: Settings
    values: list[Mapping[str, Any]]  # conf/sweep.yaml, once for each combination, in the order asked for
    notes: list[str]


def read(words: Sequence[str]) -> Asked:
    """Every combination that `words` ask for. Raises InputError for a word that cannot be."""
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return _read(joined([word for word in words if word not in IGNORED]))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_hydra_says(error)) from error


def answer(words: Sequence[str]) -> bool:
    """Whether `words` (those of this process) hold a question that Hydra answered on the terminal, as `--help` is."""
    if not any(word.partition("=")[0] in ANSWERED for word in words):
        return False
    _check_options(words)

    @hydra.main(config_path=str(CONF), config_name="sweep", version_base="1.3")
    def answered(config: Any) -> None:
        """Never called: Hydra answers the question instead."""

    answered()
    return True


# -------------------------------------------------------------------------------------------------- words, one by one


@cache
def choices(group: str) -> tuple[str, ...]:
    """The names that GROUP=NAME takes."""
    return tuple(sorted(path.stem for path in (CONF / group).glob("*.yaml")))


@cache
def _top() -> tuple[str, ...]:
    """The names of conf/sweep.yaml that take a value."""
    return tuple(key for key in yaml.safe_load((CONF / "sweep.yaml").read_text()) if key not in ("defaults", "hydra"))


def _read(words: list[str]) -> Asked:
    _check_options(words)
    parse = _Parser(GlobalHydra.instance().config_loader())
    given = [parse(word) for word in words]
    for override in given:
        _check_name(override)
    experiments = [_strings(o) for o in given if o.key_or_group == "experiment"][-1:] or [[None]]
    sheet = _Sheet()
    values: list[Mapping[str, Any]] = []
    for experiment in experiments[0]:
        files = _Files(experiment, _chosen(given))
        grid = [parse(f"{key}={value}") for key, value in files.grid.items()]
        for override in grid:
            _check_name(override)
        files.load(_chosen(grid))
        axes = {o.key_or_group: o for o in (*grid, *given) if o.key_or_group != "experiment"}
        values += sheet.fill(files, axes, parse)
    sheet.check()
    settings = Settings({name: values[0][name] for name in SETTINGS})
    return Asked(settings, [{k: v for k, v in one.items() if k not in SETTINGS} for one in values], sheet.notes())


def _chosen(overrides: Iterable[Override]) -> list[tuple[str, str]]:
    return [(o.key_or_group, name) for o in overrides if o.key_or_group in PARTS for name in _strings(o)]


def _check_options(words: Iterable[str]) -> None:
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("-") and option not in ANSWERED:
            raise InputError(
                f"{option} is not taken: configurations are those in {CONF}; give KEY=VALUE words, or --help"
            )


class _Parser:
    """Words to Hydra's overrides, each read once."""

    def __init__(self, loader: ConfigLoader) -> None:
        self.parser = OverridesParser.create(config_loader=loader)
        self.known: dict[str, Override] = {}

    def __call__(self, word: str) -> Override:
        if word not in self.known:
            check_form(word, {group: choices(group) for group in GROUPS})
            self.known[word] = self._parsed(word)
        return self.known[word]

    def _parsed(self, word: str) -> Override:
        try:
            (override,) = self.parser.parse_overrides([word])
            return override
        except HydraException as error:
            plain = quoted(word)
            try:
                if plain is not None:
                    (override,) = self.parser.parse_overrides([plain])
                    return override
            except HydraException:
                pass
            reason = _hydra_says(error).partition(" See https")[0].partition(" expecting ")[0]
            raise InputError(
                f"{word}: this cannot be read ({reason}); a value is a word, a list a,b,c, range(start,stop,step), "
                f"[a,b] or quoted text, as in \"KEY='a, (b)'\""
            ) from error


def _check_name(override: Override) -> None:
    """A name or a list that cannot be, with the nearest name, instead of Hydra's page."""
    key = override.key_or_group
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        raise InputError(f"{key} is not taken: Hydra only reads the command line and enumerates; give KEY=VALUE words")
    if override.package is not None:
        raise InputError(f"{override.input_line}: {key}@{override.package} is not taken; write {key}=VALUE")
    if override.type.name != "CHANGE" and key != "experiment":
        raise InputError(f"{override.input_line}: write {key}=VALUE; only +experiment=NAME takes a sign before it")
    if key.split(".")[0] not in (*_top(), *GROUPS):
        raise InputError(f"unknown setting {key!r}; {nearest(key, (*_top(), *GROUPS))}")
    if key.partition(".")[0] in PARTS and key.partition(".")[2] in ("name", "solver"):
        raise InputError(f"{key} is no knob: write {key.partition('.')[0]}=NAME")
    _check_list(override)
    if key in GROUPS:
        for given in _strings(override):
            if given not in choices(key):
                raise InputError(f"unknown {key} {given!r}; {_unbracketed(key, given)}{nearest(given, choices(key))}")
    if key == "experiment" and override.type.name == "CHANGE":
        raise InputError(f"write +experiment={_strings(override)[0]} (with a plus)")


def _unbracketed(key: str, given: str) -> str:
    return f"to sweep write {key}={given.strip('[]')} without brackets; " if given.startswith("[") else ""


def _check_list(override: Override) -> None:
    """A list that gives no cell, or that stands where one value is taken."""
    word, key = override.input_line, override.key_or_group
    if override.is_interval_sweep():
        raise InputError(f"{word}: an interval has no end of values; write range(start,stop,step) or a list a,b,c")
    if not override.is_sweep_override():
        return
    if isinstance(override.value(), Glob) and key not in GROUPS:
        raise InputError(
            f"{word}: glob chooses among the names of {', '.join(GROUPS)}; {key} takes values: list them, or write "
            f"range(start,stop,step)"
        )
    found = _strings(override)
    if not found:
        raise InputError(f"{word} gives no value, so there would be no cell{_among(key)}")
    if key.partition(".")[0] in SETTINGS and len(found) > 1:
        raise InputError(f"{word}: {key} says how the whole sweep runs and takes one value")


def _among(key: str) -> str:
    return f"; {nearest('', choices(key))}" if key in GROUPS else ": is its start before its stop?"


def _strings(override: Override) -> list[str]:
    """The values that a word gives, one for each cell, as Hydra writes them."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    found = list(override.sweep_string_iterator())
    if isinstance(override.value(), Glob):
        found = [name for name in found if name not in NAMED_ONLY.get(override.key_or_group, ())]
    simple = override.value_type is ValueType.SIMPLE_CHOICE_SWEEP
    if override.key_or_group == "metrics" and simple and not any(text.startswith("[") for text in found):
        return [f"[{','.join(found)}]"]  # metrics=fid,kid means both in a cell: nobody measures it twice for that
    return found


# ----------------------------------------------------------------------------------------- what the files of conf say


class _Files:
    """What conf/ says for one experiment: the values at the top, and a section for each choice of a group.

    Hydra composes all choices of a call side by side. An experiment that changes a group's own section is the one
    case where a section depends on more than its file: then each choice is composed beside it.
    """

    def __init__(self, experiment: str | None, wanted: Iterable[tuple[str, str]]) -> None:
        self.words = [] if experiment is None else [f"+experiment={experiment}"]
        self.sections: dict[tuple[str, str], dict[str, Any]] = {}  # by group and name
        composed = hydra.compose("sweep", [*self.words, *_side_by_side(wanted)], return_hydra_config=True)
        self.grid: Mapping[str, Any] = dict(composed.hydra.sweeper.params or {})
        self.top = _plain(composed)
        del self.top["hydra"]
        self._take(self.top)
        self.own = {group: self.top.pop(group) for group in PARTS}

    def load(self, wanted: Iterable[tuple[str, str]]) -> None:
        """The sections of these choices too."""
        more = [pair for pair in wanted if pair not in self.sections]
        if not self.words and not more:
            return
        plain = _plain(hydra.compose("sweep", _side_by_side(more)))
        self._take(plain)
        if any(self.own[group] != plain[group] for group in PARTS):
            for group, name in self.sections:
                beside = hydra.compose("sweep", [*self.words, f"{group}={name}"])
                self.sections[group, name] = _plain(beside)[group]

    def _take(self, composed: dict[str, Any]) -> None:
        for group, sections in composed.pop(AT_ONCE, {}).items():
            self.sections |= {(group, name): section for name, section in sections.items()}


def _side_by_side(wanted: Iterable[tuple[str, str]]) -> list[str]:
    return [f"+{group}@{AT_ONCE}.{group}.{name}={name}" for group, name in dict.fromkeys(wanted)]


def _plain(config: Any) -> dict[str, Any]:
    """Plain containers; `${…}` stays, as what it refers to may be set by the command line."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return plain


# -------------------------------------------------------------------------------------------------- every combination


@dataclass
class _Sheet:
    """All combinations, and which choices had and lacked each knob."""

    have: dict[str, set[str]] = field(default_factory=dict)
    lack: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)  # key → choice → its section

    def fill(self, files: _Files, axes: Mapping[str, Override], parse: _Parser) -> Iterator[dict[str, Any]]:
        lists = {key: _strings(override) for key, override in axes.items()}
        parsed = {key: _values(axes[key], texts, parse) for key, texts in lists.items() if key not in PARTS}
        order = [[(key, item) for item in parsed.get(key, lists[key])] for key in axes]
        resolve = _refers([files.top, files.own, list(files.sections.values()), parsed])
        for combination in itertools.product(*order):
            given = dict(combination)
            own = {
                key: files.sections[key, given[key]] if key in given else section for key, section in files.own.items()
            }
            values = {**files.top, **own}
            for key, value in combination:
                if key not in PARTS:
                    self._set(values, key, value)
            if resolve:
                resolved: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
                values = resolved
            yield values

    def _set(self, values: dict[str, Any], key: str, value: Any) -> None:
        """`key=value` in `values`, whose sections are shared with other combinations and replaced, never changed."""
        group, _, rest = key.partition(".")
        if group in PARTS:
            section, called = meant(group, values)
            if not _has(section, rest):
                self.lack.setdefault(key, {})[called] = section
                return
            self.have.setdefault(key, set()).add(called)
        # Knobs of what `auto` stands for, and adapters by names of their user's, are not there yet.
        free = group == "adapters" or (group in PARTS and values[group]["name"] == "auto")
        values[group] = _changed(key, values[group], rest, value, free)

    def check(self) -> None:
        """InputError for a knob that none of the choices beside it has."""
        for key, lacking in self.lack.items():
            if key not in self.have:
                group, _, knob = key.partition(".")
                here = f"{group} {' or '.join(list(lacking)[:3])} has no knob {key!r}"
                valid = sorted({f"{group}.{name}" for one in lacking.values() for name in one if name not in NOT_KNOBS})
                raise InputError(f"{here}; {_elsewhere(group, knob)}valid: {', '.join(valid) or 'none'}")

    def notes(self) -> list[str]:
        return [
            f"{key} is set where the {key.partition('.')[0]} is {' or '.join(sorted(self.have[key]))}; "
            f"{' and '.join(sorted(lacking))}: no such knob"
            for key, lacking in self.lack.items()
        ]


def _elsewhere(group: str, knob: str) -> str:
    """Where there is such a knob, or the nearest one."""
    files = {name: _file(group, name) for name in choices(group)}
    known = {name for section in files.values() for name in section if name not in NOT_KNOBS}
    guess = [knob] if knob.split(".")[0] in known else difflib.get_close_matches(knob, known, n=1, cutoff=0.5)
    if not guess:
        return ""
    homes = [f"{group}={name}" for name, section in files.items() if _has(section, guess[0])]
    if len(homes) == len(files) or not homes:
        return f"did you mean {f'{group}.{guess[0]}'!r}? "
    named = ", ".join(homes[:5]) + (", …" if len(homes) > 5 else "")
    if guess[0] == knob:
        return f"{named} {'has' if len(homes) == 1 else 'have'} it; "
    return f"did you mean {f'{group}.{guess[0]}'!r} (of {named})? "


@cache
def _file(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))


def _values(override: Override, texts: Sequence[str], parse: _Parser) -> list[Any]:
    """Each value that a word gives, plain."""
    if override.is_sweep_override():
        return [parse(f"{override.key_or_group}={text}").value() for text in texts]
    return [override.value()]


def _has(section: Mapping[str, Any], path: str) -> bool:
    for name in path.split("."):
        if not isinstance(section, Mapping) or name not in section:
            return False
        section = section[name]
    return True


def _changed(key: str, before: Any, path: str, value: Any, free: bool) -> Any:
    """`before` with the value at `path` ("": all of it). `free`: a name that is not there yet may be added.

    A section that is empty in its file has no names of its own: it takes any.
    """
    free = free or before == {}
    if path:
        name, _, rest = path.partition(".")
        if before is None and free:
            before = {}
        if not isinstance(before, dict):
            raise InputError(f"unknown setting {key!r}: {key.removesuffix('.' + path)} is one value and has no parts")
        if name not in before and not free:
            raise InputError(f"unknown setting {key!r}; {nearest(name, before)}")
        return {**before, name: _changed(key, before.get(name), rest, value, free)}
    if isinstance(before, dict) and isinstance(value, dict):
        for name, part in value.items():
            before = _changed(f"{key}.{name}", before, str(name), part, free)
        return before
    if isinstance(before, dict) and before:
        raise InputError(f"{key}={value!r} is not valid: give its parts, {', '.join(f'{key}.{n}=' for n in before)}")
    return value


def _refers(values: Any) -> bool:
    """Whether a text in `values` refers to another value (`${…}`)."""
    if isinstance(values, dict):
        return any(map(_refers, values.values()))
    return any(map(_refers, values)) if isinstance(values, list) else isinstance(values, str) and "${" in values


def _hydra_says(error: Exception) -> str:
    """Hydra's message in one line, without its hints on its own use."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    lines = [line for line in lines if not line.startswith(("full_key", "object_type", "reference_type", "To append"))]
    return " ".join(lines)[:400]
