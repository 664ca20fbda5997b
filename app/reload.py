"""Models that are read anew while one process serves.

With several workers, ``app/server/master.py`` does this instead (docs/decisions/0026-reload.md).
"""

import asyncio
import logging

from starlette.datastructures import State

from app.hangup import current_hangup, do_nothing
from app.inference.evaluator import Evaluator
from app.inference.models import load_models, log_models

logger = logging.getLogger("fashionnet")


async def reload(state: State) -> None:
    """Serves the models that are now in the model folder if all of them pass the self-test; logs what it did.

    Requests that are being answered keep the models that they began with.
    """
    try:
        models = await asyncio.to_thread(load_models, state.settings)
        predictors = await asyncio.to_thread(state.predictors.with_models, models)  # makes engines that own threads
        await predictors.self_test()
    except Exception as error:  # noqa: BLE001 - whatever it is, the models before are good
        logger.error("The models stay as they are: %s", error)  # noqa: TRY400 - one line
        return
    predictors.show_in_metrics(state.predictors.values())
    state.models, state.predictors = models, predictors
    state.readiness.become_ready()  # the models before may have failed their self-test
    state.evaluator = Evaluator(state.evaluator.data_set)  # without the measurements of models that are gone
    log_models("the models were reloaded", models, state.settings)


async def reload_on_hangup(state: State) -> None:
    """Reloads the models on each SIGHUP, unless somebody else handles that."""
    hangup, loop, told = current_hangup(), asyncio.get_running_loop(), asyncio.Event()
    if hangup is None:
        return
    hangup.reload = lambda: loop.call_soon_threadsafe(told.set)
    try:
        while await told.wait():
            told.clear()
            await reload(state)
    finally:
        hangup.reload = do_nothing
