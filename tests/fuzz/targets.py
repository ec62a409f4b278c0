"""Every target, by name."""

from tests.fuzz.messages import MESSAGES
from tests.fuzz.models import MODELS
from tests.fuzz.state import STATE
from tests.fuzz.web import WEB

TARGETS = {target.name: target for target in (*MESSAGES, *STATE, *MODELS, *WEB)}
