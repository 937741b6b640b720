# SPDX-License-Identifier: Apache-2.0
import gc
import math
import weakref

import numpy as np
import pytest
import scipy.sparse
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from geodiff import Mesh, MeshBatch, chamfer, losses

EXACT = 1e-12  # float64 sums of a few thousand terms of order one
# The softening of slivers shifts cosines by at most about 1e-7 for the triangles used here.
SOFTENED = 3e-7
MESH_LOSSES = {
    "uniform": losses.laplacian,
    "cotangent": lambda mesh, **kw: losses.laplacian(mesh, kind="cotangent", **kw),
    "lengths": lambda mesh, **kw: losses.laplacian(mesh, squared=False, **kw),
    "flatness": losses.flatness,
    "normals": losses.normal_consistency,
    "edges": lambda mesh, **kw: losses.edge_length(mesh, 0.3, **kw),
}


def as_mesh(vertices, faces):
    return Mesh(torch.as_tensor(vertices), torch.as_tensor(np.ascontiguousarray(faces)))


def bumpy(subdivisions=1, seed=0):
    sphere = trimesh.creation.icosphere(subdivisions)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=sphere.vertices.shape)
    return as_mesh(sphere.vertices + noise, sphere.faces)


def open_strip():
    """Two by three vertices over a curved patch, four triangles: boundaries, and one vertex that no face uses."""
    vertices = [[0, 0, 0], [1, 0, 0.3], [2, 0, 0], [0, 1, 0.1], [1.2, 1, 0], [2, 1.1, 0.4], [5.0, 5, 5]]
    return as_mesh(np.array(vertices), [[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4]])


def loop_flatness(mesh):
    """The sum over all pairs of faces with a common edge, from the definition by directions within the faces."""
    x, faces, total, pairs = mesh.vertices.detach().numpy(), mesh.faces.numpy(), 0.0, 0
    around = {}
    for face in faces:
        for k in range(3):
            around.setdefault(frozenset((face[k], face[(k + 1) % 3])), []).append(face[(k + 2) % 3])
    for edge, tips in around.items():
        i, j = sorted(edge)
        axis = (x[j] - x[i]) / np.linalg.norm(x[j] - x[i])
        for first in range(len(tips)):
            for second in range(first):
                inward = []
                for tip in (tips[first], tips[second]):
                    arm = x[tip] - x[i]
                    arm = arm - axis * (arm @ axis)
                    inward.append(arm / np.linalg.norm(arm))
                total += (inward[0] @ inward[1] + 1) ** 2
                pairs += 1
    return total, pairs


def loop_cotangent(mesh):
    x, faces = mesh.vertices.detach().numpy(), mesh.faces.numpy()
    weight = np.zeros((len(x), len(x)))
    for face in faces:
        for k in range(3):
            tip, i, j = face[k], face[(k + 1) % 3], face[(k + 2) % 3]
            a, b = x[i] - x[tip], x[j] - x[tip]
            angle = math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            weight[i, j] += 1 / math.tan(angle)
            weight[j, i] += 1 / math.tan(angle)
    weight = np.maximum(weight, 0)
    used = weight.sum(1) > 0
    delta = (weight[used] / weight[used].sum(1, keepdims=True)) @ x - x[used]
    return (delta**2).sum()


# --- silhouettes -----------------------------------------------------------------------------------------------------


def test_iou_is_the_formula_per_image():
    p, q = torch.rand(3, 5, 7, dtype=torch.float64), torch.rand(3, 5, 7, dtype=torch.float64)
    each = [1 - (a * b).sum() / (a + b - a * b).sum() for a, b in zip(p.numpy(), q.numpy(), strict=True)]
    torch.testing.assert_close(losses.iou(p, q, reduction="none"), torch.tensor(np.array(each)), rtol=EXACT, atol=0)
    torch.testing.assert_close(losses.iou(p, q), torch.tensor(np.mean(each)), rtol=EXACT, atol=0)
    torch.testing.assert_close(losses.iou(p, q, reduction="sum"), torch.tensor(np.sum(each)), rtol=EXACT, atol=0)


def test_iou_of_hard_masks_counts_pixels():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    alpha = torch.zeros(2, 4, 4)
    alpha[0, :, :2] = 1  # overlaps in 4 pixels of 12
    alpha[1, :2] = 1  # is the mask
    assert losses.iou(alpha, mask, reduction="none").tolist() == pytest.approx([1 - 4 / 12, 0], abs=1e-7)
    assert losses.iou(alpha[0], mask.long()).item() == pytest.approx(1 - 4 / 12)


