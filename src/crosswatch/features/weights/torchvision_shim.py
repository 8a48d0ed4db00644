"""Lets torchvision be imported whose compiled operators do not fit the installed torch.

The wheel of torchvision on PyPI is linked against CUDA. Beside a torch for CPUs its library cannot
be loaded, which torchvision tolerates, until it describes two operators of that library and fails:
"operator torchvision::nms does not exist". open_clip, timm and most models of transformers then
cannot be imported either, though none of them needs those operators here. It is enough that the
operators have signatures. Calling one (torchvision.ops.nms, roi_align, io.decode_jpeg) still fails.
"""

import importlib
import sys
import threading
from typing import Any

SIGNATURES = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""What torchvision describes without looking whether it is there; another version, other names."""

_lock = threading.Lock()
_declared: list[Any] = []  # a torch.library.Library that is let go takes its operators along


def ensure_torchvision() -> bool:
    """Import torchvision; in every process before what imports it by itself (open_clip, timm,
    models of transformers).

    Returns:
        Whether it has its compiled operators.
    """
    with _lock:
        try:
            return _imported()
        except RuntimeError as error:
            lacks_operators = "operator torchvision::" in str(error)
            if not lacks_operators or _declared:
                raise
        _forget_half_imported()
        _declare()
        return _imported()


def _imported() -> bool:
    torchvision = importlib.import_module("torchvision")
    return bool(torchvision.extension._has_ops())


def _forget_half_imported() -> None:
    for name in list(sys.modules):
        if name == "torchvision" or name.startswith("torchvision."):
            del sys.modules[name]


def _declare() -> None:
    untyped: Any = importlib.import_module("torch.library")
    library = untyped.Library("torchvision", "FRAGMENT")
    for signature in SIGNATURES:
        library.define(signature)
    _declared.append(library)
