// SPDX-License-Identifier: Apache-2.0
// What the bindings hand to the kernels of one SIMD level: plain pointers and numbers, checked in Python.
#pragma once
#include "../portability.h"
#include "../shading/arguments.h"
#include "../spline/arguments.h"
#include "../transport/arguments.h"

namespace geodiff {

// Image b draws faces[layout[3b+1] … + layout[3b+2]] with vertex indices counted from layout[3b].
template <class T>
struct RasterJob {
    const T* clip;             // (N, 4) x·w, y·w, depth, w
    const int* faces;          // (F, 3)
    const long long* layout;   // (B, 3) vertex start, face start, face count
    long long images;
    int height, width;
    T near;
    int threads;
};

// What of a face covers a pixel: F of the signed distance to it, or ΠF over the lines of its edges.
enum class Coverage { faces, edges };

// For fine meshes: radii[i] is the distance (NDC) beyond which a face costs a pixel less than 2^((kDearest − i)/2) of what
// faces left out may come to.
constexpr int kRadii = 88, kDearest = 28;

// Of what a silhouette is made; Python hands it over as it is.
struct SilhouetteModel {
    int distribution;  // numbers of geodiff/members.def
    bool reversed, squared;
    Coverage coverage;
    double scale, shift, shape, log_gamma_1, digamma;
    int tconorm;
    double p;
    double radius;  // NDC; faces farther from a pixel do not count for it
    bool fine;      // whether radii are given; see cpu/face_radii.h
    double radii[kRadii];
    double max_error;
    double ease;  // over the slope of s⁻¹: how much more may be left out of a pixel that has a sum; 0 if that is not known
};

template <class T>
struct SilhouetteJob : RasterJob<T>, SilhouetteModel {
    T* alpha;       // (B, H, W)
    T* sum;         // (B, H, W) the running sum t (maximum: the largest F)
    int* best;      // (B, H, W) the winning face, for maximum only
    long long* pairs;  // (B) pixel–face pairs inside the radius, or null
    // Backward only.
    const T* upstream;    // (B, H, W)
    T* grad_clip;         // (N, 4), zero on entry
    double* grad_params;  // (4) scale, shape, shift, p; zero on entry
    bool want_params, want_shape, want_p;
};

template <class T>
struct HardJob : RasterJob<T> {
    long long* face;  // (B, H, W)
    T* depth;         // (B, H, W)
    T* barycentric;   // (B, H, W, 3)
};

// The signed distance to the outline, and its gradient; see ../raster/contour.h.
template <class T>
struct ContourJob : RasterJob<T> {
    long long vertices, all_faces;  // N, F
    const int* edges;               // (F, 3) cycles of sides at one edge
    double radius_outside, radius_inside;  // NDC; farther pixels get −∞ and ∞
    T* distance;   // (B, H, W)
    T* along;      // (B, H, W) where on its edge the nearest point is
    int* nearest;  // (B, H, W, 2) 4·face + edge, and what the point is: see NearestKind
    // Backward only.
    const T* upstream;  // (B, H, W)
    T* grad_clip;       // (N, 4)
};

template <class T>
struct FragmentsJob : RasterJob<T> {
    int k, order;           // order: 0 nearest in depth, 1 what is seen (k = 1), 2 largest weight
    double blur;            // NDC; faces farther than this from a pixel leave no fragment
    const T* table;         // (table_size) log F over d/(|d| + table_unit) in [−1, 1]; order 2 only
    int table_size;
    T table_unit;
    const T* sharpness;     // (B) weight = F·exp(−depth·sharpness); order 2 only
    long long* face;        // (B, H, W, k)
    T* distance;            // (B, H, W, k)
    T* barycentric;         // (B, H, W, k, 3)
    T* depth;               // (B, H, W, k)
    // Backward only, which also reads face and distance.
    const T* up_distance;
    const T* up_barycentric;
    const T* up_depth;
    T* grad_clip;           // (N, 4), zero on entry
};

// The pixels that see a face.
template <class T>
struct VisibleList {
    long long* place;  // (points) of B·H·W, ascending
    long long* face;   // (points)
    bool* inside;      // (points) whether the face covers the pixel
    T* barycentric;    // (points, 3)
};

// The list of what is seen; k is 1 and order 1. Backward it is in place, face and inside.
template <class T>
struct VisibleJob : FragmentsJob<T> {
    VisibleList<T> (*room)(void* context, long long points);  // makes the list, once it is known how long it is
    void* context;
    long long points;
    long long* place;
    bool* inside;
};

// The faces with a share in a softmax, pixel by pixel, the heaviest first; `order` is not read, k is 0 for no limit. Of
// FragmentsJob's outputs, face, distance, barycentric and depth of (points).
template <class T>
struct HeaviestJob : FragmentsJob<T> {
    const T* base;           // (B) a depth: weight = F·exp(−(depth − base)·sharpness)
    const T* floor;          // (B) −log of a weight that all pixels have anyway, or null
    const bool* within;      // (B, H, W) the pixels that count, or null for all
    double rim;              // NDC; how far from a face an uncovered pixel within is, mostly
    double spread;           // faces with e^−spread of a pixel's largest weight count
    double max_error;        // of the weights of a pixel that may be left out
    int* count;              // (B, H, W) fragments of a pixel
    void** kept;             // (B·bands) blocks of them, to be freed
    long long pixels, points;
    long long* place;        // (pixels) of B·H·W, ascending
    long long* start;        // (pixels + 1) where the fragments of each begin
};

// Of a tree over points, in its order: what is summed for each (../winding.h).
enum class WindingSum { field, adjoint, slope };

constexpr int kWindingLeaf = 32;  // points at the end of a branch, at most

template <class T>
struct WindingJob {
    const T* places;    // (N, 3)
    const T* source;    // (N, 3) normals as long as areas, or (N, 1) for the adjoint
    const T* balls;     // (nodes, 4) middle and radius
    const int* links;   // (nodes, 3) first point, count, right child; the left one comes next, a leaf has 0
    const int* leaves;  // (leaves) their nodes
    long long num_nodes, num_leaves;
    WindingSum sum;
    T width;
    T reach;            // a node counts as one point from this many of its radii on
    int threads;
    T* out;             // (N, 1) or (N, 3)
};

constexpr int kSmoothRow = 8;  // numbers of a point: its place, its unit normal, and two that fill the cache line

// Points moved along their normals, once; see geodiff/atlas/smoothing.py.
template <class T>
struct SmoothJob {
    const T* from;      // (N, kSmoothRow)
    const int* near;    // (N, K) neighbours
    const T* reach;     // (N) how far the last of them is
    const T* width;     // (N) > 0, of the noise
    long long count;    // N
    int neighbours;     // K
    T spread, turn;     // weights of the squared distance over reach², and of the squared difference of normals
    int threads;
    T* to;              // (N, kSmoothRow)
};

// Networks of an atlas (geodiff/atlas/charts.py), Q of them alike: a plane and on top of it a perceptron with relu.
template <class T>
struct NetworksJob {
    T* const* parameters;  // (2·layers + 2) weights (Q, I, O) and biases (Q, O) of the layers, plane (Q, 2, 3), offset
    const int* widths;     // (layers + 1) of what goes in and comes out, 2 and 3 at the ends
    int layers;            // ≥ 2
    int threads;
};

constexpr double kBetas[2] = {0.9, 0.999};  // of Adam
constexpr double kEpsilon = 1e-8;

// Steps of Adam, each chart on its own.
template <class T>
struct TrainJob : NetworksJob<T> {
    T* const* moments[2];       // as parameters
    T* uv;                      // (Q, S, 2)
    T* uv_moments[2];           // (Q, S, 2)
    const T* target;            // (Q, S, 3)
    const T* weight;            // (Q, S)
    const long long* rows;      // (Q) of S, those that count
    const bool* active;         // (Q) the charts that move
    long long charts, width;    // Q, S
    const double* rates;        // (steps, 2) length of the step over 1 − β₁ᵗ, and √(1 − β₂ᵗ)
    long long steps;            // 0: only find where the places are
    double uv_rate;             // share of the step that places take; 0: they stay
    bool plane;                 // whether the plane moves
    T* out;                     // (Q, S, 3) where the places were before the last step
    T* loss;                    // (Q) mean square before the last step
};

// Where places are, and the derivatives there.
template <class T>
struct PlacesJob : NetworksJob<T> {
    const T* uv;             // (M, 2)
    const long long* chart;  // (K) the chart of each run of places
    const long long* edges;  // (K + 1) where they begin
    long long runs;
    T* out;                  // (M, 3)
    T* slope;                // (M, 3, 2), or null
};

// One kernel, for both real types.
template <template <class> class Job>
struct Kernel {
    void (*single)(const Job<float>&);
    void (*twice)(const Job<double>&);
};

// One SIMD level's kernels.
struct Kernels {
    const char* name;
#define KERNEL(name, Job) Kernel<Job> name;
#include "kernels.def"
    void (*math_f32)(int function, double parameter, const float* in, float* out, long long n);
    void (*math_f64)(int function, double parameter, const double* in, double* out, long long n);
};

}  // namespace geodiff

namespace gd::kernel {

#define KERNEL(name, Job) extern const geodiff::Kernel<geodiff::Job> name;
#include "kernels.def"

}  // namespace gd::kernel
