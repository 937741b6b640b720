// SPDX-License-Identifier: Apache-2.0
// Where a hard image jumps: the mesh edges and the meeting planes between neighbouring pixels that see different sheets. The
// rest (where between the two pixels, and gradients) is arithmetic on short lists, and torch's. All in double.
#pragma once
#include "grid.h"
#include "sheet.h"

namespace gd {

// What is large, and called from several places: on a CPU it is one function.
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define GEODIFF_LARGE GEODIFF_HD
#else
#define GEODIFF_LARGE
#endif

constexpr double kOnCentre = 1e-6;  // pixels
constexpr int kMeetingRounds = 3;   // of looking for the two faces that meet

// An edge between two pixels, p left of q or above it; a and b: its vertices, among all images' as pixels are.
struct JumpEdge {
    i64 p, q, a, b;
    double share;
};
struct JumpMeeting {
    i64 p, q, corner[6];
};

GEODIFF_HD double whole_below(double x) {
    if (!(abs(x) < 1e9)) return x;  // far from any pixel
    const double near = double(int(x));
    return near > x ? near - 1 : near;
}

// A side of a face beyond which the surface does not go on, and the lines through centres of rows and of columns that it
// may cross.
struct JumpSide {
    SheetFace face;
    int first_row, rows, first_column, columns;
    double low[2], high[2];  // of its ends, x and y

    GEODIFF_HD int levels() const { return rows + columns; }
};

// One image.
template <class T>
struct JumpSearch {
    Sheet<T> sheet;
    const SheetPlane* planes;  // of its faces
    const i64* seen;           // (H, W)
    i64 vertex_start, image;
    int height, width;
    double near;

    GEODIFF_HD static void prepare(const Sheet<T>& sheet, int f, signed char& orientation, SheetPlane& plane) {
        Clip<T> corner[3];
        SheetFace own;
        sheet.load(f, corner);
        sheet_face(corner, own);
        orientation = own.det > 0 ? 1 : own.det < 0 ? -1 : 0;
        plane = sheet_plane(own, corner);
    }

    GEODIFF_HD double x(int column) const { return pixel_x<double>(height, width, column); }
    GEODIFF_HD double y(int row) const { return pixel_y<double>(height, width, row); }
    GEODIFF_HD double x_of(i64 pixel) const { return x(int(pixel % width)); }
    GEODIFF_HD double y_of(i64 pixel) const { return y(int(pixel / width)); }
    GEODIFF_HD i64 packed(int f, int corner) const { return vertex_start + sheet.faces[3 * i64(f) + corner]; }
    GEODIFF_HD i64 place(i64 pixel) const { return image * height * width + pixel; }

    // Whether line k of face f is a border or a fold, in front of the near plane.
    GEODIFF_LARGE bool side(int f, int k, JumpSide& out) const {
        int line;
        if (sheet.orientation[f] == 0 || sheet.beyond(f, k, line) >= 0) return false;
        Clip<T> corner[3];
        sheet.load(f, corner);
        const Clip<T>& a = corner[k == 2 ? 0 : k + 1];
        const Clip<T>& b = corner[k == 0 ? 2 : k - 1];
        if (!(a.depth > near) && !(b.depth > near)) return false;
        sheet_face(corner, out.face);
        double ends[2][2];
        project(a, b, ends[0]);
        project(b, a, ends[1]);
        for (int i = 0; i < 2; ++i) {
            out.low[i] = min(ends[0][i], ends[1][i]);
            out.high[i] = max(ends[0][i], ends[1][i]);
        }
        const double m = shorter_side(height, width);
        out.first_row = bounded(-whole_below(-(height - 1 - out.high[1] * m) / 2) - 1, height);
        out.rows = bounded(whole_below((height - 1 - out.low[1] * m) / 2) + 1, height) + 1 - out.first_row;
        out.first_column = bounded(whole_below((out.low[0] * m + width - 1) / 2) - 1, width);
        out.columns = bounded(-whole_below(-(out.high[0] * m + width - 1) / 2) + 1, width) + 1 - out.first_column;
        if (out.rows < 0) out.rows = 0;
        if (out.columns < 0) out.columns = 0;
        return true;
    }

    // Calls found(edge) of each pair of pixels on one of the side's levels that it separates: two at most.
    template <class Found>
    GEODIFF_LARGE void level(int f, int k, const JumpSide& side, int n, Found&& found) const {
        const double m = shorter_side(height, width);
        const double* line = side.face.line[k];
        if (n < side.rows) {
            const int row = side.first_row + n;
            const double v = y(row), u = -(line[1] * v + line[2]) / line[0];
            if (!(v >= side.low[1] && v < side.high[1])) return;
            between((u * m + width - 1) / 2, width - 1, [&](i64 column) {
                crossing(f, k, side.face, i64(row) * width + column, 1, u, v, found);
            });
        } else {
            const int column = side.first_column + n - side.rows;
            const double u = x(column), v = -(line[0] * u + line[2]) / line[1];
            if (!(u >= side.low[0] && u < side.high[0])) return;
            between((height - 1 - v * m) / 2, height - 1, [&](i64 row) {
                crossing(f, k, side.face, row * width + column, width, u, v, found);
            });
        }
    }

