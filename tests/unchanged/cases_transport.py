# SPDX-License-Identifier: Apache-2.0
"""Calls of what is in geodiff.transport, losses, implicit, optim, soft and atlas."""

from typing import Any

import torch

import geodiff as gd
from geodiff import atlas, implicit, losses, optim, soft, transport
from tests.atlas.shapes import flat_atlas, plane
from tests.unchanged.arguments import Arguments, Case

EPSILONS = (3.0, 0.1)  # of the costs' range, where no annealing comes before, and below it


def _clouds(t: Arguments) -> tuple[Any, Any, Any, Any]:
    weight = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    x, y = (t.rand(n, 3, array=True, batch=True) for n in (5, 4))
    return x, y, t(weight, array=True), t(torch.full((4,), 0.25), array=True)


def _results(ot: transport.SinkhornResult) -> list[Any]:
    v = torch.rand(ot.g.shape[-1], 2).to(ot.f.dtype)
    lazy = ot.lazy_plan
    return [ot.cost, ot.transport_cost, ot.f, ot.g, ot.plan(), lazy @ v, lazy.T.argmax(), lazy.argmax()]


def _sinkhorn(t: Arguments) -> Any:
    out = []
    for epsilon in EPSILONS:
        for options in ({}, {"reach": 0.7}, {"backend": "streamed", "p": 1}):
            ot = gd.sinkhorn(*_clouds(t), epsilon=t(epsilon), **options)
            again = gd.sinkhorn(*_clouds(t), epsilon=epsilon, start=t.hold(ot), **options)
            out += [_results(ot), _results(again)]
    x, _, a, _ = _clouds(t)
    masks = {"mask_x": t(torch.arange(5) > 1, array=True), "mask_y": t(torch.arange(4) > 0, array=True)}
    y = t.rand(4, 3, array=True, batch=True)
    return [out, _results(gd.sinkhorn(x, x, a, a, epsilon=0.1)), gd.sinkhorn(x, y, epsilon=0.1, **masks).cost]


def _sinkhorn_of_a_matrix(t: Arguments) -> Any:
    out = []
    for epsilon in EPSILONS:
        for forbidden in (False, True):
            cost = torch.rand(5, 4, generator=t.random, dtype=torch.float64)
            cost[1, 2] = torch.inf if forbidden else 0.3
            given = {"cost_matrix": t(cost, array=True, batch=True), "epsilon": epsilon}
            for options in ({}, {"reach": 0.5, "solver": "cholesky"}, {"unrolled": True, "tolerance": 1e-3}):
                ot = gd.sinkhorn(**given, **options)
                start = (t.hold(ot.f.detach()), t.hold(ot.g.detach()))
                again = gd.sinkhorn(**given, start=start, **options)
                # The gradient in a forbidden cost is not asked of the unrolled iterations.
                out += [_results(o) for o in (ot, again) if not (forbidden and "unrolled" in options)]
    return out


def _loss(t: Arguments) -> Any:
    loss = transport.SinkhornLoss(epsilon=0.5)
    first = loss.forward(*_clouds(t))
    second = loss(*_clouds(t))
    loss.extra_repr(), loss.reset()
    return first, second


def _chamfer(t: Arguments) -> Any:
    x, y, _, _ = _clouds(t)
    n, m = t.rand(5, 3, array=True, batch=True) + 0.1, t.rand(4, 3, array=True, batch=True) + 0.1
    masks = {"x_mask": t(torch.arange(5) > 1, array=True), "y_mask": t(torch.arange(4) > 1, array=True)}
    return [gd.chamfer(x, y, x_normals=n, y_normals=m, truncated=0.3), gd.chamfer(x, y, False, **masks)]


def _assignment(t: Arguments) -> Any:
    big = torch.rand(6, 6, generator=t.random, dtype=torch.float64)
    square = t(big, array=True)
    return [transport.assignment(square), transport.assignment(square, maximize=True)]


def _pool(t: Arguments) -> Any:
    x, w = t.randn(2, 3, 7, array=True), t.rand(2, 7, array=True)
    names = ("quadratic", "pseudo_huber", "huber", "welsch", "truncated_quadratic")
    return [gd.robust_pool(x, name, t(0.7), w) for name in names] + [gd.robust_pool(x, "huber")]


def _pool2d(t: Arguments) -> Any:
    layer = transport.RobustPool2d("huber")
    layer.extra_repr()
    return layer.to(t.dtype).forward(t.rand(2, 3, 4, 4))


