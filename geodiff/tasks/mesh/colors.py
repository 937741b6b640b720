# SPDX-License-Identifier: Apache-2.0
"""Colours of a mesh from posed photographs: a texture, or one a vertex, by least squares over all pixels.

A pixel is the mean of its samples, a sample a weighted mean of four texels (or three vertices) times the light there:
all pixels together are linear equations in the texels. They are weighed, and summed up view by view into the normal
equations, which have a row a texel; what no view sees comes from the surface around it.
"""

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg
import torch

from geodiff.modes import outside_autocast
from geodiff.reference.shading import texels_at
from geodiff.render.image_metrics import psnr, ssim
from geodiff.render.renderer import Renderer, rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.light import Light, as_lights
from geodiff.scene.mesh import Mesh
from geodiff.scene.photographs import give_back
from geodiff.scene.texture import Texture
from geodiff.tasks.mesh.harmonics import basis, fitted
from geodiff.tasks.mesh.photometric import toward
from geodiff.tasks.mesh.result import FitColorsResult
from geodiff.tasks.mesh.settings import LIGHTS
from geodiff.tasks.mesh.start import load_whole
from geodiff.validation import choice, fail, integer

_WHERE = "fit_colors"
KINDS = ("texture", "vertices")
_GRAZING = 0.15  # cosine: a surface seen more aslant than 81° is doubtful
_DOUBT = 0.01  # what a doubtful pixel counts: only where there is no other
_DIMMEST = 0.1  # of the mean light; below it, colours are not divided by
_MOST_LIT = 2**21  # pixels that light is estimated from, some 300 bytes each
_PRIOR, _SMOOTH, _EVEN = 1e-4, 1e-4, 1e-5  # of the median weight of what is seen: of texels, and of vertices


