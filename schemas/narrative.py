"""The monthly index of negative traffic narratives, as readers get it."""

from pydantic import BaseModel, ConfigDict, Field


class NarrativeMonth(BaseModel):
    """One calendar month in Asia/Seoul; null where there is nothing to divide by."""

    model_config = ConfigDict(extra="ignore", frozen=True, from_attributes=True)

    month: str = Field(description="As 2024-07.", pattern=r"^\d{4}-\d{2}$")
    articles: int
    negatives: int = Field(description="Articles with label 1.")
    share: float | None = Field(description="Negatives of all articles, by the weights of the sources.")
    share_low: float | None = Field(description="Lower end of Wilson's 95 % interval of the share.")
    share_high: float | None = Field(description="Upper end.")
    mean_probability: float | None = Field(description="Mean probability of label 1.")
    standardised: float | None = Field(
        default=None,
        description="The share less the mean of the months before, in their standard deviations; "
        "null before twelve months with articles.",
    )
