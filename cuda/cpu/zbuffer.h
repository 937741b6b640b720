// SPDX-License-Identifier: Apache-2.0
// The z-buffer of an image, band by band of its rows: what the hard rasteriser and the fragments of hard images share.
//
// Most faces of a fine mesh are wholly in front of the near plane and a few pixels small. Those are made ready several at a
// time, side by side in vectors, by the band that draws them, and tested against all pixels of their box. The others are
// made ready once for all bands, and their rows are narrowed by their edges. Both take the same decisions by the same
// operations.
#pragma once
#include "../raster/hard.h"
#include "grid.h"
#include "parallel.h"

namespace gd {

constexpr int kZBandRows = 16;
constexpr i64 kZFaces = 1024;  // that a thread takes at a time

struct Rows {
    int first, end;
};

// Which faces touch each band of rows, in order: without it every band would look at all faces.
struct Bins {
    int bands;
    Scratch<i64> start;
    Scratch<int> faces;

    static i64 entries(const Rows* rows, i64 count) {
        i64 total = 0;
        for (i64 f = 0; f < count; ++f) {
            if (rows[f].first < rows[f].end) total += (rows[f].end - 1) / kZBandRows - rows[f].first / kZBandRows + 1;
        }
        return total;
    }

    Bins(const Rows* rows, i64 count, int bands_) : bands(bands_), start(bands_ + 2), faces(entries(rows, count)) {
        for (int b = 0; b < bands + 2; ++b) start[b] = 0;
        for (i64 f = 0; f < count; ++f) {
            for (int b = rows[f].first / kZBandRows; rows[f].first < rows[f].end && b <= (rows[f].end - 1) / kZBandRows; ++b)
                ++start[b + 2];
        }
        for (int b = 2; b < bands + 2; ++b) start[b] += start[b - 1];
        for (i64 f = 0; f < count; ++f) {
            for (int b = rows[f].first / kZBandRows; rows[f].first < rows[f].end && b <= (rows[f].end - 1) / kZBandRows; ++b)
                faces[start[b + 1]++] = int(f);
        }
    }
};

// kLane triangles side by side.
template <class T>
struct Triangles {
    T corner[3][4][kLane];  // as Clip has them
    T x[3][kLane], y[3][kLane];
    T orientation[kLane];
    bool drawn[kLane];
    T ax[3][kLane], ay[3][kLane], ex[3][kLane], ey[3][kLane];
    T planes[3][3][kLane], depths[2][3][kLane];  // as HardPlane has them: a, b, c; num, den

    // As make_polygon does for a triangle that is not cut.
    void measure() {
#pragma omp simd
        for (int i = 0; i < kLane; ++i) {
            T area = T(0), longest = T(0), terms = T(0);
            for (int k = 0; k < 3; ++k) {
                const int l = k == 2 ? 0 : k + 1;
                const T px = x[k][i] - x[0][i], py = y[k][i] - y[0][i];
                const T dx = x[l][i] - x[k][i], dy = y[l][i] - y[k][i];
                area += px * dy - py * dx;
                longest = max(longest, dx * dx + dy * dy);
                terms += abs(x[k][i] * dy) + abs(y[k][i] * dx);
            }
            orientation[i] = area < T(0) ? T(-1) : T(1);
            drawn[i] = abs(area) > T(8) * Real<T>::epsilon * min(longest, terms);
        }
    }

    // As hard_face does.
    void edges() {
        for (int k = 0; k < 3; ++k) {
            const int l = k == 2 ? 0 : k + 1;
#pragma omp simd
            for (int i = 0; i < kLane; ++i) {
                const T kx = x[k][i], ky = y[k][i], lx = x[l][i], ly = y[l][i];
                const T at_l = max(abs(lx), abs(ly)), at_k = max(abs(kx), abs(ky));
                const bool swap = at_l != at_k ? at_l < at_k : (lx < kx || (lx == kx && ly < ky));
                const T sx = swap ? lx : kx, sy = swap ? ly : ky, tx = swap ? kx : lx, ty = swap ? ky : ly;
                const T sign = swap ? -orientation[i] : orientation[i];
                ax[k][i] = sx;
                ay[k][i] = sy;
                ex[k][i] = (tx - sx) * sign;
                ey[k][i] = (ty - sy) * sign;
            }
        }
    }

