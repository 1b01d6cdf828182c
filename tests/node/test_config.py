"""Settings: where they come from, which wins, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest
from nacl.signing import SigningKey

from aspen.errors import ConfigError
from aspen.node.config import NodeConfig, check_settings, membership, parse_setting, read_config
from aspen.trust import encode_node_id


def test_defaults() -> None:
    assert read_config() == NodeConfig()


def test_each_source_overrides_the_one_before() -> None:
    text = '[node]\nname = "file"\naddress = "tcp://127.0.0.1:1"\n[log]\nlevel = "debug"\n[apps.shop]\nrate = 1\n'
    environ = {"ASPEN_NODE_NAME": "environment", "ASPEN_LOG_LEVEL": "error", "ASPEN_APPS_SHOP_RATE": "2", "PATH": "/"}
    config = read_config(text, environ=environ, flags={"node.name": "flag", "log.format": None})
    assert (config.name, config.address, config.log_level) == ("flag", "tcp://127.0.0.1:1", "error")
    assert config.apps == {"shop": {"rate": 2}}
    assert config.sources["node.name"] == "the command line"
    assert config.sources["log.level"] == "$ASPEN_LOG_LEVEL"
    assert config.sources["node.address"] == "aspen.toml"


@pytest.mark.parametrize(
    ("text", "environ", "flags", "words"),
    [
        ('[node]\nnmae = "x"', {}, {}, ["aspen.toml", "[node]", "'nmae'", "did you mean 'name'?"]),
        ("[nodes]\n", {}, {}, ["aspen.toml", "[nodes]", "did you mean 'node'?"]),
        ("node = 1", {}, {}, ["write [node]"]),
        ("[node", {}, {}, ["aspen.toml is not TOML"]),
        ("[node]\nname = 1", {}, {}, ["node.name is 1", "text in quotes"]),
        ('[node]\nname = "a b"', {}, {}, ["'a b'", "letters, digits"]),
        ('[log]\nlevel = "loud"', {}, {}, ["'loud'", "debug, info, warning"]),
        ('[node]\nroot = "nothing"', {}, {}, ["module:Class"]),
        ("[node]\nstrict_messages = 1", {}, {}, ["true or false"]),
        ("[apps]\nshop = 1", {}, {}, ["write [apps.shop]"]),
        (None, {"ASPEN_LOGLEVEL": "debug"}, {}, ["$ASPEN_LOGLEVEL is no setting", "did you mean ASPEN_LOG_LEVEL?"]),
        (None, {"ASPEN_NODES_NAME": "x"}, {}, ["did you mean ASPEN_NODE_NAME?", "ASPEN_CLUSTER_SEEDS"]),
        (None, {"ASPEN_SHOP": "x"}, {}, ["There are: ASPEN_NODE_NAME, ", "and ASPEN_APPS_<APP>_<SETTING>"]),
        (None, {"ASPEN_NODE_NAM": "x"}, {}, ["$ASPEN_NODE_NAM", "did you mean 'name'?"]),
        (None, {"ASPEN_NODE_STRICT_MESSAGES": "yes"}, {}, ["true or false"]),
        (None, {}, {"log.levle": "info"}, ["the command line", "did you mean 'level'?"]),
    ],
)
def test_a_bad_setting_is_named_with_the_remedy(
    text: str | None, environ: dict[str, str], flags: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(text, environ=environ, flags=flags)
    for word in words:
        assert word in str(caught.value)


def test_other_variables_of_the_environment_are_not_ours() -> None:
    assert read_config(environ={"ASPEN_CONFIG_DIR": "/x", "ASPENS": "y", "ASPEN_": "z"}) == NodeConfig()


def test_two_underscores_end_the_name_of_an_application() -> None:
    config = read_config(environ={"ASPEN_APPS_MY_SHOP__UNIT_PRICE": "2", "ASPEN_APPS_SHOP_UNIT_PRICE": "3"})
    assert config.apps == {"my_shop": {"unit_price": 2}, "shop": {"unit_price": 3}}


def test_settings_of_an_application_are_checked_against_its_defaults() -> None:
    known = {"workers": 4, "rate": 1.0, "path": "", "fast": False, "any": None}
    config = read_config(flags={"apps.x.workers": 8, "apps.x.rate": 2, "apps.x.any": [1]})
    assert check_settings("x", known, config) == {"workers": 8, "rate": 2.0, "any": [1]}
    assert isinstance(check_settings("x", known, config)["rate"], float)
    for key, value, word in [
        ("workres", 1, "did you mean 'workers'?"),
        ("workers", "8", "must be of type int"),
        ("workers", True, "must be of type int"),
        ("fast", 1, "must be of type bool"),
        ("path", 3, "must be of type str"),
    ]:
        with pytest.raises(ConfigError, match=word.replace("?", r"\?")) as caught:
            check_settings("x", known, read_config(flags={f"apps.x.{key}": value}))
        assert "the command line: apps.x." in str(caught.value)


def test_a_setting_on_the_command_line_is_a_toml_value_or_text() -> None:
    assert parse_setting("shop.rate=2.5") == ("apps.shop.rate", 2.5)
    assert parse_setting("shop.path=/tmp/a=b") == ("apps.shop.path", "/tmp/a=b")
    for wrong in ("shop", "shop.rate", "rate=1", "a.b.c=1"):
        with pytest.raises(ConfigError, match=r"APP\.SETTING=VALUE"):
            parse_setting(wrong)


def test_seeds_are_nodes_at_addresses() -> None:
    key = encode_node_id(bytes(SigningKey(b"s" * 32).verify_key))
    seed = f"{key}@tcp://10.0.0.1:4600"
    wanted = ((key, "tcp://10.0.0.1:4600"),)
    config = read_config(f'[cluster]\nseeds = ["{seed}"]')
    assert config.cluster_seeds == wanted
    assert config.as_dict()["cluster"]["seeds"] == [seed]
    assert read_config(environ={"ASPEN_CLUSTER_SEEDS": f"{seed}, "}).cluster_seeds == wanted
    for wrong in ("text", key, f"{key}@tcp://10.0.0.1", f"{key}@tcp://10.0.0.1:0", "key@tcp://10.0.0.1:1"):
        with pytest.raises(ConfigError, match="NODE_ID@tcp://HOST:PORT"):
            read_config(f'[cluster]\nseeds = ["{wrong}"]')
    with pytest.raises(ConfigError, match="up to 16"):
        read_config("[cluster]\nseeds = 5")


KEYS = [encode_node_id(bytes(SigningKey(letter * 32).verify_key)) for letter in (b"1", b"2")]


def test_a_node_that_has_joined_is_in_that_cluster_unless_told_otherwise() -> None:
    text = membership("shop", [(KEYS[0], "tcp://10.0.0.1:4600"), (KEYS[1], "tcp://10.0.0.2:4600")])
    joined = read_config().with_membership(text, "db.cluster")
    assert joined.cluster == "shop"
    assert joined.joined_seeds == ((KEYS[0], "tcp://10.0.0.1:4600"), (KEYS[1], "tcp://10.0.0.2:4600"))
    assert joined.sources["cluster.name"] == "db.cluster"
    told = read_config(f'[cluster]\nname = "shop"\nseeds = ["{KEYS[1]}@tcp://10.9.9.9:1"]')
    both = told.with_membership(text, "db.cluster")
    assert both.cluster_seeds == ((KEYS[1], "tcp://10.9.9.9:1"),)
    assert set(both.as_dict()["cluster"]["seeds"]) == {f"{KEYS[0]}@tcp://10.0.0.1:4600", f"{KEYS[1]}@tcp://10.9.9.9:1"}
    assert both.sources["cluster.name"] == "aspen.toml"
    elsewhere = read_config('[cluster]\nname = "bank"')
    assert elsewhere.with_membership(text, "db.cluster") == elsewhere


def test_where_others_reach_a_node_is_an_address_that_one_can_connect_to() -> None:
    config = read_config('[node]\nadvertise = "tcp://db1.example:0"\n[cluster]\nadvertise = "tcp://[fd00::1]:4600"')
    assert (config.advertise, config.cluster_advertise) == ("tcp://db1.example:0", "tcp://[fd00::1]:4600")
    for wrong, words in (
        ("db1:4600", "write tcp://HOST:PORT"),
        ("tcp://db1", "write tcp://HOST:PORT"),
        ("tcp://db1:70000", "write tcp://HOST:PORT"),
        ("tcp://x@db1:1", "write tcp://HOST:PORT"),
        ("tcp://" + "a" * 200 + ":1", "write tcp://HOST:PORT"),
        ("tcp://0.0.0.0:1", "nobody can connect to"),
        ("tcp://[::]:1", "nobody can connect to"),
        ("tcp://*:1", "nobody can connect to"),
    ):
        for section in ("node", "cluster"):
            with pytest.raises(ConfigError, match=f"{section}.advertise is .*{words}"):
                read_config(f'[{section}]\nadvertise = "{wrong}"')