def _optim(t: Arguments) -> Any:
    def loss(z: torch.Tensor) -> torch.Tensor:
        return z.detach().round().square().sum(-1)

    def smooth(z: torch.Tensor) -> torch.Tensor:
        return z.square().sum(-1)

    noise = torch.Generator().manual_seed(0)
    y, sigma = t.rand(4, 3), t.rand(3, gradient=False) + 0.1
    out = [optim.smoothed(loss, y, sigma, 6, batch_dims=1, generator=noise)]
    out += [optim.fenchel_young(torch.sign, y, t.rand(4, 3, gradient=False), sigma, 6, generator=noise)]
    out += [*optim.smoothed_gradient(loss, y, sigma, 6, generator=noise), optim.blackbox(torch.sign, y, 1.0)]
    out += [optim.gradient_target(smooth, y), optim.newton_target(smooth, y), optim.split_loss(y, y.detach() + 1)]
    out += [optim.resgro_target(loss, y, 5, sigma, generator=noise)]
    parameter = torch.ones(3, requires_grad=True)
    descent = torch.optim.SGD([parameter], lr=0.1)
    return [*out, optim.split_step(descent, lambda: parameter * 1, lambda y: y - 1)]


def _implicit(t: Arguments) -> Any:
    x, y = t.rand(3, 2) + 0.5, t.rand(3, 2)
    solution = t.hold((x.detach() ** 2).clone())
    last = implicit.last_derivative(t.rand(3, gradient=False), t.rand(3))
    rest = [implicit.minimum(y.detach().clone(), lambda y, x: ((y - x) ** 2).sum(-1), x)]
    on_line = {"equality": lambda y, x: (y - x).sum(-1, keepdim=True)}
    rest += [implicit.minimum(y.detach().clone(), lambda y, x: ((y - x) ** 2).sum(-1), x, **on_line)]
    scale = t(torch.ones(3), gradient=False)
    return [implicit.root(solution, lambda y, x: y - x**2, x, scale=scale), *rest, last.detach()]


def _sparse(t: Arguments) -> Any:
    rows, columns = t(torch.tensor([0, 1, 2, 2])), t(torch.tensor([0, 1, 2, 2]))
    matrix = t.hold(implicit.SparseMatrix(rows, columns, t.rand(4) + 1, (3, 3), positive=True))
    other = implicit.SparseMatrix.from_torch(matrix.to_torch())
    part = matrix.part(t(torch.tensor([2, 0])), t(torch.tensor([1, 2])))
    more = [part.multiply(t.rand(2, 2)), matrix.diagonal(), (matrix + other).values, (2.0 * matrix).values]
    return [*more, implicit.linear(matrix, t.rand(2, 3)), implicit.linear(matrix, t.rand(3), method="cg")]


def _losses(t: Arguments) -> Any:
    mesh = t.mesh()
    batch = t.hold(gd.MeshBatch([mesh, t.mesh()]))
    out = [losses.iou(t.rand(2, 5, 5), t.rand(2, 5, 5, gradient=False))]
    out += [losses.voxel_iou(t.rand(2, 4, 4, 4), t.rand(4, 4, 4, gradient=False))]
    for m in (mesh, batch):
        out += [losses.laplacian(m), losses.laplacian(m, kind="cotangent"), losses.flatness(m)]
        out += [losses.normal_consistency(m), losses.edge_length(m, t(0.3))]
    return out


LAWS, RULES = soft.DISTRIBUTIONS.values(), soft.TCONORMS.values()


def _laws(t: Arguments) -> Any:
    x, q, out = t.randn(7), 0.05 + 0.9 * torch.rand(7), []
    for cls in LAWS:
        law = cls(t(0.7)) if cls.parametric else cls()
        assert law.squared().unsquared() is not None and soft.as_distribution(law) is law
        for one in (law, law.reversed(), law.shifted(t(0.2)), law.squared()):
            t.hold(one)
            out += [one.cdf(x), one.survival(x), one.log_cdf(x), one.log_survival(x)]
            out += [one.pdf(x)] if cls is not soft.Heaviside else []
            out += [one.quantile(t(q)), one.upper_quantile(t(q))]
            one.cull_radius(0.01)
    shape = t(0.7)
    kernel = soft.from_kernel(soft.Gamma().kernel_id, shape, t(0.1))
    return [out, kernel.cdf(x), [m.name for m in soft.family()[:3]], soft.member(soft.family()[0].name).name]


def _rules(t: Arguments) -> Any:
    a, b, c, out = t.rand(4, 3), t.rand(4, 3), t.rand(4, 3), []
    logs = t(torch.log(torch.rand(4, 3).double())), t(torch.log(torch.rand(4, 3).double()))
    for cls in RULES:
        rule = cls(t(cls.samples[1])) if cls.parametric else cls()
        mean = cls is soft.Average
        t.hold(rule)
        for one in (rule,) if mean else (rule, rule.dual()):
            out += [one.aggregate(a, 1), one.aggregate_log(*logs, 1), one.aggregate_log_pair(*logs, 1)]
            out += [] if mean else [one.combine(b, c)]
        if not mean and cls is not soft.Maximum:
            out += [rule.generator(b), rule.inverse_generator(c)]
        rule.cull_threshold(0.01, 5)
        assert soft.as_tconorm(rule) is rule and (mean or isinstance(rule.dual().dual(), soft.TConorm))
    kernel = soft.tconorm_from_kernel(soft.Yager(2.0).kernel_id, t(1.5))
    return out, kernel.combine(b, c), soft.TNorm(soft.Einstein()).combine(b, c)


