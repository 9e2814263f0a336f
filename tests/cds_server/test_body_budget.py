"""Large bodies wait their turn: memory stays bounded, nobody is forgotten, nobody overtakes."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from cds_server.middleware import Budget


@given(st.lists(st.integers(1, 30), min_size=1, max_size=25), st.integers(1, 20))
def test_never_more_than_the_budget_is_held_and_all_get_their_turn_in_order(
    amounts: list[int], total: int
) -> None:
    async def run() -> None:
        budget, held, order, most = Budget(total), 0, [], []

        async def one(number: int, amount: int) -> None:
            nonlocal held
            await budget.acquire(amount)
            held += amount
            order.append(number)
            most.append((held, amount))
            await asyncio.sleep(0)
            held -= amount
            budget.release(amount)

        await asyncio.wait_for(asyncio.gather(*(one(i, a) for i, a in enumerate(amounts))), 5)
        assert order == list(range(len(amounts)))
        assert all(together <= total or together == alone for together, alone in most)

    asyncio.run(run())


async def test_who_goes_away_while_waiting_leaves_the_place_to_others() -> None:
    budget = Budget(10)
    await budget.acquire(10)
    gone = asyncio.create_task(budget.acquire(10))
    next_one = asyncio.create_task(budget.acquire(5))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    budget.release(10)
    await asyncio.wait_for(next_one, 1)
    budget.release(5)
    await asyncio.wait_for(budget.acquire(10), 1)