def test_iou_of_empty_images_is_zero_with_zero_gradient():
    alpha = torch.zeros(2, 3, 3, requires_grad=True)
    target = torch.zeros(2, 3, 3)
    target[1, 0, 0] = 1
    value = losses.iou(alpha, target, reduction="none")
    assert value.tolist() == [0, 1]
    value.sum().backward()
    assert alpha.grad[0].eq(0).all()
    assert alpha.grad[1, 0, 0] == -1  # towards covering the pixel that is missing
    assert torch.isfinite(alpha.grad).all()


def test_iou_gradient():
    p = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    q = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses.iou, (p, q))


def test_iou_promotes_to_the_wider_type():
    assert losses.iou(torch.rand(3, 3), torch.rand(3, 3, dtype=torch.float64)).dtype == torch.float64


def test_iou_refuses_what_does_not_fit():
    good = torch.zeros(2, 4, 4)
    with pytest.raises(ValueError, match=r"losses.iou: `target` must be of alpha's shape \(2, 4, 4\) or \(4, 4\)"):
        losses.iou(good, torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"`target` must be in \[0, 1\]; got values in \[0, 255\]. Divide 8-bit"):
        losses.iou(good, 255 * torch.eye(4))
    with pytest.raises(ValueError, match="`target` must be in"):
        losses.iou(good, (255 * torch.eye(4)).to(torch.uint8))
    with pytest.raises(ValueError, match="`alpha` must be in"):
        losses.iou(good - 0.1, good)
    with pytest.raises(ValueError, match=r"`alpha` must be of shape \(..., H, W\)"):
        losses.iou(torch.zeros(4), good)
    with pytest.raises(ValueError, match="`alpha` must be finite; got nan"):
        losses.iou(good * math.nan, good)
    with pytest.raises(TypeError, match="`target` must be a tensor"):
        losses.iou(good, good.numpy())
    with pytest.raises(
        ValueError, match=r"`reduction` must be one of mean, sum, none; got 'summ'. Did you mean .sum.\?"
    ):
        losses.iou(good, good, reduction="summ")
    with pytest.raises(RuntimeError, match="`target` must be on cpu, where alpha is; got meta"):
        losses.iou(good, good.to("meta"))


# --- smoothness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mesh", [bumpy(2), open_strip()], ids=["closed", "open"])
def test_uniform_laplacian_against_scipy(mesh):
    x = mesh.vertices.numpy()
    edges = trimesh.Trimesh(x, mesh.faces.numpy(), process=False).edges_unique
    i, j = np.concatenate([edges, edges[:, ::-1]]).T
    adjacency = scipy.sparse.csr_matrix((np.ones(len(i)), (i, j)), shape=(len(x), len(x)))
    degree = np.asarray(adjacency.sum(1)).ravel()
    used = degree > 0
    delta = (adjacency @ x)[used] / degree[used, None] - x[used]
    assert losses.laplacian(mesh).item() == pytest.approx((delta**2).sum() / len(x), rel=EXACT)
    assert losses.laplacian(mesh, reduction="sum").item() == pytest.approx((delta**2).sum(), rel=EXACT)
    lengths = np.linalg.norm(delta, axis=1)  # PyTorch3D's mesh_laplacian_smoothing averages these
    assert losses.laplacian(mesh, squared=False).item() == pytest.approx(lengths.sum() / len(x), rel=EXACT)


@pytest.mark.parametrize("mesh", [bumpy(2), open_strip()], ids=["closed", "open"])
def test_cotangent_laplacian_against_a_loop(mesh):
    value = losses.laplacian(mesh, kind="cotangent", reduction="sum")
    assert value.item() == pytest.approx(loop_cotangent(mesh), rel=1e-5)


@pytest.mark.parametrize("mesh", [bumpy(2), open_strip()], ids=["closed", "open"])
def test_flatness_against_a_loop(mesh):
    expected, pairs = loop_flatness(mesh)
    assert losses.flatness(mesh).item() == pytest.approx(expected / pairs, rel=1e-5)
    assert losses.flatness(mesh, reduction="sum").item() == pytest.approx(expected, rel=1e-5)


