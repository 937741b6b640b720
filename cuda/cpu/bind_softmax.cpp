// SPDX-License-Identifier: Apache-2.0
// Python bindings: the faces with a share in a softmax over depth, and their mixture.
#include <cstdlib>
#include <memory>
#include <vector>

#include "bindings.h"

namespace geodiff {
namespace {

template <class T>
void fill(HeaviestJob<T>& job, const Array<const T, 2>& clip, const Array<const int, 2>& faces,
          const Array<const int64_t, 2>& layout, int height, int width, double near, int threads) {
    job.clip = clip.data();
    job.faces = faces.data();
    job.layout = reinterpret_cast<const long long*>(layout.data());
    job.images = static_cast<long long>(layout.shape(0));
    job.height = height;
    job.width = width;
    job.near = T(near);
    job.order = 2;
    job.threads = threads;
}

// Blocks of memory that kernels leave, freed once they were read, or something was thrown.
struct Blocks {
    std::vector<void*> data;
    explicit Blocks(size_t count) : data(count, nullptr) {}
    ~Blocks() {
        for (void* block : data) std::free(block);
    }
};

// An array for Python, not filled.
template <class V>
struct Made {
    std::unique_ptr<V[]> data;
    size_t rows;
    explicit Made(long long count, size_t columns = 1) : data(new V[size_t(count) * columns]), rows(size_t(count)) {}

    nb::ndarray<nb::numpy, V> handed(std::initializer_list<size_t> shape) {
        nb::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<V*>(p); });
        return nb::ndarray<nb::numpy, V>(data.release(), shape, owner);
    }
};

template <class T>
nb::tuple heaviest(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height, int width,
                   double near, Array<const T, 1> table, double table_unit, Array<const T, 1> sharpness,
                   Array<const T, 1> base, Array<const T, 1> floor, Flat<const bool> within, int k, double blur, double rim,
                   double spread, double max_error, int threads) {
    HeaviestJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    job.k = k;
    job.blur = blur;
    job.table = table.data();
    job.table_size = static_cast<int>(table.shape(0));
    job.table_unit = T(table_unit);
    job.sharpness = sharpness.data();
    job.base = base.data();
    job.floor = or_null(floor);
    job.within = or_null(within);
    job.rim = rim;
    job.spread = spread;
    job.max_error = max_error;
    const size_t size = size_t(job.images) * size_t(height) * size_t(width);
    std::unique_ptr<int[]> count(new int[size]);
    Blocks blocks(size_t(job.images) * (size_t(height) / 8 + 1));  // no fewer than there are bands
    job.count = count.get();
    job.kept = blocks.data.data();
    run(level->heaviest_find, job);
    for (size_t i = 0; i < size; ++i) {
        job.points += count[i];
        job.pixels += count[i] > 0 ? 1 : 0;
    }
    Made<T> distance(job.points), barycentric(job.points, 3), depth(job.points);
    Made<long long> face(job.points), place(job.pixels), start(job.pixels + 1);
    job.distance = distance.data.get();
    job.barycentric = barycentric.data.get();
    job.depth = depth.data.get();
    job.face = face.data.get();
    job.place = place.data.get();
    job.start = start.data.get();
    run(level->heaviest_list, job);
    const size_t points = size_t(job.points), pixels = size_t(job.pixels);
    return nb::make_tuple(distance.handed({points}), barycentric.handed({points, 3}), depth.handed({points}),
                          place.handed({pixels}), start.handed({pixels + 1}), face.handed({points}));
}

template <class T>
void heaviest_backward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                       int width, double near, Array<const int64_t, 1> place, Array<const int64_t, 1> start,
                       Array<const int64_t, 1> face, Array<const T, 1> distance, Flat<const T> up_distance,
                       Flat<const T> up_barycentric, Flat<const T> up_depth, Array<T, 2> grad_clip, int threads) {
    HeaviestJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    job.pixels = static_cast<long long>(place.shape(0));
    job.points = static_cast<long long>(face.shape(0));
    job.k = int(job.pixels ? job.points / job.pixels + 1 : 1);
    job.place = reinterpret_cast<long long*>(const_cast<int64_t*>(place.data()));
    job.start = reinterpret_cast<long long*>(const_cast<int64_t*>(start.data()));
    job.face = reinterpret_cast<long long*>(const_cast<int64_t*>(face.data()));
    job.distance = const_cast<T*>(distance.data());
    job.up_distance = or_null(up_distance);
    job.up_barycentric = or_null(up_barycentric);
    job.up_depth = or_null(up_depth);
    job.grad_clip = grad_clip.data();
    run(level->heaviest_backward, job);
}

