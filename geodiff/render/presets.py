# SPDX-License-Identifier: Apache-2.0
"""Renderers of the literature as members of this family: what each equals exactly, and what only approximately.

All share this package's conventions: right-handed cameras, exact distances, faces clipped at the near plane, faces far
from a pixel left out only as far as alpha does not notice, perspective-correct attributes, and gradients that are the
derivative of the image. Where a system differs from that, it differs from its preset; each preset says where else.
"""

from typing import Any

from geodiff import soft
from geodiff.render.renderer import Renderer
from geodiff.render.splats import TriangleSplats
from geodiff.scene.light import AmbientLight, DirectionalLight, Light
from geodiff.validation import choice, fail, positive

__all__ = [
    "dibr",
    "lights",
    "logistic_relaxation",
    "n3mr",
    "opendr",
    "pix2vex",
    "rhodin",
    "softras",
    "triangle_splats",
]


def softras(
    image_size: int | tuple[int, int],
    sigma: float = 1e-4,
    gamma: float = 1e-4,
    *,
    near: float = 1.0,
    far: float = 100.0,
    eps: float = 1e-3,
    **options: Any,
) -> Renderer:
    """Return SoftRas: logistic squared, probabilistic sum, softmax depth (Liu et al., "Soft rasterizer", 2019).

    Exactly the paper's formulas: `A_j = sigmoid(sgn·d²/σ)`, `alpha = 1 − Π(1 − A_j)`,
    `rgb = Σ w_j c_j + w_b·background`, `w_j = A_j exp(z_j/γ) / (Σ A_i exp(z_i/γ) + exp(ε/γ))`,
    `z = (far − depth)/(far − near)`.

    Approximately the released code: there, barycentrics outside a face are clipped and made to add up to one again
    (here they are those of the nearest point), colours are interpolated in the image (here in perspective), faces
    with `A < 1e-4` are dropped, and the background's weight is counted twice and overflows for `ε/γ > 88`. At the
    default γ the formula paints pixels far from the object in its colours, by `exp(z/γ)`; here it does. rgb mixes as
    many faces as it takes for the rest to have less than `max_error` of the weights (`max_fragments=8` caps it).

    Args:
        image_size: `H` or `(H, W)`.
        sigma: σ, NDC².
        gamma: γ.
        near: depth at which z is 1.
        far: depth at which z is 0.
        eps: z of the background.
        options: other arguments of `Renderer`.

    Example:
        >>> import geodiff as gd
        >>> gd.presets.softras(64)
        Renderer(64×64, Logistic().squared(), scale=0.0001, Probabilistic(), coverage='faces')
    """
    kind: dict[str, Any] = {"depth": "softmax", "depth_range": (near, far), "background_depth": eps, "gamma": gamma}
    kind["max_fragments"] = None
    return Renderer(image_size, soft.Logistic().squared(), sigma, **{**kind, **_rule(options)})


def dibr(
    image_size: int | tuple[int, int], delta: float | None = None, *, squared: bool = True, **options: Any
) -> Renderer:
    """Return DIB-R: exponential, reversed and squared, probabilistic sum, hard depth.

    Chen et al., "Learning to predict 3D objects with an interpolation-based differentiable renderer", 2019. Exactly:
    alpha, which is 1 where a face covers the pixel and `1 − Π(1 − exp(−d²/δ))` elsewhere (the exponential
    distribution, reversed and squared, with the probabilistic sum), and the colour of covered pixels, that of the
    nearest face. With ``squared=False`` it is as F. Petersen's thesis (2022, table 5.4, "exponential (R)") has it:
    `exp(−d/δ)`.

    Approximately: DIB-R leaves uncovered pixels without colour; here the soft rim has that of the nearest face. Its
    code looks for faces in a window around the pixel only.

    Args:
        image_size: `H` or `(H, W)`.
        delta: δ, NDC² (NDC if not squared); left out: 1e-4 (1e-2).
        squared: whether the distance is squared.
        options: other arguments of `Renderer`.

    Raises:
        TypeError: ``squared`` is neither True nor False.

    Example:
        >>> import geodiff as gd
        >>> gd.presets.dibr(64)
        Renderer(64×64, Exponential().reversed().squared(), scale=0.0001, Probabilistic(), coverage='faces')
        >>> gd.presets.dibr(64, squared=False)
        Renderer(64×64, Exponential().reversed(), scale=0.01, Probabilistic(), coverage='faces')
    """
    if not isinstance(squared, bool):
        raise fail("dibr", "squared", "True or False", squared, "True is the paper's.", TypeError)
    law = soft.Exponential().reversed()
    if delta is None:
        delta = 1e-4 if squared else 1e-2
    return Renderer(image_size, law.squared() if squared else law, delta, **_rule(options))


