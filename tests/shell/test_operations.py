"""What each operation does, on actors in whatever condition."""

from __future__ import annotations

from typing import Any

import pytest

from aspen.errors import NoSuchChild


def test_info_tree_status_and_state(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            assert (await client.request("info"))["name"] == "shop@db1"
            tree = await client.request("tree")
            assert [kid["path"] for kid in tree["children"]] == ["/bank", "/shell"]
            bank = await client.request("tree", path="/bank")
            assert [(kid["id"], kid["status"]) for kid in bank["children"]] == [
                ("gateway", "running"),
                ("ana", "running"),
                ("pool", "running"),
            ]
            assert (await client.request("status", path="/bank/ana"))["path"] == "/bank/ana"
            state = await client.request("state", path="/bank/ana")
            assert state["state"] == {"owner": "'ana'", "cents": "500"}
            assert (await client.request("top", limit=3))[0]["queue"] == 0
            with pytest.raises(NoSuchChild, match="gateway, ana, pool"):
                await client.request("state", path="/bank/bob")

    shop.run(main)