template <class T>
MixJob<T> mix_job(const Array<const T, 2>& values, const Array<const T, 1>& log_weight, const Array<const T, 1>& depth,
                  const Array<const int64_t, 1>& start, const Flat<const int>& row, const Array<const T, 2>& ends,
                  double sharpness, bool has_floor, double floor, int threads) {
    MixJob<T> job{};
    job.values = values.data();
    job.log_weight = log_weight.data();
    job.depth = depth.data();
    job.start = reinterpret_cast<const long long*>(start.data());
    job.row = or_null(row);
    job.ends = ends.data();
    job.sharpness = T(sharpness);
    job.has_floor = has_floor;
    job.floor = T(floor);
    job.groups = static_cast<long long>(start.shape(0)) - 1;
    job.points = static_cast<long long>(values.shape(0));
    job.rows = static_cast<long long>(ends.shape(0));
    job.channels = static_cast<int>(values.shape(1));
    job.threads = threads;
    return job;
}

template <class T>
void mix_forward(Array<const T, 2> values, Array<const T, 1> log_weight, Array<const T, 1> depth,
                 Array<const int64_t, 1> start, Flat<const int> row, Array<const T, 2> ends, double sharpness,
                 bool has_floor, double floor, Array<T, 2> out, Array<T, 1> weight, Array<T, 1> rest, int threads) {
    auto job = mix_job<T>(values, log_weight, depth, start, row, ends, sharpness, has_floor, floor, threads);
    job.out = out.data();
    job.weight = weight.data();
    job.rest = rest.data();
    run(level->mix_forward, job);
}

template <class T>
void mix_backward(Array<const T, 2> values, Array<const T, 1> log_weight, Array<const T, 1> depth,
                  Array<const int64_t, 1> start, Flat<const int> row, Array<const T, 2> ends, double sharpness,
                  bool has_floor, double floor, Array<const T, 1> weight, Array<const T, 1> rest,
                  Array<const T, 2> upstream, Flat<const T> up_rest, Array<T, 2> grad_values, Array<T, 1> grad_log_weight,
                  Array<T, 1> grad_depth, Array<double, 2> grad_ends, Array<double, 1> grad_sharpness, int threads) {
    auto job = mix_job<T>(values, log_weight, depth, start, row, ends, sharpness, has_floor, floor, threads);
    job.weight = const_cast<T*>(weight.data());
    job.rest = const_cast<T*>(rest.data());
    job.upstream = upstream.data();
    job.up_rest = or_null(up_rest);
    job.grad_values = grad_values.data();
    job.grad_log_weight = grad_log_weight.data();
    job.grad_depth = grad_depth.data();
    job.grad_ends = grad_ends.data();
    job.grad_sharpness = grad_sharpness.data();
    run(level->mix_backward, job);
}

template <class T>
void bind(nb::module_& m) {
    using namespace nb::literals;
    m.def("heaviest", &heaviest<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array, "height"_a, "width"_a,
          "near"_a, "table"_array, "table_unit"_a, "sharpness"_array, "base"_array, "floor"_array, "within"_array, "k"_a,
          "blur"_a, "rim"_a, "spread"_a, "max_error"_a, "threads"_a = 1);
    m.def("heaviest_backward", &heaviest_backward<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array,
          "height"_a, "width"_a, "near"_a, "place"_array, "start"_array, "face"_array, "distance"_array,
          "up_distance"_array.none(), "up_barycentric"_array.none(), "up_depth"_array.none(), "grad_clip"_array,
          "threads"_a = 1);
    m.def("mix_forward", &mix_forward<T>, nb::kw_only(), "values"_array, "log_weight"_array, "depth"_array, "start"_array,
          "row"_array, "ends"_array, "sharpness"_a, "has_floor"_a, "floor"_a, "out"_array, "weight"_array, "rest"_array,
          "threads"_a = 1);
    m.def("mix_backward", &mix_backward<T>, nb::kw_only(), "values"_array, "log_weight"_array, "depth"_array,
          "start"_array, "row"_array, "ends"_array, "sharpness"_a, "has_floor"_a, "floor"_a, "weight"_array, "rest"_array,
          "upstream"_array, "up_rest"_array.none(), "grad_values"_array, "grad_log_weight"_array, "grad_depth"_array,
          "grad_ends"_array, "grad_sharpness"_array, "threads"_a = 1);
}

}  // namespace

void bind_softmax(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
