// SPDX-License-Identifier: Apache-2.0
// The outline of one image on the CPU: from faces to the pieces of edges that have background on one side.
#pragma once
#include "../raster/contour.h"
#include "grid.h"
#include "parallel.h"

namespace gd {

using geodiff::parallel;

// A list that grows. (std::vector stays out: see CMakeLists.txt.) For types that can be copied byte by byte.
template <class A>
class List {
  public:
    List() = default;
    ~List() { __builtin_free(data_); }
    List(const List&) = delete;
    List& operator=(const List&) = delete;
    void push(const A& value) {
        if (size_ == room_) {
            room_ = 2 * room_ + 64;
            data_ = static_cast<A*>(__builtin_realloc(data_, sizeof(A) * static_cast<unsigned long long>(room_)));
        }
        data_[size_++] = value;
    }
    i64 size() const { return size_; }
    void clear() { size_ = 0; }
    A* get() const { return data_; }
    A& operator[](i64 i) const { return data_[i]; }

  private:
    A* data_ = nullptr;
    i64 size_ = 0, room_ = 0;
};

// One list for each part of the work, so that threads fill them in any order.
template <class A>
class Lists {
  public:
    explicit Lists(i64 count) : lists_(new List<A>[static_cast<unsigned long long>(count < 1 ? 1 : count)]) {}
    ~Lists() { delete[] lists_; }
    Lists(const Lists&) = delete;
    Lists& operator=(const Lists&) = delete;
    List<A>& operator[](i64 i) const { return lists_[i]; }

  private:
    List<A>* lists_;
};

// All vertices in NDC, in double; `front` is 0 for those that the near plane hides.
struct Projected {
    struct Point {
        double x, y;
    };
    Scratch<Point> at;
    Scratch<unsigned char> front;

    template <class T>
    explicit Projected(const geodiff::ContourJob<T>& job) : at(job.vertices), front(job.vertices) {
        constexpr i64 kBlock = 8192;
        const i64 blocks = (job.vertices + kBlock - 1) / kBlock;
        parallel(blocks, blocks > 1 ? job.threads : 1, [&](i64 block) {
            for (i64 i = block * kBlock; i < min(job.vertices, (block + 1) * kBlock); ++i) {
                const T* c = job.clip + 4 * i;
                const bool seen = c[2] > job.near;
                const double inverse = 1 / (seen ? double(c[3]) : 1.0);
                front[i] = seen;
                at[i] = {double(c[0]) * inverse, double(c[1]) * inverse};
            }
        });
    }
};

template <class T>
void load_corners(const geodiff::ContourJob<T>& job, i64 image, i64 face, Clip<double> corner[3]) {
    const int* index = job.faces + 3 * (job.layout[3 * image + 1] + face);
    for (int k = 0; k < 3; ++k) {
        const T* c = job.clip + 4 * (job.layout[3 * image] + index[k]);
        corner[k] = {double(c[0]), double(c[1]), double(c[2]), double(c[3])};
    }
}

// A face whose orientation is known, and not 0.
template <class T>
View face_view(const geodiff::ContourJob<T>& job, const Projected& points, i64 image, i64 face, double orientation) {
    const int* index = job.faces + 3 * (job.layout[3 * image + 1] + face);
    const i64 start = job.layout[3 * image];
    const i64 i = start + index[0], j = start + index[1], k = start + index[2];
    if (points.front[i] && points.front[j] && points.front[k]) {
        const Projected::Point &a = points.at[i], &b = points.at[j], &c = points.at[k];
        return {{a.x, b.x, c.x, 0}, {a.y, b.y, c.y, 0}, orientation, {0, 1, 2, 0}, 3};
    }
    View v;
    v.n = 0;
    v.orientation = 1;
    if (points.front[i] || points.front[j] || points.front[k]) {
        Clip<double> corner[3];
        load_corners(job, image, face, corner);
        v = clipped_view(corner, double(job.near), double(Real<T>::epsilon));
    }
    return v;
}

template <class T>
View face_view(const geodiff::ContourJob<T>& job, const Projected& points, i64 image, i64 face) {
    View v = face_view(job, points, image, face, 0.0);
    if (v.orientation == 0) orient(v, double(Real<T>::epsilon));
    return v;
}

// Square cells over a rectangle, and what lies in each, in order.
struct Cells {
    double left, bottom, per_cell;
    int across, down;
    Scratch<int> start;
    List<int> entries;

