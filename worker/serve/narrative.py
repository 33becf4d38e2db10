"""Route of the monthly narrative index."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Query, Response

from worker.narrative.index import NoArticlesError
from worker.serve.answers import ErrorAnswer, NarrativeAnswer
from worker.serve.filters import known_names
from worker.serve.state import ServeState

Month = Annotated[str | None, Query(pattern=r"^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])$", examples=["2015-01"])]

_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": ErrorAnswer, "description": "The last month lies before the first."},
    503: {"model": ErrorAnswer, "description": "Redis does not answer."},
}


def narrative_routes(state: ServeState) -> APIRouter:
    """``/v1/narrative``."""
    router = APIRouter(prefix="/v1", tags=["narrative"], dependencies=[Depends(known_names)])

    @router.get("/narrative", response_model=NarrativeAnswer, responses=_ERRORS)
    async def show_index(
        first: Annotated[
            Month, Query(alias="from", description="First month; else the first counted.")
        ] = None,
        last: Annotated[Month, Query(alias="to", description="Last month; else the last counted.")] = None,
    ) -> Response:
        """The monthly share of negative traffic narratives; no months where none has been counted."""

        async def encode() -> bytes:
            return NarrativeAnswer(months=await state.narrative.index(first, last)).model_dump_json().encode()

        try:
            body = await state.months.get((first, last), encode)
        except NoArticlesError as error:
            raise HTTPException(409, str(error)) from error
        return Response(body, media_type="application/json")

    return router
