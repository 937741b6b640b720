// SPDX-License-Identifier: Apache-2.0
// Charts of an atlas, to Python: arguments were checked there (geodiff/atlas/training.py, charts.py).
#include "bindings.h"

namespace geodiff {
namespace {

template <class T>
using List = std::vector<Flat<T>>;

template <class T>
std::vector<T*> pointers(const List<T>& arrays) {
    std::vector<T*> result;
    for (const Flat<T>& array : arrays) result.push_back(array.data());
    return result;
}

// Fills in what the networks are; the widths are those of the biases.
template <class T>
std::vector<int> describe(NetworksJob<T>& job, const std::vector<T*>& parameters, const List<T>& arrays, int threads) {
    const size_t layers = arrays.size() / 2 - 1;
    std::vector<int> widths = {2};
    for (size_t l = 0; l < layers; ++l) widths.push_back(static_cast<int>(arrays[layers + l].shape(1)));
    job.parameters = parameters.data();
    job.layers = static_cast<int>(layers);
    job.threads = threads;
    return widths;
}

template <class T>
void train_charts(Array<T, 3> uv, List<T> parameters, List<T> first, List<T> second, Array<T, 3> uv_first,
                  Array<T, 3> uv_second, Array<const T, 3> target, Array<const T, 2> weight, Array<const long long, 1> rows,
                  Array<const bool, 1> active, Array<const double, 2> rates, double uv_rate, bool plane, Array<T, 3> out,
                  Array<T, 1> loss, int threads) {
    TrainJob<T> job;
    const std::vector<T*> values = pointers(parameters), m = pointers(first), s = pointers(second);
    const std::vector<int> widths = describe(job, values, parameters, threads);
    job.widths = widths.data();
    job.moments[0] = m.data();
    job.moments[1] = s.data();
    job.uv = uv.data();
    job.uv_moments[0] = uv_first.data();
    job.uv_moments[1] = uv_second.data();
    job.target = target.data();
    job.weight = weight.data();
    job.rows = rows.data();
    job.active = active.data();
    job.charts = static_cast<long long>(uv.shape(0));
    job.width = static_cast<long long>(uv.shape(1));
    job.rates = rates.data();
    job.steps = static_cast<long long>(rates.shape(0));
    job.uv_rate = uv_rate;
    job.plane = plane;
    job.out = out.data();
    job.loss = loss.data();
    run(level->train_charts, job);
}

template <class T>
void places_of_charts(Array<const T, 2> uv, List<T> parameters, Array<const long long, 1> chart,
                      Array<const long long, 1> edges, Array<T, 2> out, Flat<T> slope, int threads) {
    PlacesJob<T> job;
    const std::vector<T*> values = pointers(parameters);
    const std::vector<int> widths = describe(job, values, parameters, threads);
    job.widths = widths.data();
    job.uv = uv.data();
    job.chart = chart.data();
    job.edges = edges.data();
    job.runs = static_cast<long long>(chart.shape(0));
    job.out = out.data();
    job.slope = or_null(slope);
    run(level->places_of_charts, job);
}

template <class T>
void bind(nb::module_& m) {
    using namespace nb::literals;
    m.def("train_charts", &train_charts<T>, nb::kw_only(), "uv"_array, "parameters"_array, "first"_array, "second"_array,
          "uv_first"_array, "uv_second"_array, "target"_array, "weight"_array, "rows"_array, "active"_array,
          "rates"_array, "uv_rate"_a, "plane"_a, "out"_array, "loss"_array, "threads"_a = 1);
    m.def("places_of_charts", &places_of_charts<T>, nb::kw_only(), "uv"_array, "parameters"_array, "chart"_array,
          "edges"_array, "out"_array, "slope"_array, "threads"_a = 1);
}

}  // namespace

void bind_charts(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
