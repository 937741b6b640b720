# SPDX-License-Identifier: Apache-2.0
"""Types of the compiled extension (cuda/cpu/bind_*.cpp), written by `make stubs`."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = Tensor | NDArray[Any]

def kernels() -> list[str]:
    """Name the kernels."""

def simd_level() -> str:
    """Name the SIMD level that the kernels use."""

def simd_levels() -> list[str]:
    """Name those that this machine has, the widest last."""

def parallel_backend() -> str:
    """Name what runs the threads: 'openmp' or 'threads'."""

def set_simd_level(arg: str, /) -> None:
    """Use another SIMD level that this machine has."""

def neighbour_axes(
    *,
    places: Array,
    members: Array,
    sizes: Sequence[int],
    factors: Sequence[float],
    terms: Sequence[float],
    own: bool,
    keep: int,
    spread: Array,
    axis: Array,
    threads: int = 1,
) -> None: ...
def indices_fit(*, index: Array, least: int, count: int) -> bool: ...
def faces_fit(*, faces: Array, layout: Array, vertices: int) -> bool: ...
def list_fits(*, place: Array, face: Array, layout: Array, pixels: int) -> bool: ...
def matrix_times(*, matrix: Array, v: Array, transposed: bool, out: Array, threads: int = 1) -> None: ...
def nearest_triangle(*, corners: Array, points: Array, face: Array, threads: int = 1) -> None: ...
def pieces_take(
    *,
    state: Array,
    cost: Array,
    starts: Array,
    at: Array,
    x: Array,
    first: int,
    last: int,
    point: int,
    weight: float,
    unit: float,
    threads: int = 1,
) -> None: ...
def self_intersections(*, points: Array, faces: Array, threads: int = 1) -> tuple: ...
def remesh(
    *,
    points: Array,
    faces: Array,
    sizes: Array,
    iterations: int,
    crease: float,
    single: bool,
    guard: bool,
    threads: int = 1,
) -> tuple: ...
def jumps(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    edges: Array,
    face_id: Array,
    near: float,
    creases: bool,
    threads: int = 1,
) -> tuple: ...
def heaviest(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    height: int,
    width: int,
    near: float,
    table: Array,
    table_unit: float,
    sharpness: Array,
    base: Array,
    floor: Array,
    within: Array,
    k: int,
    blur: float,
    rim: float,
    spread: float,
    max_error: float,
    threads: int = 1,
) -> tuple: ...
def heaviest_backward(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    height: int,
    width: int,
    near: float,
    place: Array,
    start: Array,
    face: Array,
    distance: Array,
    up_distance: Array | None,
    up_barycentric: Array | None,
    up_depth: Array | None,
    grad_clip: Array,
    threads: int = 1,
) -> None: ...
def mix_forward(
    *,
    values: Array,
    log_weight: Array,
    depth: Array,
    start: Array,
    row: Array,
    ends: Array,
    sharpness: float,
    has_floor: bool,
    floor: float,
    out: Array,
    weight: Array,
    rest: Array,
    threads: int = 1,
) -> None: ...
def mix_backward(
    *,
    values: Array,
    log_weight: Array,
    depth: Array,
    start: Array,
    row: Array,
    ends: Array,
    sharpness: float,
    has_floor: bool,
    floor: float,
    weight: Array,
    rest: Array,
    upstream: Array,
    up_rest: Array | None,
    grad_values: Array,
    grad_log_weight: Array,
    grad_depth: Array,
    grad_ends: Array,
    grad_sharpness: Array,
    threads: int = 1,
) -> None: ...

class SilhouetteModel:
    def __init__(
        self,
        *,
        distribution: int,
        is_reversed: bool,
        is_squared: bool,
        coverage: str,
        scale: float,
        shift: float,
        shape: float,
        log_gamma_1: float,
        digamma: float,
        tconorm: int,
        p: float,
        radius: float,
        radii: Sequence[float] = [],
        max_error: float = 0.0,
        ease: float = 0.0,
    ) -> None: ...

def silhouette_forward(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    height: int,
    width: int,
    near: float,
    model: SilhouetteModel,
    alpha: Array,
    sum: Array,
    best: Array,
    pairs: Array | None,
    threads: int = 1,
) -> None: ...
def silhouette_backward(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    height: int,
    width: int,
    near: float,
    model: SilhouetteModel,
    sum: Array,
    best: Array,
    upstream: Array,
    grad_clip: Array,
    grad_params: Array,
    want_params: bool,
    want_shape: bool,
    want_p: bool,
    threads: int = 1,
) -> None: ...
def rasterize(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    height: int,
    width: int,
    near: float,
    face: Array,
    depth: Array,
    barycentric: Array,
    threads: int = 1,
) -> None: ...
def contour_forward(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    edges: Array,
    height: int,
    width: int,
    near: float,
    radius_outside: float,
    radius_inside: float,
    distance: Array,
    along: Array,
    nearest: Array,
    threads: int = 1,
) -> None: ...
def contour_backward(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    height: int,
    width: int,
    near: float,
    distance: Array,
    along: Array,
    nearest: Array,
    upstream: Array,
    grad_clip: Array,
    threads: int = 1,
) -> None: ...
def fragments_forward(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    height: int,
    width: int,
    near: float,
    order: int,
    blur: float,
    table: Array,
    table_unit: float,
    sharpness: Array,
    face: Array,
    distance: Array,
    barycentric: Array,
    depth: Array,
    threads: int = 1,
) -> None: ...
def fragments_backward(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    height: int,
    width: int,
    near: float,
    face: Array,
    distance: Array,
    up_distance: Array | None,
    up_barycentric: Array | None,
    up_depth: Array | None,
    grad_clip: Array,
    threads: int = 1,
) -> None: ...
def visible_forward(
    *, clip: Array, faces: Array, layout: Array, height: int, width: int, near: float, blur: float, threads: int = 1
) -> tuple: ...
def visible_backward(
    *,
    clip: Array,
    faces: Array,
    layout: Array,
    height: int,
    width: int,
    near: float,
    place: Array,
    face: Array,
    inside: Array,
    upstream: Array,
    grad_clip: Array,
    threads: int = 1,
) -> None: ...
def blend_forward(*, values: Array, index: Array, weight: Array, out: Array, threads: int = 1) -> None: ...
def blend_backward(
    *,
    values: Array,
    index: Array,
    weight: Array,
    upstream: Array,
    grad_values: Array,
    grad_weight: Array,
    threads: int = 1,
) -> None: ...
def reflect_forward(
    *,
    rows: Array,
    kinds: Array,
    image: Array,
    normal: Array,
    point: Array,
    parallel_view: bool,
    glossy: bool,
    out: Array,
    threads: int = 1,
) -> None: ...
def reflect_backward(
    *,
    rows: Array,
    kinds: Array,
    image: Array,
    normal: Array,
    point: Array,
    parallel_view: bool,
    glossy: bool,
    upstream: Array,
    grad_normal: Array,
    grad_point: Array,
    grad_rows: Array,
    threads: int = 1,
) -> None: ...
def texture_forward(
    *, values: Array, uv: Array, image: Array, height: int, width: int, wrap: int, out: Array, threads: int = 1
) -> None: ...
def texture_backward(
    *,
    values: Array,
    uv: Array,
    image: Array,
    height: int,
    width: int,
    wrap: int,
    upstream: Array,
    grad_values: Array,
    grad_uv: Array,
    threads: int = 1,
) -> None: ...
def surface_forward(
    *,
    uv: Array,
    uv_corners: Array,
    frame: Array,
    corners: Array,
    weight: Array,
    image: Array,
    rows: Array,
    kinds: Array,
    texture: Array,
    wrap: int,
    parallel_view: bool,
    glossy: bool,
    out: Array,
    threads: int = 1,
) -> None: ...
def surface_backward(
    *,
    uv: Array,
    uv_corners: Array,
    frame: Array,
    corners: Array,
    weight: Array,
    image: Array,
    rows: Array,
    kinds: Array,
    texture: Array,
    wrap: int,
    parallel_view: bool,
    glossy: bool,
    upstream: Array,
    grad_uv: Array,
    grad_frame: Array,
    grad_weight: Array,
    grad_rows: Array,
    grad_texels: Array,
    threads: int = 1,
) -> None: ...
def composite_forward(
    *, alpha: Array, color: Array, place: Array, background: Array, out: Array, threads: int = 1
) -> int: ...
def composite_backward(
    *,
    alpha: Array,
    color: Array,
    place: Array,
    background: Array,
    upstream: Array,
    grad_alpha: Array,
    grad_color: Array,
    threads: int = 1,
) -> int: ...
def vertex_normals_forward(*, vertices: Array, faces: Array, out: Array, threads: int = 1) -> None: ...
def vertex_normals_backward(
    *, vertices: Array, faces: Array, upstream: Array, grad: Array, threads: int = 1
) -> None: ...
def spline_basis(
    *, knots: Array, parameters: Array, degree: int, order: int, span: Array, values: Array, threads: int = 1
) -> None: ...
def spline_basis_backward(
    *,
    knots: Array,
    parameters: Array,
    degree: int,
    order: int,
    upstream: Array,
    grad_knots: Array,
    grad_parameters: Array,
    threads: int = 1,
) -> None: ...
def spline_forward(
    *,
    control: Array,
    knots: Sequence[Array],
    parameters: Sequence[Array],
    degree: Sequence[int],
    order: Sequence[int],
    rational: bool,
    grid: bool,
    value: Array,
    inverse_weight: Array,
    threads: int = 1,
) -> None: ...
def spline_backward(
    *,
    control: Array,
    knots: Sequence[Array],
    parameters: Sequence[Array],
    degree: Sequence[int],
    order: Sequence[int],
    bandwidth: Sequence[float],
    rational: bool,
    grid: bool,
    value: Array,
    inverse_weight: Array,
    upstream: Array,
    grad_control: Array,
    grad_knots: Sequence[Array],
    grad_parameters: Sequence[Array],
    threads: int = 1,
) -> None: ...
def transport(
    *,
    sum: int,
    x: Array,
    y: Array,
    h: Array,
    k: Array | None,
    v: Array | None,
    epsilon: float,
    p: int,
    out: Array,
    threads: int = 1,
) -> None: ...
def math(function: int, input: Array, output: Array) -> None: ...
def surface_net(*, inside: Array, sheets: Array, threads: int = 1) -> tuple: ...
def net_sum(*, points: Array, around: Array, gather: bool, out: Array, threads: int = 1) -> None: ...
def winding_sum(
    *,
    sum: str,
    places: Array,
    source: Array,
    balls: Array,
    links: Array,
    leaves: Array,
    width: float,
    reach: float,
    out: Array,
    threads: int = 1,
) -> None: ...
def smooth_along_normals(
    *,
    points: Array,
    near: Array,
    reach: Array,
    width: Array,
    spread: float,
    turn: float,
    out: Array,
    threads: int = 1,
) -> None: ...
def train_charts(
    *,
    uv: Array,
    parameters: Sequence[Array],
    first: Sequence[Array],
    second: Sequence[Array],
    uv_first: Array,
    uv_second: Array,
    target: Array,
    weight: Array,
    rows: Array,
    active: Array,
    rates: Array,
    uv_rate: float,
    plane: bool,
    out: Array,
    loss: Array,
    threads: int = 1,
) -> None: ...
def places_of_charts(
    *, uv: Array, parameters: Sequence[Array], chart: Array, edges: Array, out: Array, slope: Array, threads: int = 1
) -> None: ...
