"""The parts that can be exchanged: a line in a table makes it the value of a setting (docs/extending.md).

A line names it as `module:name`, so that this module imports none of them. A setting, typed or stored, selects
a line and can name no other code.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ConfigError

ENVIRONMENTS = {"CarRacing-v3": "worldmodels.envs.car_racing:SPEC"}
"""Values of `env`; see `envs.base.EnvSpec`."""
CONTROLLERS = {"layers": "worldmodels.networks.controllers:Layers"}
"""Values of `controller.network`; see `networks.controllers.Controller`."""
STRATEGIES = {
    "cma-es": "worldmodels.control.cma_es:CmaEs",
    "openai-es": "worldmodels.control.openai_es:OpenAiEs",
}
"""Values of `controller.strategy`; see `control.evolution.Strategy`."""


def load(table: Mapping[str, str], name: str) -> Any:
    """Return the part of that name. Raise ConfigError, with the known names, if the table has none."""
    try:
        module, _, attribute = table[known(table)(name)].partition(":")
    except ValueError as error:
        raise ConfigError(str(error), next="wm config") from None
    return getattr(importlib.import_module(module), attribute)


def known(table: Mapping[str, str]) -> Callable[[str], str]:
    """Return a check of names: it returns a name of the table, and raises ValueError for another one."""

    def check(name: str) -> str:
        if name not in table:
            raise ValueError(f"there is no {name[:100]!r}; known: {', '.join(table)}")
        return name

    return check
