# SPDX-License-Identifier: Apache-2.0
"""From a mesh and a camera to images: the soft renderer and the hard rasteriser."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from geodiff import soft
from geodiff.modes import kept, outside_autocast, remembered
from geodiff.ops.culling import MAX_ERROR
from geodiff.render.coverage import Coverage, Hard, Softness, alpha_of, as_coverage, bounded
from geodiff.render.depth import HardDepth, SoftmaxDepth
from geodiff.render.maps import pooled, pooled_maps
from geodiff.render.ordering import SortDepth
from geodiff.render.outputs import OUTPUTS, HardOutput, RenderOutput
from geodiff.render.shading import LIT, Shader, as_shader, shade, unlit
from geodiff.render.view import BACKENDS, View, pack, warn_if_biased
from geodiff.render.zbuffer import ZBuffer
from geodiff.scene.camera import Camera
from geodiff.scene.light import Light, as_lights
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.scene.pose import pixel_size
from geodiff.validation import as_tensor, broadcasts_to, choice, describe, fail, positive, promote


@outside_autocast
class Renderer:
    """Render meshes softly: one object for the whole family of GenDR's renderers, with colour, light and depth.

    At pixel q, `alpha(q) = ⊥_f F(d(q, f)/τ)`: the signed distance d (NDC, positive inside) to each face f goes through
    the CDF F of a distribution of scale τ, and the faces are joined by a T-conorm ⊥ (Petersen et al., "GenDR: a
    generalized differentiable renderer", 2022). `rgb = alpha·Σ_k w_k c_k + (1 − alpha)·background`, with the colours c
    of the faces seen by the pixel, each at its point nearest to the pixel centre:

    - ``depth="hard"``: w = 1 for the nearest face that covers the pixel centre; where none does (the soft rim), for the
      face nearest in the image;
    - ``depth="softmax"``: `w_k ∝ F(d_k/τ)·exp(z_k/γ)`, z the depth, scaled so that the scene's nearest vertex is at 1
      and its farthest at 0 (Liu et al., "Soft rasterizer", 2019). γ → 0 is the nearest of the faces with any coverage;
    - ``depth="zbuffer"``: a z-buffer run as a relaxed program: face by face, in the order of their indices, what is in
      the pixel is replaced with the probability that the face covers it and is nearer than what is there. Where a face
      covers half, what is behind it remains as the other half. The image depends on the order of the faces;
    - ``"sort"``: from front to back, `w_k ∝ F(d_k/τ) Π_{j before k} (1 − F(d_j/τ))`, in a relaxed order of depth at the
      temperature γ, see `geodiff.render.front_to_back`. γ → 0 is the exact order. A soft rim lets through what is
      behind it, and so does an edge between two faces, where F = ½ twice: by a quarter.

    Args:
        image_size: `H` for a square image, or `(H, W)`.
        distribution: an object or a name of `geodiff.soft`, for instance `"logistic"`, `gd.soft.Gamma(0.5).reversed()`.
        scale: τ > 0, in NDC (NDC² for a squared distribution): how soft the edges are. A float or a tensor without
            axes, which may require a gradient.
        tconorm: an object or a name of `geodiff.soft`, for instance `"probabilistic"`, `gd.soft.Yager(2.0)`.
        coverage: `"faces"`, GenDR's: every face covers pixels by itself. `"edges"`, Pix2Vex's: a face covers a pixel by
            the product of F over the lines of its three edges. `"contour"`: one CDF a pixel, of the distance
            to the outline of the mesh's image, positive inside; the same image however finely the shape is
            tessellated, without seams. It takes no T-conorm. `"hard"`: all or nothing, without a scale; its gradient
            knows where one surface hides another. `"antialiased"`: that, blended along such edges.
            **To optimise a camera, take the contour**: soft faces make a mesh fatter the finer it is tessellated, and
            drive the camera away, by 7 % of its distance for a teapot at τ = 0.01, edges by 12 %, where the contour is
            off by 0.4 %. A camera with a gradient is warned of.
            Or a model of your own, see `geodiff.render.Coverage`.
        shading: `"unlit"`, `"lambert"` (ambient and diffuse light), `"phong"` (highlights too) or `"gouraud"` (as
            Phong, but lit at the vertices). Left out: Phong where the call gets lights, else unlit. Or a callable from
            points seen on a surface, see `geodiff.render.SurfacePoints`, to their colours `(P, 3)`.
        normals: `"smooth"` (of the vertices, interpolated) or `"flat"` (of the faces).
        depth: `"hard"`, `"softmax"`, `"sort"` or `"zbuffer"`.
        gamma: γ > 0, for all but hard depth: a fraction of the depth range; a float or a tensor without axes.
        depth_range: `(near, far)` depths for z instead of those of the scene.
        background: `(r, g, b)`, an image `(H, W, 3)`, or one for each image of the batch `(..., H, W, 3)`.
        background_depth: if given, with softmax, the background takes part as one more face of F = 1 and this z, and
            alpha has no say in rgb. This is what SoftRas does.
        outputs: of `"rgb"`, `"depth"`, `"normal"`, `"face_id"`, `"uv"`; alpha always comes.
        supersample: s: render s·s pixels for each, and average (depth and normal over those covered; face_id and uv are
            those of the nearest).
        max_fragments: how many faces a pixel mixes with softmax or sort (whose memory is its square a pixel); those of
            largest weight are taken, however far from the pixel. None: as many as it takes to leave out no more than
            `max_error` of the weights of any pixel; with a z-buffer the nearest within reach, None: all.
        scale_px: τ in pixels instead of `scale` (for a squared distribution, its root).
        max_error: faces far from a pixel are left out as long as alpha changes by no more than this, and the colour,
            too, with softmax (but for what `max_fragments` leaves out).
        backend: `"kernel"`, or `"reference"` for the slow twins in plain torch, which need no compiled extension.
            User-defined distributions and T-conorms always go through the twin.

    Attributes:
        warn_of_bias: whether a camera with a gradient is to be warned of where ``coverage`` is not ``"contour"``; False
            once it was, or where it is done on purpose.

    Gradients: of alpha, rgb, depth, normal and uv, in vertices, every parameter of the camera, colours, textures and
    their coordinates, lights, materials, background, `scale`, `gamma`, and the parameters of distribution and T-conorm.
    With hard depth, which face is seen is piecewise constant: where one face hides another the image jumps, and no
    gradient knows of it; softmax and sort do, and a `coverage` that is hard. Finite everywhere.

    Raises:
        TypeError, ValueError: as each argument's check says.

    Example:
        >>> import geodiff as gd
        >>> camera = gd.Camera.orbit(distance=2.7, elevation_deg=30, azimuth_deg=0, fov_deg=60)
        >>> gd.Renderer(64, distribution="logistic", scale=1e-2)(gd.icosphere(2), camera).alpha.shape
        torch.Size([64, 64])
        >>> render = gd.Renderer((48, 64), scale_px=0.5, outputs=("rgb", "depth"), background=(1, 1, 1))
        >>> out = render(gd.icosphere(2), camera, [gd.AmbientLight(0.3), gd.DirectionalLight((1, 1, 1), 0.7)])
        >>> out.rgb.shape, out.depth.shape
        (torch.Size([48, 64, 3]), torch.Size([48, 64]))
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        distribution: "soft.Distribution | str | Callable[..., Any]" = "logistic",
        scale: float | torch.Tensor | None = None,
        tconorm: "soft.TConorm | str | Callable[..., Any]" = "probabilistic",
        coverage: "str | Coverage | type[Coverage] | Callable[..., Any]" = "faces",
        *,
        shading: "str | Shader | None" = None,
        normals: str = "smooth",
        depth: str = "hard",
        gamma: float | torch.Tensor = 1e-2,
        depth_range: tuple[float, float] | None = None,
        background: Any = (0.0, 0.0, 0.0),
        background_depth: float | None = None,
        outputs: str | Sequence[str] = ("alpha",),
        supersample: int = 1,
        max_fragments: int | None = 8,
        scale_px: float | torch.Tensor | None = None,
        max_error: float = MAX_ERROR,
        backend: str = "kernel",
    ) -> None:
        self.image_size = pixel_size("Renderer", image_size)
        self.distribution = soft.as_distribution(distribution)
        self.tconorm = soft.as_tconorm(tconorm)
        self.coverage = coverage
        if isinstance(coverage, type):  # one object for all calls
            self.coverage = coverage = as_coverage("Renderer", coverage)
        self.warn_of_bias = as_coverage("Renderer", coverage).is_biased
        self.backend = choice("Renderer", "backend", backend, tuple(BACKENDS))
        if scale is not None and scale_px is not None:
            raise fail("Renderer", "scale_px", "given instead of `scale`", "both", "Leave one of them out.")
        if scale_px is not None:
            positive("Renderer", "scale_px", scale_px, "It is a length in pixels.")
            length = scale_px * (2 / min(self.image_size))
            scale = length * length if self.distribution.is_squared else length
        self.scale = 1e-2 if scale is None else scale
        _number("scale", self.scale, "τ is a length in NDC (an area for a squared distribution).")
        if not isinstance(max_error, int | float) or not 0 <= max_error < 1:
            raise fail("Renderer", "max_error", "in [0, 1)", describe(max_error), "It bounds the error of alpha.")
        self.max_error = max_error
        self.shading = shading
        made = as_shader("Renderer", "unlit" if shading is None else shading)
        self.shading = made if isinstance(shading, type) else shading
        self.normals = choice("Renderer", "normals", normals, ("smooth", "flat"))
        self.depth = choice("Renderer", "depth", depth, ("hard", "softmax", "sort", "zbuffer"))
        if self.depth != "hard" and isinstance(as_coverage("Renderer", coverage), Hard):
            expected = f"'hard' with coverage={coverage!r}"
            raise fail("Renderer", "depth", expected, self.depth, "Or take a soft coverage.")
        self.gamma = gamma
        _number("gamma", gamma, "It is a fraction of the depth range: the smaller, the harder.")
        self.depth_range = _checked_range(depth_range)
        self.background_depth = background_depth
        if background_depth is not None and (
            self.depth != "softmax" or not isinstance(background_depth, int | float) or not 0 <= background_depth <= 1
        ):
            fix = "It is the background's place between far (0) and near (1)."
            got = f"{background_depth!r} with depth='{self.depth}'"
            raise fail("Renderer", "background_depth", "in [0, 1], and only with depth='softmax'", got, fix)
        if not isinstance(outputs, str | Sequence):
            raise fail("Renderer", "outputs", "a name or a sequence of names", outputs, error=TypeError)
        self.outputs = (outputs,) if isinstance(outputs, str) else tuple(dict.fromkeys(outputs))
        for name in self.outputs:
            choice("Renderer", "outputs", name, OUTPUTS)
        self.supersample = _count("supersample", supersample, "It is how many pixels each side of a pixel is cut into.")
        if max_fragments is not None:
            _count("max_fragments", max_fragments, "It is how many faces a pixel mixes, or None for enough.")
        self.max_fragments = max_fragments
        self.background = self._checked_background(background)

    def _checked_background(self, background: Any) -> torch.Tensor:
        value = promote("Renderer", background=as_tensor("Renderer", "background", background))["background"]
        if value.shape != (3,) and (value.dim() < 3 or value.shape[-3:] != (*self.image_size, 3)):
            expected = f"a colour (3,) or an image (..., {self.image_size[0]}, {self.image_size[1]}, 3)"
            raise fail("Renderer", "background", f"{expected}, of the size of the images", value, "Resize the image.")
        return kept(value)

    def _check_backgrounds(self, batch: tuple[int, ...]) -> None:
        own = self.background.shape[:-3]
        if not broadcasts_to(own, batch):
            expected = f"without a batch, or of one that broadcasts to the images' {tuple(batch)}"
            raise fail("Renderer", "background", expected, f"a batch of {tuple(own)}", "Give one for each image.")

    def __call__(
        self, mesh: Mesh | MeshBatch, camera: Camera, lights: "Light | Sequence[Light] | None" = None
    ) -> RenderOutput:
        """Render one mesh, a batch of one topology, or a `MeshBatch`, seen by one camera or a batch of them.

        Args:
            mesh: `vertices (..., V, 3)`, or a `MeshBatch` of B meshes.
            camera: a camera whose batch broadcasts with the mesh's (for a `MeshBatch`: B cameras, or one).
            lights: one light or several, for rgb; each with the batch of the images, or without one. None for
                ``"unlit"``; a shader of your own takes them or not.

        Returns:
            `RenderOutput` with `alpha (..., H, W)` and what `outputs` names; without a batch, `(H, W)`.

        A mesh wholly behind the camera gives a warning and an empty image.
        """
        s = self.supersample
        size = (self.image_size[0] * s, self.image_size[1] * s)
        view = pack("Renderer", mesh, camera, size, self.backend)
        coverage = as_coverage("Renderer", self.coverage)
        if self.warn_of_bias and coverage.is_biased and warn_if_biased("Renderer", self.coverage, camera):
            self.warn_of_bias = False
        self._check_backgrounds(view.batch)
        shader, lights = self._lighting(lights, view.batch)
        softness = Softness(self.distribution, self.scale, self.tconorm, self.max_error)
        wanted = tuple(name for name in self.outputs if name != "alpha")
        if wanted:  # colours are looked for as far as the scale says
            softness = bounded(softness)
        coverage = coverage.looking_at(view)
        flat_alpha = alpha_of(coverage, view, softness)
        alpha = flat_alpha.reshape(*view.batch, *size)
        if not wanted:
            return RenderOutput(alpha=pooled(coverage.finish(view, {"alpha": alpha}, set())["alpha"], s))
        depth: HardDepth | SoftmaxDepth | SortDepth | ZBuffer
        if self.depth == "hard":
            depth = HardDepth(view, coverage, softness)
        elif self.depth == "zbuffer":
            depth = ZBuffer(view, coverage, softness, self.gamma, self.depth_range, self.max_fragments)
        elif self.depth == "sort":
            depth = SortDepth(view, coverage, softness, self.gamma, self.depth_range, self.max_fragments)
        else:
            weighing = self.gamma, self.depth_range, self.background_depth, self.max_fragments
            depth = SoftmaxDepth(view, coverage, softness, *weighing)
        found: Any = depth.find(flat_alpha.detach(), wanted)
        colors = shade(view, lights, *found.points, shader=shader, normals=self.normals, wanted=wanted)
        color, mixed = depth.mix(found, colors, wanted)
        maps = {name: value.reshape(*view.batch, *value.shape[1:]) for name, value in mixed.items()}
        rest = maps.pop("rest", None)
        images = {"alpha": alpha, **maps}
        if color is not None:
            # Over black; one sample a pixel over the background at once, which costs no pass of its own.
            over = self._background_like(alpha) if self.supersample == 1 else alpha.new_zeros(3)
            images["rgb"] = _over(view, over, alpha, color, found.place)
        flat = self.normals == "flat"
        creases = {"rgb": view.is_face_colored or (flat and shader is not unlit), "normal": flat}
        images = coverage.finish(view, images, {name for name, there in creases.items() if there})
        alpha, rgb = images.pop("alpha"), images.pop("rgb", None)
        result = pooled_maps(images, s)
        if rgb is not None:
            result["rgb"] = self._over_background(alpha, rgb, rest)
        return RenderOutput(alpha=pooled(alpha, s), **{name: result[name] for name in wanted})

    def _lighting(self, lights: Any, batch: tuple[int, ...]) -> tuple[Shader, list[Light]]:
        """Return the shader in use and the lights, checked."""
        if lights is not None and "rgb" not in self.outputs:
            raise fail("Renderer", "outputs", "with 'rgb' where lights are given", str(self.outputs), "Add 'rgb'.")
        shading = ("unlit" if lights is None else "phong") if self.shading is None else self.shading
        shader = as_shader("Renderer", shading)
        if "rgb" in self.outputs and (shader in LIT if lights is None else shader is unlit):
            got = "None" if lights is None else "lights"
            expected = f"{'given' if lights is None else 'None'} with shading='{getattr(shader, '__name__', shading)}'"
            raise fail("Renderer", "lights", expected, got, "Call render(mesh, camera, lights), or change the shading.")
        return shader, [] if lights is None else as_lights("Renderer", lights, batch)

    def _background_like(self, image: torch.Tensor) -> torch.Tensor:
        """The background where an image is: copied to a device once."""
        if self.background.device == image.device:
            return self.background.to(image.dtype)
        key = str(image.device), image.dtype
        return remembered(self, "_background_there", (self.background,), lambda: self.background.to(image), key)

    def _over_background(self, alpha: torch.Tensor, rgb: torch.Tensor, rest: torch.Tensor | None) -> torch.Tensor:
        if rest is None and self.supersample == 1:
            return rgb
        s, background = self.supersample, self._background_like(alpha)
        return pooled(rgb, s, 1) + pooled(1 - alpha if rest is None else rest, s)[..., None] * background

    def __repr__(self) -> str:
        scale = float(self.scale)
        return (
            f"Renderer({self.image_size[0]}×{self.image_size[1]}, {self.distribution!r}, scale={scale:g}, "
            f"{self.tconorm!r}, coverage={self.coverage!r})"
        )


