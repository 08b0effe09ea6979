"""Traffic on a PostgreSQL spool by whichever version of the code is on the path: accepts, claims and settles until its input ends.

Run as a program by test_migrating.py: URL and a name; prints a line for each round that delivered something, and at the end one JSON object.
"""

import asyncio
import json
import sys

from postroom_core.errors import Unavailable
from postroom_delivery.spool.model import EventDetail, Limits, NewMessage, NewRecipient, Settlement, State
from postroom_delivery.spool.postgres import open_postgres


def message(name: str, number: int) -> NewMessage:
    place = f"x{number % 5}.example"
    return NewMessage(
        id=f"{name}{number:05}",
        tenant="t",
        pool="p",
        domain="d.example",
        credential="u",
        reverse_path="a@d.example",
        recipients=(NewRecipient(f"b@{place}", place),),
        headers=b"From: a\r\n",
        body_size=4,
        eight_bit=False,
        received_at=0,
        expires_at=1 << 50,
    )


async def main(url: str, name: str) -> None:
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    accepted: list[str] = []
    delivered: list[str] = []
    refused: list[str] = []
    async with open_postgres(lambda: url, name, lambda _: Limits(5, None, 10)) as spool:
        quiet = 0
        while quiet < 20:
            try:
                if not ended.done():
                    new = message(name, len(accepted) + len(refused))
                    await spool.accept(new, (0, b"body"))
                    accepted.append(new.id)
                batches, _ = await spool.claim(0, 5, ())
            except Unavailable as error:  # told to the client as 451, and to the scheduler as a pause
                refused.append(str(error))
                continue
            for batch in batches:
                claims = [claim for found in batch.messages for claim in found.claims]
                await spool.doubt(claims)
                await spool.settle(0, [Settlement(claim, State.DELIVERED, EventDetail("delivered")) for claim in claims], ())
                await spool.release_slot(0, batch, 0)
                delivered += [found.id for found in batch.messages]
            if batches:
                print(len(delivered), flush=True)
            quiet = quiet + 1 if ended.done() and not batches else 0
            if ended.done() and not batches:
                await asyncio.sleep(0.01)
    print(json.dumps({"accepted": accepted, "delivered": delivered, "refused": refused}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
