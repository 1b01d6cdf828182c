"""The rules of applications, over several seeds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from trees import Script, Slow, Trapper, assert_no_orphans, make, settle, worker, workers

from aspen import Ignore, Shutdown, StartFailed, Stop, UsageError
from aspen.actor import make_ref
from aspen.errors import AlreadyRegistered
from aspen.otp import Actor, Application, Applications, child, kill, stop
from aspen.otp.application import order_of
from aspen.otp.starting import start_in
from aspen.otp.tree import resolve, supervisor_of, tree
from aspen.sim import World
from aspen.types import KILLED, NORMAL, SHUTDOWN


@pytest.fixture(params=range(3))
def world(request):
    with World(seed=request.param) as world:
        yield world


@pytest.fixture
def script(system):
    return Script(system)


async def boot(system, on_ended=None):
    ref = await start_in(system, child(Applications, on_ended), None, "/")
    system.root = ref._p
    return ref


def app(script: Script, name: str, *dependencies: type[Application], **attributes: Any) -> type[Application]:
    """An application with one worker of its name, which logs its callbacks."""

    def start(self, env):
        script.log.append(f"start {name} {dict(env)}" if env else f"start {name}")
        return child(make([worker(script, f"{name}_w", Trapper)]))

    def prep_stop(self):
        script.log.append(f"prep_stop {name}")

    async def after(self):
        await asyncio.sleep(0.01)
        script.log.append(f"stop {name}")

    methods = {"start": start, "prep_stop": prep_stop, "stop": after}
    return type(name, (Application,), {"name": name, "dependencies": dependencies, **methods, **attributes})


def words(script: Script) -> list[str]:
    return [word for word in script.take() if word[0] not in "+~-"]


def test_dependencies_start_before_and_stop_after(world, system, script):
    async def main():
        apps = await boot(system)
        base = app(script, "base")
        left, right = app(script, "left", base), app(script, "right", base)
        shop = app(script, "shop", left, right)
        assert await apps.start_application(shop) == ["base", "left", "right", "shop"]
        assert words(script) == ["start base", "start left", "start right", "start shop"]
        assert await apps.start_application(shop) == []
        assert [info.name for info in await apps.which_applications()] == ["base", "left", "right", "shop"]
        assert [node.id for node in tree(system).children] == ["base", "left", "right", "shop"]
        assert resolve(system, "/shop/shop_w").path == "/shop/shop_w"
        assert_no_orphans(system)
        with pytest.raises(UsageError, match="stop left and right first, which need base"):
            await apps.stop_application("base")
        with pytest.raises(UsageError, match="'nobody' is not running; these are: base, left, right, shop"):
            await apps.stop_application("nobody")
        await apps.stop_application("shop")
        assert script.take() == [
            "prep_stop shop",
            "~shop_w:shutdown",
            "-shop_w:shutdown",
            "-shop:shutdown",
            "stop shop",
        ]
        await stop(apps)
        assert words(script) == [
            f"{what} {name}" for name in ("right", "left", "base") for what in ("prep_stop", "stop")
        ]
        assert not system.table

    world.run(main())


def test_a_circle_of_dependencies_is_named(script, system):
    a = app(script, "a")
    b = app(script, "b", a)
    c = app(script, "c", b)
    a.dependencies = (c,)
    with pytest.raises(UsageError, match="circle: b -> a -> c -> b"):
        order_of(b)


def test_env_has_defaults_and_refuses_what_it_does_not_know(world, system, script):
    async def main():
        apps = await boot(system)
        base = app(script, "base", env={"size": 1})
        shop = app(script, "shop", base, env={"currency": "EUR", "rate": 1})
        await apps.start_application(shop, {"rate": 2}, "permanent", {"base": {"size": 5}})
        assert words(script) == ["start base {'size': 5}", "start shop {'currency': 'EUR', 'rate': 2}"]
        await apps.stop_application("shop")
        with pytest.raises(UsageError, match="shop has no setting 'ratte'; it has: currency, rate"):
            await apps.start_application(shop, {"ratte": 2})
        assert [info.name for info in await apps.which_applications()] == ["base"]

    world.run(main())


def broken(exception: BaseException):
    def start(self, env):
        raise exception

    return start


def test_a_start_that_fails_stops_what_was_started_for_it(world, system, script):
    async def main():
        apps = await boot(system)
        kept, base = app(script, "kept"), app(script, "base")
        await apps.start_application(kept)
        script.take()
        for start, error, text in [
            (broken(RuntimeError("no")), StartFailed, "application shop did not start: RuntimeError: no"),
            (broken(UsageError("set a rate")), UsageError, "set a rate"),
            (lambda self, env: "nonsense", UsageError, r"shop.start\(\) returned 'nonsense'; return child"),
            (lambda self, env: child(make([worker(script, "bad", Slow)])), StartFailed, "told to fail in init"),
        ]:
            script.fail["bad.init"] = 1
            shop = app(script, "shop", kept, base, start=start)
            with pytest.raises(error, match=text):
                await apps.start_application(shop)
            assert words(script) == ["start base", "prep_stop base", "stop base"]
            assert [info.name for info in await apps.which_applications()] == ["kept"]
            assert_no_orphans(system)
        with pytest.raises(UsageError, match="must define start"):
            await apps.start_application(type("Empty", (Application,), {}))

        class Unwilling(Actor):
            def __init__(self) -> None:
                raise Ignore

        with pytest.raises(Ignore):
            await apps.start_application(app(script, "shop", start=lambda self, env: child(Unwilling)))
        system.register("taken", resolve(system, "/kept/kept_w"))
        named = app(script, "shop", start=lambda self, env: child(make([])).opts(name="taken"))
        with pytest.raises(AlreadyRegistered, match="taken"):
            await apps.start_application(named)
        assert apps._p.alive

    world.run(main())


def test_two_applications_of_one_name_are_refused(world, system, script):
    async def main():
        apps = await boot(system)
        await apps.start_application(app(script, "shop"))
        with pytest.raises(UsageError, match="'shop' runs already"):
            await apps.start_application(app(script, "shop"))

    world.run(main())


def test_names_are_identifiers_and_default_to_the_class(script, system):
    class WebShop(Application):
        pass

    assert WebShop.name == "webshop"
    with pytest.raises(UsageError, match="identifier"):
        type("Bad", (Application,), {"name": "a/b"})


@pytest.mark.parametrize("kind", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, Shutdown("done"), "odd", "kill"], ids=str)
def test_kinds_say_what_the_end_of_an_application_means(world, system, script, kind, reason):
    async def main():
        ended = []
        apps = await boot(system, lambda name, reason: ended.append((name, reason)))
        await apps.start_application(app(script, "shop"), None, kind)
        script.take()
        process = resolve(system, "/shop")
        if reason == "kill":
            kill(make_ref(process))
        else:
            await stop(make_ref(process), reason)
        await settle(0.1)
        assert words(script) == ["stop shop"]
        assert await apps.which_applications() == []
        benign = reason in (NORMAL, SHUTDOWN) or isinstance(reason, Shutdown)
        told = kind == "permanent" or (kind == "transient" and not benign)
        assert ended == ([("shop", KILLED if reason == "kill" else reason)] if told else [])
        assert list(system.table) == [apps._p.serial]

    world.run(main())


def test_stopping_an_application_is_not_its_end(world, system, script):
    async def main():
        ended = []
        apps = await boot(system, lambda name, reason: ended.append(name))
        await apps.start_application(app(script, "shop"))
        await apps.stop_application("shop")
        await apps.start_application(app(script, "shop"))
        await stop(apps)
        assert not ended

    world.run(main())


def test_callbacks_that_raise_are_reported_and_keep_nobody_from_ending(world, system, script):
    async def main():
        def oops(self):
            raise RuntimeError("oops")

        apps = await boot(system)
        base = app(script, "base")
        await apps.start_application(app(script, "shop", base, prep_stop=oops, stop=oops))
        await stop(apps)
        assert words(script) == ["start base", "start shop", "prep_stop base", "stop base"]
        assert [report for report in script.reports if "shop" in report] == ["callback_failed shop"] * 2
        assert not system.table

    world.run(main())


def test_an_operator_restarts_a_whole_application(world, system, script):
    async def main():
        ended = []
        apps = await boot(system, lambda name, reason: ended.append(name))
        await apps.start_application(app(script, "shop"))
        above, id = supervisor_of(system, "/shop")
        script.take()
        assert await above.restart_subtree(id) == ["shop"]
        assert script.take() == ["~shop_w:shutdown", "-shop_w:shutdown", "-shop:shutdown", "+shop_w"]
        assert tree(system, "/shop").restarts == 1
        script.fail["shop_w"] = 1
        with pytest.raises(StartFailed):
            await above.restart_subtree(id)
        assert tree(system, "/shop").status == "stopped"
        assert not ended
        assert await above.restart_subtree(id) == ["shop"]
        with pytest.raises(UsageError, match="not running"):
            await above.restart_subtree("nobody")

    world.run(main())


@pytest.mark.parametrize("moment", ["idle", "starting", "stopping"])
def test_kill_of_the_applications_leaves_no_orphan(world, system, script, moment):
    async def main():
        apps = await boot(system)
        base = app(script, "base")
        slow = app(script, "slow", base, start=lambda self, env: child(make(workers(script, "s", Slow))))
        if moment == "starting":
            script.start_s["s"] = 100.0
        operation = asyncio.ensure_future(apps.start_application(slow))
        await settle(0.5)
        if moment == "stopping":
            script.stop_s["base_w"] = 3.0
            await apps.stop_application("slow")
            apps.stop_application("base")
            await settle(0.5)
        system.crashes.clear()
        kill(apps)
        await settle(10.0)
        if moment == "starting":
            assert operation.exception() is not None
        assert not system.table
        assert {report.reason for report in system.crashes} <= {"killed"}  # told by the link, as in OTP

    world.run(main())


def test_arguments_refuses_words_unless_it_is_defined():
    class Plain(Application):
        pass

    class Choosy(Application):
        env = {"path": "."}

        @classmethod
        def arguments(cls, argv):
            return {"path": argv[0]}

        async def main(self, env):
            return 3

    assert Plain.arguments([]) == {}
    assert Plain.main is None
    with pytest.raises(UsageError, match="application plain takes no arguments, but got '--fast'"):
        Plain.arguments(["--fast"])
    assert Choosy.arguments(["x"]) == {"path": "x"}
    assert callable(Choosy.main)


def test_stop_raised_in_an_application_s_start_is_a_start_that_failed(world, system, script):
    async def main():
        apps = await boot(system)

        class Bails(Actor):
            async def init(self) -> None:
                raise Stop("bail out")

        with pytest.raises(StartFailed, match="bail out"):
            await apps.start_application(app(script, "shop", start=lambda self, env: child(Bails)))
        assert apps._p.alive

    world.run(main())
