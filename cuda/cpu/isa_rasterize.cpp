// SPDX-License-Identifier: Apache-2.0
// The hard rasteriser on the CPU: a z-buffer over bands of rows, then barycentrics once a pixel.
#include "parallel.h"
#include "zbuffer.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::HardJob<T>;

constexpr i64 kFaceBlock = 1024;

template <class T>
void draw_image(const Job<T>& job, const Grid<T>& grid, i64 image, int threads) {
    const int bands = (job.height + kZBandRows - 1) / kZBandRows;
    const int stride = job.width + kLane;
    const i64 count = job.layout[3 * image + 2];
    const T* clip = job.clip + 4 * job.layout[3 * image];
    const int* triangles = job.faces + 3 * job.layout[3 * image + 1];
    Scratch<HardFace<T>> faces(count);
    Scratch<Reach<T>> reaches(count);
    Scratch<Rows> rows(count);
    const i64 blocks = (count + kFaceBlock - 1) / kFaceBlock;
    parallel(blocks, blocks > 4 ? threads : 1, [&](i64 block) {
        for (i64 f = block * kFaceBlock; f < min(count, (block + 1) * kFaceBlock); ++f) {
            Clip<T> corner[3];
            load_face(clip, triangles + 3 * f, corner);
            const Polygon<T> p = make_polygon(corner, job.near);
            rows[f] = {0, 0};
            if (p.n == 0) continue;
            Edge<T> edges[4];
            for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
            reaches[f].init(p, edges, T(0), grid);
            rows[f] = {reaches[f].first_row, reaches[f].end_row};
            if (rows[f].first < rows[f].end) hard_face(corner, p, faces[f]);
        }
    });
    const Bins bins(rows.get(), count, bands);
    parallel(bands, threads, [&](i64 b) {
        const int first = int(b) * kZBandRows;
        const int end = min(first + kZBandRows, job.height);
        const i64 cells = i64(end - first) * stride;
        Scratch<T> depth(cells);
        Scratch<int> winner(cells);
        for (i64 i = 0; i < cells; ++i) {
            depth[i] = Real<T>::largest;
            winner[i] = -1;
        }
        Band<T> band{grid, faces.get(), reaches.get(), first, end, stride, depth.get(), winner.get()};
        for (i64 i = bins.start[b]; i < bins.start[b + 1]; ++i) band.draw(bins.faces[i]);
        for (int row = first; row < end; ++row) {
            for (int column = 0; column < job.width; ++column) {
                const i64 at = (image * job.height + row) * job.width + column;
                const i64 cell = i64(row - first) * stride + column;
                const int f = winner[cell];
                T* out = job.barycentric + 3 * at;
                job.face[at] = f;
                job.depth[at] = f < 0 ? T(__builtin_inf()) : depth[cell];
                out[0] = out[1] = out[2] = T(0);
                if (f >= 0) barycentric_at(faces[f], grid.x(column), grid.y(row), out);
            }
        }
    });
}

// Few images: bands of rows are spread over the threads; many: whole images are.
template <class T>
void draw(const Job<T>& job) {
    const Grid<T> grid(job.height, job.width);
    i64 work = job.images * job.height * job.width;
    for (i64 image = 0; image < job.images; ++image) work += 4 * job.layout[3 * image + 2];
    const int threads = work < 20000 ? 1 : job.threads;
    if (job.images >= kManyImages) {
        parallel(job.images, threads, [&](i64 image) { draw_image(job, grid, image, 1); });
    } else {
        for (i64 image = 0; image < job.images; ++image) draw_image(job, grid, image, threads);
    }
}

}  // namespace

const geodiff::Kernel<geodiff::HardJob> kernel::rasterize = {draw, draw};

}  // namespace gd
