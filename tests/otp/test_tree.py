"""The tree as data."""

from __future__ import annotations

import asyncio

import pytest
from trees import Script, Slow, Trapper, make, settle, top, worker

from aspen import NoSuchChild, UsageError
from aspen.actor import make_ref
from aspen.otp import DynamicSupervisor, child, kill, sys
from aspen.otp.starting import start_in
from aspen.otp.tree import resolve, supervisor_of, tree
from aspen.sim import World


@pytest.fixture(params=range(3))
def world(request):
    with World(seed=request.param) as world:
        yield world


@pytest.fixture
def script(system):
    return Script(system)


async def grow(system, script):
    inner = child(make([worker(script, "x", Trapper), worker(script, "y", name="why")], strategy="one_for_all"))
    crowd = child(DynamicSupervisor).opts(id="crowd")
    root = make([inner.opts(id="inner"), crowd, worker(script, "a")])
    ref = await start_in(system, child(root), None, "/")
    system.root = ref._p
    return ref


def test_tree_shows_every_place(world, system, script):
    async def main():
        root = await grow(system, script)
        await make_ref(resolve(system, "/crowd")).start_child(worker(script, "w"))
        node = tree(system)
        assert (node.path, node.type, node.status) == ("/", "supervisor", "running")
        assert [(below.path, below.type) for below in node.children] == [
            ("/inner", "supervisor"),
            ("/crowd", "supervisor"),
            ("/a", "worker"),
        ]
        assert [below.path for below in node.children[1].children] == ["/crowd/w-1"]
        assert tree(system, "/inner").children[0].kind == "trees:Trapper"
        assert tree(system, "/inner/x").pid == str(resolve(system, "/inner/x").pid)
        await root.terminate_child("a")
        assert [(below.id, below.status, below.pid) for below in tree(system).children][2] == ("a", "stopped", "")

    world.run(main())


def test_tree_tells_what_a_stuck_a_flooded_and_a_suspended_actor_do(world, system, script):
    async def main():
        await grow(system, script)
        x, a = (make_ref(resolve(system, path)) for path in ("/inner/x", "/a"))
        x.never()
        for _ in range(3):
            x.ping()
        await sys.suspend(a)
        for _ in range(100):
            a.ping()
        await settle()
        assert (tree(system, "/inner/x").status, tree(system, "/inner/x").handler) == ("waiting", "never")
        assert tree(system, "/inner/x").queue == 3
        assert (tree(system, "/a").status, tree(system, "/a").queue) == ("suspended", 100)

    world.run(main())


def test_tree_shows_what_restarts_starts_and_ends(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a", Slow)], backoff=(1.0, 1.0)))
        make_ref(resolve(system, "/a")).crash()
        await settle(0.1)
        assert tree(system, "/a").status == "restarting"
        script.start_s["a"] = 5.0
        await settle(1.0)
        assert tree(system, "/a").status == "starting"
        await settle(5.0)
        assert (tree(system, "/a").status, tree(system, "/a").restarts) == ("running", 1)
        kill(sup)
        await settle()
        assert (tree(system).status, tree(system).children) == ("stopped", ())

    world.run(main())


def test_resolve_takes_paths_pids_and_names_and_says_what_there_is(world, system, script):
    async def main():
        root = await grow(system, script)
        x = resolve(system, "/inner/x")
        assert resolve(system, str(x.pid)) is x
        assert resolve(system, "/inner//x/") is x
        assert resolve(system, "why") is resolve(system, "/inner/y")
        assert resolve(system, "/") is root._p
        await make_ref(resolve(system, "/inner")).terminate_child("x")
        for path, text in [
            ("/inner/z", "no 'z' below /inner; there is: x, y"),
            ("/a/b", "there is: nothing"),
            ("/inner/x", "/inner/x is stopped, not running"),
            ("<test.1.999>", "no actor <test.1.999> runs"),
            (f"<other.1.{x.serial}>", "no actor <other"),
            (f"<test.7.{root._p.serial}>", "no actor <test.7"),
            ("<test.1.x>", "no actor"),
            ("nobody", "no actor has the name 'nobody'"),
        ]:
            with pytest.raises(NoSuchChild, match=text):
                resolve(system, path)

    world.run(main())


def test_supervisor_of(world, system, script):
    async def main():
        root = await grow(system, script)
        above, id = supervisor_of(system, "/inner/x")
        assert (above._p, id) == (resolve(system, "/inner"), "x")
        assert supervisor_of(system, "/inner") == (root, "inner")
        with pytest.raises(UsageError, match="the root has no supervisor"):
            supervisor_of(system, "/")

    world.run(main())


def test_without_a_root_there_is_no_tree(world, system):
    async def main():
        with pytest.raises(NoSuchChild, match="no supervision tree"):
            tree(system)
        await asyncio.sleep(0)

    world.run(main())
