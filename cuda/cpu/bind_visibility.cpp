// SPDX-License-Identifier: Apache-2.0
// Where a hard image jumps: the mesh edges and the meeting planes between neighbouring pixels that see different sheets.
// Compiled once for all SIMD levels, so that every machine finds the same ones. The rest (where between the two pixels,
// and gradients) is arithmetic on short lists, and torch's.
#include <cmath>
#include <memory>
#include <vector>

#include "../raster/grid.h"
#include "../raster/sheet.h"
#include "bindings.h"
#include "parallel.h"

namespace geodiff {
namespace {

using gd::Clip;
using gd::i64;
using gd::SheetFace;
using gd::SheetPlane;

constexpr i64 kFaces = 1024;  // that a thread takes at a time
constexpr int kRows = 16;
constexpr double kOnCentre = 1e-6;  // pixels
constexpr int kRounds = 3;  // of looking for the two faces that meet

struct Edge {
    i64 p, q, a, b;
    double share;
};
struct Meeting {
    i64 p, q, corner[6];
};
struct Lists {
    std::vector<Edge> edges;
    std::vector<Meeting> meetings;
};

template <class T>
class Search {
  public:
    Search(const T* clip, const int* faces, const int64_t* layout, const int* edges, const int64_t* face_id, i64 image,
           int height, int width, double near, bool creases, int threads)
        : vertex_start_(layout[3 * image]), count_(layout[3 * image + 2]), image_(image), height_(height), width_(width),
          near_(near), creases_(creases), threads_(threads), seen_(face_id + image * i64(height) * width),
          orientation_(count_), planes_(count_) {
        const i64 first = layout[3 * image + 1];
        sheet_ = {clip + 4 * vertex_start_, faces + 3 * first, edges + 3 * first, int(3 * first), int(3 * count_), orientation_.data()};
    }

    void find(std::vector<Lists>& out) {
        const i64 blocks = (count_ + kFaces - 1) / kFaces;
        parallel(blocks, threads_, [&](i64 block) {
            for (i64 f = block * kFaces; f < std::min(count_, (block + 1) * kFaces); ++f) prepare(int(f));
        });
        const i64 bands = (height_ + kRows - 1) / kRows;
        const size_t first = out.size();
        out.resize(first + size_t(blocks + bands));
        parallel(blocks + bands, threads_, [&](i64 i) {
            Lists& own = out[first + size_t(i)];
            if (i < blocks) {
                for (i64 f = i * kFaces; f < std::min(count_, (i + 1) * kFaces); ++f) face(int(f), own);
            } else {
                band(int(i - blocks), own);
            }
        });
    }

  private:
    void prepare(int f) {
        Clip<T> corner[3];
        SheetFace own;
        sheet_.load(f, corner);
        gd::sheet_face(corner, own);
        orientation_[f] = own.det > 0 ? 1 : own.det < 0 ? -1 : 0;
        planes_[f] = gd::sheet_plane(own, corner);
    }

    double x(int column) const { return gd::pixel_x<double>(height_, width_, column); }
    double y(int row) const { return gd::pixel_y<double>(height_, width_, row); }
    double x_of(i64 pixel) const { return x(int(pixel % width_)); }
    double y_of(i64 pixel) const { return y(int(pixel / width_)); }
    i64 packed(int f, int corner) const { return vertex_start_ + sheet_.faces[3 * i64(f) + corner]; }
    i64 place(i64 pixel) const { return image_ * height_ * width_ + pixel; }

    void face(int f, Lists& out) const {
        if (orientation_[f] == 0) return;
        for (int k = 0; k < 3; ++k) {
            int line;
            if (sheet_.beyond(f, k, line) < 0) side(f, k, out);
        }
    }

    // Line k of face f is a border or a fold: look at each pair of pixels that it separates.
    void side(int f, int k, Lists& out) const {
        Clip<T> corner[3];
        sheet_.load(f, corner);
        SheetFace own;
        gd::sheet_face(corner, own);
        double ends[2][2];
        const Clip<T>& a = corner[(k + 1) % 3];
        const Clip<T>& b = corner[(k + 2) % 3];
        if (!(a.depth > near_) && !(b.depth > near_)) return;
        project(a, b, ends[0]);
        project(b, a, ends[1]);
        const double* line = own.line[k];
        const double m = gd::shorter_side(height_, width_);
        {  // rows
            const double low = std::min(ends[0][1], ends[1][1]), high = std::max(ends[0][1], ends[1][1]);
            const int first = bounded(std::ceil((height_ - 1 - high * m) / 2) - 1, height_);
            const int last = bounded(std::floor((height_ - 1 - low * m) / 2) + 1, height_);
            for (int row = first; row <= last; ++row) {
                const double v = y(row);
                if (!(v >= low && v < high)) continue;
                const double u = -(line[1] * v + line[2]) / line[0];
                between((u * m + width_ - 1) / 2, width_ - 1, [&](i64 column) {
                    crossing(f, k, own, i64(row) * width_ + column, 1, u, v, out);
                });
            }
        }
        {  // columns
            const double low = std::min(ends[0][0], ends[1][0]), high = std::max(ends[0][0], ends[1][0]);
            const int first = bounded(std::floor((low * m + width_ - 1) / 2) - 1, width_);
            const int last = bounded(std::ceil((high * m + width_ - 1) / 2) + 1, width_);
            for (int column = first; column <= last; ++column) {
                const double u = x(column);
                if (!(u >= low && u < high)) continue;
                const double v = -(line[0] * u + line[2]) / line[1];
                between((height_ - 1 - v * m) / 2, height_ - 1, [&](i64 row) {
                    crossing(f, k, own, row * width_ + column, width_, u, v, out);
                });
            }
        }
    }

