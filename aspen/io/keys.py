"""A node's identity and the keys that it trusts, as files.

    ~/.config/aspen/            $ASPEN_CONFIG_DIR, or --config-dir
        NAME.key    mode 0600   an Ed25519 seed; whoever can read it is this node
        trusted                 who may connect: see `aspen.trust`

Files are replaced as a whole, so that a crash leaves the old one or the new one.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nacl.bindings import (
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_seed_keypair,
    crypto_sign_SEEDBYTES,
    randombytes,
)

from aspen.errors import ConfigError
from aspen.trust import TRUST_ENTRIES_MAX, Role, TrustEntry, TrustFile, curve_public_z85, encode_node_id, z85_encode

log = logging.getLogger("aspen.keys")

TRUSTED_NAME: Final = "trusted"
USER_NAME: Final = "user"
"""The key of the person whose configuration directory this is. No node has this name."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_KEY_HEADER: Final = "aspen-key-1"
_KEY_FILE_BYTES_MAX: Final = 1_000
_TRUSTED_FILE_BYTES_MAX: Final = TRUST_ENTRIES_MAX * 400


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node, or a person at the command line, is. Its repr shows nothing secret."""

    node_id: str
    """The Ed25519 public key, as `aspen.trust` writes it."""
    curve_public_z85: str
    curve_secret_z85: str = field(repr=False)
    seed: bytes = field(repr=False)
    """32 bytes, from which all of it derives."""

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a seed of 32 bytes."""
        public, secret = crypto_sign_seed_keypair(seed)
        node_id = encode_node_id(public)
        curve_secret = z85_encode(crypto_sign_ed25519_sk_to_curve25519(secret))
        return cls(node_id, curve_public_z85(node_id), curve_secret, seed)


def new_secret() -> bytes:
    """32 random bytes that nobody can guess: a seed, or a secret CURVE key."""
    return randombytes(crypto_sign_SEEDBYTES)


def random_bits(bits: int) -> int:
    """So many random bits, which nobody can predict."""
    count = (bits + 7) // 8
    return int.from_bytes(randombytes(count), "big") >> (8 * count - bits)


def config_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`$ASPEN_CONFIG_DIR`, or `$XDG_CONFIG_HOME/aspen`, or `~/.config/aspen`. It need not exist.

    Raises:
        ConfigError: there is no home directory either, as for a user id without an entry in a container.
    """
    variables = os.environ if environ is None else environ
    if chosen := variables.get("ASPEN_CONFIG_DIR"):
        return Path(chosen).expanduser()
    if base := variables.get("XDG_CONFIG_HOME"):
        return Path(base) / "aspen"
    try:
        return Path("~/.config/aspen").expanduser()
    except RuntimeError:
        raise ConfigError("this user has no home directory; set ASPEN_CONFIG_DIR, or give --config-dir") from None


def load_or_create_identity(directory: Path, name: str) -> Identity:
    """The identity of a node in `<name>.key`, made when there is none. Two processes that race get the same.

    Raises:
        ConfigError: the file or its directory cannot be used or is open to others; says what to do.
    """
    path = _key_path(directory, name)
    if name == USER_NAME:
        raise ConfigError(f"a node cannot be named {name!r}: {path} is the key of a person; choose another --name")
    _prepare_directory(directory)
    if not path.exists():
        _write_key(path, new_secret())
    return load_identity(directory, name)


def load_identity(directory: Path, name: str) -> Identity:
    """The identity in `<name>.key`.

    Raises:
        ConfigError: there is none, or it cannot be used or is open to others; says what to do.
    """
    path = _key_path(directory, name)
    text = _read(path, _KEY_FILE_BYTES_MAX, forbidden=0o077, remedy="chmod 600")
    if text is None:
        raise ConfigError(f"{path} does not exist; `aspen keys show` makes a key")
    header, _, body = text.strip().partition(" ")
    try:
        if header != _KEY_HEADER:
            raise ValueError
        seed = base64.b32decode(body.upper() + "====")
        if len(seed) != crypto_sign_SEEDBYTES:
            raise ValueError
    except (ValueError, binascii.Error):
        raise ConfigError(
            f"{path} is not an Aspen key ({_KEY_HEADER} and 52 characters); restore it from a backup, or "
            "move it away to get a new identity, which others must then trust anew"
        ) from None
    return Identity.from_seed(seed)


def load_trusted(directory: Path) -> TrustFile:
    """The keys that the `trusted` file lists; none when there is no file.

    Raises:
        ConfigError: the file cannot be read, others may write it, or a line is wrong.
    """
    path = directory / TRUSTED_NAME
    text = _read(path, _TRUSTED_FILE_BYTES_MAX, forbidden=0o022, remedy="chmod go-w")
    return TrustFile() if text is None else TrustFile.parse(text, str(path))


def save_trusted(directory: Path, trusted: TrustFile) -> None:
    """Replaces the `trusted` file.

    Raises:
        ConfigError: it cannot be written.
    """
    _prepare_directory(directory)
    _write(directory / TRUSTED_NAME, trusted.format(), replace=True)


def _key_path(directory: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r:.80} cannot name a key: use up to 64 letters, digits and . _ @ -")
    return directory / f"{name}.key"


def _write_key(path: Path, seed: bytes) -> None:
    text = f"{_KEY_HEADER} {base64.b32encode(seed).decode().rstrip('=').lower()}\n"
    _write(path, text, replace=False)


def _prepare_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = directory.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{directory} cannot be used: {error.strerror}; choose another --config-dir") from None
    if mode & 0o022:
        raise ConfigError(f"others may write to {directory}; close it: chmod 700 {directory}")


def _read(path: Path, size_bytes_max: int, forbidden: int, remedy: str) -> str | None:
    """None when there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; {remedy} {path}, as its owner") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is not a file; move it away")
        if status.st_mode & forbidden:
            raise ConfigError(f"others have access to {path}; close it: {remedy} {path}")
        if status.st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"{path} belongs to another user; chown {os.geteuid()} {path}")
        data = os.read(descriptor, size_bytes_max + 1)
    finally:
        os.close(descriptor)
    if len(data) > size_bytes_max:
        raise ConfigError(f"{path} has more than {size_bytes_max} bytes; is it the right file?")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text; is it the right file?") from None


