"""Identities and trust files: made once, kept private, and refused with a remedy."""

from __future__ import annotations

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq
import zmq.utils.z85
from hypothesis import given
from hypothesis import strategies as st

from aspen.errors import ConfigError
from aspen.io import keys
from aspen.io.keys import (
    Identity,
    config_dir,
    load_identity,
    load_or_create_identity,
    load_or_create_user,
    load_trusted,
    save_trusted,
)
from aspen.trust import (
    Role,
    TrustEntry,
    TrustFile,
    curve_public_z85,
    decode_node_id,
    encode_node_id,
    z85_decode,
    z85_encode,
)

ANA, BEN = Identity.from_seed(b"a" * 32), Identity.from_seed(b"b" * 32)


def test_an_identity_derives_from_its_seed() -> None:
    assert Identity.from_seed(b"a" * 32) == ANA
    assert zmq.curve_public(ANA.curve_secret_z85.encode()).decode() == ANA.curve_public_z85
    assert curve_public_z85(ANA.node_id) == ANA.curve_public_z85
    assert len(ANA.node_id) == 52
    assert ANA.curve_secret_z85 not in repr(ANA) and "seed" not in repr(ANA)


@given(st.binary(min_size=32, max_size=32))
def test_text_forms_round_trip(key: bytes) -> None:
    assert z85_decode(z85_encode(key)) == key
    assert z85_encode(key) == zmq.utils.z85.encode(key).decode()
    assert decode_node_id(encode_node_id(key)) == decode_node_id(encode_node_id(key).upper()) == key


@pytest.mark.parametrize("text", ["abc", "~~~~~", "#####", "é0000"])
def test_z85_refuses_other_text(text: str) -> None:
    with pytest.raises(ValueError, match="z85"):
        z85_decode(text)


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "config"
    made = load_or_create_identity(directory, "shop@db1")
    assert load_or_create_identity(directory, "shop@db1") == load_identity(directory, "shop@db1") == made
    assert load_or_create_identity(directory, "other") != made
    assert stat.S_IMODE((directory / "shop@db1.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert sorted(path.name for path in directory.iterdir()) == ["other.key", "shop@db1.key"]


def test_a_race_has_one_winner(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: load_or_create_identity(tmp_path, "n"), range(32)))
    assert len({identity.node_id for identity in made}) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create_identity(tmp_path, "n")
    path = tmp_path / "n.key"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=re.escape(f"chmod 600 {path}")):
        load_or_create_identity(tmp_path, "n")


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    with pytest.raises(ConfigError, match=f"chmod 700 {tmp_path}"):
        load_or_create_identity(tmp_path, "n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"aspen-key-1 short\n",
        b"aspen-key-2 " + b"a" * 52,
        b"aspen-key-1 !" + b"a" * 51,
        b"\xff\xfe",
        b"a" * 2000,
    ],
)
def test_a_malformed_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "n.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"n\.key") as refusal:
        load_or_create_identity(tmp_path, "n")
    assert path.read_bytes() == content
    assert not content or content[:8].decode("latin1") not in str(refusal.value).replace("aspen-key-1", "")


def test_what_is_not_a_readable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.key").mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="not a file"):
        load_identity(tmp_path, "n")
    os.mkfifo(tmp_path / "fifo.key", 0o600)
    with pytest.raises(ConfigError, match="not a file"):
        load_identity(tmp_path, "fifo")
    with pytest.raises(ConfigError, match="does not exist"):
        load_identity(tmp_path, "absent")
    (tmp_path / "plain").touch()
    with pytest.raises(ConfigError, match="--config-dir"):
        load_or_create_identity(tmp_path / "plain", "n")


@pytest.mark.parametrize("name", ["", "../n", "a/b", ".hidden", "x" * 65, "a\n"])
def test_a_name_cannot_leave_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a key"):
        load_or_create_identity(tmp_path, name)


def test_config_dir() -> None:
    assert config_dir({"ASPEN_CONFIG_DIR": "/x", "XDG_CONFIG_HOME": "/y"}) == Path("/x")
    assert config_dir({"XDG_CONFIG_HOME": "/y"}) == Path("/y/aspen")
    assert config_dir({}) == Path("~/.config/aspen").expanduser()


# -- the trust file -------------------------------------------------------------------------

TEXT = f"""# who may connect

{ANA.node_id}  operator   Ana, laptop
{BEN.node_id.upper()} node
"""


