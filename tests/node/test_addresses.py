"""Where others reach a node that is bound somewhere."""

from __future__ import annotations

import pytest

from aspen.errors import ConfigError
from aspen.io.interfaces import own_host
from aspen.node.addresses import advertised, host_of, is_loopback, is_wildcard, local

EVERY = "tcp://0.0.0.0:4600"


@pytest.mark.parametrize(
    ("bound", "wanted", "own", "told"),
    [
        ("tcp://10.0.0.1:4600", "", "10.7.7.7", "tcp://10.0.0.1:4600"),
        (EVERY, "", "10.7.7.7", "tcp://10.7.7.7:4600"),
        ("tcp://[::]:4600", "", "10.7.7.7", "tcp://10.7.7.7:4600"),
        (EVERY, "tcp://db1.example:0", None, "tcp://db1.example:4600"),
        (EVERY, "tcp://db1.example:14600", None, "tcp://db1.example:14600"),
        ("tcp://127.0.0.1:4600", "tcp://[fd00::1]:0", None, "tcp://[fd00::1]:4600"),
    ],
)
def test_what_others_are_told(bound: str, wanted: str, own: str | None, told: str) -> None:
    assert advertised(bound, wanted, lambda: own, "[cluster] advertise") == told


def test_without_a_default_route_one_has_to_say() -> None:
    with pytest.raises(ConfigError, match=r'no default route .*\[cluster\] advertise = "tcp://HOST:PORT"'):
        advertised(EVERY, "", lambda: None, "[cluster] advertise")


def test_kinds_of_addresses() -> None:
    assert [is_wildcard(address) for address in (EVERY, "tcp://*:1", "tcp://[::]:1", "tcp://10.0.0.1:1")] == [
        True,
        True,
        True,
        False,
    ]
    assert is_loopback("tcp://127.3.2.1:1")
    assert is_loopback("tcp://[::1]:1")
    assert not is_loopback("tcp://db1:1")
    assert host_of("tcp://[fd00::1]:4600") == "[fd00::1]"
    assert host_of("nonsense") == ""
    assert local(EVERY) == "tcp://127.0.0.1:4600"
    assert local("tcp://10.0.0.1:4600") == "tcp://10.0.0.1:4600"


def test_the_address_on_the_way_to_a_host() -> None:
    assert own_host("127.0.0.1") == "127.0.0.1"
    assert own_host("no such host, nor a name") is None
    found = own_host()
    assert found is None or found.count(".") == 3
