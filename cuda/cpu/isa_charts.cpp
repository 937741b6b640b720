// SPDX-License-Identifier: Apache-2.0
// Charts of an atlas on the CPU: steps of Adam, and places with their tangents. A chart is one thread's, from the first
// layer to the last step: all that it needs stays in that core's caches.
#include "../math/elementary.h"
#include "network.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using TrainJob = geodiff::TrainJob<T>;
template <class T>
using PlacesJob = geodiff::PlacesJob<T>;

constexpr int kBlock = 48;  // rows whose places are found together

template <class T>
void adam(i64 count, const double* rate, double share, const T* __restrict gradient, T* __restrict first,
          T* __restrict second, T* __restrict value) {
    const T step = T(share * rate[0]), root = T(1 / rate[1]), epsilon = T(geodiff::kEpsilon);
    const T a = T(1 - geodiff::kBetas[0]), b = T(geodiff::kBetas[1]), c = T(1 - geodiff::kBetas[1]);
#pragma omp simd
    for (i64 i = 0; i < count; ++i) {
        const T g = gradient[i];
        const T m = first[i] + a * (g - first[i]);
        const T s = b * second[i] + c * g * g;
        first[i] = m;
        second[i] = s;
        value[i] -= step * m / (sqrt(s) * root + epsilon);
    }
}

template <class T>
class Trained {
    using V = Pack<T>;

  public:
    Trained(const TrainJob<T>& job, const Shape<T>& shape, i64 q)
        : job_(job), shape_(shape), q_(q), n_(int(job.rows[q])), memory_(room(shape, n_)) {
        T* at = aligned(memory_);
        const auto take = [&](i64 count) {
            T* here = at;
            at += (count + 15) / 16 * 16;
            return here;
        };
        net_ = take(shape.size), slope_ = take(shape.size), first_ = take(shape.size), second_ = take(shape.size);
        for (int l = 1; l < shape.layers; ++l) h_[l] = take(i64(n_) * shape.padded[l]);
        back_ = take(i64(n_) * shape.widest), other_ = take(i64(n_) * shape.widest);
        turned_ = take(i64(shape.widest) * shape.widest);
        v_ = take(2 * n_), rest_ = take(3 * n_), share_ = take(n_), places_ = take(2 * n_);
        shape.read(job.parameters, q, net_);
        if (job.steps) {
            shape.read(job.moments[0], q, first_);
            shape.read(job.moments[1], q, second_);
            __builtin_memset(slope_, 0, sizeof(T) * static_cast<unsigned long long>(shape.size));
        }
    }

    void run() {
        if (!job_.steps) {
            forward();
            return;
        }
        const T* weight = job_.weight + q_ * job_.width;
        T total = T(0);
        for (int i = 0; i < n_; ++i) total += weight[i];
        for (int i = 0; i < n_; ++i) share_[i] = weight[i] / max(total, T(1e-30));
        T* uv = job_.uv + 2 * q_ * job_.width;
        for (i64 k = 0; k < job_.steps; ++k) {
            forward();
            job_.loss[q_] = residuals();
            backward();
            const double* rate = job_.rates + 2 * k;
            adam(job_.plane ? shape_.size : shape_.plane, rate, 1.0, slope_, first_, second_, net_);
            if (job_.uv_rate > 0) {
                const i64 from = 2 * q_ * job_.width;
                adam(2 * n_, rate, job_.uv_rate, places_, job_.uv_moments[0] + from, job_.uv_moments[1] + from, uv);
                for (int i = 0; i < 2 * n_; ++i) uv[i] = clamp(uv[i], T(0), T(1));
            }
        }
        shape_.write(net_, job_.parameters, q_);
        shape_.write(first_, job_.moments[0], q_);
        shape_.write(second_, job_.moments[1], q_);
    }

  private:
    static i64 room(const Shape<T>& shape, i64 n) {
        i64 count = 4 * (shape.size + 16) + 2 * (n * shape.widest + 16) + i64(shape.widest) * shape.widest + 8 * n + 160;
        for (int l = 1; l < shape.layers; ++l) count += n * shape.padded[l] + 16;
        return count;
    }