    Cells(double l, double r, double b, double t, i64 wanted)
        : left(l), bottom(b), per_cell(scale(l, r, b, t, wanted)), across(count(r - l)), down(count(t - b)),
          start(i64(across) * down + 1) {
        for (i64 i = 0; i <= i64(across) * down; ++i) start[i] = 0;
    }

    static double scale(double l, double r, double b, double t, i64 wanted) {
        const double wide = max(r - l, 1e-12), high = max(t - b, 1e-12);
        return min(sqrt(double(max(wanted, i64(1))) / (wide * high)), double(wanted + 1) / max(wide, high));
    }
    int count(double length) const { return 1 + to_int(length * per_cell, 0, 1 << 14); }
    int column(double x) const { return to_int((x - left) * per_cell, 0, across - 1); }
    int row(double y) const { return to_int((y - bottom) * per_cell, 0, down - 1); }

    // visit(i, put) calls put(cell) for each cell of item i; it is asked twice.
    template <class Visit>
    void fill(i64 items, Visit&& visit) {
        const i64 cells = i64(across) * down;
        for (i64 i = 0; i < items; ++i) visit(i, [&](int cell) { ++start[cell + 1]; });
        for (i64 c = 0; c < cells; ++c) start[c + 1] += start[c];
        Scratch<int> next(cells);
        for (i64 c = 0; c < cells; ++c) next[c] = start[c];
        const i64 total = start[cells];
        for (i64 i = 0; i < total; ++i) entries.push(0);
        for (i64 i = 0; i < items; ++i) visit(i, [&](int cell) { entries[next[cell]++] = int(i); });
    }
};

struct Cut {
    int segment, partner;
    double t;
};

template <class T>
struct Outline {
    static constexpr i64 kBlock = 1024;  // faces that a thread takes at a time

    const geodiff::ContourJob<T>& job;
    const Grid<T>& grid;
    const Projected& points;
    const i64 image, faces, blocks;
    const int threads;
    Scratch<signed char> orientation;  // 0: not drawn
    List<Segment> segments;
    List<Piece> pieces;

    Outline(const geodiff::ContourJob<T>& j, const Grid<T>& g, const Projected& p, i64 i, int t)
        : job(j), grid(g), points(p), image(i), faces(j.layout[3 * i + 2]), blocks((faces + kBlock - 1) / kBlock), threads(t),
          orientation(faces) {}

    // Fills `segments` and `pieces`, and marks the pixels whose centres are covered.
    void find(unsigned char* mask) {
        each_block([&](i64 f) {
            const View v = face_view(job, points, image, f);
            orientation[f] = static_cast<signed char>(v.n == 0 ? 0 : (v.orientation > 0 ? 1 : -1));
            if (v.n) draw(v, mask);
        });
        candidates();
        List<Cut> cuts;
        cut(cuts);
        List<Piece> all;
        split(cuts, all);
        keep_visible(all);
    }

  private:
    template <class Body>
    void each_block(Body&& body) {
        parallel(blocks, blocks > 1 ? threads : 1, [&](i64 block) {
            for (i64 f = block * kBlock; f < min(faces, (block + 1) * kBlock); ++f) body(f);
        });
    }

