"""Settings of a node: from a TOML file, the environment and flags, each overriding the one before; validated once.

    [node]
    name = "shop@db1"
    address = "tcp://127.0.0.1:4571"

    [log]
    level = "info"

    [kv]                        # the replicated store; `aspen up` and `aspen node start` enable it
    enabled = true

    [apps.shop]                 # settings of the application named shop
    currency = "EUR"

In the environment a setting is `ASPEN_<SECTION>_<KEY>`, as in `ASPEN_NODE_NAME` or `ASPEN_APPS_SHOP_CURRENCY`; two
underscores end the name of an application that has one: `ASPEN_APPS_MY_SHOP__CURRENCY`. An unknown key is refused, with
the nearest known one: a typo must not pass for a default.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from aspen.errors import ConfigError
from aspen.limits import (
    KV_QUOTA_BYTES,
    KV_QUOTA_BYTES_MIN,
    KV_SCRUB_S,
    KV_VOTERS_MAX,
    MEMBER_ADDRESS_CHARS_MAX,
    MEMBER_SEEDS_MAX,
)
from aspen.node.addresses import ADDRESS, is_wildcard
from aspen.trust import curve_public_z85

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS: Final = ("auto", "text", "json")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_CLASS_PATH = re.compile(r"[\w.]+:[\w.]+")
_TCP = re.compile(r"tcp://[^\s/]+:[1-9][0-9]{0,4}")
_ENVIRONMENT_PREFIX: Final = "ASPEN_"
_NO_SETTINGS: Final = frozenset({"ASPEN_CONFIG_DIR", "ASPEN_HEART_FD", "ASPEN_SOAK", "ASPEN_SHRINK_RUNS"})
"""Variables that begin like a setting's and are none: where keys are, how a child beats, how long to test."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The settings of one node. Made by `read_config`, or by hand in a test."""

    name: str = ""
    """What people call it: `shop`, `shop@db1`. Empty: the name of its application."""
    address: str = "tcp://127.0.0.1:0"
    """Where its control port is bound; port 0 for any free one; empty for none."""
    advertise: str = ""
    """Where other machines reach its control port; port 0 for the bound one. Empty: where it is bound."""
    root: str = "supervisors.node:NodeSupervisor"
    """Class path of the supervisor at the top of its tree."""
    application: str = ""
    """What `aspen node start` runs, as MODULE:APP."""
    strict_messages: bool = False
    """Encode and decode local messages too, to find those that could not leave the process."""
    data_dir: str = ""
    """Where it keeps what must survive; empty for `data/NAME` in the configuration directory."""
    cluster: str = ""
    """The cluster of which it is a part; empty for none."""
    cluster_address: str = "tcp://127.0.0.1:0"
    """Where its links with other nodes are bound."""
    cluster_advertise: str = ""
    """Where other nodes reach its links; port 0 for the bound one. Empty: where they are bound."""
    cluster_seeds: tuple[tuple[str, str], ...] = ()
    """Nodes of other machines to join through: node id, and the address of its links. Those of this machine that are in
    the cluster are found without."""
    joined_seeds: tuple[tuple[str, str], ...] = ()
    """Nodes through which it has joined by a ticket. An address that `cluster_seeds` or later news have counts more."""
    kv_application: str = "supervisors.kv:Kv"
    """Class path of the application that is its member of the replicated store."""
    kv_enabled: bool = False
    """Whether it has a member of the replicated store."""
    kv_voters: tuple[str, ...] = ()
    """The ids of the nodes whose members vote when the store begins. Empty: this node alone, or, in a cluster, none:
    the member waits to be added."""
    kv_quota_bytes: int = KV_QUOTA_BYTES
    """Size of the store from which it takes only deletes and compactions. The same on every node."""
    kv_compact_revisions: int = 0
    """Keeps so many revisions and compacts those before, now and then; 0: not."""
    kv_compact_s: float = 0.0
    """Keeps the revisions of so many seconds and compacts those before, now and then; 0: not."""
    kv_scrub_s: float = KV_SCRUB_S
    """Has the members compare what they hold so often; 0: not."""
    log_level: str = "info"
    log_format: str = "auto"
    """`text`, `json`, or `auto`: text on a terminal and JSON elsewhere."""
    log_file: str = ""
    """Where the log goes; empty for standard error."""
    apps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of applications, by application name."""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each setting that is no default comes from, as `node.name` -> `aspen.toml`."""

    def as_dict(self) -> dict[str, Any]:
        """The settings by section and key, as in a file."""
        sections: dict[str, Any] = {}
        for section, keys in _KEYS.items():
            sections[section] = {key: getattr(self, attribute) for key, (attribute, _) in keys.items()}
        seeds = dict(self.joined_seeds) | dict(self.cluster_seeds)
        sections["cluster"]["seeds"] = [f"{node_id}@{address}" for node_id, address in seeds.items()]
        sections["kv"]["voters"] = list(self.kv_voters)
        sections["apps"] = {name: dict(settings) for name, settings in self.apps.items()}
        return sections

    def store_settings(self) -> dict[str, Any]:
        """The section `[kv]`, as settings of the application that it names."""
        return {
            "voters": ",".join(self.kv_voters),
            "waits": bool(self.cluster) and not self.kv_voters,
            "quota_bytes": self.kv_quota_bytes,
            "compact_revisions": self.kv_compact_revisions,
            "compact_s": self.kv_compact_s,
            "scrub_s": self.kv_scrub_s,
        }

    def named(self, name: str) -> NodeConfig:
        """The same with a name, if it has none."""
        return self if self.name else replace(self, name=name)

    def with_membership(self, text: str, source: str) -> NodeConfig:
        """The same in the cluster that it has joined, as `membership` wrote it in the file `source`.

        What was set elsewhere counts more: a node that was told another cluster is in that one.

        Raises:
            ConfigError: the text is no such settings.
        """
        joined = read_config(text, source=source)
        if self.cluster not in ("", joined.cluster):
            return self
        sources = {**joined.sources, **self.sources}
        return replace(self, cluster=joined.cluster, joined_seeds=joined.cluster_seeds, sources=sources)