    void make_planes() {
#pragma GCC ivdep
        for (int i = 0; i < kLane; ++i) {
            Clip<T> own[3];
            for (int k = 0; k < 3; ++k) own[k] = {corner[k][0][i], corner[k][1][i], corner[k][2][i], corner[k][3][i]};
            HardPlane<T> p;
            hard_plane(own, x[0][i], y[0][i], p);
            for (int k = 0; k < 3; ++k) {
                planes[k][0][i] = p.a[k];
                planes[k][1][i] = p.b[k];
                planes[k][2][i] = p.c[k];
            }
            depths[0][0][i] = p.num_a;
            depths[0][1][i] = p.num_b;
            depths[0][2][i] = p.num_c;
            depths[1][0][i] = p.den_a;
            depths[1][1][i] = p.den_b;
            depths[1][2][i] = p.den_c;
        }
    }

    HardPlane<T> plane(int i) const {
        HardPlane<T> p;
        p.x0 = x[0][i];
        p.y0 = y[0][i];
        for (int k = 0; k < 3; ++k) {
            p.a[k] = planes[k][0][i];
            p.b[k] = planes[k][1][i];
            p.c[k] = planes[k][2][i];
        }
        p.num_a = depths[0][0][i];
        p.num_b = depths[0][1][i];
        p.num_c = depths[0][2][i];
        p.den_a = depths[1][0][i];
        p.den_b = depths[1][1][i];
        p.den_c = depths[1][2][i];
        return p;
    }
};

// Of a small face: its pixels, at most kLane columns.
struct Box {
    int first_row, end_row, first_column;
};

// Where a face is in the image, in pixels; left > right if it draws nothing.
struct PixelBox {
    float left, right, top, bottom;
};

template <class T>
class ZBuffer {
  public:
    // `places`: whether it is asked for those of faces.
    ZBuffer(const Grid<T>& grid, const T* clip, const int* triangles, i64 count, T near, int threads, bool places = false)
        : grid_(grid), clip_(clip), triangles_(triangles), near_(near), large_of_(count), boxes_(count), rows_(count),
          wants_places_(places), places_(places ? count : 0), large_(prepare(count, threads)), faces_(large_), reaches_(large_),
          bins_(rows_.get(), count, (grid.height + kZBandRows - 1) / kZBandRows) {
        const i64 blocks = (count + kZFaces - 1) / kZFaces;
        geodiff::parallel(blocks, large_ > kZFaces ? threads : 1, [&](i64 block) {
            for (i64 f = block * kZFaces; f < min(count, (block + 1) * kZFaces); ++f) {
                if (large_of_[f] >= 0) make_large(f);
            }
        });
    }

    // The faces of a band, in order. A pixel's winner is a place in this list.
    const int* faces(int band) const { return bins_.faces.get() + bins_.start[band]; }
    i64 faces_in(int band) const { return bins_.start[band + 1] - bins_.start[band]; }

    const PixelBox& place(i64 f) const { return places_[f]; }

    // Draws a band of rows [first, end), each `stride` ≥ width + kLane cells long: depth of the nearest face so far, and its
    // place in the band's list. `planes` is for all of the list; those of the winners are filled.
    void draw(int band, int first, int end, int stride, T* depth, int* winner, HardPlane<T>* planes) const {
        const int* list = faces(band);
        const i64 count = faces_in(band);
        for (i64 start = 0; start < count; start += kLane) {
            const int lanes = int(min(i64(kLane), count - start));
            Triangles<T> batch;
            bool any = false;
            for (int i = 0; i < kLane; ++i) {
                const i64 f = list[start + min(i, lanes - 1)];
                any = any || large_of_[f] < 0;
                project(f, batch, i);
            }
            if (any) {
                batch.measure();
                batch.edges();
                batch.make_planes();
            }
            for (int i = 0; i < lanes; ++i) {
                const i64 f = list[start + i];
                const i64 large = large_of_[f];
                if (large >= 0) {
                    planes[start + i] = faces_[large];
                    draw_large(faces_[large], reaches_[large], list, int(start) + i, first, end, stride, depth, winner);
                } else {
                    draw_small(batch, i, boxes_[f], list, int(start) + i, first, end, stride, depth, winner,
                               planes[start + i]);
                }
            }
        }
    }