    void forward() {
        const T* uv = job_.uv + 2 * q_ * job_.width;
        T* out = job_.out + 3 * q_ * job_.width;
        for (int i = 0; i < 2 * n_; ++i) v_[i] = T(2) * uv[i] - T(1);
        hidden(shape_, net_, 0, n_, v_, 2, h_[1]);
        for (int l = 1; l + 1 < shape_.layers; ++l) hidden(shape_, net_, l, n_, h_[l], shape_.padded[l], h_[l + 1]);
        const int l = shape_.layers - 1;
        for (int i = 0; i < n_; ++i) placed(shape_, net_, v_ + 2 * i, h_[l] + i64(i) * shape_.padded[l], out + 3 * i);
    }

    // The loss; leaves its gradient with respect to the places in space.
    T residuals() {
        const T* out = job_.out + 3 * q_ * job_.width;
        const T* target = job_.target + 3 * q_ * job_.width;
        T loss = T(0);
        for (int i = 0; i < n_; ++i) {
            T square = T(0);
            for (int k = 0; k < 3; ++k) {
                const T rest = out[3 * i + k] - target[3 * i + k];
                square += rest * rest;
                rest_[3 * i + k] = T(2) * share_[i] * rest;
            }
            loss += square * share_[i];
        }
        return loss;
    }

    void backward() {
        const int top = shape_.layers - 1, wide = shape_.padded[top];
        T* ends = slope_ + shape_.biases[top];  // last biases, plane, offset
        for (int k = 0; k < Shape<T>::kTail; ++k) ends[k] = T(0);
        for (int i = 0; i < n_; ++i) {
            for (int k = 0; k < 3; ++k) {
                const T g = rest_[3 * i + k];
                ends[k] += g;
                ends[3 + k] += v_[2 * i] * g;
                ends[6 + k] += v_[2 * i + 1] * g;
            }
        }
        for (int k = 0; k < 3; ++k) ends[9 + k] = ends[k];
        if (!job_.plane) {
            for (int k = 3; k < Shape<T>::kTail; ++k) ends[k] = T(0);
        }
        write(3, wide, n_, Factor<T>{rest_, 1, 3}, h_[top], slope_ + shape_.weights[top]);
        const T* h = h_[top];
        T* back = back_;
        T* other = other_;
        product(n_, wide, 3, Factor<T>{rest_, 3, 1}, net_ + shape_.weights[top], wide, [&](int i, int j, V v) {
            store(back + i64(i) * wide + j, through(v, load<V>(h + i64(i) * wide + j)));
        });
        for (int l = top - 1; l >= 0; --l) {
            const int outs = shape_.padded[l + 1], ins = shape_.width[l], stride = l ? shape_.padded[l] : 2;
            write(ins, outs, n_, Factor<T>{l ? h_[l] : v_, 1, stride}, back, slope_ + shape_.weights[l]);
            column_sums(n_, outs, back, slope_ + shape_.biases[l]);
            if (l) {
                transpose(l);
                const T* mask = h_[l];
                product(n_, stride, shape_.width[l + 1], Factor<T>{back, outs, 1}, turned_, stride,
                        [&](int i, int j, V v) {
                            store(other + i64(i) * stride + j, through(v, load<V>(mask + i64(i) * stride + j)));
                        });
                T* swap = back;
                back = other, other = swap;
            } else if (job_.uv_rate > 0) {
                to_places(back, outs);
            }
        }
    }

    static void write(int rows, int columns, int depth, Factor<T> a, const T* b, T* to) {
        product(rows, columns, depth, a, b, columns,
                [&](int i, int j, V v) { store(to + i64(i) * columns + j, v); });
    }

    void transpose(int l) {
        const T* from = net_ + shape_.weights[l];
        const int ins = shape_.width[l], outs = shape_.width[l + 1], to = shape_.padded[l], stride = shape_.padded[l + 1];
        for (int o = 0; o < outs; ++o) {
            for (int i = 0; i < ins; ++i) turned_[i64(o) * to + i] = from[i64(i) * stride + o];
            for (int i = ins; i < to; ++i) turned_[i64(o) * to + i] = T(0);
        }
    }

    void to_places(const T* back, int outs) {
        const T* plane = net_ + shape_.plane;
        for (int i = 0; i < n_; ++i) {
            for (int d = 0; d < 2; ++d) {
                T sum = dot(back + i64(i) * outs, net_ + shape_.weights[0] + i64(d) * outs, outs);
                for (int k = 0; k < 3; ++k) sum += rest_[3 * i + k] * plane[3 * d + k];
                places_[2 * i + d] = T(2) * sum;
            }
        }
    }

