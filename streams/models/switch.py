"""The worker's models follow the control topic: fetched and tried beside the hot path, switched between two slices.

The roles stay as they were until each model named has been tried and has a vector of every ad; then one call on the
compute thread changes them. A model that does not pass is refused, and its role stays with the model before. One that
cannot be fetched for the moment is tried again, less and less often.
"""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import structlog
from mode import Service

from scoring.attention import AttentionModel
from scoring.catalogue import learned_column
from scoring.manifest import ModelError
from scoring.models import Models, Roles
from streams.clock import wall_ms
from streams.compute import Compute
from streams.control import Control
from streams.control_wire import ControlMessage, ExperimentSetting, ModelRoles, PushedModel
from streams.experiments.registry import models_of
from streams.fatal import guarded
from streams.models.roles import roles_of, roles_told
from streams.models.store import FOLDER, MissingFilesError, obtain, remove_left
from streams.models.trial import TrialServer
from streams.own_files import own_folder
from streams.settings import Settings

log = structlog.get_logger()

ADS_PER_CALL = 1_000
"""Ads encoded in one call: some milliseconds on another core than the compute thread's."""
REASON_MAX = 512
PAUSE_S, PAUSE_S_MAX = 1.0, 60.0
"""First and longest pause before a model that could not be fetched is tried again: a restart of a broker takes some
seconds, a trial a tenth of a second."""


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
        self._trials = TrialServer(settings)
        self._wanted = models.roles  # written on the compute thread alone
        self._settled: Roles | None = models.roles
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._missing: dict[str, PushedModel | None] = {}
        """Models not fetched yet. The value is the message whose files were missing, if they were: only another message
        mends that."""
        self._pause_s = PAUSE_S
        self._again: asyncio.Future[None] | None = None

    def _told(self, _name: str, message: ControlMessage | None) -> None:
        """Learn which roles are wanted, on the compute thread. Experiments change often, but their models seldom do."""
        wanted = roles_of(roles_told(self._control), models_of(self._control.all(ExperimentSetting).values()))
        if isinstance(message, ExperimentSetting) and wanted == self._wanted:
            return
        self._wanted = wanted
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def on_start(self) -> None:
        """Take the present roles, before anybody is scored."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(remove_left, self._settings.home, wall_ms())
        await self._compute.run(self._control.on, ModelRoles, self._told)
        await self._compute.run(self._control.on, ExperimentSetting, self._told)
        await self._settle()
        self.add_future(guarded("the switch of models", self._follow(), self._fail, lambda: self.should_stop))

    async def on_started(self) -> None:
        """Have the imports of trials done before a model comes."""
        await self._trials.begin()

    async def on_shutdown(self) -> None:
        """End the process of trials, once nothing waits for one."""
        await self._trials.close()

    async def _follow(self) -> None:
        """Settle whenever there is news. Some may be settled already, since the compute thread sets it meanwhile."""
        while not self.should_stop:
            await self._news.wait()
            self._news.clear()
            await self._settle()

    async def _settle(self) -> None:
        """Fetch the wanted models, anew if other roles are wanted meanwhile; then change roles."""
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
        """Fetch or refuse each model that ``roles`` name. False as soon as other roles are wanted: so taking a model
        back waits at most for the one that is being fetched, and that one gets no role.
        """
        for version in roles.versions:
            if version in self._missing or (version not in self._models and version not in self._models.refused):
                await self._obtain(version)
            if self._wanted is not roles:
                return False
        return True

    async def _try_again(self, pause_s: float) -> None:
        """After a pause, settle as if the roles had just changed."""
        await self._sleep(pause_s)
        self._settled = None
        self._news.set()

    async def _obtain(self, version: str) -> None:
        """Hold a model, or refuse it: no failure of a new model may touch those at work.

        A model whose files were missing is fetched only once it has been pushed again: `models` may have gigabytes.
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
        if isinstance(error, OSError) and FOLDER in str(error.filename):  # a random name, which would look like news
            why = f"{error.strerror}, in {self._settings.home}"
        await self._without(version, f"not got yet, and tried again: {type(error).__name__}: {why}")

    async def _without(self, version: str, reason: str) -> None:
        log.warning("model refused", model=version, reason=reason)
        await self._compute.run(self._refuse, version, reason[:REASON_MAX])

    def _refuse(self, version: str, reason: str) -> None:
        self._models.base.catalogue.detach(learned_column(version))
        self._models.refuse(version, reason)

    async def _load(self, version: str) -> AttentionModel:
        """A model from the topic, tried. Raises `ModelError`; where it is not there, which a push mends, `LookupError`
        or `MissingFilesError`.
        """
        pushed = self._control.get(PushedModel, version)
        if pushed is None:
            raise LookupError(f"{version} is not on the control topic; push it: salience model push DIR")
        own_folder(self._settings.home)
        return await obtain(self._settings, pushed, self._trials, self._settings.home)

    async def _encode(self, model: AttentionModel) -> None:
        """Give the catalogue the model's vectors, `ADS_PER_CALL` ads at a time. Raises `ModelError`."""
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
