// SPDX-License-Identifier: Apache-2.0
// One network of an atlas on the CPU: its parameters one after another, rows padded to packs with zeros.
#pragma once
#include "jobs.h"
#include "parallel.h"
#include "products.h"

namespace gd {

constexpr int kMostLayers = 16;

template <class T>
using NetworksJob = geodiff::NetworksJob<T>;

// Where things are: of layer l the weights (ins, padded outs), or of the last their transpose (3, padded ins), and the
// biases; at the end a pack or more with the last biases, the plane and the offset.
template <class T>
struct Shape {
    static constexpr int lanes = Lanes<Pack<T>>::count;
    static constexpr int kTail = 12;  // last biases (3), plane (2, 3), offset (3)

    explicit Shape(const NetworksJob<T>& job) : layers(job.layers) {
        for (int l = 0; l <= layers; ++l) {
            width[l] = job.widths[l];
            padded[l] = (width[l] + lanes - 1) / lanes * lanes;
            if (l > 0 && l < layers) widest = max(widest, padded[l]);
        }
        for (int l = 0; l < layers; ++l) {
            weights[l] = size;
            size += l + 1 < layers ? i64(width[l]) * padded[l + 1] : i64(3) * padded[l];
            biases[l] = size;
            size += l + 1 < layers ? padded[l + 1] : 0;
        }
        plane = biases[layers - 1] + 3;
        offset = plane + 6;
        size += (kTail + lanes - 1) / lanes * lanes;
    }

    // Calls use(ours, theirs) for each number of chart q: its place here and in the job's arrays.
    template <class Use>
    void each(T* const* arrays, i64 q, Use&& use) const {
        for (int l = 0; l < layers; ++l) {
            const int ins = width[l], outs = width[l + 1];
            const bool last = l + 1 == layers;
            T* from = arrays[l] + q * ins * outs;
            for (int i = 0; i < ins; ++i) {
                for (int o = 0; o < outs; ++o) {
                    use(weights[l] + (last ? i64(o) * padded[l] + i : i64(i) * padded[l + 1] + o), from[i64(i) * outs + o]);
                }
            }
            for (int o = 0; o < outs; ++o) use(biases[l] + o, arrays[layers + l][q * outs + o]);
        }
        for (int k = 0; k < 6; ++k) use(plane + k, arrays[2 * layers][6 * q + k]);
        for (int k = 0; k < 3; ++k) use(offset + k, arrays[2 * layers + 1][3 * q + k]);
    }

    void read(T* const* arrays, i64 q, T* to) const {
        __builtin_memset(to, 0, sizeof(T) * static_cast<unsigned long long>(size));
        each(arrays, q, [&](i64 at, const T& value) { to[at] = value; });
    }
    void write(const T* from, T* const* arrays, i64 q) const {
        each(arrays, q, [&](i64 at, T& value) { value = from[at]; });
    }

    int layers;
    int width[kMostLayers + 1], padded[kMostLayers + 1];
    int widest = lanes;
    i64 weights[kMostLayers], biases[kMostLayers];
    i64 plane, offset;
    i64 size = 0;
};

// A gradient or tangent, where relu has let something through.
template <class V>
GEODIFF_HD V through(const V& value, const V& relu) {
    return relu <= V{} ? V{} : value;
}

// What layer l makes of n rows: max(in·W + b, 0).
template <class T>
void hidden(const Shape<T>& shape, const T* net, int l, int n, const T* in, i64 stride, T* out) {
    using V = Pack<T>;
    const int columns = shape.padded[l + 1];
    const T* bias = net + shape.biases[l];
    product(n, columns, shape.width[l], Factor<T>{in, stride, 1}, net + shape.weights[l], columns,
            [&](int i, int j, V v) {
                v += load<V>(bias + j);
                store(out + i64(i) * columns + j, V(v < V{} ? V{} : v));
            });
}

// Where a row is: v (2) = 2u − 1, h what the last hidden layer gives.
template <class T>
GEODIFF_HD void placed(const Shape<T>& shape, const T* net, const T* v, const T* h, T* out) {
    const int l = shape.layers - 1, ins = shape.padded[l];
    const T* plane = net + shape.plane;
    for (int k = 0; k < 3; ++k) {
        const T flat = net[shape.offset + k] + v[0] * plane[k] + v[1] * plane[3 + k];
        out[k] = flat + net[shape.biases[l] + k] + dot(h, net + shape.weights[l] + k * ins, ins);
    }
}

}  // namespace gd