def n3mr(image_size: int | tuple[int, int], scale: float = 1e-2, **options: Any) -> Renderer:
    """Return a soft counterpart of the Neural 3D Mesh Renderer (Kato, Ushiku and Harada, 2018): uniform, probabilistic.

    It is what F. Petersen's thesis (2022, table 5.4) has in its place. Exactly: nothing of N3MR's image, which is a
    hard one; with τ → 0 the images agree.

    Approximately its gradient: N3MR replaces the step of a pixel's colour, while a vertex moves across it, by a
    straight ramp. A ramp is the CDF of the uniform distribution; here it is in the image, too, is measured at right
    angles to the edge rather than along the axes, and has the width 2τ wherever the edge is. ``tconorm="maximum"``
    takes each pixel from one face, as a z-buffer does.

    Args:
        image_size: `H` or `(H, W)`.
        scale: half the width of the ramp, NDC.
        options: other arguments of `Renderer`.

    Example:
        >>> import geodiff as gd
        >>> gd.presets.n3mr(64)
        Renderer(64×64, Uniform(), scale=0.01, Probabilistic(), coverage='faces')
    """
    return Renderer(image_size, soft.Uniform(), scale, **_rule(options))


def opendr(image_size: int | tuple[int, int], **options: Any) -> Renderer:
    """Return a soft counterpart of OpenDR (Loper and Black, 2014): uniform over about one pixel, probabilistic sum.

    It is what F. Petersen's thesis (2022, table 5.4) has in its place. Exactly: nothing of OpenDR's image, which is a
    hard one.

    Approximately its gradient: OpenDR takes differences of neighbouring pixels (a Sobel filter across outlines), the
    derivative of an image whose edges are ramps of about two pixels' width: the uniform distribution at τ = 1 pixel.
    Inside of a surface OpenDR differentiates the colours as here.

    Args:
        image_size: `H` or `(H, W)`.
        options: other arguments of `Renderer`; `scale` or `scale_px` instead of one pixel.

    Example:
        >>> import geodiff as gd
        >>> gd.presets.opendr(64)
        Renderer(64×64, Uniform(), scale=0.03125, Probabilistic(), coverage='faces')
    """
    width = {} if {"scale", "scale_px"} & set(options) else {"scale_px": 1.0}
    return Renderer(image_size, soft.Uniform(), **{**width, **_rule(options)})


def rhodin(image_size: int | tuple[int, int], scale: float = 1e-2, **options: Any) -> Renderer:
    """Return a counterpart of Rhodin et al., "A versatile scene model with differentiable visibility" (2015): Gaussian.

    Exactly: nothing; there are no faces in it. An object is a cloud of Gaussian densities, whose transmittance along a
    ray is the product of theirs.

    Approximately: edges fall off like the Gaussian's CDF, as the projection of a Gaussian blur of the surface does, and
    layers combine as transmittances: 1 − alpha is the product over the faces (the probabilistic sum).

    Args:
        image_size: `H` or `(H, W)`.
        scale: standard deviation, NDC.
        options: other arguments of `Renderer`.

    Example:
        >>> import geodiff as gd
        >>> gd.presets.rhodin(64)
        Renderer(64×64, Gaussian(), scale=0.01, Probabilistic(), coverage='faces')
    """
    return Renderer(image_size, soft.Gaussian(), scale, **_rule(options))


