"""The worker's models follow the control topic: got and tried beside the hot path, switched between two slices.

Until a model that is named has been tried and has vectors of every ad, all goes on with the roles as they were; then
one call on the compute thread changes them. One that does not pass is refused, and its role stays with the one before;
one that cannot be got for the moment is tried again, ever less often.
"""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import structlog
from mode import Service

from scoring.attention import AttentionModel, ModelError
from scoring.catalogue import learned_column
from scoring.models import Models, Roles
from streams.clock import wall_ms
from streams.compute import Compute
from streams.control import Control
from streams.control_wire import ControlMessage, ExperimentSetting, ModelRoles, PushedModel
from streams.experiments.registry import models_of
from streams.fatal import guarded
from streams.models.roles import roles_of, roles_told
from streams.models.store import FOLDER, MissingFilesError, obtain, remove_left
from streams.own_files import own_folder
from streams.settings import Settings

log = structlog.get_logger()

ADS_PER_CALL = 1_000
"""Encoded in one call of the encoder: some milliseconds of a core that is not the compute thread's."""
REASON_MAX = 512
PAUSE_S, PAUSE_S_MAX = 1.0, 60.0
"""Before a model that could not be got is tried again, the first time and at the most: a broker that starts anew takes
some seconds, and a trial a fifth of one."""


class ModelSwitch(Service):
    """Gives ``models`` the roles that ``control`` tells."""

    def __init__(
        self,
        settings: Settings,
        control: Control,
        models: Models,
        compute: Compute,
        fail: Callable[[BaseException], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``fail``: ends the process."""
        super().__init__()
        self._fail, self._sleep = fail, sleep
        self._settings, self._control, self._models, self._compute = settings, control, models, compute
        self._wanted = models.roles  # written on the compute thread alone
        self._settled: Roles | None = models.roles
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._missing: dict[str, PushedModel | None] = {}
        """What could not be got yet, and of which message the files were missing: only another mends that."""
        self._pause_s = PAUSE_S
        self._again: asyncio.Future[None] | None = None

    def _told(self, _name: str, message: ControlMessage | None) -> None:
        """On the compute thread: other roles may be wanted. Experiments change often, and their models seldom."""
        wanted = roles_of(roles_told(self._control), models_of(self._control.all(ExperimentSetting).values()))
        if isinstance(message, ExperimentSetting) and wanted == self._wanted:
            return
        self._wanted = wanted
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def on_start(self) -> None:
        """Take the roles as they are now, before anybody is scored."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(remove_left, self._settings.home, wall_ms())
        await self._compute.run(self._control.on, ModelRoles, self._told)
        await self._compute.run(self._control.on, ExperimentSetting, self._told)
        await self._settle()
        self.add_future(guarded("the switch of models", self._follow(), self._fail, lambda: self.should_stop))

    async def _follow(self) -> None:
        """Settle whenever there is news, some of which may be settled already: the compute thread tells beside it."""
        while not self.should_stop:
            await self._news.wait()
            self._news.clear()
            await self._settle()

    async def _settle(self) -> None:
        """Get what is wanted, as long as others are wanted meanwhile; then change roles."""
        while (roles := self._wanted) is not self._settled:
            if not await self._got(roles):
                continue
            await self._compute.run(self._models.play, roles)
            self._settled = roles
            self._missing = {version: told for version, told in self._missing.items() if version in roles.versions}
            log.info("models", live=self._models.live.version, canary=roles.canary, shadow=roles.shadow)
        if not self._missing:
            self._pause_s = PAUSE_S
        elif self._again is None or self._again.done():
            self._again = self.add_future(self._try_again(self._pause_s))
            self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)

    async def _got(self, roles: Roles) -> bool:
        """Get what ``roles`` name, or refuse it. False as soon as others are wanted: who takes a model back waits for
        none but the one that is being got, and that one is never heeded.
        """
        for version in roles.versions:
            if version in self._missing or (version not in self._models and version not in self._models.refused):
                await self._obtain(version)
            if self._wanted is not roles:
                return False
        return True

    async def _try_again(self, pause_s: float) -> None:
        """After a pause, settle as if roles were told anew."""
        await self._sleep(pause_s)
        self._settled = None
        self._news.set()

    async def _obtain(self, version: str) -> None:
        """Hold a model, or refuse it: whatever goes wrong with one that is new must not touch those at work.

        One whose files were missing is looked for once it has been pushed again: `models` may have gigabytes.
        """
        pushed = self._control.get(PushedModel, version)
        if pushed is not None and self._missing.get(version) == pushed:
            return
        try:
            model = await self._load(version)
            await self._encode(model)
            await self._compute.run(self._models.hold, model)
            self._missing.pop(version, None)
        except MissingFilesError as error:
            await self._not_yet(version, error, pushed)
        except ModelError as error:
            self._missing.pop(version, None)
            await self._without(version, str(error))
        except Exception as error:  # noqa: BLE001 - see above; a cancelled task is no such exception
            await self._not_yet(version, error)

    async def _not_yet(self, version: str, error: Exception, lacking: PushedModel | None = None) -> None:
        self._missing[version] = lacking
        why: object = error
        if isinstance(error, OSError) and FOLDER in str(error.filename):  # it has another name each time: no news
            why = f"{error.strerror}, in {self._settings.home}"
        await self._without(version, f"not got yet, and tried again: {type(error).__name__}: {why}")

    async def _without(self, version: str, reason: str) -> None:
        log.warning("model refused", model=version, reason=reason)
        await self._compute.run(self._refuse, version, reason[:REASON_MAX])

    def _refuse(self, version: str, reason: str) -> None:
        self._models.base.catalogue.detach(learned_column(version))
        self._models.refuse(version, reason)

    async def _load(self, version: str) -> AttentionModel:
        """From the topic, tried. Raises `ModelError`; where it is not there, which may be mended, `LookupError` or
        `MissingFilesError`.
        """
        pushed = self._control.get(PushedModel, version)
        if pushed is None:
            raise LookupError(f"{version} is not on the control topic; push it: salience model push DIR")
        own_folder(self._settings.home)
        return await obtain(self._settings, pushed, self._settings.home)

    async def _encode(self, model: AttentionModel) -> None:
        """Give the catalogue the model's vectors, some ads at a time. Raises `ModelError`."""
        catalogue, column, again = self._models.base.catalogue, learned_column(model.version), "train it again"
        await self._compute.run(catalogue.attach, column, model.encode, model.dim)
        for start in range(0, len(catalogue), ADS_PER_CALL):
            tokens, dense, revisions = await self._compute.run(catalogue.told, start, start + ADS_PER_CALL)
            try:
                vectors = await asyncio.to_thread(model.encode, tokens, dense)
            except Exception as error:  # onnxruntime's errors share no base class of their own
                raise ModelError(f"{model.version} does not encode an ad: {error}", "that it does", again) from error
            if not np.isfinite(vectors).all():
                raise ModelError(f"{model.version}: vectors of ads are no numbers", "numbers", again)
            await self._compute.run(catalogue.encoded, column, start, vectors, revisions)
