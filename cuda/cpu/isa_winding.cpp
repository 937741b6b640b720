// SPDX-License-Identifier: Apache-2.0
// Sums over all points for each of the same points, by a tree: a part of the cloud that is far for its size counts as one
// point (Barnes and Hut 1986). A thread owns leaves: it lists once what their points see, a buffer at a time, then adds
// the listed ones up, a point in each lane.
#include "../winding.h"
#include "grid.h"
#include "jobs.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
using geodiff::WindingSum;
template <class T>
using Job = geodiff::WindingJob<T>;

constexpr int kStack = 128;  // halving makes fewer levels than this
constexpr int kBuffer = 1024;
constexpr int kLeaf = geodiff::kWindingLeaf;

// The sums of `source` over each node; children come after their parent.
template <class T>
void gather(const Job<T>& job, int width, double* sums) {
    for (i64 b = job.num_nodes - 1; b >= 0; --b) {
        const int* link = job.links + 3 * b;
        for (int k = 0; k < width; ++k) {
            double sum = 0;
            if (link[2]) {
                sum = sums[width * (b + 1) + k] + sums[width * link[2] + k];
            } else {
                for (i64 i = link[0]; i < link[0] + link[1]; ++i) sum += double(job.source[width * i + k]);
            }
            sums[width * b + k] = sum;
        }
    }
}

template <class T>
class Leaf {
  public:
    Leaf(const Job<T>& job, const double* sums, int width, i64 node)
        : job_(job), sums_(sums), width_(width), first_(job.links[3 * node]), count_(job.links[3 * node + 1]) {
        for (int k = 0; k < 3; ++k) {
            T least = job.places[3 * first_ + k], most = least;
            for (int i = 1; i < count_; ++i) {
                least = min(least, job.places[3 * (first_ + i) + k]);
                most = max(most, job.places[3 * (first_ + i) + k]);
            }
            middle_[k] = (least + most) / T(2);
            radius_ += (most - middle_[k]) * (most - middle_[k]);
        }
        radius_ = sqrt(radius_);
        // Lanes beyond the last point repeat it.
        for (int i = 0; i < kLeaf; ++i) {
            const T* x = job.places + 3 * (first_ + (i < count_ ? i : count_ - 1));
            x_[i] = x[0], y_[i] = x[1], z_[i] = x[2];
            a_[i] = b_[i] = c_[i] = T(0);
        }
    }

    void run() {
        int stack[kStack], size = 0;
        stack[size++] = 0;
        while (size > 0) {
            const int node = stack[--size];
            const T* ball = job_.balls + 4 * i64(node);
            const int* link = job_.links + 3 * i64(node);
            T square = T(0);
            for (int k = 0; k < 3; ++k) square += (ball[k] - middle_[k]) * (ball[k] - middle_[k]);
            if (sqrt(square) - radius_ > job_.reach * ball[3]) {
                T value[3] = {T(0), T(0), T(0)};
                for (int k = 0; k < width_; ++k) value[k] = T(sums_[width_ * i64(node) + k]);
                push(ball, value);
            } else if (link[2]) {
                stack[size++] = link[2];
                stack[size++] = node + 1;
            } else {
                for (i64 i = link[0]; i < link[0] + link[1]; ++i) push(job_.places + 3 * i, job_.source + width_ * i);
            }
        }
        add();
        const int outs = job_.sum == WindingSum::field ? 1 : 3;
        for (int i = 0; i < count_; ++i) {
            T* out = job_.out + outs * (first_ + i);
            out[0] = T(kOverFourPi) * a_[i];
            if (outs == 3) out[1] = T(kOverFourPi) * b_[i], out[2] = T(kOverFourPi) * c_[i];
        }
    }

  private:
    void push(const T* place, const T* value) {
        T* entry = list_ + 6 * listed_++;
        for (int k = 0; k < 3; ++k) entry[k] = place[k];
        for (int k = 0; k < width_; ++k) entry[3 + k] = value[k];
        if (listed_ == kBuffer) add();
    }

    template <class Term>
    void each(Term&& term) {
        for (int e = 0; e < listed_; ++e) {
            const T* entry = list_ + 6 * e;
            const T px = entry[0], py = entry[1], pz = entry[2];
#pragma omp simd
            for (int i = 0; i < kLeaf; ++i) term(i, px - x_[i], py - y_[i], pz - z_[i], entry + 3);
        }
        listed_ = 0;
    }

    void add() {
        const T square = job_.width * job_.width;
        if (job_.sum == WindingSum::field) {
            each([&](int i, T dx, T dy, T dz, const T* mu) { winding_term(dx, dy, dz, square, mu, a_[i]); });
        } else if (job_.sum == WindingSum::adjoint) {
            each([&](int i, T dx, T dy, T dz, const T* s) {
                winding_adjoint_term(dx, dy, dz, square, s[0], a_[i], b_[i], c_[i]);
            });
        } else {
            each([&](int i, T dx, T dy, T dz, const T* mu) {
                winding_slope_term(dx, dy, dz, square, mu, a_[i], b_[i], c_[i]);
            });
        }
    }

    const Job<T>& job_;
    const double* sums_;
    int width_;
    i64 first_;
    int count_;
    T middle_[3], radius_ = T(0);
    alignas(64) T x_[kLeaf], y_[kLeaf], z_[kLeaf], a_[kLeaf], b_[kLeaf], c_[kLeaf];
    T list_[6 * kBuffer];
    int listed_ = 0;
};

template <class T>
void forward(const Job<T>& job) {
    const int width = job.sum == WindingSum::adjoint ? 1 : 3;
    Scratch<double> sums(width * job.num_nodes);
    gather(job, width, sums.get());
    parallel(job.num_leaves, job.num_leaves < 16 ? 1 : job.threads, [&](i64 leaf) {
        Leaf<T>(job, sums.get(), width, job.leaves[leaf]).run();
    });
}

}  // namespace

const geodiff::Kernel<geodiff::WindingJob> kernel::winding_sum = {forward, forward};

}  // namespace gd