@outside_autocast
def fit_colors(
    mesh: Mesh,
    images: PosedImages | str | os.PathLike[str],
    *,
    kind: str = "texture",
    size: int = 512,
    samples: int = 2,
    lights: str | Light | Sequence[Light] = "baked",
    views: Sequence[int] | torch.Tensor | None = None,
) -> FitColorsResult:
    """Find the colours of a mesh from photographs of it.

    Linear least squares over all pixels that lie wholly on the mesh and in the mask, and not beside an edge of it; a
    pixel counts by the square of the cosine at which it sees the surface. What no view sees takes the colours around.

    Args:
        mesh: of vertices (V, 3); with ``uv`` its layout serves, else it is unwrapped (`Mesh.unwrapped`).
        images: photographs with their cameras and masks, or the path of their ``transforms.json``.
        kind: ``"texture"``, or ``"vertices"`` for one colour a vertex.
        size: of the texture a side, in texels.
        samples: a side of each pixel.
        lights: ``"baked"``: the colours are those in the photographs; ``"harmonics"``: diffuse light from far away is
            estimated as spherical harmonics of degree 2 (Ramamoorthi and Hanrahan 2001), as far as a surface of one
            colour explains the photographs, and taken out of the colours (it falls on whichever side of an open mesh
            is seen); lights of the scene: these are taken out.
        views: which views are used; all of them where left out.

    Returns:
        A `FitColorsResult`; its figures are of all views, used or not.

    Raises:
        TypeError, ValueError: as each argument's check says; images without colours; a mesh no view sees.
        ImportError: a texture of a mesh without ``uv`` where xatlas is not installed.

    Example:
        >>> import torch, geodiff as gd
        >>> ball = gd.icosphere(2).with_attributes(vertex_colors=gd.icosphere(2).vertices * 0.5 + 0.5)
        >>> cameras = gd.Camera.orbit(3.0, 20, torch.arange(0, 360, 60))
        >>> out = gd.Renderer(48, coverage="hard", outputs="rgb")(ball, cameras)
        >>> found = fit_colors(gd.icosphere(2), gd.PosedImages(out.rgb, out.alpha, cameras), kind="vertices")
        >>> bool(found.psnr.mean() > 30)
        True
    """
    choice(_WHERE, "kind", kind, KINDS)
    integer(_WHERE, "size", size, 16, 8192)
    integer(_WHERE, "samples", samples, 1, 8)
    if isinstance(lights, str):
        choice(_WHERE, "lights", lights, LIGHTS)
    if not isinstance(images, PosedImages | str | os.PathLike):
        raise fail(_WHERE, "images", "PosedImages, or the path of some", images, "Pass PosedImages(…).", TypeError)
    posed = images if isinstance(images, PosedImages) else load_whole(images)
    if not posed.in_color:
        raise fail(_WHERE, "images", "with colours", "masks alone", "Pass PosedImages(images, alpha, cameras).")
    if mesh.vertices.dim() != 2 or not mesh.num_faces:
        raise fail(_WHERE, "mesh", "one mesh of vertices (V, 3) and one or more faces", mesh.vertices)
    posed = posed._with(posed.alpha.detach(), posed.cameras.detach()).to("cpu", mesh.dtype)
    used = range(len(posed)) if views is None else _chosen(views, len(posed))  # parts of the images would be copies
    mesh = mesh.detach().to("cpu").with_attributes(vertex_colors=None, face_colors=None, texture=None)
    if kind == "texture" and mesh.uv is None:
        mesh = mesh.unwrapped(size)
    scene = None if isinstance(lights, str) else as_lights(_WHERE, lights, ())
    scene = scene and [light if light.color.is_cpu else light.to("cpu") for light in scene]

    def looks() -> Iterator[_Look]:  # one at a time: all that many large photographs show would fill the memory
        for i in used:
            give_back(posed.alpha[i].numel())
            yield _Look(mesh, posed.cameras[i : i + 1], posed.alpha[i], posed.photograph(i), samples)

    coefficients = _harmonics(looks(), _MOST_LIT // len(used)) if lights == "harmonics" else None
    at_vertices, at_texels = _Equations(mesh.num_vertices), _Equations(size * size)
    lit = scene is None
    for look in looks():
        if scene is not None:
            lit |= look.light(scene)
        if coefficients is not None:
            look.factor = _irradiance(look.normals, coefficients)
        at_vertices.add(look, *look.vertices())
        if kind == "texture":
            at_texels.add(look, *look.texels(size))
    if not at_vertices.matrices:
        raise fail(
            _WHERE, "mesh", "seen in some view, inside its mask", "none that is", "Are cameras and mesh of one unit?"
        )
    if not lit:
        raise fail(_WHERE, "lights", "lamps that light the mesh", "none that do", "Or lights='baked'.")
    colors, seen = at_vertices.solved(_EVEN * at_vertices.typical * _graph(mesh))
    if kind == "vertices":
        mesh = mesh.with_attributes(vertex_colors=colors.clamp(0, 1).to(mesh.dtype))
    else:
        start, inside = _painted(mesh, colors, size)
        values, seen = at_texels.solved(_SMOOTH * at_texels.typical * _grid(inside), start, inside)
        image = _gutters(values.reshape(size, size, 3), inside).clamp(0, 1)
        mesh = mesh.with_attributes(texture=Texture(image.to(mesh.dtype), wrap="clamp"))
    return FitColorsResult(mesh, coefficients, seen, *scores(mesh, posed, scene, coefficients, samples), scene)


def _chosen(views: Sequence[int] | torch.Tensor, count: int) -> list[int]:
    """Return the views as a list of one or more indices."""
    given = views.tolist() if isinstance(views, torch.Tensor) else views
    chosen = [integer(_WHERE, "views", view, 0, count - 1) for view in given]
    if not chosen:
        raise fail(_WHERE, "views", "one view or more", "none", "Leave it out for all of them.")
    return chosen


class _Look:
    """What one view sees: its sound pixels, and for each of their samples the face, the place and the light."""

    def __init__(self, mesh: Mesh, camera: Camera, alpha: torch.Tensor, image: torch.Tensor, samples: int) -> None:
        self.mesh, self.camera, self.samples = mesh, camera, samples
        height, width = alpha.shape
        self.size = (height * samples, width * samples)
        hard = rasterize(mesh, camera, self.size)
        face, depth, mask = hard.face_id[0], hard.depth[0], hard.mask[0]
        cosine = (mesh.face_normals * toward(camera, mesh.vertices[mesh.faces].mean(1))).sum(-1).abs()
        slant = cosine[face.clamp_min(0)]
        # A step in depth beyond what the slant explains is an edge; images that are off by a pixel lie beyond it.
        pool = torch.nn.functional.max_pool2d
        far = torch.where(mask, depth, math.inf)
        near = torch.where(mask, depth, -math.inf)
        span = (pool(far[None], 3, 1, 1) + pool(-near[None], 3, 1, 1))[0]
        pixel = depth * 2 / (min(self.size) * float(camera.focal.mean()))
        flat = span <= 4 * pixel * (1 + (1 - slant**2).clamp_min(0).sqrt() / slant.clamp_min(1e-6))

        def whole(good: torch.Tensor) -> torch.Tensor:  # pixels all of whose samples are
            return -pool(-good.to(depth.dtype)[None], samples, samples)[0]

        sound = -pool(-whole(mask & flat & (slant > _GRAZING))[None], 3, 1, 1)[0]  # those around it, too
        self.pixels = (whole(mask) * (alpha >= 0.999)).flatten().nonzero()[:, 0]
        row, column = self.pixels // width, self.pixels % width
        step = torch.arange(samples)
        rows = (row[:, None, None] * samples + step[:, None]).expand(-1, samples, samples)
        columns = (column[:, None, None] * samples + step).expand(-1, samples, samples)
        self.place = (rows * self.size[1] + columns).flatten(1)  # (P, S²)
        self.face = face.flatten()[self.place]
        self.barycentric = hard.barycentric[0].reshape(-1, 3)[self.place]
        doubt = _DOUBT + (1 - _DOUBT) * sound.flatten()[self.pixels]
        self.weights = slant.flatten()[self.place].mean(1).clamp_min(0.01).square() * doubt
        self.colors = image.reshape(-1, 3)[self.pixels]
        self.factor: torch.Tensor | None = None  # (P, S², 3)

    def light(self, scene: list[Light]) -> bool:
        """Take a scene's lamps: what white shows of them above black is a factor, what black shows is added.

        Returns:
            Whether they light anything.
        """
        shown = []
        for value in (0.0, 1.0):
            paint = torch.full_like(self.mesh.vertices, value)
            mesh = Mesh(self.mesh.vertices, self.mesh.faces, vertex_colors=paint, material=self.mesh.material)
            render = Renderer(self.size, coverage="hard", outputs="rgb", shading="phong")
            shown.append(render(mesh, self.camera, scene).rgb[0].reshape(-1, 3)[self.place])
        self.factor = (shown[1] - shown[0]).clamp_min(_DIMMEST)
        self.colors = self.colors - shown[0].mean(1)
        return bool((self.factor > _DIMMEST).any())

    @property
    def normals(self) -> torch.Tensor:
        """Smooth unit normals in the world of all samples, (P, S², 3), of the side that is seen."""
        at = self.mesh.vertex_normals[self.mesh.faces][self.face]
        at = (at * self.barycentric[..., None]).sum(-2) * _sides(self.mesh, self.camera)[self.face][..., None]
        return torch.nn.functional.normalize(at, dim=-1)

    def vertices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Which vertices a sample lies between, and their shares; (P, S², 3) each."""
        return self.mesh.faces[self.face], self.barycentric

    def texels(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Which texels, (P, S², 4), and their shares."""
        assert self.mesh.uv is not None and self.mesh.uv_faces is not None
        uv = (self.mesh.uv[self.mesh.uv_faces][self.face] * self.barycentric[..., None]).sum(-2)
        index, share = texels_at(uv.reshape(-1, 2), size, size, "clamp")
        return index.reshape(*self.face.shape, 4), share.reshape(*self.face.shape, 4)


class _Equations:
    """Weighted normal equations in the colours of texels or vertices, summed up view by view.

    One matrix serves all channels where the light has no colour.
    """

    def __init__(self, unknowns: int) -> None:
        self.count = unknowns
        self.matrices: list[scipy.sparse.csr_matrix] = []
        self.right = np.zeros((unknowns, 3))

    def add(self, look: _Look, index: torch.Tensor, share: torch.Tensor) -> None:
        """Add the pixels of a view."""
        pixels, per_pixel = len(look.pixels), index.shape[1] * index.shape[2]
        if not pixels:
            return
        factors = [None] if look.factor is None else list(look.factor.unbind(-1))
        columns = index.reshape(-1).numpy()
        starts = np.arange(0, (pixels + 1) * per_pixel, per_pixel)
        root = look.weights.double().sqrt() / math.sqrt(look.samples**4)
        colors = look.colors.double() * (look.weights.double().sqrt())[:, None]
        for channel, factor in enumerate(factors):
            lit = share.double() if factor is None else share.double() * factor.double()[..., None]
            entries = (lit.reshape(pixels, per_pixel) * root[:, None]).reshape(-1).numpy()
            rows = scipy.sparse.csr_matrix((entries, columns, starts), shape=(pixels, self.count))
            normal = (rows.T @ rows).tocsr()
            if channel < len(self.matrices):
                self.matrices[channel] = self.matrices[channel] + normal
            else:
                self.matrices.append(normal)
            these = slice(None) if factor is None else slice(channel, channel + 1)
            self.right[:, these] += rows.T @ colors[:, these].numpy()

    @property
    def typical(self) -> float:
        """The median weight of what is seen."""
        weight = self.matrices[0].diagonal()
        return float(np.median(weight[weight > 0]))

    def solved(
        self, smooth: scipy.sparse.csr_matrix, prior: np.ndarray | None = None, inside: np.ndarray | None = None
    ) -> tuple[torch.Tensor, float]:
        """Return the colours (N, 3), and the share of them (of those inside) that have an equation.

        Args:
            smooth: squared differences of neighbours, weighted, as a matrix.
            prior: colours (N, 3) that are drawn to weakly, and where a solution by iteration starts; without them it is
                direct.
            inside: which count for the share.
        """
        result = np.zeros((self.count, 3))
        weak = self.typical * (1e-12 if prior is None else _PRIOR)  # alone where no view sees a piece of the mesh
        channels = np.array_split(np.arange(3), len(self.matrices))
        for matrix, these in zip(self.matrices, channels, strict=True):
            left = matrix + smooth + weak * scipy.sparse.identity(self.count)
            if prior is None:
                result[:, these] = scipy.sparse.linalg.splu(left.tocsc()).solve(self.right[:, these])
                continue
            left, right = left.tocsr(), self.right[:, these] + weak * prior[:, these]
            for channel, column in zip(these, right.T, strict=True):
                result[:, channel] = _conjugate_gradients(left, column, prior[:, channel])
        seen = self.matrices[0].diagonal() > 0
        return torch.from_numpy(result), float((seen if inside is None else seen[inside.reshape(-1)]).mean())


def _conjugate_gradients(matrix: scipy.sparse.csr_matrix, right: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Solve, preconditioned by the diagonal; to 1e-4 of the right side, far below what 8 bits show."""
    diagonal = matrix.diagonal()
    inverse = scipy.sparse.linalg.LinearOperator(matrix.shape, lambda v: v.reshape(-1) / diagonal)
    found, _ = scipy.sparse.linalg.cg(matrix, right, x0=start, rtol=1e-4, maxiter=2000, M=inverse)
    return np.asarray(found)


def _sides(mesh: Mesh, camera: Camera) -> torch.Tensor:
    """Return for each face 1 where its front is seen, and -1 where its back is, as inside of an open mesh."""
    corners = mesh.vertices[mesh.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return 1.0 - 2.0 * ((normal * toward(camera, corners[:, 0])).sum(-1) > 0).to(normal.dtype)


def _harmonics(looks: Iterator["_Look"], most: int) -> torch.Tensor:
    """Return the light (9, 3) of the photographs, bright enough that no colour is above 1 but for a few.

    Of views with more pixels than ``most`` every second, third, … counts.
    """
    parts = []
    for look in looks:
        if len(look.pixels):
            some = slice(None, None, math.ceil(len(look.pixels) / max(most, 1)))
            parts.append([values[some].clone() for values in (look.normals.mean(1), look.colors, look.weights)])
    if not parts:
        return torch.zeros(9, 3)
    normals, colors, weights = (torch.cat(values) for values in zip(*parts, strict=True))
    normals = torch.nn.functional.normalize(normals, dim=-1)
    found = fitted(normals, colors, weights)
    brightest = (colors / _irradiance(normals, found)).amax(-1).sort().values
    return found * brightest[int(0.995 * (len(brightest) - 1))].clamp_min(1e-3)


def _irradiance(normals: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Return the light (..., 3) at unit normals; a dim one where it would be none."""
    return (basis(normals) @ coefficients.to(normals.dtype)).clamp_min(_DIMMEST)


def _graph(mesh: Mesh) -> scipy.sparse.csr_matrix:
    """Return the sum over edges of squared differences, as a matrix."""
    edges = mesh.edges.numpy()
    return _differences(edges[:, 0], edges[:, 1], mesh.num_vertices)


def _grid(inside: np.ndarray) -> scipy.sparse.csr_matrix:
    """Return the same over neighbouring texels of a chart, a pair of which are both inside."""
    index = np.arange(inside.size).reshape(inside.shape)
    across, down = inside[:, 1:] & inside[:, :-1], inside[1:] & inside[:-1]
    first = np.concatenate([index[:, :-1][across], index[:-1][down]])
    second = np.concatenate([index[:, 1:][across], index[1:][down]])
    return _differences(first, second, inside.size)


def _differences(first: np.ndarray, second: np.ndarray, count: int) -> scipy.sparse.csr_matrix:
    rows, columns = np.concatenate([first, second]), np.concatenate([second, first])
    weights = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    return scipy.sparse.diags(np.asarray(weights.sum(1)).reshape(-1)) - weights


def _painted(mesh: Mesh, colors: torch.Tensor, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vertex colours drawn into the texture, (size², 3), the nearest beyond charts; and which are inside."""
    from geodiff import ops

    assert mesh.uv is not None and mesh.uv_faces is not None
    uv = mesh.uv.double()
    clip = torch.cat([2 * uv - 1, torch.ones_like(uv)], dim=-1)
    raster = ops.rasterize(clip, mesh.uv_faces, torch.tensor([[0, 0, mesh.num_faces]]), image_size=(size, size))
    face, inside = raster.face_id[0], (raster.face_id[0] >= 0).numpy()
    if not inside.any():
        raise fail(_WHERE, "size", "large enough for a texel in some chart", str(size))
    values = (colors[mesh.faces[face.clamp_min(0)]] * raster.barycentric[0][..., None]).sum(-2).numpy()
    nearest = scipy.ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return values[tuple(nearest)].reshape(-1, 3), inside


def _gutters(values: torch.Tensor, inside: np.ndarray) -> torch.Tensor:
    """Repeat the charts' rims beyond what a pixel on them reads, for coarse mip-map levels of viewers."""
    # Two texels beyond a chart have equations of their own, from samples near its rim.
    near = scipy.ndimage.binary_dilation(inside, iterations=1)
    nearest = scipy.ndimage.distance_transform_edt(~near, return_distances=False, return_indices=True)
    return values[tuple(torch.from_numpy(axis).long() for axis in nearest)]


def scores(
    mesh: Mesh, posed: PosedImages, scene: list[Light] | None, coefficients: torch.Tensor | None, samples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return PSNR and SSIM of each view."""
    found = []
    for i in range(len(posed)):
        color, alpha = picture(mesh, posed.cameras[i : i + 1], posed.image_size, scene, coefficients, samples)
        both = (alpha >= 0.999) & (posed.alpha[i] >= 0.999)
        ours, theirs = (torch.where(both[..., None], v, 1.0) for v in (color, posed.photograph(i)))
        quality = psnr(ours, theirs, both.to(ours.dtype))
        give_back(both.numel())
        found.append((quality, ssim(ours, theirs) if min(posed.image_size) >= 11 else ours.new_tensor(math.nan)))
    return torch.stack([a for a, _ in found]), torch.stack([b for _, b in found])


def picture(
    mesh: Mesh,
    camera: Camera,
    size: tuple[int, int],
    scene: list[Light] | None,
    coefficients: torch.Tensor | None,
    samples: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the mesh as it was photographed, (H, W, 3) and (H, W)."""
    wanted = ("rgb", "normal", "face_id") if coefficients is not None else ("rgb",)
    fine = (size[0] * samples, size[1] * samples)
    shading = "unlit" if scene is None else "phong"
    out = Renderer(fine, coverage="hard", outputs=wanted, shading=shading)(mesh, camera, scene)
    color, alpha = out.rgb[0], out.alpha[0]
    if coefficients is not None:
        side = _sides(mesh, camera)[out.face_id[0].clamp_min(0)]
        color = color * _irradiance(out.normal[0] * side[..., None], coefficients)
    mean = torch.nn.functional.avg_pool2d
    return mean(color.movedim(-1, 0)[None], samples)[0].movedim(0, -1), mean(alpha[None, None], samples)[0, 0]