    // Calls visit(i) with the pixel before `at`; with both neighbours of a centre that the edge goes through, since on which
    // side of it what is seen changes, rounding has decided.
    template <class Visit>
    static void between(double at, int last, Visit&& visit) {
        if (!(at > -1 && at < last + 1.0)) return;  // nor for NaN
        const double whole = std::nearbyint(at);
        const bool on = std::abs(at - whole) < kOnCentre;
        const i64 first = i64(on ? whole : std::floor(at));
        if (first >= 0 && first < last) visit(first);
        if (on && first >= 1 && first - 1 < last) visit(first - 1);
    }

    static int bounded(double value, int size) { return value >= size ? size - 1 : value > 0 ? int(value) : 0; }

    // Where a is in the image; if it is behind the near plane, where the edge to b comes out of it.
    void project(const Clip<T>& a, const Clip<T>& b, double out[2]) const {
        double along = 0;
        if (!(a.depth > near_)) along = (near_ - double(a.depth)) / (double(b.depth) - double(a.depth));
        const double w = a.w + along * (double(b.w) - double(a.w));
        out[0] = (a.x + along * (double(b.x) - double(a.x))) / w;
        out[1] = (a.y + along * (double(b.y) - double(a.y))) / w;
    }

    void crossing(int f, int k, const SheetFace& own, i64 p, i64 step, double u, double v, Lists& out) const {
        const i64 q = p + step;
        if (seen_[p] == seen_[q]) return;
        const bool first = own.beta(k, x_of(p), y_of(p)) > own.beta(k, x_of(q), y_of(q));
        const i64 mine = first ? p : q, other = first ? q : p;
        if (seen_[mine] < 0) return;
        const auto nothing = [](int, int, double) {};
        if (sheet_.walk(f, k, u, v, x_of(mine), y_of(mine), int(seen_[mine]), nothing) < 0) return;
        double share = 1;
        if (seen_[other] >= 0) {
            // One surface from pixel to pixel: the edge goes through a centre, and lies on its other side.
            const int to = int(seen_[other]);
            if (sheet_.walk(int(seen_[mine]), -1, x_of(mine), y_of(mine), x_of(other), y_of(other), to, nothing) >= 0) return;
            const int at = sheet_.walk(to, -1, x_of(other), y_of(other), u, v, -1, nothing);
            if (at < 0) {
                share = 0.5;  // something that no pixel sees is between the two
            } else if (at != f && planes_[at].at(u, v) > planes_[f].at(u, v)) {
                return;  // hidden
            }
        }
        out.edges.push_back({place(p), place(q), packed(f, (k + 1) % 3), packed(f, (k + 2) % 3), share});
    }

    void band(int band, Lists& out) const {
        const int end = std::min(height_, (band + 1) * kRows);
        for (int row = band * kRows; row < end; ++row) {
            const int64_t* own = seen_ + i64(row) * width_;
            const int64_t* below = row + 1 < height_ ? own + width_ : own;  // of the last row: nothing differs
            for (int column = 0; column < width_; ++column) {
                if (own[column] < 0) continue;
                const i64 p = i64(row) * width_ + column;
                if (column + 1 < width_ && own[column] != own[column + 1]) pair(p, p + 1, out);
                if (own[column] != below[column]) pair(p, p + width_, out);
            }
        }
    }

    bool share_vertex(int f, int g) const {
        const int *a = sheet_.faces + 3 * i64(f), *b = sheet_.faces + 3 * i64(g);
        int shared = 0;  // comparisons that are not needed cost less than branches
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 3; ++j) shared |= int(a[i] == b[j]);
        }
        return shared != 0;
    }

