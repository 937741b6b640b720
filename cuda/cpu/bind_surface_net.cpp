// SPDX-License-Identifier: Apache-2.0
// Surface nets: what geodiff/scene/isosurface.py calls, and has checked the arguments of. Compiled once for all SIMD
// levels: whole numbers, and sums in one order.
#include "bindings.h"
#include "surface_net.h"

namespace geodiff {
namespace {

nb::tuple surface_net(Array<const bool, 3> inside, Array<const uint8_t, 2> sheets, int threads) {
    SurfaceNet net;
    {
        nb::gil_scoped_release release;
        const int64_t shape[3] = {int64_t(inside.shape(0)), int64_t(inside.shape(1)), int64_t(inside.shape(2))};
        net = NetScan(reinterpret_cast<const uint8_t*>(inside.data()), shape, sheets.data(), threads).run();
    }
    const size_t count = net.inner.size(), doubtful = net.doubtful.size();
    return nb::make_tuple(handed(std::move(net.inner), {count}), handed(std::move(net.outer), {count}),
                          handed(std::move(net.at), {count, 3}), handed(std::move(net.way), {count}),
                          handed(std::move(net.around), {count, 4}), handed(std::move(net.quads), {count, 4}),
                          handed(std::move(net.doubtful), {doubtful}),
                          handed(std::vector<int64_t>{net.vertices}, {1}));
}

// out[around[e][c]] += points[e], or with `gather` out[e] = Σ_c points[around[e][c]]: each is the other's transpose.
template <class T>
void net_sum(Array<const T, 2> points, Array<const int64_t, 2> around, bool gather, Array<T, 2> out, int threads) {
    const T* from = points.data();
    const int64_t* vertex = around.data();
    T* to = out.data();
    const long long count = static_cast<long long>(around.shape(0));
    nb::gil_scoped_release release;
    if (!gather) {
        for (long long e = 0; e < count; ++e)
            for (int c = 0; c < 4; ++c)
                for (int a = 0; a < 3; ++a) to[3 * vertex[4 * e + c] + a] += from[3 * e + a];
        return;
    }
    constexpr long long kChunk = 4096;
    parallel((count + kChunk - 1) / kChunk, threads, [&](long long chunk) {
        const long long end = (chunk + 1) * kChunk < count ? (chunk + 1) * kChunk : count;
        for (long long e = chunk * kChunk; e < end; ++e)
            for (int a = 0; a < 3; ++a) {
                T sum = from[3 * vertex[4 * e] + a];
                for (int c = 1; c < 4; ++c) sum += from[3 * vertex[4 * e + c] + a];
                to[3 * e + a] = sum;
            }
    });
}

template <class T>
void bind(nb::module_& m) {
    using namespace nb::literals;
    m.def("net_sum", &net_sum<T>, nb::kw_only(), "points"_array, "around"_array, "gather"_a, "out"_array,
          "threads"_a = 1);
}

}  // namespace

void bind_surface_net(nb::module_& m) {
    using namespace nb::literals;
    m.def("surface_net", &surface_net, nb::kw_only(), "inside"_array, "sheets"_array, "threads"_a = 1);
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