    // Whether two pixels see faces of one sheet: then the edge nearest to the middle between them.
    GEODIFF_LARGE bool crease(i64 p, i64 q, JumpEdge& out) const {
        int face = -1, line = -1;
        double best = 2;
        const int to = int(seen[q]);
        const int at = sheet.walk(int(seen[p]), -1, x_of(p), y_of(p), x_of(q), y_of(q), to, [&](int f, int k, double s) {
            if (abs(s - 0.5) < best) best = abs(s - 0.5), face = f, line = k;
        });
        if (at < 0 || face < 0) return false;
        out = {place(p), place(q), packed(face, line == 2 ? 0 : line + 1), packed(face, line == 0 ? 2 : line - 1), 1.0};
        return true;
    }

    // Then nothing can meet between two pixels that see these faces.
    GEODIFF_HD bool share_vertex(int f, int g) const {
        const int *a = sheet.faces + 3 * i64(f), *b = sheet.faces + 3 * i64(g);
        int shared = 0;  // comparisons that are not needed cost less than branches
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 3; ++j) shared |= int(a[i] == b[j]);
        }
        return shared != 0;
    }

    // Whether two sheets go through each other between two pixels, whose faces share no vertex: a is in front at p, b at q,
    // and both are there in between.
    GEODIFF_LARGE bool meet(i64 p, i64 q, JumpMeeting& out) const {
        int a = int(seen[p]), b = int(seen[q]);
        const double px = x_of(p), py = y_of(p), qx = x_of(q), qy = y_of(q);
        const auto nothing = [](int, int, double) {};
        for (int round = 0; round < kMeetingRounds; ++round) {
            const SheetPlane &up = planes[a], &uq = planes[b];
            const double at_p = up.at(px, py) - uq.at(px, py), at_q = up.at(qx, qy) - uq.at(qx, qy);
            if (!(at_p > 0 && at_q < 0)) return false;
            const double s = at_p / (at_p - at_q);
            const double u = px + s * (qx - px), v = py + s * (qy - py);
            const int to_a = sheet.walk(int(seen[p]), -1, px, py, u, v, -1, nothing);
            if (to_a < 0) return false;
            const int to_b = sheet.walk(int(seen[q]), -1, qx, qy, u, v, -1, nothing);
            if (to_b < 0 || share_vertex(to_a, to_b)) return false;
            if (to_a == a && to_b == b) {
                out.p = place(p);
                out.q = place(q);
                for (int k = 0; k < 3; ++k) out.corner[k] = packed(a, k), out.corner[3 + k] = packed(b, k);
                return true;
            }
            a = to_a;
            b = to_b;
        }
        return false;
    }

  private:
    // Calls visit(i) with the pixel before `at`; with both neighbours of a centre that the edge goes through, since on which
    // side of it what is seen changes, rounding has decided.
    template <class Visit>
    GEODIFF_HD static void between(double at, int last, Visit&& visit) {
        if (!(at > -1 && at < last + 1.0)) return;  // nor for NaN
        const double whole = whole_below(at + 0.5);
        const bool on = abs(at - whole) < kOnCentre;
        const i64 first = i64(on ? whole : whole_below(at));
        if (first >= 0 && first < last) visit(first);
        if (on && first >= 1 && first - 1 < last) visit(first - 1);
    }

    GEODIFF_HD static int bounded(double value, int size) { return value >= size ? size - 1 : value > 0 ? int(value) : 0; }

    // Where a is in the image; if it is behind the near plane, where the edge to b comes out of it.
    GEODIFF_HD void project(const Clip<T>& a, const Clip<T>& b, double out[2]) const {
        double along = 0;
        if (!(a.depth > near)) along = (near - double(a.depth)) / (double(b.depth) - double(a.depth));
        const double w = a.w + along * (double(b.w) - double(a.w));
        out[0] = (a.x + along * (double(b.x) - double(a.x))) / w;
        out[1] = (a.y + along * (double(b.y) - double(a.y))) / w;
    }

    template <class Found>
    GEODIFF_LARGE void crossing(int f, int k, const SheetFace& own, i64 p, i64 step, double u, double v, Found&& found) const {
        const i64 q = p + step;
        if (seen[p] == seen[q]) return;
        const bool first = own.beta(k, x_of(p), y_of(p)) > own.beta(k, x_of(q), y_of(q));
        const i64 mine = first ? p : q, other = first ? q : p;
        if (seen[mine] < 0) return;
        const auto nothing = [](int, int, double) {};
        if (sheet.walk(f, k, u, v, x_of(mine), y_of(mine), int(seen[mine]), nothing) < 0) return;
        double share = 1;
        if (seen[other] >= 0) {
            // One surface from pixel to pixel: the edge goes through a centre, and lies on its other side.
            const int to = int(seen[other]);
            if (sheet.walk(int(seen[mine]), -1, x_of(mine), y_of(mine), x_of(other), y_of(other), to, nothing) >= 0) return;
            const int at = sheet.walk(to, -1, x_of(other), y_of(other), u, v, -1, nothing);
            if (at < 0) {
                share = 0.5;  // something that no pixel sees is between the two
            } else if (at != f && planes[at].at(u, v) > planes[f].at(u, v)) {
                return;  // hidden
            }
        }
        found(JumpEdge{place(p), place(q), packed(f, k == 2 ? 0 : k + 1), packed(f, k == 0 ? 2 : k - 1), share});
    }
};

}  // namespace gd

#undef GEODIFF_LARGE
