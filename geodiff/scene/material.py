# SPDX-License-Identifier: Apache-2.0
"""How a surface answers to light."""

from collections.abc import Callable
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.saving import Saved
from geodiff.scene.light import check_reflection
from geodiff.validation import common_batch, fail, positive, promote


@outside_autocast
class Material(Saved):
    """The reflection of Phong's model ("Illumination for computer generated pictures", 1975), one for a whole mesh.

    With the surface's own colour c, unit normal n, direction to the viewer v, and for each light its colour I,
    direction l and the mirror image r = 2(n·l)n − l of that:
    `c·(ambient·Σ I_ambient + diffuse·Σ I·max(0, n·l)) + specular·Σ I·max(0, r·v)^shininess` where n·l > 0.
    Without lights the surface shows `c·diffuse`.

    Args:
        ambient: a number or (..., 3), 0 or more.
        diffuse: a number or (..., 3), 0 or more.
        specular: a number or (..., 3), 0 or more; 0 for a matt surface.
        shininess: a number or (...), positive: the larger, the smaller the highlight.

    Gradients: in all four. The specular part jumps where n·l = 0 and the viewer looks into the light.

    Raises:
        TypeError, ValueError: shapes that do not fit, or values out of range.

    Example:
        >>> import geodiff as gd
        >>> gd.Material(diffuse=(1.0, 0.5, 0.2))
        Material(ambient=1, diffuse=(1, 0.5, 0.2), specular=0.2, shininess=32)
    """

    _fields_kept = ("ambient", "diffuse", "specular", "shininess", "batch_shape")

    def __init__(self, ambient: Any = 1.0, diffuse: Any = 1.0, specular: Any = 0.2, shininess: Any = 32.0) -> None:
        values = promote("Material", ambient=ambient, diffuse=diffuse, specular=specular, shininess=shininess)
        self.ambient = check_reflection("Material", "ambient", values["ambient"])
        self.diffuse = check_reflection("Material", "diffuse", values["diffuse"])
        self.specular = check_reflection("Material", "specular", values["specular"])
        self.shininess = values["shininess"]
        positive("Material", "shininess", self.shininess)
        try:
            self.batch_shape = common_batch(
                *(value.shape[:-1] for value in (self.ambient, self.diffuse, self.specular)), self.shininess.shape
            )
        except RuntimeError:
            text = ", ".join(f"{name} {tuple(value.shape)}" for name, value in values.items())
            raise fail("Material", ", ".join(values), "of batch shapes that broadcast", text) from None

    def _saved(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("ambient", "diffuse", "specular", "shininess")}

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Material":
        """Return the material with each of its tensors, (..., 3) and (...), changed."""
        return Material(change(self.ambient), change(self.diffuse), change(self.specular), change(self.shininess))

    def select(self, batch: tuple[int, ...], index: Any) -> "Material":
        """Return the material of one of a batch of the shape `batch`; itself where it has no batch."""
        if not self.batch_shape:
            return self
        ambient, diffuse, specular = (x.expand(*batch, 3)[index] for x in (self.ambient, self.diffuse, self.specular))
        return Material(ambient, diffuse, specular, self.shininess.expand(batch)[index])

    def __repr__(self) -> str:
        parts = []
        for name in ("ambient", "diffuse", "specular"):
            row = getattr(self, name).detach().reshape(-1, 3)[0].tolist()
            same = row[0] == row[1] == row[2]
            parts.append(f"{name}={row[0]:g}" if same else f"{name}=({', '.join(f'{x:g}' for x in row)})")
        shininess = float(self.shininess.detach().reshape(-1)[0])
        return f"Material({', '.join(parts)}, shininess={shininess:g})"
