// SPDX-License-Identifier: Apache-2.0
// Quick looks at indices, before a kernel follows them. True is a proof; false leaves it to Python's checks, which take
// longer, and say what is wrong.
#include <algorithm>
#include <climits>

#include "bindings.h"

namespace geodiff {
namespace {

using gd::i64;

struct Range {
    int low, high;
};

Range range(const int* __restrict index, i64 count) {
    int low = INT_MAX, high = INT_MIN;
    for (i64 i = 0; i < count; ++i) {
        low = index[i] < low ? index[i] : low;
        high = index[i] > high ? index[i] : high;
    }
    return {low, high};
}

// Whether all indices are in [least, count).
bool indices_fit(Flat<const int> index, i64 least, i64 count) {
    if (!index.size()) return true;
    const Range own = range(index.data(), i64(index.size()));
    return own.low >= least && own.high < count;
}

// Whether the layout stays within the faces, faces within the vertices, and images one after another share no vertices.
bool faces_fit(Array<const int, 2> faces, Array<const int64_t, 2> layout, i64 vertices) {
    const i64 total = i64(faces.shape(0));
    i64 first = -1, count = -1, after = 0;
    Range own{};
    for (size_t image = 0; image < layout.shape(0); ++image) {
        const int64_t* row = layout.data() + 3 * image;
        if (row[0] < 0 || row[0] > vertices || row[1] < 0 || row[1] > total || row[2] < 0 || row[2] > total - row[1]) return false;
        if (row[2] == 0) continue;
        if (row[1] != first || row[2] != count) own = range(faces.data() + 3 * row[1], 3 * row[2]);
        first = row[1], count = row[2];
        if (own.low < 0 || own.high >= vertices - row[0] || row[0] + own.low < after) return false;
        after = row[0] + own.high + 1;
    }
    return true;
}

// Whether places ascend in [0, images · pixels), and each has a face of its image.
bool list_fits(Array<const int64_t, 1> place, Array<const int64_t, 1> face, Array<const int64_t, 2> layout, i64 pixels) {
    if (place.shape(0) != face.shape(0)) return false;
    const i64 end = i64(layout.shape(0)) * pixels;
    i64 before = -1, image = -1, next = 0, count = 0;
    for (size_t i = 0; i < place.shape(0); ++i) {
        const i64 at = place.data()[i];
        if (at <= before || at >= end) return false;
        before = at;
        if (at >= next) {
            image = at / pixels;
            next = (image + 1) * pixels;
            count = layout.data()[3 * image + 2];
        }
        if (face.data()[i] < 0 || face.data()[i] >= count) return false;
    }
    return true;
}

}  // namespace

void bind_checks(nb::module_& m) {
    m.def("indices_fit", &indices_fit, nb::kw_only(), "index"_array, nb::arg("least"), nb::arg("count"));
    m.def("faces_fit", &faces_fit, nb::kw_only(), "faces"_array, "layout"_array, nb::arg("vertices"));
    m.def("list_fits", &list_fits, nb::kw_only(), "place"_array, "face"_array, "layout"_array, nb::arg("pixels"));
}

}  // namespace geodiff
