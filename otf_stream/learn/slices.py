"""What the deblurring network is shown of axial slices: two restorations that need no learning, as two channels.

First the slices deconvolved along z, which it corrects, then the slices interpolated linearly, which are blurred but
free of ringing and of amplified noise. In the two together the network can see how wide the blur is and how far apart
the planes lie, so that it need be taught neither anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from otf_stream.optics.deconvolution import deconvolved

CHANNELS = 2
"""Of a slice as the network sees it."""


def shown(imaging: Tensor, interpolation: Tensor, planes: Tensor) -> Tensor:
    """Turn the lines of axial slices that planes see into slices as the network sees them.

    Parameters
    ----------
    imaging
        From voxels to planes, ``(z, z')`` or one a slice, ``(n, z, z')``.
    interpolation
        From planes to voxels, ``(z', z)`` or ``(n, z', z)``.
    planes
        ``(n, z, x)``, above the background, without haze.

    Returns
    -------
    Tensor
        ``(n, CHANNELS, z', x)``: deconvolved, then interpolated.
    """
    return torch.stack([deconvolved(imaging, interpolation, planes), interpolation @ planes], dim=1)