    void draw(const View& v, unsigned char* mask) const {
        const double per_step = 0.5 * shorter_side(job.height, job.width);
        double left = v.x[0], right = v.x[0], bottom = v.y[0], top = v.y[0];
        for (int k = 1; k < v.n; ++k) {
            left = min(left, v.x[k]);
            right = max(right, v.x[k]);
            bottom = min(bottom, v.y[k]);
            top = max(top, v.y[k]);
        }
        // Pixels whose centres lie in the bounding box; a hundredth of a pixel is room for rounding.
        const double half_w = 0.5 * job.width - 0.5, half_h = 0.5 * job.height - 0.5;
        const int first = to_int(left * per_step + half_w + 0.99, 0, job.width);
        const int end = to_int(right * per_step + half_w + 1.01, 0, job.width);
        const int first_row = to_int(half_h - top * per_step + 0.99, 0, job.height);
        const int end_row = to_int(half_h - bottom * per_step + 1.01, 0, job.height);
        if (first >= end || first_row >= end_row) return;
        if (all_covered(mask, first_row, end_row, first, end)) return;  // by the other side of a closed mesh, as a rule
        const Lines lines = make_lines(v);
        for (int row = first_row; row < end_row; ++row) {
            const double y = double(grid.y(row));
            double low = first, high = end;
            for (int k = 0; k < lines.n && end - first > 8; ++k) {
                // x ≤ edge where ey > 0, x ≥ edge where ey < 0
                if (!(abs(lines.ey[k]) > 1e-9 * abs(lines.ex[k]))) continue;
                const double edge = lines.ax[k] + (y - lines.ay[k]) * (lines.ex[k] / lines.ey[k]);
                const double at = edge * per_step + half_w;
                if (lines.ey[k] > 0) {
                    high = min(high, at + 1.01);
                } else {
                    low = max(low, at + 0.99 - 1);
                }
            }
            const int from = to_int(low, first, end), to = to_int(high + 1, first, end);
            unsigned char* into = mask + i64(row) * job.width;
            for (int column = from; column < to; ++column) {
                const double x = double(grid.x(column));
                // Threads may meet here; all of them write the same.
                if (covers(lines, x, y)) __atomic_store_n(into + column, static_cast<unsigned char>(1), __ATOMIC_RELAXED);
            }
        }
    }

    bool all_covered(const unsigned char* mask, int first_row, int end_row, int first, int end) const {
        for (int row = first_row; row < end_row; ++row) {
            const unsigned char* own = mask + i64(row) * job.width;
            for (int column = first; column < end; ++column) {
                if (!__atomic_load_n(own + column, __ATOMIC_RELAXED)) return false;
            }
        }
        return true;
    }

    // Whether the side of face f is an edge all of whose drawn faces lie on one side, and f the first of them.
    bool is_candidate(i64 f, int side) const {
        const i64 start = job.layout[3 * image + 1];
        const int* own = job.faces + 3 * (start + f);
        const i64 here = 3 * (start + f) + side;
        const i64 limit = 3 * job.all_faces;
        i64 h = job.edges[here];
        for (i64 turns = 0; h != here && h >= 0 && h < limit && turns < limit; ++turns, h = job.edges[h]) {
            const i64 g = h / 3 - start;
            if (g < 0 || g >= faces || orientation[g] == 0) continue;
            if (g < f) return false;
            const bool same_way = job.faces[h] == own[side];
            if ((orientation[g] == orientation[f]) != same_way) return false;
        }
        return true;
    }

    void candidates() {
        const double reach = max(job.radius_outside, job.radius_inside);
        const double shorter = job.height < job.width ? job.height : job.width;
        const double wide = job.width / shorter + reach * 1.001 + 1 / shorter;
        const double high = job.height / shorter + reach * 1.001 + 1 / shorter;
        const bool bounded = reach < 1e6;
        const double push = sizeof(T) == 4 ? 4e-6 : 1e-10;
        Lists<Segment> found(blocks);
        parallel(blocks, blocks > 1 ? threads : 1, [&](i64 block) {
            for (i64 f = block * kBlock; f < min(faces, (block + 1) * kBlock); ++f) {
                if (orientation[f] == 0) continue;
                const i64 start = job.layout[3 * image];
                const int* index = job.faces + 3 * (job.layout[3 * image + 1] + f);
                const bool whole = points.front[start + index[0]] && points.front[start + index[1]] &&
                                   points.front[start + index[2]];
                bool any = !whole;
                bool candidate[3];
                for (int k = 0; k < 3; ++k) any |= candidate[k] = is_candidate(f, k);
                if (!any) continue;
                const View v = face_view(job, points, image, f, double(orientation[f]));
                for (int k = 0; k < v.n; ++k) {
                    Segment s;
                    if (v.side[k] >= 0 && !candidate[int(v.side[k])]) continue;
                    if (!make_segment(v, k, int(4 * f + k), push, s)) continue;
                    if (bounded && !crop(s, -wide, wide, -high, high)) continue;
                    found[block].push(s);
                }
            }
        });
        for (i64 block = 0; block < blocks; ++block) {
            for (i64 i = 0; i < found[block].size(); ++i) segments.push(found[block][i]);
        }
    }

