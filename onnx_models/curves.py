"""Learning curves as a picture: the training loss, and the validation's log loss and AUC, epoch by epoch."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from onnx_models.training import TrainResult


def curves(result: TrainResult) -> bytes:
    """The picture, a PNG."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = range(1, len(result.epochs) + 1)
    loss, auc = figure.subplots(1, 2)
    loss.plot(range(1, len(result.losses) + 1), result.losses, "o--", color="grey", label="training, all tasks")
    loss.plot(epochs, [each.log_loss for each in result.epochs], "o-", label="validation, clicks")
    loss.set_ylabel("loss, nats")
    loss.legend()
    auc.plot(epochs, [each.auc for each in result.epochs], "o-")
    auc.set_ylabel("validation AUC")
    for axes in (loss, auc):
        axes.set_xlabel("epoch")
        axes.set_xticks(list(epochs))
        axes.grid(visible=True, alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    return out.getvalue()