  private:
    void corners(i64 f, Clip<T> corner[3]) const { load_face(clip_, triangles_ + 3 * f, corner); }

    void project(i64 f, Triangles<T>& batch, int lane) const {
        for (int k = 0; k < 3; ++k) {
            const T* c = clip_ + 4 * i64(triangles_[3 * f + k]);
            for (int j = 0; j < 4; ++j) batch.corner[k][j][lane] = c[j];
            const T inverse = T(1) / c[3];
            batch.x[k][lane] = c[0] * inverse;
            batch.y[k][lane] = c[1] * inverse;
        }
    }

    // Sorts faces into small ones, large ones and those that draw nothing; returns how many are large.
    i64 prepare(i64 count, int threads) {
        const i64 blocks = (count + kZFaces - 1) / kZFaces;
        geodiff::parallel(blocks, blocks > 4 ? threads : 1, [&](i64 block) {
            const i64 end = min(count, (block + 1) * kZFaces);
            for (i64 f = block * kZFaces; f < end; f += kLane) sort(f, int(min(i64(kLane), end - f)));
        });
        i64 large = 0;
        for (i64 f = 0; f < count; ++f) {
            if (large_of_[f] >= 0) large_of_[f] = int(large++);
        }
        return large;
    }

    void sort(i64 f, int lanes) {
        Triangles<T> batch;
        bool whole[kLane];
        for (int i = 0; i < kLane; ++i) {
            const i64 g = f + min(i, lanes - 1);
            project(g, batch, i);
            whole[i] = true;
            for (int k = 0; k < 3; ++k) whole[i] = whole[i] && batch.corner[k][2][i] > near_;
        }
        batch.measure();
        int first_row[kLane], end_row[kLane], first_column[kLane], end_column[kLane];
        const T grow = T(0.01) * grid_.step, per_step = grid_.per_step;
        const T middle_row = T(0.5) * T(grid_.height) - T(0.5), middle = T(0.5) * T(grid_.width) - T(0.5);
        const int height = grid_.height, width = grid_.width;
#pragma omp simd
        for (int i = 0; i < kLane; ++i) {
            const T left = min(batch.x[0][i], min(batch.x[1][i], batch.x[2][i]));
            const T right = max(batch.x[0][i], max(batch.x[1][i], batch.x[2][i]));
            const T bottom = min(batch.y[0][i], min(batch.y[1][i], batch.y[2][i]));
            const T top = max(batch.y[0][i], max(batch.y[1][i], batch.y[2][i]));
            first_row[i] = to_int(middle_row - (top + grow) * per_step + T(1), 0, height);
            end_row[i] = to_int(middle_row - (bottom - grow) * per_step + T(1), 0, height);
            first_column[i] = to_int((left - grow) * per_step + middle + T(0.98), 0, width);
            end_column[i] = to_int((right + grow) * per_step + middle + T(1.02), 0, width);
        }
        for (int i = 0; i < lanes; ++i) {
            large_of_[f + i] = -1;
            rows_[f + i] = {0, 0};
            if (wants_places_) places_[f + i] = whole[i] && batch.drawn[i] ? place_of(batch, i) : PixelBox{1, 0, 1, 0};
            const bool small = end_column[i] - first_column[i] <= kLane && end_row[i] - first_row[i] <= kZBandRows;
            if (!whole[i] || (batch.drawn[i] && !small)) {
                large_of_[f + i] = 0;
                large_rows(f + i);
            } else if (batch.drawn[i] && first_column[i] < end_column[i]) {
                rows_[f + i] = {first_row[i], end_row[i]};
                boxes_[f + i] = {first_row[i], end_row[i], first_column[i]};
            }
        }
    }