def _orders(t: Arguments) -> Any:
    x, tau, law = (
        t.randn(2, 6, batch=True),
        t(torch.tensor(0.3)),
        t.hold(soft.Activated("logistic", t(torch.tensor(0.2)))),
    )
    out = [soft.relaxed_min(x, t.rand(6), temperature=tau), soft.relaxed_max(x, t.rand(6), law, temperature=0.1)]
    out += [soft.sort(x, temperature=tau), soft.sort(x, "bitonic", temperature=tau, distribution=law)]
    out += [soft.sort_matrix(x, name, temperature=tau) for name in ("neuralsort", "odd_even", "sinkhorn")]
    best = soft.topk(x, 2, "splitter", temperature=tau)
    target = t(torch.zeros(best.matrix.shape[:-2], dtype=torch.int64))
    out += [best, soft.rank_loss(best.matrix, target, [0.5, 0.5], scores=x)]
    order = t(torch.arange(2).expand(best.matrix.shape[:-1]).contiguous())
    out += [soft.permutation_loss(best.matrix, order), soft.quantile(x, 0.4, temperature=tau)]
    return [out, soft.selection(x, 2.5, temperature=tau), soft.trimmed_mean(x.abs(), 0.6, temperature=tau)]


def _soft_nearest(t: Arguments) -> Any:
    near = transport.soft_nearest(
        t.rand(5, 3, batch=True), t.rand(9, 3, batch=True), 2, temperature=t(torch.tensor(0.1))
    )
    return near, near.gather(t.rand(9, 4))


def _cloud(t: Arguments, **options: Any) -> Any:
    return t(plane(150), array=True, **options)


def _cover(t: Arguments) -> Any:
    normals = torch.tensor([[0.0, 0, 1]]).expand(150, 3)
    return atlas.cover(_cloud(t)), atlas.cover(_cloud(t), normals=t(normals, array=True))


def _orient(t: Arguments) -> Any:
    normals = torch.tensor([[0.0, 0, 1]]).expand(150, 3)
    return atlas.orient(_cloud(t)).normals, atlas.orient(_cloud(t), t(normals, array=True)).normals


def _charts(t: Arguments) -> Any:
    found = t.hold(atlas.cover(_cloud(t)))
    given = {"widths": (4, 4), "activation": "tanh"}
    charts = t.hold(atlas.Charts.create(found, **given))
    uv, flat = t.rand(len(found), 3, 2).float(), t.rand(5, 2).float()
    chart = t(torch.zeros(5, dtype=torch.int64))
    parameters = t.hold(charts.parameters())
    again = atlas.Charts.join([charts, charts.with_parameters(parameters).to(uv.device)]).subset(
        t(torch.arange(len(found)))
    )
    assert isinstance(again, atlas.Charts)
    out = [charts(uv), charts.local(uv), charts.jacobian(uv), charts.local_jacobian(uv)]
    return [*out, charts.flat(flat, chart), charts.flat_jacobian(flat, chart), charts.flat_normals(flat, chart)]


def _fit_charts(t: Arguments) -> Any:
    fit = atlas.fit_charts(_cloud(t), target=40, widths=(8,), steps=3, rounds=1)
    t.hold(fit)
    t.hold(fit.cover)
    made = atlas.Atlas.from_fit(fit, normals=t(torch.tensor([[0.0, 0, 1]]).expand(150, 3)))
    return fit.fitted_points(), fit.spread(), fit.pair_loss(), made.points


def _fit_atlas(t: Arguments) -> Any:
    settings = atlas.Settings(target=40, widths=(8,), steps=3, rounds=1)
    options = {"samples": 200, "watertight": False, "progress": False}
    return gd.fit_atlas(
        _cloud(t), truth=_cloud(t).detach() if t.layout != "numpy" else None, settings=settings, **options
    )


def _atlas(t: Arguments) -> Any:
    grid = torch.cartesian_prod(*[torch.linspace(0.1, 0.9, 3, dtype=torch.float64)] * 2)
    centres = torch.cat((grid, torch.zeros(9, 1, dtype=torch.float64)), 1)
    made = t.hold(flat_atlas(plane(300), centres, 0.3, noise=0.001, dtype=torch.float64))
    t.hold(made.charts)
    chart, uv = t(torch.tensor([0, 1, 2])), t.rand(3, 2).double()
    of = atlas.Atlas.of(made.charts, *(t.hold(x) for x in (made.points, made.chart, made.point, made.uv)))
    made.sample(50), made.to_mesh(), made.meshes()
    assert isinstance(of, atlas.Atlas)
    return made(chart, uv), made.normals(chart, uv), made.fitted_points(), made.fitted_normals()