    // Where segments cross and touch; a cell of a grid at a time, so the same cut may come twice.
    void cut(List<Cut>& cuts) const {
        const i64 count = segments.size();
        if (count < 2) return;
        double left = Real<double>::largest, right = -left, bottom = left, top = -left;
        for (i64 i = 0; i < count; ++i) {
            const Segment& s = segments[i];
            for (int end = 0; end < 2; ++end) {
                const double t = end ? s.high : s.low;
                left = min(left, s.ax + t * s.ex);
                right = max(right, s.ax + t * s.ex);
                bottom = min(bottom, s.ay + t * s.ey);
                top = max(top, s.ay + t * s.ey);
            }
        }
        Cells cells(left, right, bottom, top, 2 * count);
        cells.fill(count, [&](i64 i, auto&& put) { visit(cells, segments[i], put); });
        for (i64 cell = 0; cell < i64(cells.across) * cells.down; ++cell) {
            const int end = cells.start[cell + 1];
            for (int i = cells.start[cell]; i < end; ++i) {
                for (int j = i + 1; j < end; ++j) meet(cells.entries[i], cells.entries[j], cuts);
            }
        }
    }

    template <class Put>
    static void visit(const Cells& cells, const Segment& s, Put&& put) {
        double x0 = s.ax + s.low * s.ex, y0 = s.ay + s.low * s.ey;
        double x1 = s.ax + s.high * s.ex, y1 = s.ay + s.high * s.ey;
        if (y1 < y0) {
            const double x = x0, y = y0;
            x0 = x1, y0 = y1, x1 = x, y1 = y;
        }
        const double grow = 4 * s.step;
        const int first = cells.row(y0 - grow), last = cells.row(y1 + grow);
        const double slope = y1 > y0 ? (x1 - x0) / (y1 - y0) : 0.0;
        for (int row = first; row <= last; ++row) {
            // The part of the segment within this row of cells.
            const double low_y = max(y0, cells.bottom + row / cells.per_cell - grow);
            const double high_y = min(y1, cells.bottom + (row + 1) / cells.per_cell + grow);
            const bool flat = !(y1 > y0) || first == last;
            const double a = flat || low_y >= y1 ? (flat ? x0 : x1) : x0 + (low_y - y0) * slope;
            const double b = flat || high_y <= y0 ? (flat ? x1 : x0) : x0 + (high_y - y0) * slope;
            const int from = cells.column(min(a, b) - grow), to = cells.column(max(a, b) + grow);
            for (int column = from; column <= to; ++column) put(row * cells.across + column);
        }
    }

    void meet(int i, int j, List<Cut>& cuts) const {
        const Segment &e = segments[i], &f = segments[j];
        if (apart(e, f) || apart(f, e)) return;
        double t, s;
        if (crossing(e, f, t, s)) {
            if (t > e.low && t < e.high && t > 0 && t < 1) cuts.push({i, j, t});
            if (s > f.low && s < f.high && s > 0 && s < 1) cuts.push({j, i, s});
        }
        for (int k = 0; k < 2; ++k) {
            if (touches(e, f.ax + k * f.ex, f.ay + k * f.ey, t) && t > e.low && t < e.high) cuts.push({i, kFree, t});
            if (touches(f, e.ax + k * e.ex, e.ay + k * e.ey, s) && s > f.low && s < f.high) cuts.push({j, kFree, s});
        }
    }