def test_a_trust_file_is_read() -> None:
    trusted = TrustFile.parse(TEXT)
    assert trusted.entries == (
        TrustEntry(ANA.node_id, Role.OPERATOR, "Ana, laptop"),
        TrustEntry(BEN.node_id, Role.NODE),
    )
    assert trusted.authorize(ANA.curve_public_z85) == trusted.entries[0] == trusted.find(ANA.node_id)
    assert trusted.authorize("x" * 40) is None
    assert TrustFile().authorize(ANA.curve_public_z85) is None


def test_a_trust_file_is_edited_and_its_comments_stay() -> None:
    trusted = TrustFile.parse(TEXT)
    promoted = trusted.with_entry(TrustEntry(ANA.node_id, Role.ADMIN, "Ana"))
    assert promoted.format().splitlines()[:3] == ["# who may connect", "", f"{ANA.node_id} admin Ana"]
    assert promoted.without(ANA.node_id).authorize(ANA.curve_public_z85) is None
    assert trusted.without(ANA.node_id).with_entry(trusted.entries[0]).entries == trusted.entries[::-1]
    assert TrustFile.parse(promoted.format()).entries == promoted.entries
    for label in ("two\nlines", "x" * 200):
        with pytest.raises(ConfigError, match="label"):
            trusted.with_entry(TrustEntry(ANA.node_id, Role.ADMIN, label))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("abc node x", "52 characters"),
        ("!" * 52 + " node", "a-z and 2-7"),
        (ANA.node_id[:-1] + "b node", "last character|not a key"),
        (encode_node_id(bytes(32)) + " node", "no one can hold it"),
        (encode_node_id(b"\x01" + bytes(31)) + " node", "no one can hold it"),
        (BEN.node_id, "the role is missing"),
        (BEN.node_id + " king", "the roles are node, operator, admin, client, joiner"),
        (BEN.node_id + " node a\x07b", "printable"),
        (ANA.node_id + " node", "the same key as in line 3"),
        (BEN.node_id + " node " + "x" * 2000, "longer than"),
    ],
)
def test_errors_name_file_and_line(line: str, reason: str) -> None:
    text = "# comment\n\n" + f"{ANA.node_id} node\n" + line + "\n"
    with pytest.raises(ConfigError, match=reason) as refusal:
        TrustFile.parse(text, "/etc/trusted")
    assert str(refusal.value).startswith("/etc/trusted:4: ")


def test_the_trusted_file(tmp_path: Path) -> None:
    assert load_trusted(tmp_path).entries == ()
    trusted = TrustFile.parse(TEXT)
    save_trusted(tmp_path, trusted)
    assert load_trusted(tmp_path).entries == trusted.entries
    path = tmp_path / "trusted"
    path.chmod(0o644)
    assert load_trusted(tmp_path).entries == trusted.entries
    path.chmod(0o664)
    with pytest.raises(ConfigError, match=f"chmod go-w {path}"):
        load_trusted(tmp_path)
    path.chmod(0o600)
    path.write_text("nonsense\n")
    with pytest.raises(ConfigError, match=f"{path}:1: "):
        load_trusted(tmp_path)


def test_users_who_race_are_one_and_trusted(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        users = set(pool.map(lambda _: load_or_create_user(tmp_path).node_id, range(8)))
    assert [entry.node_id for entry in load_trusted(tmp_path).entries] == list(users)


def test_a_crash_while_the_user_is_made_leaves_nobody_untrusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = keys._write
    for fails_at in (0, 1):
        written = []

        def crashing(path: Path, text: str, *, replace: bool) -> None:
            if len(written) == fails_at:  # noqa: B023 -- called within the loop
                raise KeyboardInterrupt
            written.append(path)  # noqa: B023 -- called within the loop
            write(path, text, replace=replace)

        monkeypatch.setattr(keys, "_write", crashing)
        with pytest.raises(KeyboardInterrupt):
            load_or_create_user(tmp_path)
        monkeypatch.undo()
        user = load_or_create_user(tmp_path)
        assert load_trusted(tmp_path).find(user.node_id) is not None
        (tmp_path / "user.key").unlink()


def test_a_key_that_its_user_no_longer_trusts_stays_out(tmp_path: Path) -> None:
    user = load_or_create_user(tmp_path)
    save_trusted(tmp_path, load_trusted(tmp_path).without(user.node_id))
    assert load_or_create_user(tmp_path) == user
    assert not load_trusted(tmp_path).entries


def test_no_node_has_the_key_of_a_person(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose another --name"):
        load_or_create_identity(tmp_path, "user")


def test_without_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(ConfigError, match="ASPEN_CONFIG_DIR"):
        config_dir({})
