// SPDX-License-Identifier: Apache-2.0
// The hard rasteriser on the CPU: a z-buffer over bands of rows, then barycentrics once a pixel.
#include "parallel.h"
#include "zbuffer.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::HardJob<T>;

template <class T>
void draw_image(const Job<T>& job, const Grid<T>& grid, i64 image, int threads) {
    const int bands = (job.height + kZBandRows - 1) / kZBandRows;
    const ZBuffer<T> buffer(grid, job.clip + 4 * job.layout[3 * image], job.faces + 3 * job.layout[3 * image + 1],
                            job.layout[3 * image + 2], job.near, threads);
    parallel(bands, threads, [&](i64 b) {
        const int first = int(b) * kZBandRows;
        const int end = min(first + kZBandRows, job.height);
        const ZBand<T> band(buffer, int(b), first, end, job.width);
        const int* faces = buffer.faces(int(b));
        for (int row = first; row < end; ++row) {
            const T y = grid.y(row);
            for (int column = 0; column < job.width; ++column) {
                const i64 at = (image * job.height + row) * job.width + column;
                const i64 cell = i64(row - first) * band.stride + column;
                const int place = band.winner[cell];
                T* out = job.barycentric + 3 * at;
                job.face[at] = place < 0 ? -1 : faces[place];
                job.depth[at] = place < 0 ? T(__builtin_inf()) : band.depth[cell];
                out[0] = out[1] = out[2] = T(0);
                if (place >= 0) barycentric_at(band.planes[place], grid.x(column), y, out);
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
