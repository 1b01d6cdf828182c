"""What is encoded comes back: equal, and of the same types all the way down."""

from __future__ import annotations

import enum
import math
from dataclasses import InitVar, dataclass, field
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aspen.errors
from aspen.errors import ActorFailed, AlreadyRegistered, BadFrame, NotEncodable, UsageError
from aspen.limits import FRAME_BYTES_MAX, WIRE_DEPTH_MAX
from aspen.types import CrashReport, Down, Pid, Shutdown
from aspen.wire import (
    RemoteError,
    copy,
    decode,
    encode,
    message,
    register,
    register_custom,
    remote_traceback,
    type_id_of,
)
from aspen.wire.scan import BIGINT_BYTES_MAX


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@message
class Deposit:
    account: str
    cents: int = 0
    extra: object = None


@message(type_id="tests.wire:empty")
class Empty:
    pass


@message(kw_only=True)
class Keyword:
    first: int
    second: int = 2


@dataclass(frozen=True)
class Derived:
    """Not registered: encoding it is enough within one process. `twice` is computed, not sent."""

    n: int
    twice: int = field(init=False)

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("n is negative")
        object.__setattr__(self, "twice", 2 * self.n)


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**300), 2**300)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.sampled_from([*Colour, *Level, *Access, Access.READ | Access.WRITE, Access(0)])
    | st.builds(Pid, st.text(), st.integers(), st.integers())
    | st.just(Empty())
)
hashable = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3) | st.builds(Shutdown, inner)
    ),
    max_leaves=6,
)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.builds(Deposit, st.text(), st.integers(), inner)
        | st.builds(Keyword, first=st.integers(), second=st.integers())
        | st.builds(Derived, st.integers(0))
    ),
    max_leaves=20,
)


def shape(value: object) -> object:
    """The value with its types, so that 1, 1.0 and True differ and no container hides another."""
    if isinstance(value, (list, tuple)):
        return type(value), [shape(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(shape(item)) for item in value)
    if isinstance(value, dict):
        return dict, {repr(shape(key)): shape(item) for key, item in value.items()}
    if isinstance(value, Deposit):
        return Deposit, value.account, value.cents, shape(value.extra)
    if isinstance(value, Shutdown):
        return Shutdown, shape(value.term)
    return type(value), repr(value)


@given(values)
def test_values_come_back_with_their_types(value: object) -> None:
    data = encode(value)
    assert shape(decode(data)) == shape(value)


@given(st.recursive(atoms.filter(lambda v: type(v) in (int, float, str, bytes, bool, type(None))), st.lists))
def test_plain_data_is_ordinary_cbor(value: object) -> None:
    assert cbor2.loads(encode(value)) == value


def test_atoms_at_their_edges() -> None:
    edges = [23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, 2**64, -(2**64), -(2**64) - 1]
    edges += [-edge for edge in edges] + [256**BIGINT_BYTES_MAX - 1, -(256**BIGINT_BYTES_MAX)]
    texts = ["x" * size for size in (0, 23, 24, 255, 256, 65536)]
    for value in (
        *edges,
        *texts,
        *map(str.encode, texts),
        -0.0,
        math.inf,
        5e-324,
        b"",
        [],
        (),
        {},
        set(),
        frozenset(),
    ):
        assert repr(decode(encode(value))) == repr(value)
    assert math.isnan(decode(encode(math.nan)))  # type: ignore[arg-type]


def test_memory_views_and_bytearrays_are_read() -> None:
    data = encode(Deposit("ana", 5))
    assert decode(memoryview(data)) == decode(bytearray(data)) == Deposit("ana", 5)


def test_own_records_are_registered() -> None:
    pid = Pid("n", 1, 2)
    report = CrashReport(1, pid, "/a", "m:C", "r", "m", "s", ("/",), "t")
    for value in (Down(1, pid, Shutdown("x")), report):
        assert copy(value) == value
    assert type_id_of(Pid) == "aspen.types:Pid"


def test_copy_makes_new_containers() -> None:
    inner: list[int] = []
    copied = copy({"a": inner})
    inner.append(1)
    assert copied == {"a": []}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Deposit("a", 1, [0, {"k": (1, object())}]), "Deposit.extra[1]['k'][1]: a object cannot"),
        ({(1, 2): 1j}, "dict[(1, 2)]: a complex cannot"),
        ({(1, 2j): 1}, "dict key (1, 2j)[1]: a complex cannot"),
        ([{1, 2j}], "list[0]{...}: a complex cannot"),
        ([lambda: 0], "list[0]: a function cannot"),
        ("\ud800", "lone surrogates"),
        ({"\ud800": 1}, "lone surrogates"),
        ([256**BIGINT_BYTES_MAX], "list[0]: an integer of 1025 bytes"),
        ([b"x" * (FRAME_BYTES_MAX + 1)], "more than 4194304 bytes"),
        ([[]] * (FRAME_BYTES_MAX // 4), "more than 1048576 items"),
        ({n * (2**61 - 1) for n in range(400)}, "hash that is not new"),
        ({n * (2**61 - 1): 0 for n in range(400)}, "hash that is not new"),
    ],
)
def test_refusals_name_the_place(value: object, expected: str) -> None:
    with pytest.raises(NotEncodable) as refusal:
        encode(value)
    assert expected in str(refusal.value)


