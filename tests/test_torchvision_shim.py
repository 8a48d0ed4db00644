"""torchvision beside a torch that its operators were not compiled for."""

import subprocess
import sys

import pytest

SHIM = "from crosswatch.features.weights.torchvision_shim import ensure_torchvision"
MISFIT = "operator torchvision::"


def run(code: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: what was imported cannot be taken back."""
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def misfit() -> bool:
    """Whether this torchvision cannot be imported by itself."""
    alone = run("import torchvision")
    assert alone.returncode == 0 or MISFIT in alone.stderr, alone.stderr
    return alone.returncode != 0


def test_models_can_be_imported_and_work(misfit: bool) -> None:
    code = f"""
{SHIM}
own = ensure_torchvision()
import torch, torchvision, open_clip, timm
from torchvision.transforms import v2
assert own == torchvision.extension._has_ops()
assert own == ensure_torchvision() == ensure_torchvision()
vision = dict(image_size=16, layers=1, width=16, head_width=16, patch_size=8)
text = dict(context_length=4, vocab_size=8, width=8, heads=1, layers=1)
model = open_clip.CLIP(4, vision, text).eval()
assert model.encode_image(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
assert v2.functional.resize(torch.zeros(3, 8, 8), [4, 4], antialias=True).shape == (3, 4, 4)
print(own)
"""
    ran = run(code)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(not misfit)]


def test_an_import_that_failed_before_does_no_harm() -> None:
    code = f"""
try:
    import torchvision
except RuntimeError:
    pass
{SHIM}
ensure_torchvision()
import torchvision.ops, open_clip
"""
    ran = run(code)
    assert ran.returncode == 0, ran.stderr


def test_threads_may_ask_at_once() -> None:
    code = f"""
from concurrent.futures import ThreadPoolExecutor
{SHIM}
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(lambda _: ensure_torchvision(), range(32)))
import torchvision
assert set(answers) == {{torchvision.extension._has_ops()}}, answers
"""
    ran = run(code)
    assert ran.returncode == 0, ran.stderr


def test_a_torchvision_that_works_is_left_alone() -> None:
    """Also one that fails for another reason: that is not hidden."""
    code = f"""
import sys, types
{SHIM}
from crosswatch.features.weights import torchvision_shim
whole = types.ModuleType("torchvision")
whole.extension = types.SimpleNamespace(_has_ops=lambda: True)
sys.modules["torchvision"] = whole
assert ensure_torchvision()
assert sys.modules["torchvision"] is whole and not torchvision_shim._declared

def broken():
    raise RuntimeError("out of memory")
whole.extension._has_ops = broken
try:
    ensure_torchvision()
except RuntimeError as error:
    assert "out of memory" in str(error)
else:
    raise AssertionError("hidden")
assert "torch" not in sys.modules
"""
    ran = run(code)
    assert ran.returncode == 0, ran.stderr
