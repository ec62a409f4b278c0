"""The switch that follows the roles of models: what it does with news that comes while it settles."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scoring.models import Roles
from streams.control import Control
from streams.control_wire import ModelRoles
from streams.model_switch import ModelSwitch
from streams.settings import Settings
from tests.unit.consenting import told

ROUNDS_MAX = 20


class AtOnce:
    """In place of the compute thread: what it is given has run when the event loop comes by again."""

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class Held:
    """Models of which every version is held; ``on_play`` is called with the roles that they are given."""

    def __init__(self) -> None:
        self.roles, self.refused, self.live = Roles(), {}, SimpleNamespace(version="")
        self.on_play: Callable[[Roles], None] = lambda _: None

    def __contains__(self, version: str) -> bool:
        return True

    def play(self, roles: Roles) -> None:
        self.roles = roles
        self.on_play(roles)


class Counted(ModelSwitch):
    """Ends after `ROUNDS_MAX` rounds, lest a test of one that spins never ends."""

    rounds = 0

    @property
    def should_stop(self) -> bool:
        self.rounds += 1
        return self.rounds > ROUNDS_MAX


def test_roles_told_and_taken_while_others_are_settled_leave_the_event_loop_free() -> None:
    control, models = Control(), Held()
    failures: list[BaseException] = []

    def tell(number: int) -> None:
        roles = ModelRoles(shadow=f"m-{number:08x}", shadow_share=0.1)
        assert control.take([told(roles, control.next_offset)]) == 0

    async def follow() -> None:
        switch = Counted(Settings(home=Path()), control, models, AtOnce(), failures.append)
        await switch.on_start()
        models.on_play = lambda roles: tell(2) if roles.shadow == "m-00000001" else None
        tell(1)
        beats = 0
        while models.roles.shadow != "m-00000002" or beats < ROUNDS_MAX:
            await asyncio.sleep(0)
            beats += 1
        assert switch.rounds < ROUNDS_MAX
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(follow())
    assert not failures