def test_flatness_of_known_shapes():
    cube = trimesh.creation.box()
    box = as_mesh(cube.vertices, cube.faces)
    assert losses.flatness(box, reduction="sum").item() == pytest.approx(12, rel=SOFTENED)  # right angles
    assert losses.flatness(box).item() == pytest.approx(12 / 18, rel=SOFTENED)  # and the diagonals of six squares
    tetrahedron = as_mesh(
        np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]), [[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]
    )
    assert losses.flatness(tetrahedron).item() == pytest.approx((1 + 1 / 3) ** 2, rel=SOFTENED)
    assert losses.normal_consistency(tetrahedron).item() == pytest.approx(1 + 1 / 3, rel=SOFTENED)


@given(angle=st.floats(0.05, math.pi), flip=st.booleans(), turn=st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_flatness_of_a_hinge(angle, flip, turn):
    tip = [0.3, math.cos(angle), math.sin(angle)]
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0.6, 1, 0], tip])
    second = np.roll([1, 0, 3], turn)
    mesh = as_mesh(vertices, [[0, 1, 2], second[::-1] if flip else second])
    expected = (1 + math.cos(angle)) ** 2
    assert losses.flatness(mesh).item() == pytest.approx(expected, abs=4 * SOFTENED)
    assert losses.normal_consistency(mesh).item() == pytest.approx(1 + math.cos(angle), abs=4 * SOFTENED)


def test_every_interior_edge_counts():
    mesh = bumpy(2)
    losses.flatness(mesh)
    tables = vars(mesh.topology)["_loss_tables"]
    assert tables.pairs.index.numel() == 2 * (3 * len(mesh.faces) // 2)
    adjacency = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).face_adjacency
    ours = np.sort(tables.pairs.index.reshape(2, -1).numpy().T, 1)
    assert {tuple(pair) for pair in ours} == {tuple(pair) for pair in np.sort(adjacency, 1)}


def test_non_manifold_edges_count_each_pair():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0.5, 1, 0], [0.5, -1, 0.2], [0.5, 0.1, 1], [0.4, -0.3, -1]])
    mesh = as_mesh(vertices, [[0, 1, 2], [0, 1, 3], [1, 0, 4], [0, 1, 5]])
    expected, pairs = loop_flatness(mesh)
    assert pairs == 6
    assert losses.flatness(mesh, reduction="sum").item() == pytest.approx(expected, rel=1e-5)


def test_edge_length_against_trimesh():
    mesh = bumpy(2)
    lengths = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).edges_unique_length
    assert losses.edge_length(mesh).item() == pytest.approx((lengths**2).mean(), rel=EXACT)
    assert losses.edge_length(mesh, 0.3).item() == pytest.approx(((lengths - 0.3) ** 2).mean(), rel=EXACT)
    target = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    losses.edge_length(mesh, target).backward()
    assert target.grad.item() == pytest.approx(-2 * (lengths - 0.3).mean(), rel=1e-9)


@pytest.mark.parametrize("name", MESH_LOSSES)
def test_a_weight_serves_two_copies_of_a_mesh_as_well_as_one(name):
    mesh = bumpy(1)
    count = mesh.num_vertices
    twice = as_mesh(np.tile(mesh.vertices.numpy(), (2, 1)), np.concatenate((mesh.faces, mesh.faces + count)))
    assert MESH_LOSSES[name](twice).item() == pytest.approx(MESH_LOSSES[name](mesh).item(), rel=1e-9)
    both, one = MESH_LOSSES[name](twice, reduction="sum").item(), MESH_LOSSES[name](mesh, reduction="sum").item()
    assert both == pytest.approx(2 * one, rel=1e-9)


def test_the_usual_weights_of_pytorch3d_converge():
    """Of its tutorial on deforming a sphere: Laplacian 0.1, normals 0.01, edges 1, SGD at rate 1 with momentum 0.9."""
    ball = trimesh.creation.icosphere(4)
    mesh = as_mesh(ball.vertices.astype(np.float32), ball.faces)
    target = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    offset = torch.zeros_like(mesh.vertices, requires_grad=True)
    optimizer = torch.optim.SGD([offset], lr=1.0, momentum=0.9)
    values = []
    for _ in range(60):
        moved = mesh.with_vertices(mesh.vertices + offset)
        fit = chamfer(moved.vertices, target)
        smooth = 0.1 * losses.laplacian(moved) + 0.01 * losses.normal_consistency(moved) + losses.edge_length(moved)
        optimizer.zero_grad()
        (fit + smooth).backward()
        optimizer.step()
        values.append((fit + smooth).item())
    assert values[-1] < 0.2 * values[0]