def logistic_relaxation(image_size: int | tuple[int, int], beta: float = 2000.0, **options: Any) -> Renderer:
    """Return the relaxed silhouettes of F. Petersen's thesis (2022, section 2.5): logistic, probabilistic sum.

    Exactly its alpha by the directed Euclidean distance, `1 − Π(1 − sigmoid(β·d))`, at the β of its experiment; "Log.
    Relax" in its table 5.3. The other algorithm there, by three nested conditions, is `pix2vex`. It has no colour.

    Args:
        image_size: `H` or `(H, W)`.
        beta: β = 1/τ > 0, per NDC.
        options: other arguments of `Renderer`.

    Raises:
        ValueError: β is not positive.

    Example:
        >>> import geodiff as gd
        >>> gd.presets.logistic_relaxation(64)
        Renderer(64×64, Logistic(), scale=0.0005, Probabilistic(), coverage='faces')
    """
    positive("logistic_relaxation", "beta", beta, "It is 1/τ: the larger, the harder.")
    return Renderer(image_size, soft.Logistic(), 1 / beta, **_rule(options))


def triangle_splats(
    image_size: int | tuple[int, int], sigma: float = 1.0, opacity: float = 1.0, **options: Any
) -> TriangleSplats:
    """Return triangle splatting: each face a window of its own size, laid over one another from front to back.

    Held et al., "Triangle splatting for real-time radiance field rendering", 2025. Exactly its window,
    `ReLU(φ(q)/φ(incentre))^σ` with φ the signed distance to the nearest side, and its alpha, `1 − Π(1 − oI)`.

    Approximately its order: there triangles are sorted by their middles, here each pixel has the order of its own.
    Its colours are spherical harmonics; here a face has what a mesh may have.

    Args:
        image_size: `H` or `(H, W)`.
        sigma: σ > 0, for all faces or each.
        opacity: o in [0, 1], likewise.
        options: other arguments of `TriangleSplats`.

    Example:
        >>> import geodiff as gd
        >>> gd.presets.triangle_splats(64)
        TriangleSplats(64×64, sigma=1, opacity=1)
    """
    return TriangleSplats(image_size, sigma, opacity, **options)


def lights(name: str) -> list[Light]:
    """Return the lights that a system's released code has by default, for a call of its preset.

    Those of N3MR and SoftRas are the same: ½ from everywhere and ½ from above, matt, by the normals of the faces. The
    others have none of their own.

    Args:
        name: ``"n3mr"`` or ``"softras"``.

    Raises:
        ValueError: another name.

    Example:
        >>> import geodiff as gd
        >>> render = gd.presets.softras(16, shading="lambert", normals="flat", outputs="rgb")
        >>> render(gd.icosphere(1), gd.Camera.orbit(2.7), gd.presets.lights("softras")).rgb.shape
        torch.Size([16, 16, 3])
    """
    choice("presets.lights", "name", name, ("n3mr", "softras"))
    return [AmbientLight(0.5), DirectionalLight((0.0, 1.0, 0.0), 0.5)]


def pix2vex(image_size: int | tuple[int, int], scale: float = 1e-2, **options: Any) -> Renderer:
    """Return Pix2Vex (Petersen, Bermano, Deussen and Cohen-Or, 2019): logistic, a product over the edges of each face.

    Exactly its coverage, `coverage="edges"`: a face covers a pixel by the product, over its three edges, of the sigmoid
    of the signed distance to the edge's line over τ; faces are joined by the probabilistic sum.

    Its colour is that of its relaxed program: a running soft z-buffer, which replaces what is in a pixel with the
    probability that the face covers it, by its three edges, and is nearer than what is there, the sigmoid of the
    difference in depth over γ (``depth="zbuffer"``). The image depends on the order of the faces, as that of a relaxed
    loop does. The thesis (2022, section 5.2.3) names Pix2Vex among the renderers with a softmin over depth:
    ``depth="softmax"``, weighted by the distance to the face.

    Args:
        image_size: `H` or `(H, W)`.
        scale: τ, NDC.
        options: other arguments of `Renderer`; at most `max_fragments=32` faces a pixel unless that is among them.

    Example:
        >>> import geodiff as gd
        >>> gd.presets.pix2vex(64).distribution
        Logistic()
    """
    kind: dict[str, Any] = {"depth": "zbuffer", "coverage": "edges", "max_fragments": 32}
    return Renderer(image_size, soft.Logistic(), scale, **{**kind, **_rule(options)})


def _rule(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the probabilistic sum, unless they name another T-conorm."""
    return {"tconorm": soft.Probabilistic(), **options}
