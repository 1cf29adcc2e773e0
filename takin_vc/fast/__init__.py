"""Fast inference: `accelerate` prepares a model for a GPU. Nothing else here is public.

    from takin_vc.fast import accelerate

The module behind it is imported when the name is first used, so that `takin_vc.model` may import
from this package.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from takin_vc.fast.model import accelerate

__all__ = ["accelerate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from takin_vc.fast import model

    return getattr(model, name)
