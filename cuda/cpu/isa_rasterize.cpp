// SPDX-License-Identifier: Apache-2.0
// The hard rasteriser on the CPU: a z-buffer over bands of rows, then barycentrics once a pixel.
#include "../raster/hard.h"
#include "grid.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::HardJob<T>;

constexpr int kBandRows = 16;
constexpr i64 kFaceBlock = 1024;

struct Rows {
    int first, end;
};

template <class T>
struct Band {
    const Grid<T>& grid;
    const HardFace<T>* faces;
    const Reach<T>* reaches;
    int first_row, end_row, stride;
    T* depth;
    int* winner;

    void draw(int f) {
        const HardFace<T>& face = faces[f];
        const Reach<T>& reach = reaches[f];
        const int to = min(reach.end_row, end_row);
        for (int row = max(reach.first_row, first_row); row < to; ++row) {
            const T y = grid.y(row);
            int first, end;
            reach.columns(y, grid, first, end);
            T* z = depth + i64(row - first_row) * stride;
            int* id = winner + i64(row - first_row) * stride;
            for (int column = first; column < end; column += kLane) {
                T here[kLane], side[kLane];
                for (int i = 0; i < kLane; ++i) {
                    const T x = grid.x(column + i);
                    T least = Real<T>::largest;
                    for (int k = 0; k < 3; ++k) {
                        const T cross = face.ex[k] * (y - face.ay[k]) - face.ey[k] * (x - face.ax[k]);
                        least = min(least, face.sign[k] * cross);
                    }
                    side[i] = least;
                }
                if (face.n == 4) {
                    for (int i = 0; i < kLane; ++i) {
                        const T cross = face.ex[3] * (y - face.ay[3]) - face.ey[3] * (grid.x(column + i) - face.ax[3]);
                        side[i] = min(side[i], face.sign[3] * cross);
                    }
                }
                for (int i = 0; i < kLane; ++i) here[i] = depth_at(face, grid.x(column + i), y);
                for (int i = 0; i < kLane; ++i) {
                    const bool wins = side[i] >= T(0) && here[i] < z[column + i];
                    z[column + i] = wins ? here[i] : z[column + i];
                    id[column + i] = wins ? f : id[column + i];
                }
            }
        }
    }
};

template <class T>
void draw_image(const Job<T>& job, const Grid<T>& grid, i64 image, int threads) {
    const int bands = (job.height + kBandRows - 1) / kBandRows;
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
    parallel(bands, threads, [&](i64 b) {
        const int first = int(b) * kBandRows;
        const int end = min(first + kBandRows, job.height);
        const i64 cells = i64(end - first) * stride;
        Scratch<T> depth(cells);
        Scratch<int> winner(cells);
        for (i64 i = 0; i < cells; ++i) {
            depth[i] = Real<T>::largest;
            winner[i] = -1;
        }
        Band<T> band{grid, faces.get(), reaches.get(), first, end, stride, depth.get(), winner.get()};
        for (i64 f = 0; f < count; ++f) {
            if (rows[f].first < end && rows[f].end > first) band.draw(int(f));
        }
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
void rasterize(const Job<T>& job) {
    const Grid<T> grid = make_grid<T>(job.height, job.width);
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

void rasterize_f32(const Job<float>& job) { rasterize(job); }
void rasterize_f64(const Job<double>& job) { rasterize(job); }

}  // namespace gd