def test_subclasses_of_plain_types_are_refused_rather_than_changed() -> None:
    class Text(str):
        pass

    class Plain(Deposit):
        pass

    @dataclass
    class Thawed:
        n: int

    for value in (Text("x"), Plain("a"), Thawed(1)):
        with pytest.raises(NotEncodable):
            encode([value])
    with pytest.raises(NotEncodable, match="frozen=True"):
        encode(Thawed(1))


def test_cycles_and_shared_structure_end() -> None:
    cycle: list[object] = []
    cycle.extend([cycle, cycle])
    with pytest.raises(NotEncodable, match="contains itself"):
        encode(cycle)
    shared: object = "x" * 100
    for _ in range(50):
        shared = [shared, shared]
    with pytest.raises(NotEncodable, match="more than"):
        encode(shared)


def nest(wrap: Any, levels: int) -> object:
    value: object = 0
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    ("wrap", "cost"),
    [
        (lambda v: [v], 1),
        (lambda v: {"k": v}, 1),
        (lambda v: (v,), 2),
        (lambda v: {1: v}, 2),
        (lambda v: frozenset({v}), 2),
        (Shutdown, 2),
    ],
)
def test_both_sides_agree_on_the_depth(wrap: Any, cost: int) -> None:
    deepest = nest(wrap, WIRE_DEPTH_MAX // cost)
    assert decode(encode(deepest)) == deepest
    with pytest.raises(NotEncodable, match="levels"):
        encode(wrap(deepest))


# -- registration ---------------------------------------------------------------------------


class Token:
    def __init__(self, n: int) -> None:
        self.n = n


class SubToken(Token):
    pass


def read_token(fields: Any) -> Token:
    (n,) = fields
    if type(n) is not int:
        raise ValueError("n is an int")
    return Token(n)


def test_custom_types_stand_for_their_subclasses() -> None:
    with pytest.raises(NotEncodable):
        encode(Token(1))
    register_custom(Token, "tests.wire:Token", lambda token: (token.n,), read_token)
    for token in (Token(3), SubToken(3)):
        back = copy([token])[0]
        assert type(back) is Token and back.n == 3
    bad = encode(Token("x"))  # type: ignore[arg-type]
    with pytest.raises(BadFrame, match="n is an int"):
        decode(bad)


def test_a_custom_base_may_come_after_its_subclass_was_met() -> None:
    class Base(Exception):
        pass

    class Child(Base):
        pass

    assert type(copy(Child("x"))) is Child
    register_custom(Base, "tests.wire:Base", lambda error: (), lambda fields: Base("custom"))
    assert copy(Child("x")).args == ("custom",)


def test_what_cannot_be_registered_is_named() -> None:
    @dataclass(frozen=True)
    class WithInitVar:
        n: InitVar[int]

    for cls in (WithInitVar, Token, int):
        with pytest.raises(UsageError, match=cls.__qualname__.rsplit(".", 1)[-1]):
            register(cls)
    with pytest.raises(UsageError, match="belongs to"):
        register(Colour, "tests.wire:empty")
    with pytest.raises(UsageError, match="not a class"):
        register(Empty())  # type: ignore[arg-type]
    for bad in ("", "x" * 300, "aspen:error"):
        with pytest.raises(UsageError, match="characters"):
            register(Empty, bad)


def test_a_class_loaded_again_takes_over() -> None:
    def load() -> type[Any]:
        @message
        class Reloaded:
            n: int

        return Reloaded

    old, new = load(), load()
    assert type(decode(encode(old(1)))) is new


def test_fields_may_refuse_their_values() -> None:
    good = encode(Derived(5))
    assert decode(good) == Derived(5)
    with pytest.raises(BadFrame, match="negative"):
        decode(good.replace(b"\x05", b"\x24"))


# -- exceptions -----------------------------------------------------------------------------


class Custom(ValueError):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code, self.hint = code, hint


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_exceptions_keep_class_arguments_attributes_notes_and_cause() -> None:
    error = raised(Custom(7, hint="try"), raised(KeyError("k")))
    error.add_note("noted")
    back = copy(copy(error))
    assert type(back) is Custom and str(back) == "code 7"
    assert (back.code, back.hint, back.__notes__[0]) == (7, "try", "noted")
    assert type(back.__cause__) is KeyError and back.__cause__.args == ("k",)
    assert "raise error from cause" in remote_traceback(back)
    assert remote_traceback(copy(back)) == remote_traceback(back)
    assert len(back.__notes__) == 2


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "none", "file.txt"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        ImportError("gone", name="gone"),
        ExceptionGroup("both", [ValueError(1), Custom(1, hint="h")]),
        StopIteration(3),
        KeyError("k"),
        ActorFailed("failed", Shutdown("x")),
        AlreadyRegistered("taken", holder=Pid("n", 1, 2)),
        RemoteError("m:C", "text", "trace"),
    ],
)
def test_exceptions_come_back_as_they_were(error: Exception) -> None:
    back = copy(error)
    assert type(back) is type(error) and str(back) == str(error)
    for name in ("filename", "errno", "reason", "holder", "name", "value", "type_name", "remote_traceback"):
        if hasattr(error, name):
            assert getattr(back, name) == getattr(error, name)


