"""Large pictures to small ones of one shape, whatever their pixel format."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crosswatch.features.pictures.histograms import CELLS

Bytes = npt.NDArray[np.uint8]
LEAST_PX = 32  # shorter side: enough for four cells and for the patches of optical flow


class Thumbnails:
    """Shrinks the pictures of one video.

    A picture is a decoded frame, or an RGB array (H, W, 3); it becomes uint8 (h, w), brightness
    from 0 to 255, or RGB (h, w, 3), of the given size (width, height) or as `fitted` says.
    """

    def __init__(
        self,
        form: Literal["gray", "rgb24"],
        *,
        longer_px: int = 0,
        size: tuple[int, int] | None = None,
    ) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._form = form
        self._longer_px = longer_px
        self._size = size
        self._reformatter = VideoReformatter()
        self._exactly = (
            Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
        )

    def __call__(self, picture: Any) -> Bytes:
        if isinstance(picture, np.ndarray):
            return self._shown(picture)
        width, height = self._size or fitted(picture.width, picture.height, self._longer_px)
        small = self._reformatter.reformat(
            picture,
            width=width,
            height=height,
            format=self._form,
            interpolation=self._exactly,
            threads=1,
        )
        return np.array(small.to_ndarray(), np.uint8)  # a copy: it may be the decoder's memory

    def _shown(self, picture: Bytes) -> Bytes:
        import cv2

        size = self._size or fitted(picture.shape[1], picture.shape[0], self._longer_px)
        picture = np.ascontiguousarray(picture)
        if self._form == "gray":
            picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
        return resized(picture, size)


def fitted(width: int, height: int, longer_px: int) -> tuple[int, int]:
    """Width and height with about this longer side, so that cells of them and their half are equal.

    Either side is off by at most CELLS; pictures narrower than a quarter of their length are
    squeezed along it.
    """
    step = 2 * CELLS
    scale = longer_px / max(width, height)
    across, down = (max(LEAST_PX, step * round(side * scale / step)) for side in (width, height))
    return across, down


def resized(picture: Bytes, size: tuple[int, int]) -> Bytes:
    """To (width, height): means of areas where that is smaller, else interpolated."""
    import cv2

    smaller = size[0] <= picture.shape[1] and size[1] <= picture.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
