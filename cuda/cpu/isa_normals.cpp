// SPDX-License-Identifier: Apache-2.0
// Normals of vertices on the CPU. A thread owns a range of faces, then of vertices; each vertex adds up the faces around
// it in their order.
#include "../shading/normals.h"
#include "grid.h"
#include "jobs.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::NormalsJob<T>;

constexpr i64 kBlock = 2048;

// Of each vertex the corners 3·face + k that lie there, in ascending order.
class Around {
  public:
    Around(const int* faces, i64 num_faces, i64 num_vertices) : start_(num_vertices + 2), corner_(3 * num_faces) {
        for (i64 v = 0; v < num_vertices + 2; ++v) start_[v] = 0;
        for (i64 c = 0; c < 3 * num_faces; ++c) ++start_[faces[c] + 2];
        for (i64 v = 2; v < num_vertices + 2; ++v) start_[v] += start_[v - 1];
        for (i64 c = 0; c < 3 * num_faces; ++c) corner_[start_[faces[c] + 1]++] = int(c);
    }
    template <class Body>
    void each(i64 vertex, Body&& body) const {
        for (i64 i = start_[vertex]; i < start_[vertex + 1]; ++i) body(corner_[i]);
    }

  private:
    Scratch<i64> start_;
    Scratch<int> corner_;
};

// What forward and backward share of one mesh of the batch.
template <class T>
class Mesh {
  public:
    Mesh(const Job<T>& job, const Around& around, i64 index, int threads)
        : job_(job), around_(around), vertices_(job.vertices + 3 * job.num_vertices * index), threads_(threads),
          share_(job.num_faces) {
        whole_ = 0;
        for (i64 f = 0; f < job.num_faces; ++f) whole_ = max(whole_, sides(f).scale);
        over([&](i64 f) { share_[f] = face_share(sides(f), whole_); }, job.num_faces);
    }
    Sides sides(i64 face) const { return make_sides(vertices_, job_.faces + 3 * face); }
    double whole() const { return whole_; }

    Vec<double> normal(i64 vertex, double& inverse) const {
        Vec<double> sum = {0, 0, 0};
        double bound = 0;
        around_.each(vertex, [&](i64 corner) {
            const Vec<double>& share = share_[corner / 3];
            sum = plus(sum, 1.0, share);
            bound += largest(share);
        });
        return unit(sum, bound, inverse);
    }
    template <class Body>
    void over(Body&& body, i64 count) const {
        parallel((count + kBlock - 1) / kBlock, threads_, [&](i64 block) {
            for (i64 i = block * kBlock; i < min(count, (block + 1) * kBlock); ++i) body(i);
        });
    }

  private:
    const Job<T>& job_;
    const Around& around_;
    const T* vertices_;
    int threads_;
    double whole_;
    Scratch<Vec<double>> share_;
};

template <class T>
void mesh_forward(const Job<T>& job, const Around& around, i64 index, int threads) {
    const Mesh<T> mesh(job, around, index, threads);
    T* out = job.out + 3 * job.num_vertices * index;
    mesh.over(
        [&](i64 v) {
            double inverse;
            const Vec<double> n = mesh.normal(v, inverse);
            out[3 * v] = T(n.x);
            out[3 * v + 1] = T(n.y);
            out[3 * v + 2] = T(n.z);
        },
        job.num_vertices);
}

template <class T>
void mesh_backward(const Job<T>& job, const Around& around, i64 index, int threads) {
    const Mesh<T> mesh(job, around, index, threads);
    const T* upstream = job.upstream + 3 * job.num_vertices * index;
    T* grad = job.grad + 3 * job.num_vertices * index;
    Scratch<Vec<double>> by_sum(job.num_vertices), by_ab(job.num_faces), by_ac(job.num_faces);
    mesh.over(
        [&](i64 v) {
            double inverse;
            const Vec<double> n = mesh.normal(v, inverse);
            const Vec<double> g = {double(upstream[3 * v]), double(upstream[3 * v + 1]), double(upstream[3 * v + 2])};
            by_sum[v] = unit_backward(n, inverse, g);
        },
        job.num_vertices);
    mesh.over(
        [&](i64 f) {
            const int* face = job.faces + 3 * f;
            const Vec<double> g = plus(plus(by_sum[face[0]], 1.0, by_sum[face[1]]), 1.0, by_sum[face[2]]);
            face_share_backward(mesh.sides(f), mesh.whole(), g, by_ab[f], by_ac[f]);
        },
        job.num_faces);
    mesh.over(
        [&](i64 v) {
            Vec<double> sum = {0, 0, 0};
            around.each(v, [&](i64 corner) {
                const i64 f = corner / 3;
                if (corner != 3 * f + 2) sum = plus(sum, corner == 3 * f ? -1.0 : 1.0, by_ab[f]);
                if (corner != 3 * f + 1) sum = plus(sum, corner == 3 * f ? -1.0 : 1.0, by_ac[f]);
            });
            grad[3 * v] = T(sum.x);
            grad[3 * v + 1] = T(sum.y);
            grad[3 * v + 2] = T(sum.z);
        },
        job.num_vertices);
}

template <class T>
void each_mesh(const Job<T>& job, void (*mesh)(const Job<T>&, const Around&, i64, int)) {
    const Around around(job.faces, job.num_faces, job.num_vertices);
    if (job.batch >= job.threads) {
        const int threads = job.batch * job.num_faces < kBlock ? 1 : job.threads;
        parallel(job.batch, threads, [&](i64 index) { mesh(job, around, index, 1); });
    } else {
        for (i64 index = 0; index < job.batch; ++index) mesh(job, around, index, job.threads);
    }
}

template <class T>
void forward(const Job<T>& job) {
    each_mesh(job, mesh_forward<T>);
}
template <class T>
void backward(const Job<T>& job) {
    each_mesh(job, mesh_backward<T>);
}

}  // namespace

const geodiff::Kernel<geodiff::NormalsJob> kernel::vertex_normals_forward = {forward, forward};
const geodiff::Kernel<geodiff::NormalsJob> kernel::vertex_normals_backward = {backward, backward};

}  // namespace gd