    // The rows of a large face; none, and no large face, where it draws nothing.
    void large_rows(i64 f) {
        Clip<T> corner[3];
        corners(f, corner);
        const Polygon<T> p = make_polygon(corner, near_);
        if (p.n != 0) {
            Edge<T> edges[4];
            for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
            Reach<T> reach;
            reach.init(p, edges, T(0), grid_);
            rows_[f] = {reach.first_row, reach.end_row};
            if (wants_places_) places_[f] = place_of(p);
        }
        if (rows_[f].first >= rows_[f].end) {
            rows_[f] = {0, 0};
            large_of_[f] = -1;
        }
    }

    static float in_pixels(T at) { return float(clamp(at, T(-1e9), T(1e9))); }

    PixelBox place_of(const Triangles<T>& batch, int i) const {
        Polygon<T> p;
        p.n = 3;
        for (int k = 0; k < 3; ++k) {
            p.x[k] = batch.x[k][i];
            p.y[k] = batch.y[k][i];
        }
        return place_of(p);
    }

    PixelBox place_of(const Polygon<T>& p) const {
        T left = p.x[0], right = left, bottom = p.y[0], top = bottom;
        for (int k = 1; k < p.n; ++k) {
            left = min(left, p.x[k]);
            right = max(right, p.x[k]);
            bottom = min(bottom, p.y[k]);
            top = max(top, p.y[k]);
        }
        const T middle_row = T(0.5) * T(grid_.height) - T(0.5), middle = T(0.5) * T(grid_.width) - T(0.5);
        return {in_pixels(left * grid_.per_step + middle), in_pixels(right * grid_.per_step + middle),
                in_pixels(middle_row - top * grid_.per_step), in_pixels(middle_row - bottom * grid_.per_step)};
    }

    void make_large(i64 f) {
        Clip<T> corner[3];
        corners(f, corner);
        const Polygon<T> p = make_polygon(corner, near_);
        Edge<T> edges[4];
        for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
        reaches_[large_of_[f]].init(p, edges, T(0), grid_);
        hard_face(corner, p, faces_[large_of_[f]]);
    }

    void draw_small(const Triangles<T>& batch, int lane, const Box& box, const int* list, int name, int first, int end,
                    int stride, T* depth, int* winner, HardPlane<T>& plane) const {
        T ax[3], ay[3], ex[3], ey[3];
        for (int k = 0; k < 3; ++k) {
            ax[k] = batch.ax[k][lane];
            ay[k] = batch.ay[k][lane];
            ex[k] = batch.ex[k][lane];
            ey[k] = batch.ey[k][lane];
        }
        T right[3][kLane];  // ey·(x − ax)
        const T* xs = grid_.columns() + box.first_column;
        for (int k = 0; k < 3; ++k) {
#pragma omp simd
            for (int i = 0; i < kLane; ++i) right[k][i] = ey[k] * (xs[i] - ax[k]);
        }
        bool made = false;
        const int from = max(box.first_row, first), to = min(box.end_row, end);
        for (int row = from; row < to; ++row) {
            const T y = grid_.y(row);
            const T up0 = ex[0] * (y - ay[0]), up1 = ex[1] * (y - ay[1]), up2 = ex[2] * (y - ay[2]);
            int inside[kLane], any = 0;
#pragma omp simd reduction(| : any)
            for (int i = 0; i < kLane; ++i) {
                inside[i] = int(up0 >= right[0][i]) & int(up1 >= right[1][i]) & int(up2 >= right[2][i]);
                any |= inside[i];
            }
            if (!any) continue;
            if (!made) plane = batch.plane(lane);
            made = true;
            T* z = depth + i64(row - first) * stride + box.first_column;
            int* id = winner + i64(row - first) * stride + box.first_column;
            write(plane, xs, y, inside, z, id, list, name);
        }
    }