def _metrics(t: Arguments) -> Any:
    x, y = t(plane(100), gradient=False), t(plane(100, seed=1), gradient=False)
    up = torch.tensor([[0.0, 0, 1]]).expand(100, 3)
    more = {"output_normals": t(up, gradient=False), "truth_normals": t(up, gradient=False)}
    atlas.surface_metrics(x, y, samples=100, **more).as_dict()
    atlas.surface_metrics(t.mesh().detach(), t.mesh().detach(), samples=100)


CASES: dict[str, Case] = {
    "transport.sinkhorn SinkhornResult.plan LazyPlan.argmax": _sinkhorn,
    "transport.sinkhorn of a matrix": _sinkhorn_of_a_matrix,
    "transport.sinkhorn_divergence": lambda t: gd.sinkhorn_divergence(*_clouds(t), epsilon=0.5, reach=1.0),
    "transport.SinkhornLoss SinkhornLoss.forward SinkhornLoss.extra_repr SinkhornLoss.reset": _loss,
    "transport.chamfer": _chamfer,
    "transport.soft_nearest SoftNeighbours.gather": _soft_nearest,
    "soft.Activated soft.relaxed_min soft.relaxed_max soft.sort soft.sort_matrix soft.topk soft.rank_loss "
    "soft.permutation_loss soft.quantile soft.selection soft.trimmed_mean": _orders,
    "transport.nearest": lambda t: transport.nearest(*_clouds(t)[:2], t(torch.arange(4) > 1, array=True)),
    "transport.hausdorff": lambda t: transport.hausdorff(*_clouds(t)[:2]),
    "transport.f_score": lambda t: transport.f_score(*_clouds(t)[:2], 0.3),
    "transport.assignment": _assignment,
    "transport.assign": lambda t: transport.assign(t.rand(6, 3, array=True), t.rand(6, 3, array=True)),
    "transport.emd": lambda t: transport.emd(*_clouds(t)),
    "transport.robust_pool": _pool,
    "transport.RobustPool2d RobustPool2d.forward RobustPool2d.extra_repr": _pool2d,
    "optim.smoothed optim.smoothed_gradient optim.fenchel_young optim.blackbox optim.gradient_target"
    " optim.newton_target optim.resgro_target optim.split_loss optim.split_step": _optim,
    "implicit.root implicit.minimum implicit.last_derivative": _implicit,
    "sparse.linear sparse.SparseMatrix SparseMatrix.from_torch SparseMatrix.to_torch SparseMatrix.multiply"
    " SparseMatrix.diagonal SparseMatrix.part": _sparse,
    "losses.iou losses.voxel_iou losses.laplacian losses.flatness losses.normal_consistency"
    " losses.edge_length": _losses,
    " ".join(f"soft.{cls.__name__}" for cls in LAWS)
    + " soft.as_distribution soft.from_kernel soft.family soft.member"
    + "".join(f" Distribution.{m}" for m in "cdf survival log_cdf log_survival pdf quantile upper_quantile".split())
    + "".join(f" Distribution.{m}" for m in "reversed shifted squared unsquared cull_radius".split()): _laws,
    " ".join(f"soft.{cls.__name__}" for cls in RULES)
    + " soft.as_tconorm soft.tconorm_from_kernel soft.TNorm"
    + "".join(f" {c}.{m}" for c in ("TConorm", "TNorm") for m in "aggregate aggregate_log combine dual".split())
    + " TConorm.aggregate_log_pair TNorm.aggregate_log_pair"
    + " TConorm.generator TConorm.inverse_generator TConorm.cull_threshold": _rules,
    "atlas.cover": _cover,
    "atlas.orient": _orient,
    "Charts.create Charts.flat Charts.flat_jacobian Charts.flat_normals Charts.jacobian Charts.join Charts.local"
    " Charts.local_jacobian Charts.parameters Charts.subset Charts.to Charts.with_parameters": _charts,
    "atlas.fit_charts FittedCharts.fitted_points FittedCharts.spread FittedCharts.pair_loss": _fit_charts,
    "Atlas.from_fit": _fit_charts,
    "tasks.fit_atlas": _fit_atlas,
    "Atlas.of Atlas.sample Atlas.normals Atlas.to_mesh Atlas.meshes Members.fitted_points"
    " Members.fitted_normals": _atlas,
    "atlas.surface_metrics SurfaceMetrics.as_dict": _metrics,
}