    void split(const List<Cut>& cuts, List<Piece>& all) const {
        const i64 count = segments.size();
        Scratch<i64> start(count + 1);
        for (i64 i = 0; i <= count; ++i) start[i] = 0;
        for (i64 i = 0; i < cuts.size(); ++i) ++start[cuts[i].segment + 1];
        for (i64 i = 0; i < count; ++i) start[i + 1] += start[i];
        Scratch<Cut> sorted(cuts.size());
        Scratch<i64> filled(count);
        for (i64 i = 0; i < count; ++i) filled[i] = 0;
        for (i64 i = 0; i < cuts.size(); ++i) {
            // Insertion into those of the segment so far; there are few.
            const Cut c = cuts[i];
            Cut* own = sorted.get() + start[c.segment];
            i64 at = filled[c.segment]++;
            for (; at > 0 && own[at - 1].t > c.t; --at) own[at] = own[at - 1];
            own[at] = c;
        }
        for (i64 i = 0; i < count; ++i) {
            const Segment& s = segments[i];
            double low = s.low;
            int first = kFree;
            for (i64 c = start[i]; c <= start[i + 1]; ++c) {
                const bool last = c == start[i + 1];
                const double high = last ? s.high : sorted[c].t;
                const int second = last ? int(kFree) : sorted[c].partner;
                if (high > low) all.push(make_piece(s, int(i), low, high, first, second));
                low = high;
                first = second;
            }
        }
    }

    // Drops the pieces that a face covers just outside of their middles.
    void keep_visible(const List<Piece>& all) {
        const i64 count = all.size();
        if (count == 0) return;
        Scratch<double> x(count), y(count);
        Scratch<unsigned char> hidden(count);
        double left = Real<double>::largest, right = -left, bottom = left, top = -left;
        for (i64 i = 0; i < count; ++i) {
            const Piece& p = all[i];
            const Segment& s = segments[p.segment];
            const double t = 0.5 * (p.low + p.high);
            x[i] = s.ax + t * s.ex + s.step * s.nx;
            y[i] = s.ay + t * s.ey + s.step * s.ny;
            hidden[i] = 0;
            left = min(left, x[i]);
            right = max(right, x[i]);
            bottom = min(bottom, y[i]);
            top = max(top, y[i]);
        }
        Cells cells(left, right, bottom, top, 2 * count);
        cells.fill(count, [&](i64 i, auto&& put) { put(cells.row(y[i]) * cells.across + cells.column(x[i])); });
        each_block([&](i64 f) {
            if (orientation[f] == 0) return;
            const View v = face_view(job, points, image, f, double(orientation[f]));
            double low_x = v.x[0], high_x = v.x[0], low_y = v.y[0], high_y = v.y[0];
            for (int k = 1; k < v.n; ++k) {
                low_x = min(low_x, v.x[k]);
                high_x = max(high_x, v.x[k]);
                low_y = min(low_y, v.y[k]);
                high_y = max(high_y, v.y[k]);
            }
            if (low_x > right || high_x < left || low_y > top || high_y < bottom) return;
            const int from = cells.column(low_x), to = cells.column(high_x), end = cells.row(high_y);
            for (int row = cells.row(low_y); row <= end; ++row) {
                const int first = cells.start[row * cells.across + from], last = cells.start[row * cells.across + to + 1];
                if (first == last) continue;
                const Lines lines = make_lines(v);
                for (int e = first; e < last; ++e) {
                    const int i = cells.entries[e];
                    if (covers(lines, x[i], y[i])) {
                        __atomic_store_n(hidden.get() + i, static_cast<unsigned char>(1), __ATOMIC_RELAXED);
                    }
                }
            }
        });
        for (i64 i = 0; i < count; ++i) {
            if (!hidden[i]) pieces.push(all[i]);
        }
    }
};

}  // namespace gd