    // The nearer face wins; of two with the same three corners, whose depths differ by rounding, the first.
    void write(const HardPlane<T>& plane, const T* xs, T y, int* inside, T* z, int* id, const int* list, int name) const {
        T here[kLane];
        int close = 0;
#pragma omp simd reduction(| : close)
        for (int i = 0; i < kLane; ++i) {
            here[i] = depth_at(plane, xs[i], y);
            close |= inside[i] & int(here[i] < z[i]) & int(here[i] > z[i] * T(0.999));
        }
        if (close) {
            for (int i = 0; i < kLane; ++i) {
                if (id[i] >= 0 && same_corners(list[id[i]], list[name])) inside[i] = 0;
            }
        }
#pragma omp simd
        for (int i = 0; i < kLane; ++i) {
            const bool wins = inside[i] && here[i] < z[i];
            z[i] = wins ? here[i] : z[i];
            id[i] = wins ? name : id[i];
        }
    }

    // Whether two faces are the same triangle, whatever corner they begin with.
    bool same_corners(i64 f, i64 g) const {
        for (int k = 0; k < 3; ++k) {
            const T* c = clip_ + 4 * i64(triangles_[3 * f + k]);
            bool found = false;
            for (int l = 0; l < 3; ++l) {
                const T* d = clip_ + 4 * i64(triangles_[3 * g + l]);
                found = found || (c[0] == d[0] && c[1] == d[1] && c[2] == d[2] && c[3] == d[3]);
            }
            if (!found) return false;
        }
        return true;
    }

    void draw_large(const HardFace<T>& face, const Reach<T>& reach, const int* list, int name, int first_row, int end_row,
                    int stride, T* depth, int* winner) const {
        const int to = min(reach.end_row, end_row);
        const T* xs = grid_.columns();
        for (int row = max(reach.first_row, first_row); row < to; ++row) {
            const T y = grid_.y(row);
            int first, end;
            reach.columns(y, grid_, first, end);
            T* z = depth + i64(row - first_row) * stride;
            int* id = winner + i64(row - first_row) * stride;
            for (int column = first; column < end; column += kLane) {
                int inside[kLane];
#pragma omp simd
                for (int i = 0; i < kLane; ++i) {
                    const T x = xs[column + i];
                    inside[i] = int(on_inner_side(face, 0, x, y)) & int(on_inner_side(face, 1, x, y)) &
                                int(on_inner_side(face, 2, x, y));
                }
                if (face.n == 4) {
                    for (int i = 0; i < kLane; ++i) inside[i] &= int(on_inner_side(face, 3, xs[column + i], y));
                }
                write(face, xs + column, y, inside, z + column, id + column, list, name);
            }
        }
    }

    const Grid<T>& grid_;
    const T* clip_;
    const int* triangles_;
    const T near_;
    Scratch<int> large_of_;  // the number of a large face, −1 of a small one
    Scratch<Box> boxes_;     // of small faces
    Scratch<Rows> rows_;
    const bool wants_places_;
    Scratch<PixelBox> places_;
    const i64 large_;
    Scratch<HardFace<T>> faces_;
    Scratch<Reach<T>> reaches_;
    const Bins bins_;
};

// The cells of a band, and what was drawn.
template <class T>
struct ZBand {
    const int stride;
    Scratch<T> depth;
    Scratch<int> winner;
    Scratch<HardPlane<T>> planes;

    ZBand(const ZBuffer<T>& buffer, int band, int first, int end, int width)
        : stride(width + kLane), depth(i64(end - first) * stride), winner(i64(end - first) * stride),
          planes(buffer.faces_in(band)) {
        for (i64 i = 0; i < i64(end - first) * stride; ++i) {
            depth[i] = Real<T>::largest;
            winner[i] = -1;
        }
        buffer.draw(band, first, end, stride, depth.get(), winner.get(), planes.get());
    }
};

}  // namespace gd