# --- what all mesh losses share --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESH_LOSSES)
@pytest.mark.parametrize("mesh", [bumpy(0), open_strip()], ids=["closed", "open"])
def test_gradients(name, mesh):
    x = mesh.vertices.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: MESH_LOSSES[name](mesh.with_vertices(v)), x)
    assert torch.autograd.gradgradcheck(lambda v: MESH_LOSSES[name](mesh.with_vertices(v)), x)


def test_gradients_where_faces_are_oriented_differently():
    faces = open_strip().faces.clone()
    faces[1] = faces[1].flip(0)
    strip = as_mesh(open_strip().vertices, faces)
    x = strip.vertices.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: losses.flatness(strip.with_vertices(v)), x)
    assert torch.autograd.gradgradcheck(lambda v: losses.flatness(strip.with_vertices(v)), x)
    assert losses.flatness(strip).item() == pytest.approx(losses.flatness(open_strip()).item(), rel=EXACT)


def test_gradient_of_a_sliver_is_bounded_and_right():
    """A needle of height 1e-5: there the softening acts, and its own derivative must be in the gradient."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0.5, 1e-5, 2e-5], [0.5, -1, 0.2]])
    mesh = as_mesh(vertices, [[0, 1, 2], [1, 0, 3]])
    x = mesh.vertices.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: losses.flatness(mesh.with_vertices(v)), x, eps=1e-8, rtol=1e-3)
    gradient = torch.autograd.grad(losses.flatness(mesh.with_vertices(x)), x)[0]
    assert gradient.abs().max() < 4 / math.sqrt(losses.SLIVER)


@pytest.mark.parametrize("name", MESH_LOSSES)
def test_batches_give_each_mesh_its_value(name):
    mesh = bumpy(1)
    stretch = torch.linspace(0.5, 2, 6, dtype=torch.float64).reshape(2, 3, 1, 1) * torch.tensor([1.0, 2.0, 0.7])
    batch = mesh.with_vertices((mesh.vertices * stretch).requires_grad_())
    values = MESH_LOSSES[name](batch, reduction="none")
    assert values.shape == (2, 3)
    single = torch.stack([MESH_LOSSES[name](mesh.with_vertices(v)) for v in batch.vertices.flatten(0, 1)])
    torch.testing.assert_close(values.flatten(), single, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(MESH_LOSSES[name](batch), single.mean(), rtol=EXACT, atol=EXACT)
    parts = [MESH_LOSSES[name](mesh.with_vertices(v), reduction="sum") for v in batch.vertices.flatten(0, 1)]
    torch.testing.assert_close(MESH_LOSSES[name](batch, reduction="sum"), sum(parts), rtol=EXACT, atol=EXACT)
    weights = torch.arange(6.0, dtype=torch.float64)
    (by_batch,) = torch.autograd.grad((values.flatten() * weights).sum(), batch.vertices)
    (by_single,) = torch.autograd.grad((single * weights).sum(), batch.vertices)
    torch.testing.assert_close(by_batch, by_single, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MESH_LOSSES)
def test_rigid_motion_and_order_of_faces_change_nothing(name):
    mesh = bumpy(2)
    rotation = trimesh.transformations.random_rotation_matrix(np.random.default_rng(1).random(3))[:3, :3]
    moved = as_mesh(mesh.vertices.numpy() @ rotation.T + [1.0, -2, 3], mesh.faces.numpy()[::-1])
    assert MESH_LOSSES[name](moved).item() == pytest.approx(MESH_LOSSES[name](mesh).item(), rel=1e-9)


@given(scale=st.floats(1e-4, 1e4))
@settings(max_examples=20, deadline=None)
def test_scale(scale):
    mesh = bumpy(1)
    scaled = mesh.with_vertices((mesh.vertices * scale).float())
    assert losses.flatness(scaled).item() == pytest.approx(losses.flatness(mesh).item(), rel=1e-4)
    assert losses.laplacian(scaled).item() == pytest.approx(scale**2 * losses.laplacian(mesh).item(), rel=1e-4)


@pytest.mark.parametrize("name", MESH_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_faces_without_area_make_no_nan(name, dtype):
    mesh = bumpy(1)
    faces = torch.cat([mesh.faces, torch.tensor([[0, 0, 1], [2, 2, 2], [0, 1, 0]])])
    vertices = mesh.vertices.to(dtype).clone()
    first, second, third = faces[0].tolist()
    vertices[second] = vertices[first]  # an edge of length zero
    vertices[third] = vertices[first]  # a face that is a point
    x = vertices.requires_grad_()
    value = MESH_LOSSES[name](Mesh(x, faces))
    value.backward()
    assert math.isfinite(value.item())
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", MESH_LOSSES)
@pytest.mark.parametrize("count", [0, 3])
def test_a_mesh_without_faces_costs_nothing(name, count):
    x = torch.rand(count, 3, requires_grad=True)
    value = MESH_LOSSES[name](Mesh(x, torch.zeros(0, 3, dtype=torch.int64)))
    value.backward()
    assert value.item() == 0
    assert x.grad.eq(0).all()


@pytest.mark.parametrize("name", MESH_LOSSES)
def test_same_bits_on_one_thread_and_on_two(name):
    mesh, gradients = bumpy(4), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            x = mesh.vertices.float().requires_grad_()
            MESH_LOSSES[name](mesh.with_vertices(x)).backward()
            gradients.append(x.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*gradients)


def test_tables_are_made_once_and_freed_with_the_topology():
    mesh = bumpy(1)
    losses.flatness(mesh)
    first = weakref.ref(vars(mesh.topology)["_loss_tables"])
    losses.laplacian(mesh.with_vertices(mesh.vertices * 2))
    assert vars(mesh.topology)["_loss_tables"] is first()
    del mesh
    gc.collect()  # a matrix and its transpose know each other
    assert first() is None


@pytest.mark.parametrize("name", MESH_LOSSES)
def test_different_meshes_give_each_its_value(name):
    parts = [bumpy(1), open_strip()]
    vertices = torch.cat([mesh.vertices for mesh in parts]).requires_grad_()
    batch = MeshBatch(parts).with_vertices(vertices)
    values = MESH_LOSSES[name](batch, reduction="none")
    expected = torch.stack([MESH_LOSSES[name](mesh) for mesh in parts])
    torch.testing.assert_close(values, expected, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(MESH_LOSSES[name](batch), expected.mean(), rtol=EXACT, atol=EXACT)
    parts = [MESH_LOSSES[name](mesh, reduction="sum") for mesh in parts]
    torch.testing.assert_close(MESH_LOSSES[name](batch, reduction="sum"), sum(parts), rtol=EXACT, atol=EXACT)
    values[1].backward()
    assert vertices.grad[:42].eq(0).all()
    assert vertices.grad[42:].ne(0).any()


def test_descent_smooths():
    mesh = bumpy(2)
    x = mesh.vertices.clone().requires_grad_()
    start = losses.flatness(mesh.with_vertices(x)).item()
    optimizer = torch.optim.Adam([x], lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        (100 * losses.laplacian(mesh.with_vertices(x)) + losses.flatness(mesh.with_vertices(x))).backward()
        optimizer.step()
    assert losses.flatness(mesh.with_vertices(x)).item() < 0.2 * start


def test_bad_arguments():
    mesh = bumpy(0)
    with pytest.raises(TypeError, match=r"losses.flatness: `mesh` must be a geodiff.Mesh or MeshBatch; got float64"):
        losses.flatness(mesh.vertices)
    with pytest.raises(
        ValueError, match=r"`kind` must be one of uniform, cotangent; got 'cot'. Did you mean 'cotangent'"
    ):
        losses.laplacian(mesh, kind="cot")
    with pytest.raises(ValueError, match=r"losses.laplacian: `reduction` must be one of mean, sum, none"):
        losses.laplacian(mesh, reduction="average")
    with pytest.raises(ValueError, match=r"`target` must be a finite length ≥ 0; got -1.0"):
        losses.edge_length(mesh, -1.0)
    with pytest.raises(TypeError, match="`target` must be a number or a scalar tensor; got 'long'"):
        losses.edge_length(mesh, "long")
    with pytest.raises(ValueError, match=r"`target` must be of shape \(\); got float32 of shape \(2,\)"):
        losses.edge_length(mesh, torch.ones(2))