def _write(path: Path, text: str, *, replace: bool) -> None:
    """Writes a file of mode 0600 that is there entirely or not at all. Without `replace` an existing
    one stays, even one that appeared just now."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            if replace:
                os.replace(temporary, path)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another --config-dir") from None


# -- people -------------------------------------------------------------------------------------------------


def load_or_create_user(directory: Path) -> Identity:
    """The identity of the person at the command line, made on first use and then trusted as `admin` by the
    nodes that share this directory: whoever can write here could put the key there anyway.

    Raises:
        ConfigError: as `load_or_create_identity`.
    """
    path = _key_path(directory, USER_NAME)
    if path.exists():
        return load_identity(directory, USER_NAME)
    _prepare_directory(directory)
    with _trusted_locked(directory):
        if not path.exists():
            seed = randombytes(crypto_sign_SEEDBYTES)
            entry = TrustEntry(Identity.from_seed(seed).node_id, Role.ADMIN, "this user")
            # Trusted first: an end in between leaves a key in the file that nobody holds, and not a user whom no node
            # trusts. Who finds the key file without having waited for the lock is trusted as well.
            save_trusted(directory, load_trusted(directory).with_entry(entry))
            _write_key(path, seed)
    return load_identity(directory, USER_NAME)


def update_trusted(directory: Path, change: Callable[[TrustFile], TrustFile]) -> TrustFile:
    """Replaces the `trusted` file by what `change` makes of it, one process at a time; returns the new content.

    Raises:
        ConfigError: it cannot be read or written, or what `change` raises.
    """
    _prepare_directory(directory)
    with _trusted_locked(directory):
        trusted = change(load_trusted(directory))
        save_trusted(directory, trusted)
        return trusted


@contextlib.contextmanager
def _trusted_locked(directory: Path) -> Iterator[None]:
    """While its context is open, no other process changes the `trusted` file."""
    try:
        lock = os.open(directory / f".{TRUSTED_NAME}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be used: {error.strerror}; choose another --config-dir") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


_LOOK_EVERY_NS: Final = 1_000_000
"""Between two looks at a file: a look costs as much as the rest of what is done for a frame of a peer."""


class TrustedKeys:
    """The `trusted` file of a directory as it is now: a change on disk counts a millisecond later.

    A file that cannot be read or has a wrong line trusts nobody; the log says why.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = str(directory / TRUSTED_NAME)
        """As text: it is looked at for each frame of a peer."""
        self._looked_ns = 0
        self._trusted = load_trusted(directory)
        self._stamp = self._stamp_now()

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return (status.st_ino, status.st_mtime_ns, status.st_size)

    def is_node(self, node_id: str) -> bool:
        """Whether that node is trusted as one."""
        self._look()
        entry = self._trusted.find(node_id)
        return entry is not None and entry.role is Role.NODE

    def role_of(self, node_id: str) -> Role | None:
        """What that key may do; None: nothing."""
        self._look()
        entry = self._trusted.find(node_id)
        return None if entry is None else entry.role

    def authorize(self, curve_key_z85: str) -> TrustEntry | None:
        """The entry of the key with which a connection has proved itself; None: refuse it."""
        self._look()
        return self._trusted.authorize(curve_key_z85)

    def _look(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns < _LOOK_EVERY_NS:
            return
        self._looked_ns = now_ns
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._trusted = load_trusted(self._directory)
            except ConfigError as error:
                log.error("nobody is trusted until this is mended: %s", error)
                self._trusted = TrustFile()