def read_config(
    text: str | None = None,
    *,
    source: str = "aspen.toml",
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> NodeConfig:
    """The settings from the text of a TOML file, the environment, and flags.

    `flags` maps `section.key` to values; one that is None was not given.

    Raises:
        ConfigError: names the setting, where it stands, and what would be right.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    apps: dict[str, dict[str, Any]] = {}
    settings = [
        *_from_toml(text, source),
        *_from_environment(environ or {}),
        *((key, value, "the command line") for key, value in (flags or {}).items() if value is not None),
    ]
    for key, value, where in settings:
        section, _, rest = key.partition(".")
        if section == "apps":
            app, _, setting = rest.partition(".")
            if not app or not setting:
                raise ConfigError(f"{where}: {key}: write settings of an application as apps.NAME.SETTING")
            apps.setdefault(app, {})[setting] = value
        else:
            attribute, check = _known(section, rest, where)
            merged[attribute] = check(value, f"{where}: {key}")
        sources[key] = where
    return NodeConfig(**merged, apps=apps, sources=sources)


def membership(cluster: str, seeds: Iterable[tuple[str, str]]) -> str:
    """The settings of a node that has joined a cluster through these nodes, as the text of a TOML file."""
    lines = "".join(f'    "{node_id}@{address}",\n' for node_id, address in seeds)
    return (
        "# Written by `aspen node join`. What aspen.toml, the environment and flags say counts more.\n"
        f'[cluster]\nname = "{cluster}"\nseeds = [\n{lines}]\n'
    )


def check_settings(app: str, known: Mapping[str, Any], config: NodeConfig) -> dict[str, Any]:
    """The settings of one application, checked against those it knows and the types of their defaults.

    Raises:
        ConfigError: a setting is unknown or of another type; says where it stands.
    """
    settings = dict(config.apps.get(app, {}))
    for key, value in settings.items():
        where = f"{config.sources.get(f'apps.{app}.{key}', 'settings')}: apps.{app}.{key}"
        if key not in known:
            raise ConfigError(f"{where}: the application {app} has no such setting{suggestion(key, known)}")
        default = known[key]
        if isinstance(default, bool) != isinstance(value, bool) and default is not None:
            raise ConfigError(f"{where} is {value!r}; it must be of type {type(default).__name__}")
        if isinstance(default, float) and isinstance(value, int):
            settings[key] = float(value)
        elif default is not None and not isinstance(value, type(default)):
            raise ConfigError(f"{where} is {value!r}; it must be of type {type(default).__name__}")
    return settings


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses a word: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it has: {', '.join(known)}" if known else "; it has none"


# -- where settings come from ----------------------------------------------------------------------------


def _from_toml(text: str | None, source: str) -> list[tuple[str, Any, str]]:
    if text is None:
        return []
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}") from None
    settings: list[tuple[str, Any, str]] = []
    for section, content in document.items():
        if section not in (*_KEYS, "apps"):
            raise ConfigError(f"{source}: there is no section [{section}]{suggestion(section, (*_KEYS, 'apps'))}")
        if not isinstance(content, dict):
            raise ConfigError(f"{source}: {section} is a section; write [{section}] and its keys below")
        if section != "apps":
            settings.extend((f"{section}.{key}", value, source) for key, value in content.items())
            continue
        for app, values in content.items():
            if not isinstance(values, dict):
                raise ConfigError(f"{source}: apps.{app} is a section; write [apps.{app}] and its keys below")
            settings.extend((f"apps.{app}.{key}", value, source) for key, value in values.items())
    return settings


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    settings = []
    for name, text in sorted(environ.items()):
        if not name.startswith(_ENVIRONMENT_PREFIX) or name in (_ENVIRONMENT_PREFIX, *_NO_SETTINGS):
            continue
        section, _, key = name.removeprefix(_ENVIRONMENT_PREFIX).lower().partition("_")
        if section not in (*_KEYS, "apps") or not key:
            known = ", ".join(_variables())
            near = difflib.get_close_matches(name, _variables(), n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"${name} is no setting; {meant}There are: {known}, and ASPEN_APPS_<APP>_<SETTING>")
        value: Any = text
        if section == "apps":
            app, _, setting = key.partition("__" if "__" in key else "_")
            key, value = f"{app}.{setting}", _literal(text)
        elif _is_literal(_KEYS[section].get(key, (None, None))[1]):
            value = _literal(text)
        settings.append((f"{section}.{key}", value, f"${name}"))
    return settings


def _variables() -> list[str]:
    """The variables of the environment that are settings, but for those of applications."""
    return [f"{_ENVIRONMENT_PREFIX}{section}_{key}".upper() for section, keys in _KEYS.items() for key in keys]


def _literal(text: str) -> Any:
    """A TOML value, or the text itself when it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse_setting(text: str) -> tuple[str, Any]:
    """`APP.SETTING=VALUE`, from the command line, as a key of `flags` and its value.

    Raises:
        ConfigError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or key.count(".") != 1:
        raise ConfigError(f"--set {text}: write APP.SETTING=VALUE")
    return f"apps.{key}", _literal(value)


# -- what is known -------------------------------------------------------------------------------------------

_Check = Callable[[Any, str], Any]


def _known(section: str, key: str, where: str) -> tuple[str, _Check]:
    keys = _KEYS.get(section)
    if keys is None:
        raise ConfigError(f"{where}: there is no section {section!r}{suggestion(section, _KEYS)}")
    found = keys.get(key)
    if found is None:
        raise ConfigError(f"{where}: [{section}] has no key {key!r}{suggestion(key, keys)}")
    return found


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} is {value!r}; it must be a text in quotes")
    return value


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where} is {value!r}; it must be true or false")
    return value


def _name(value: Any, where: str) -> str:
    if not _NAME.fullmatch(_text(value, where)):
        raise ConfigError(f"{where} is {value!r}; a node's name has up to 64 letters, digits and . _ @ -")
    return str(value)


def _class_path(value: Any, where: str) -> str:
    if not _CLASS_PATH.fullmatch(_text(value, where)):
        raise ConfigError(f"{where} is {value!r}; write a class as module:Class")
    return str(value)


def _one_of(options: tuple[str, ...]) -> _Check:
    def check(value: Any, where: str) -> str:
        if _text(value, where) not in options:
            raise ConfigError(f"{where} is {value!r}; use one of: {', '.join(options)}")
        return str(value)

    return check


def _advertise(value: Any, where: str) -> str:
    text = _text(value, where)
    match = ADDRESS.fullmatch(text)
    if match is None or int(match[2]) > 65_535 or len(text) > MEMBER_ADDRESS_CHARS_MAX:
        raise ConfigError(f"{where} is {text!r:.120}; write tcp://HOST:PORT, with port 0 for the one that is bound")
    if is_wildcard(text):
        raise ConfigError(f"{where} is {text!r}, which nobody can connect to; name this machine as others reach it")
    return text


def _seeds(value: Any, where: str) -> tuple[tuple[str, str], ...]:
    """From a list of texts; from the environment, one text with commas."""
    texts = [text.strip() for text in value.split(",") if text.strip()] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MEMBER_SEEDS_MAX:
        raise ConfigError(
            f"{where} is {value!r:.80}; write a list of up to {MEMBER_SEEDS_MAX} texts NODE_ID@tcp://HOST:PORT"
        )
    found = []
    for text in texts:
        node_id, _, address = _text(text, where).partition("@")
        try:
            curve_public_z85(node_id)
        except ValueError:
            node_id = ""
        if not node_id or not _TCP.fullmatch(address):
            raise ConfigError(
                f"{where}: {text!r:.120} is no seed; write NODE_ID@tcp://HOST:PORT, with the port of its links"
            )
        found.append((node_id.lower(), address))
    return tuple(found)


def _voters(value: Any, where: str) -> tuple[str, ...]:
    """From a list of node ids; from the environment and the command line, one text with commas."""
    texts = [text.strip() for text in value.split(",") if text.strip()] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > KV_VOTERS_MAX:
        raise ConfigError(f"{where} is {value!r:.80}; write a list of up to {KV_VOTERS_MAX} node ids")
    for text in texts:
        try:
            curve_public_z85(_text(text, where))
        except ValueError as error:
            raise ConfigError(f"{where}: {text!r:.80} is no node id: {error}; see: aspen keys show") from None
    if len(set(texts)) != len(texts):
        raise ConfigError(f"{where} names a node twice")
    return tuple(text.lower() for text in texts)


class _Count:
    """Checks a whole number."""

    def __init__(self, least: int) -> None:
        self._least = least

    def __call__(self, value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < self._least:
            raise ConfigError(f"{where} is {value!r}; it must be a whole number of at least {self._least}")
        return int(value)


def _seconds(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ConfigError(f"{where} is {value!r}; it must be a number of seconds, not negative")
    return float(value)


def _is_literal(check: object) -> bool:
    """Whether a setting is a TOML value in the environment too, and not a text as it stands."""
    return check in (_boolean, _seconds) or isinstance(check, _Count)


_KEYS: Final[dict[str, dict[str, tuple[str, _Check]]]] = {
    "node": {
        "name": ("name", _name),
        "address": ("address", _text),
        "advertise": ("advertise", _advertise),
        "root": ("root", _class_path),
        "application": ("application", _text),
        "strict_messages": ("strict_messages", _boolean),
        "data_dir": ("data_dir", _text),
    },
    "cluster": {
        "name": ("cluster", _name),
        "address": ("cluster_address", _text),
        "advertise": ("cluster_advertise", _advertise),
        "seeds": ("cluster_seeds", _seeds),
    },
    "kv": {
        "application": ("kv_application", _class_path),
        "enabled": ("kv_enabled", _boolean),
        "voters": ("kv_voters", _voters),
        "quota_bytes": ("kv_quota_bytes", _Count(KV_QUOTA_BYTES_MIN)),
        "compact_revisions": ("kv_compact_revisions", _Count(0)),
        "compact_s": ("kv_compact_s", _seconds),
        "scrub_s": ("kv_scrub_s", _seconds),
    },
    "log": {
        "level": ("log_level", _one_of(LOG_LEVELS)),
        "format": ("log_format", _one_of(LOG_FORMATS)),
        "file": ("log_file", _text),
    },
}