    void pair(i64 p, i64 q, Lists& out) const {
        if (seen_[q] < 0) return;
        const int a = int(seen_[p]), b = int(seen_[q]);
        if (creases_) crease(a, b, p, q, out);
        if (!share_vertex(a, b)) meet(a, b, p, q, out);
    }

    // Faces of one sheet: the edge nearest to the middle between the two pixels.
    void crease(int a, int b, i64 p, i64 q, Lists& out) const {
        int face = -1, line = -1;
        double best = 2;
        const int at = sheet_.walk(a, -1, x_of(p), y_of(p), x_of(q), y_of(q), b, [&](int f, int k, double s) {
            if (std::abs(s - 0.5) < best) best = std::abs(s - 0.5), face = f, line = k;
        });
        if (at < 0 || face < 0) return;
        out.edges.push_back({place(p), place(q), packed(face, (line + 1) % 3), packed(face, (line + 2) % 3), 1.0});
    }

    // Two sheets that go through each other: a is in front at p, b at q, and both are there in between.
    void meet(int a, int b, i64 p, i64 q, Lists& out) const {
        const double px = x_of(p), py = y_of(p), qx = x_of(q), qy = y_of(q);
        const auto nothing = [](int, int, double) {};
        for (int round = 0; round < kRounds; ++round) {
            const SheetPlane &up = planes_[a], &uq = planes_[b];
            const double at_p = up.at(px, py) - uq.at(px, py), at_q = up.at(qx, qy) - uq.at(qx, qy);
            if (!(at_p > 0 && at_q < 0)) return;
            const double s = at_p / (at_p - at_q);
            const double u = px + s * (qx - px), v = py + s * (qy - py);
            const int to_a = sheet_.walk(int(seen_[p]), -1, px, py, u, v, -1, nothing);
            if (to_a < 0) return;
            const int to_b = sheet_.walk(int(seen_[q]), -1, qx, qy, u, v, -1, nothing);
            if (to_b < 0 || share_vertex(to_a, to_b)) return;
            if (to_a == a && to_b == b) {
                Meeting found{place(p), place(q), {}};
                for (int k = 0; k < 3; ++k) found.corner[k] = packed(a, k), found.corner[3 + k] = packed(b, k);
                out.meetings.push_back(found);
                return;
            }
            a = to_a;
            b = to_b;
        }
    }

    const i64 vertex_start_, count_, image_;
    const int height_, width_;
    const double near_;
    const bool creases_;
    const int threads_;
    const int64_t* seen_;
    std::vector<signed char> orientation_;
    std::vector<SheetPlane> planes_;
    gd::Sheet<T> sheet_;
};

template <class V>
nb::ndarray<nb::numpy, V> handed(std::unique_ptr<std::vector<V>>& values, std::initializer_list<size_t> shape) {
    nb::capsule owner(values.get(), [](void* p) noexcept { delete static_cast<std::vector<V>*>(p); });
    return nb::ndarray<nb::numpy, V>(values.release()->data(), shape, owner);
}

template <class T>
nb::tuple jumps(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout,
                Array<const int, 2> edges, Array<const int64_t, 3> face_id, double near, bool creases, int threads) {
    std::vector<Lists> lists;
    using Indices = std::vector<int64_t>;
    auto pixels = std::make_unique<Indices>(), ends = std::make_unique<Indices>();
    auto meeting_pixels = std::make_unique<Indices>(), corners = std::make_unique<Indices>();
    auto shares = std::make_unique<std::vector<double>>();
    {
        nb::gil_scoped_release release;
        for (size_t image = 0; image < layout.shape(0); ++image) {
            Search<T> search(clip.data(), faces.data(), layout.data(), edges.data(), face_id.data(), i64(image),
                             int(face_id.shape(1)), int(face_id.shape(2)), near, creases, threads);
            search.find(lists);
        }
        for (const Lists& list : lists) {
            for (const Edge& e : list.edges) {
                pixels->insert(pixels->end(), {e.p, e.q});
                ends->insert(ends->end(), {e.a, e.b});
                shares->push_back(e.share);
            }
            for (const Meeting& m : list.meetings) {
                meeting_pixels->insert(meeting_pixels->end(), {m.p, m.q});
                corners->insert(corners->end(), m.corner, m.corner + 6);
            }
        }
    }
    const size_t count = shares->size(), meetings = corners->size() / 6;
    return nb::make_tuple(handed(pixels, {count, 2}), handed(ends, {count, 2}), handed(shares, {count}),
                          handed(meeting_pixels, {meetings, 2}), handed(corners, {meetings, 2, 3}));
}

template <class T>
void bind(nb::module_& m) {
    using namespace nb::literals;
    m.def("jumps", &jumps<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array, "edges"_array, "face_id"_array,
          "near"_a, "creases"_a, "threads"_a = 1);
}

}  // namespace

void bind_visibility(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
