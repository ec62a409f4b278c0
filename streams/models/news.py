"""What a lane tells the control topic of models that have roles: whether it uses them, and how they fare.

Each lane tells it in the transaction of a slice: when a role or a refusal changes, and as outcomes come in, less and
less often, so that a model costs a lane about a hundred records in its life.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from scoring.evidence import Evidence
from scoring.feedback import ClickLayer
from scoring.models import Models, number_of
from streams.control_wire import ModelStatus
from streams.wire import ShadowScore

WORKER_MAX, REASON_MAX = 256, 512
"""Characters of a status; the rest is cut off: nobody reads more, and errors of onnxruntime have no bound."""
OUTCOMES_MORE = 20
"""New outcomes that make a status due; once there are more than 400 in all, a twentieth of those."""


@dataclass(slots=True)
class Differences:
    """How far a shadow's chances of a click are from those that decided, over all candidates."""

    candidates: int = 0
    total: float = 0.0
    largest: float = 0.0

    def add(self, score: ShadowScore) -> None:
        """Add the shadow's scores of one person."""
        self.candidates += score.candidates
        self.total += score.candidates * score.mean_difference
        self.largest = max(self.largest, score.largest_difference)


@dataclass(slots=True)
class ModelNews:
    """The news of one lane. ``revision``: of the models, when it last told; ``told``: outcomes in each last status."""

    revision: int = 0
    told: dict[str, int] = field(default_factory=dict)
    differences: dict[str, Differences] = field(default_factory=dict)

    def differ(self, scores: Iterable[ShadowScore]) -> None:
        """Add what shadows said."""
        for score in scores:
            self.differences.setdefault(score.shadow, Differences()).add(score)

    def waits(self, models: Models) -> bool:
        """Whether there is news that must not wait for an event."""
        return self.revision != models.revision

    def tell(self, lane: int, models: Models, layer: ClickLayer, worker: str, time_ms: int) -> list[ModelStatus]:
        """The statuses that are due now."""
        changed = self.waits(models)
        if changed:
            self.revision = models.revision
            self.told = {version: count for version, count in self.told.items() if version in models.roles.versions}
            self.differences = {v: each for v, each in self.differences.items() if v in models.roles.versions}
        out = []
        for version in models.roles.versions:
            learner = layer.learners.get(number_of(version))
            evidence = learner.evidence if learner is not None else Evidence()
            told = self.told.get(version, 0)
            if changed or evidence.outcomes - told >= max(OUTCOMES_MORE, told // 20):
                self.told[version] = evidence.outcomes
                out.append(self._status(lane, version, models, evidence, worker, time_ms))
        return out

    def _status(
        self, lane: int, version: str, models: Models, evidence: Evidence, worker: str, time_ms: int
    ) -> ModelStatus:
        apart = self.differences.get(version, Differences())
        return ModelStatus(
            lane=lane,
            model=version,
            worker=worker[:WORKER_MAX],
            refused=models.refused.get(version, "")[:REASON_MAX],
            **{name: getattr(evidence, name) for name in Evidence.__slots__},
            candidates=apart.candidates,
            difference=apart.total,
            largest_difference=apart.largest,
            time_ms=time_ms,
        )