def _over(
    view: View, background: torch.Tensor, alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor
) -> torch.Tensor:
    """Return colours of pixels as an image (..., H, W, 3), over a colour or an image."""
    if background.dim() > 1 and background.shape[:-3].numel() != 1:
        background = background.expand(*alpha.shape, 3)
    rgb: torch.Tensor = view.ops.composite(alpha.reshape(-1), color, place, background.reshape(-1, 3))
    return rgb.reshape(*alpha.shape, 3)


def _number(name: str, value: Any, fix: str) -> None:
    """Require a positive number, or a tensor of one element."""
    positive("Renderer", name, value, fix)
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        expected = "a number or a tensor with one element"
        raise fail("Renderer", name, expected, value, "Make a Renderer for each value.")


def _count(name: str, value: Any, fix: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise fail("Renderer", name, "a positive integer", describe(value), fix)
    return value


def _checked_range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    ends = tuple(value) if isinstance(value, Sequence) else ()
    if len(ends) != 2 or not all(isinstance(x, int | float) for x in ends) or not 0 < ends[0] < ends[1]:
        fix = "Leave it out to take the scene's own."
        raise fail("Renderer", "depth_range", "(near, far) with 0 < near < far", describe(value), fix)
    return float(ends[0]), float(ends[1])


@outside_autocast
def rasterize(
    mesh: Mesh | MeshBatch, camera: Camera, image_size: int | tuple[int, int], *, backend: str = "kernel"
) -> HardOutput:
    """Rasterise without softness: a z-buffer, for targets and metrics.

    A pixel whose centre is inside a face or on its edge is covered, whatever the face's winding; the nearest face wins,
    and of equally near ones that of lowest index.

    Args:
        mesh: `vertices (..., V, 3)`, or a `MeshBatch` of B meshes.
        camera: a camera whose batch broadcasts with the mesh's.
        image_size: `H` for a square image, or `(H, W)`.
        backend: `"kernel"`, or `"reference"` for the slow twin in plain torch.

    Returns:
        `HardOutput` with `mask`, `depth`, `face_id` (within its own mesh) and `barycentric`.

    Gradients: none. A mesh wholly behind the camera gives a warning and an empty image.

    Raises:
        TypeError, ValueError: as each argument's check says.

    Example:
        >>> import geodiff as gd
        >>> camera = gd.Camera.orbit(distance=2.0, elevation_deg=0, azimuth_deg=0, fov_deg=60)
        >>> gd.rasterize(gd.box(), camera, 1).depth
        tensor([[1.5000]])
    """
    size = pixel_size("rasterize", image_size)
    view = pack("rasterize", mesh, camera, size, backend)
    with torch.no_grad():
        raster = view.ops.rasterize(*view.packed, **view.frame)
    face_id = raster.face_id.reshape(*view.batch, *size)
    return HardOutput(
        mask=face_id >= 0,
        depth=raster.depth.reshape(*view.batch, *size),
        face_id=face_id,
        barycentric=raster.barycentric.reshape(*view.batch, *size, 3),
    )
