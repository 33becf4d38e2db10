"""The model that the settings of a pipeline name; here, since the inference room knows no settings."""

from typing import TYPE_CHECKING

from worker.settings import ModelSettings

if TYPE_CHECKING:
    from worker.inference.config import HeadSet
    from worker.inference.load import Model


def load_configured(settings: ModelSettings, head_set: "HeadSet") -> "Model":
    """`worker.inference.load.load_model` as ``settings`` have it; raises the same."""
    from worker.inference.load import load_model

    return load_model(
        settings.ref,
        head_set=head_set,
        revision=settings.revision,
        tokeniser_revision=settings.tokeniser_revision,
        precision=settings.precision,
        device=settings.device,
        threads=settings.threads,
        offline=settings.offline,
        cuda_graphs=settings.cuda_graphs,
    )
