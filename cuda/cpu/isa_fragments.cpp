// SPDX-License-Identifier: Apache-2.0
// The k fragments of each pixel on the CPU, and the way back.
#include "fragment_bands.h"

namespace gd {
namespace {

template <class T>
using Job = geodiff::FragmentsJob<T>;

template <class T>
void write_band(const Scene<T>& scene, const Lists<T>& lists, i64 image, int first, int end, int stride,
                const HardFace<T>* prepared) {
    const Job<T>& job = scene.job;
    // What belongs to a face, kept for the next pixel: neighbours mostly share theirs.
    Clip<T> corner[3];
    Polygon<T> p;
    Edge<T> edges[4];
    HardFace<T> made;
    int known = -1, hard_known = -1;
    for (int row = first; row < end; ++row) {
        const T y = scene.grid.y(row);
        for (int column = 0; column < job.width; ++column) {
            const i64 cell = i64(row - first) * stride + column;
            for (int s = 0; s < lists.k; ++s) {
                const i64 at = ((image * job.height + row) * job.width + column) * lists.k + s;
                const int id = lists.id[cell * lists.k + s];
                T* barycentric = job.barycentric + 3 * at;
                if (id < 0) {
                    job.face[at] = -1;
                    job.distance[at] = T(-1e10);
                    job.depth[at] = T(__builtin_inf());
                    barycentric[0] = barycentric[1] = barycentric[2] = T(0);
                    continue;
                }
                const bool inside = id & 1;
                if (known != id >> 1) {
                    known = id >> 1;
                    scene.corners(image, known, corner);
                    p = make_polygon(corner, job.near);
                    for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
                }
                if (inside && !prepared && hard_known != known) {
                    hard_known = known;
                    hard_face(corner, p, made);
                }
                const HardFace<T>& hard = prepared && inside ? prepared[id >> 1] : made;
                const Fragment<T> fragment = fragment_at(corner, p, edges, hard, scene.grid.x(column), y, inside);
                job.face[at] = id >> 1;
                job.distance[at] = fragment.distance;
                job.depth[at] = fragment.depth;
                for (int i = 0; i < 3; ++i) barycentric[i] = fragment.barycentric[i];
            }
        }
    }
}

template <class T>
void forward(const Job<T>& job) {
    const Scene<T> scene(job);
    each_image(job, [&](i64 image, int threads) {
        draw_image(scene, image, threads, [&](auto&&... drawn) { write_band(scene, drawn...); });
    });
}

template <class T>
void backward(const Job<T>& job) {
    const Scene<T> scene(job);
    const T nothing[3] = {T(0), T(0), T(0)};
    each_image(job, [&](i64 image, int threads) {
        const i64 slots = i64(job.height) * job.width * job.k, base = image * slots;
        const ByFace by_face(scene.faces_of(image), slots, [&](i64 i) { return job.face[base + i]; });
        faces_backward(scene, image, threads, by_face, [&](const int* items, i64 count, const Clip<T>* corner,
                                                           const Polygon<T>& p, const Edge<T>* edges, FaceGradient& g) {
            for (i64 i = 0; i < count; ++i) {
                const i64 at = base + items[i], pixel = items[i] / job.k;
                const T* by = job.up_barycentric ? job.up_barycentric + 3 * at : nothing;
                const double up[3] = {double(by[0]), double(by[1]), double(by[2])};
                const double up_distance = job.up_distance ? double(job.up_distance[at]) : 0.0;
                const double up_depth = job.up_depth ? double(job.up_depth[at]) : 0.0;
                fragment_backward(corner, p, edges, scene.grid.x(int(pixel % job.width)),
                                  scene.grid.y(int(pixel / job.width)), job.distance[at] >= T(0), up_distance, up, up_depth,
                                  g);
            }
        });
    });
}

}  // namespace

const geodiff::Kernel<geodiff::FragmentsJob> kernel::fragments_forward = {forward, forward};
const geodiff::Kernel<geodiff::FragmentsJob> kernel::fragments_backward = {backward, backward};

}  // namespace gd
