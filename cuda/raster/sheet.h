// SPDX-License-Identifier: Apache-2.0
// A mesh's image as sheets that one can walk on: from face to face across shared edges, as long as the surface goes on to
// the other side of the edge in the image. Where it does not (a border, or a fold between a front and a back), the image
// may jump. All in double: which edges these are must not depend on the dtype or the SIMD level.
#pragma once
#include "polygon.h"

namespace gd {

constexpr int kSheetSteps = 64;  // faces that a walk between two neighbouring pixels crosses at most
constexpr int kSheetFans = 8;    // faces at one edge that are looked at

// A point (x, y) of the image is (x, y, 1); line k is opposite corner k, and its value at a point, by the face's
// determinant, is a barycentric coordinate but for a positive factor (Olano and Greer 1997).
struct SheetFace {
    double line[3][3];
    double det;

    GEODIFF_HD double beta(int k, double x, double y) const {
        const double value = line[k][0] * x + line[k][1] * y + line[k][2];
        return det < 0 ? -value : value;
    }
};

template <class T>
GEODIFF_HD void sheet_face(const Clip<T> corner[3], SheetFace& f) {
    for (int k = 0; k < 3; ++k) {
        const Clip<T>& a = corner[k == 2 ? 0 : k + 1];
        const Clip<T>& b = corner[k == 0 ? 2 : k - 1];
        f.line[k][0] = double(a.y) * b.w - double(a.w) * b.y;
        f.line[k][1] = double(a.w) * b.x - double(a.x) * b.w;
        f.line[k][2] = double(a.x) * b.y - double(a.y) * b.x;
    }
    f.det = f.line[0][0] * corner[0].x + f.line[0][1] * corner[0].y + f.line[0][2] * corner[0].w;
}

// How near the face is, linear in the image and greater where it is nearer: 1/depth, or −depth if w is not the depth.
struct SheetPlane {
    double a, b, c;
    GEODIFF_HD double at(double x, double y) const { return a * x + b * y + c; }
};

template <class T>
GEODIFF_HD SheetPlane sheet_plane(const SheetFace& f, const Clip<T> corner[3]) {
    bool perspective = true;
    for (int k = 0; k < 3; ++k) perspective = perspective && corner[k].depth == corner[k].w;
    double sum[3] = {0, 0, 0};
    for (int k = 0; k < 3; ++k) {
        const double factor = perspective ? 1.0 : -double(corner[k].depth);
        for (int i = 0; i < 3; ++i) sum[i] += factor * f.line[k][i];
    }
    const double inverse = f.det != 0 ? 1 / f.det : 0;
    return {sum[0] * inverse, sum[1] * inverse, sum[2] * inverse};
}

template <class T>
struct Sheet {
    const T* clip;             // of the image
    const int* faces;          // of the image, (F, 3)
    const int* edges;          // (F, 3), cycles of sides; numbers count from `first_side`
    int first_side, sides;     // of the image
    const signed char* orientation;  // (F) sign of the determinant

    GEODIFF_HD void load(int f, Clip<T> corner[3]) const {
        for (int k = 0; k < 3; ++k) {
            const T* c = clip + 4 * i64(faces[3 * i64(f) + k]);
            corner[k] = {c[0], c[1], c[2], c[3]};
        }
    }

    GEODIFF_HD void face(int f, SheetFace& out) const {
        Clip<T> corner[3];
        load(f, corner);
        sheet_face(corner, out);
    }

    // The face on which the surface goes on across line k of f, −1 if there is none; `line` is that line's number there.
    GEODIFF_HD int beyond(int f, int k, int& line) const {
        const int side = k == 2 ? 0 : k + 1;
        const int own = 3 * f + side;
        i64 at = i64(edges[own]) - first_side;
        for (int i = 0; i < kSheetFans && at != own && at >= 0 && at < sides; ++i) {
            const int h = int(at / 3), s = int(at % 3);
            const bool same_way = faces[own] == faces[at];
            if (orientation[f] * orientation[h] * (same_way ? -1 : 1) > 0) {
                line = s == 0 ? 2 : s - 1;
                return h;
            }
            at = i64(edges[at]) - first_side;
        }
        return -1;
    }

    // Walks from X in face f, entered through line `entered` (−1: none), straight to Y. With a target ≥ 0 it returns that
    // face if the way leads over it, else −1; without (−1), the face where Y is, or −1 where the sheet ends before.
    // `cross(f, k, s)` is told where each line is crossed, s from 0 to 1.
    template <class Cross>
    GEODIFF_HD int walk(int f, int entered, double x0, double y0, double x1, double y1, int target, Cross&& cross) const {
        for (int step = 0; step < kSheetSteps; ++step) {
            if (f == target) return f;
            SheetFace own;
            face(f, own);
            int exit = -1;
            double first = 2;
            for (int k = 0; k < 3; ++k) {
                if (k == entered) continue;
                const double b = own.beta(k, x1, y1);
                if (target >= 0 ? b > 0 : b >= 0) continue;
                const double a = max(own.beta(k, x0, y0), 0.0);
                const double s = a - b > 0 ? a / (a - b) : 0.0;
                if (s < first) {
                    first = s;
                    exit = k;
                }
            }
            if (exit < 0) return target >= 0 ? -1 : f;
            int line = -1;
            const int next = beyond(f, exit, line);
            if (next < 0) return -1;
            cross(f, exit, first);
            f = next;
            entered = line;
        }
        return -1;
    }
};

}  // namespace gd