    const TrainJob<T>& job_;
    const Shape<T>& shape_;
    i64 q_;
    int n_;
    Scratch<T> memory_;
    T *net_, *slope_, *first_, *second_;
    T* h_[kMostLayers + 1];
    T *back_, *other_, *turned_, *v_, *rest_, *share_, *places_;
};

template <class T>
void train(const TrainJob<T>& job) {
    const Shape<T> shape(job);
    parallel(job.charts, job.threads, [&](i64 q) {
        if (job.active[q] && job.rows[q] > 0) Trained<T>(job, shape, q).run();
    });
}

template <class T>
class Places {
    using V = Pack<T>;

  public:
    Places(const PlacesJob<T>& job, const Shape<T>& shape, i64 q)
        : job_(job), shape_(shape), tangents_(job.slope != nullptr ? 2 : 0),
          memory_(shape.size + 2 * kBlock * (1 + tangents_) * shape.widest + 2 * kBlock + 64) {
        T* at = aligned(memory_);
        net_ = at;
        v_ = net_ + (shape.size + 15) / 16 * 16;
        for (int k = 0; k < 2; ++k) {
            h_[k] = v_ + 2 * kBlock + k * (1 + tangents_) * kBlock * shape.widest;
            t_[k] = h_[k] + kBlock * shape.widest;
        }
        shape.read(job.parameters, q, net_);
    }

    void block(i64 first, int n) {
        for (int i = 0; i < 2 * n; ++i) v_[i] = T(2) * job_.uv[2 * first + i] - T(1);
        hidden(shape_, net_, 0, n, v_, 2, h_[0]);
        if (tangents_) begin(n);
        int now = 0;
        for (int l = 1; l + 1 < shape_.layers; ++l, now = 1 - now) {
            hidden(shape_, net_, l, n, h_[now], shape_.padded[l], h_[1 - now]);
            if (!tangents_) continue;
            const int columns = shape_.padded[l + 1];
            const T* mask = h_[1 - now];
            T* to = t_[1 - now];
            product(2 * n, columns, shape_.width[l], Factor<T>{t_[now], shape_.padded[l], 1}, net_ + shape_.weights[l],
                    columns, [&](int i, int j, V v) {
                        store(to + i64(i) * columns + j, through(v, load<V>(mask + i64(i / 2) * columns + j)));
                    });
        }
        const int top = shape_.layers - 1, wide = shape_.padded[top];
        for (int i = 0; i < n; ++i) {
            placed(shape_, net_, v_ + 2 * i, h_[now] + i64(i) * wide, job_.out + 3 * (first + i));
            for (int d = 0; d < tangents_; ++d) {
                for (int k = 0; k < 3; ++k) {
                    const T along = dot(t_[now] + i64(2 * i + d) * wide, net_ + shape_.weights[top] + k * wide, wide);
                    job_.slope[6 * (first + i) + 2 * k + d] = along + T(2) * net_[shape_.plane + 3 * d + k];
                }
            }
        }
    }

  private:
    // The tangents of the first layer are its weights.
    void begin(int n) {
        const int columns = shape_.padded[1];
        const T* weights = net_ + shape_.weights[0];
        for (int i = 0; i < 2 * n; ++i) {
            for (int j = 0; j < columns; j += Lanes<V>::count) {
                const V twice = T(2) * load<V>(weights + (i % 2) * columns + j);
                store(t_[0] + i64(i) * columns + j, through(twice, load<V>(h_[0] + i64(i / 2) * columns + j)));
            }
        }
    }

    const PlacesJob<T>& job_;
    const Shape<T>& shape_;
    int tangents_;
    Scratch<T> memory_;
    T *net_, *v_, *h_[2], *t_[2];
};

template <class T>
void find(const PlacesJob<T>& job) {
    const Shape<T> shape(job);
    parallel(job.runs, job.threads, [&](i64 run) {
        const i64 end = job.edges[run + 1];
        Places<T> places(job, shape, job.chart[run]);
        for (i64 first = job.edges[run]; first < end; first += kBlock) places.block(first, int(min(end - first, i64(kBlock))));
    });
}

}  // namespace

const geodiff::Kernel<geodiff::TrainJob> kernel::train_charts = {train, train};
const geodiff::Kernel<geodiff::PlacesJob> kernel::places_of_charts = {find, find};

}  // namespace gd
