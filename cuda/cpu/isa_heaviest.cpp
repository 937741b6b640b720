// SPDX-License-Identifier: Apache-2.0
// The faces of largest weight that each pixel sees, in a list, and the way back.
#include "heaviest_bands.h"
#include "search.h"

namespace gd {
namespace {

template <class T>
using Job = geodiff::HeaviestJob<T>;

template <class T>
void find(const Job<T>& job) {
    const Scene<T> scene(job);
    each_image(job, [&](i64 image, int threads) { find_heaviest(job, scene, image, threads); });
}

template <class T>
void list(const Job<T>& job) {
    const int bands = (job.height + kZBandRows - 1) / kZBandRows;
    const i64 blocks = job.images * bands, size = i64(job.height) * job.width;
    Scratch<i64> pixels(blocks + 1), points(blocks + 1);  // before each band
    pixels[0] = points[0] = 0;
    for (i64 block = 0; block < blocks; ++block) {
        const int first = int(block % bands) * kZBandRows, end = min(first + kZBandRows, job.height);
        const int* count = job.count + block / bands * size;
        pixels[block + 1] = pixels[block];
        points[block + 1] = points[block];
        for (i64 i = i64(first) * job.width; i < i64(end) * job.width; ++i) {
            pixels[block + 1] += count[i] > 0 ? 1 : 0;
            points[block + 1] += count[i];
        }
    }
    parallel(blocks, threads_for(job), [&](i64 block) {
        const i64 image = block / bands;
        const int first = int(block % bands) * kZBandRows, end = min(first + kZBandRows, job.height);
        const int* count = job.count + image * size;
        const Found<T>* own = static_cast<const Found<T>*>(job.kept[block]);
        i64 pixel = pixels[block], at = points[block];
        for (i64 cell = i64(first) * job.width; cell < i64(end) * job.width; ++cell) {
            if (count[cell] == 0) continue;
            job.place[pixel] = image * size + cell;
            job.start[pixel++] = at;
            for (int i = 0; i < count[cell]; ++i, ++own, ++at) {
                job.face[at] = own->face;
                job.distance[at] = own->distance;
                job.depth[at] = own->depth;
                for (int k = 0; k < 3; ++k) job.barycentric[3 * at + k] = own->barycentric[k];
            }
        }
    });
    job.start[pixels[blocks]] = points[blocks];
}

template <class T>
void backward(const Job<T>& job) {
    const Scene<T> scene(job);
    const T nothing[3] = {T(0), T(0), T(0)};
    each_image(job, [&](i64 image, int threads) {
        const i64 size = i64(job.height) * job.width, base = image * size;
        const i64 from = first_at_least(job.place, job.pixels, base), to = first_at_least(job.place, job.pixels, base + size);
        const i64 first = job.start[from], count = job.start[to] - first;
        Scratch<int> pixel(count);
        for (i64 q = from; q < to; ++q) {
            for (i64 i = job.start[q]; i < job.start[q + 1]; ++i) pixel[i - first] = int(job.place[q] - base);
        }
        const ByFace by_face(scene.faces_of(image), count, [&](i64 i) { return job.face[first + i]; });
        faces_backward(scene, image, threads, by_face, [&](const int* items, i64 own, const Clip<T>* corner,
                                                           const Polygon<T>& p, const Edge<T>* edges, FaceGradient& g) {
            for (i64 i = 0; i < own; ++i) {
                const i64 at = first + items[i];
                const int cell = pixel[items[i]];
                const T* by = job.up_barycentric ? job.up_barycentric + 3 * at : nothing;
                const double up[3] = {double(by[0]), double(by[1]), double(by[2])};
                fragment_backward(corner, p, edges, scene.grid.x(cell % job.width), scene.grid.y(cell / job.width),
                                  job.distance[at] >= T(0), job.up_distance ? double(job.up_distance[at]) : 0.0, up,
                                  job.up_depth ? double(job.up_depth[at]) : 0.0, g);
            }
        });
    });
}

}  // namespace

const geodiff::Kernel<geodiff::HeaviestJob> kernel::heaviest_find = {find, find};
const geodiff::Kernel<geodiff::HeaviestJob> kernel::heaviest_list = {list, list};
const geodiff::Kernel<geodiff::HeaviestJob> kernel::heaviest_backward = {backward, backward};

}  // namespace gd
