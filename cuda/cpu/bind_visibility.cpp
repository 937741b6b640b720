// SPDX-License-Identifier: Apache-2.0
// Where a hard image jumps, see raster/jumps.h. Compiled once for all SIMD levels, so that every machine finds the same.
#include <algorithm>
#include <memory>
#include <vector>

#include "../raster/jumps.h"
#include "bindings.h"
#include "parallel.h"

namespace geodiff {
namespace {

using gd::i64;

constexpr i64 kFaces = 1024;  // that a thread takes at a time
constexpr int kRows = 16;

struct Lists {
    std::vector<gd::JumpEdge> edges;
    std::vector<gd::JumpMeeting> meetings;
};

// One image: blocks of faces and bands of rows, each with lists of its own, so that threads fill them in any order.
template <class T>
class Search {
  public:
    Search(const T* clip, const int* faces, const int64_t* layout, const int* edges, const int64_t* face_id, i64 image,
           int height, int width, double near, bool creases, int threads)
        : count_(layout[3 * image + 2]), creases_(creases), threads_(threads), orientation_(count_), planes_(count_) {
        const i64 start = layout[3 * image], first = layout[3 * image + 1];
        const auto* seen = reinterpret_cast<const i64*>(face_id + image * i64(height) * width);
        search_ = {{clip + 4 * start, faces + 3 * first, edges + 3 * first, int(3 * first), int(3 * count_), orientation_.data()},
                   planes_.data(), seen, start, image, height, width, near};
    }

    void find(std::vector<Lists>& out) {
        const i64 blocks = (count_ + kFaces - 1) / kFaces;
        parallel(blocks, threads_, [&](i64 block) {
            for (i64 f = block * kFaces; f < std::min(count_, (block + 1) * kFaces); ++f)
                search_.prepare(search_.sheet, int(f), orientation_[size_t(f)], planes_[size_t(f)]);
        });
        const i64 bands = (search_.height + kRows - 1) / kRows;
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
    void face(int f, Lists& out) const {
        if (orientation_[size_t(f)] == 0) return;
        for (int k = 0; k < 3; ++k) {
            int line;
            if (search_.sheet.beyond(f, k, line) < 0) side(f, k, out);
        }
    }

    void side(int f, int k, Lists& out) const {
        gd::JumpSide side;
        if (!search_.side(f, k, side)) return;
        for (int n = 0; n < side.levels(); ++n)
            search_.level(f, k, side, n, [&](const gd::JumpEdge& edge) { out.edges.push_back(edge); });
    }

    void band(int band, Lists& out) const {
        const int height = search_.height, width = search_.width, end = std::min(height, (band + 1) * kRows);
        for (int row = band * kRows; row < end; ++row) {
            const i64* own = search_.seen + i64(row) * width;
            const i64* below = row + 1 < height ? own + width : own;  // of the last row: nothing differs
            for (int column = 0; column < width; ++column) {
                if (own[column] < 0) continue;
                const i64 p = i64(row) * width + column;
                if (column + 1 < width && own[column] != own[column + 1]) pair(p, p + 1, out);
                if (own[column] != below[column]) pair(p, p + width, out);
            }
        }
    }

    void pair(i64 p, i64 q, Lists& out) const {
        if (search_.seen[q] < 0) return;
        if (creases_) crease(p, q, out);
        if (!search_.share_vertex(int(search_.seen[p]), int(search_.seen[q]))) meet(p, q, out);
    }

    void crease(i64 p, i64 q, Lists& out) const {
        gd::JumpEdge edge;
        if (search_.crease(p, q, edge)) out.edges.push_back(edge);
    }

    void meet(i64 p, i64 q, Lists& out) const {
        gd::JumpMeeting meeting;
        if (search_.meet(p, q, meeting)) out.meetings.push_back(meeting);
    }

    const i64 count_;
    const bool creases_;
    const int threads_;
    std::vector<signed char> orientation_;
    std::vector<gd::SheetPlane> planes_;
    gd::JumpSearch<T> search_;
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
            for (const gd::JumpEdge& e : list.edges) {
                pixels->insert(pixels->end(), {e.p, e.q});
                ends->insert(ends->end(), {e.a, e.b});
                shares->push_back(e.share);
            }
            for (const gd::JumpMeeting& m : list.meetings) {
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