def test_unknown_and_fatal_exceptions_become_remote_errors() -> None:
    class Elsewhere(Exception):
        pass

    data = encode(raised(Elsewhere("text"))).replace(b"Elsewhere", b"Elsewhen!")
    back = decode(data)
    assert isinstance(back, RemoteError)
    assert back.type_name.endswith("Elsewhen!") and back.message == "text" and "raise error" in back.remote_traceback
    assert isinstance(copy(back), RemoteError) and copy(back).type_name == back.type_name
    assert isinstance(copy(KeyboardInterrupt()), RemoteError)


def test_a_long_chain_of_causes_ends_as_text() -> None:
    error = raised(ValueError("link 0"))
    for n in range(1, 12):
        error = raised(ValueError(f"link {n}"), error)
    back: BaseException | None = copy(error)
    links = []
    while back is not None:
        links.append(back)
        back = back.__cause__
    assert [str(link) for link in links[:3]] == ["link 11", "link 10", "link 9"]
    assert isinstance(links[-1], RemoteError) and links[-1].message == "link 5"
    assert "link 0" in links[-1].remote_traceback


def test_an_exception_is_always_encodable() -> None:
    class Awkward(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

        __repr__ = __str__

    looped = ValueError()
    looped.__cause__ = looped
    looped.args = (looped, [looped])
    looped.me = looped  # type: ignore[attr-defined]
    surrogate = ValueError("\ud800", object(), "x" * 10_000_000)
    surrogate.add_note("\ud800" * 10_000)
    for error in (
        Awkward(),
        looped,
        surrogate,
        BaseExceptionGroup("many", [raised(ValueError(n)) for n in range(1000)]),
    ):
        assert isinstance(copy(error), Exception)


def test_every_error_of_aspen_is_registered() -> None:
    from aspen.wire.remote import exceptions

    for cls in vars(aspen.errors).values():
        if isinstance(cls, type) and issubclass(cls, Exception):
            assert exceptions[f"aspen.errors:{cls.__name__}"] is cls


@pytest.mark.parametrize("bad", [("\ud800",), (object(),), ((object(),),), ("a", 1, lambda: None)])
def test_a_copy_of_a_few_plain_values_is_as_strict_as_any(bad: tuple[object, ...]) -> None:
    with pytest.raises(NotEncodable):
        copy(bad)
    plain = ("a", 1, b"x", None, True, 1.5, -(1 << 62), 1 << 80)
    assert copy(plain) == decode(encode(plain)) == plain
