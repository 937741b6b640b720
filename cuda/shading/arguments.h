// SPDX-License-Identifier: Apache-2.0
// What kernels of light, textures, blending and normals are handed, on the CPU and on the GPU: plain pointers and numbers,
// checked in Python.
#pragma once

namespace geodiff {

// A softmax over the rows of each group: weight ∝ exp(log_weight + z·sharpness), z = (far − depth)/(far − near).
template <class T>
struct MixJob {
    const T* values;         // (points, channels)
    const T* log_weight;     // (points)
    const T* depth;          // (points)
    const long long* start;  // (groups + 1)
    const int* row;          // (groups) of ends, or null for the first
    const T* ends;           // (rows, 2) near, far
    T sharpness;
    bool has_floor;
    T floor;                 // z of what takes part in all groups, whose values are 0
    long long groups, points, rows;
    int channels, threads;
    T* out;                  // (groups, channels)
    T* weight;               // (points)
    T* rest;                 // (groups) weight of the floor
    // Backward only, which also reads weight and rest.
    const T* upstream;       // (groups, channels)
    const T* up_rest;        // (groups), or null
    T* grad_values;          // (points, channels)
    T* grad_log_weight;      // (points)
    T* grad_depth;           // (points)
    double* grad_ends;       // (rows, 2), zero on entry
    double* grad_sharpness;  // (1), zero on entry
};

template <class T>
struct BlendJob {
    const T* values;    // (rows, channels)
    const int* index;   // (points, terms)
    const T* weight;    // (points, terms)
    long long rows, points;
    int terms, channels, threads;
    T* out;             // (points, channels)
    // Backward only.
    const T* upstream;  // (points, channels)
    T* grad_values;     // (rows, channels), zero on entry, or null
    T* grad_weight;     // (points, terms), or null
};

template <class T>
struct ReflectJob {
    const T* rows;      // (1 or B, row_size) numbers of each image, see cuda/shading/reflect.h
    const int* kinds;   // (lights) 0 directional, 1 point
    const int* image;   // (points), or null where all share one row
    const T* normal;    // (points, 3)
    const T* point;     // (points, 3)
    long long points;
    int lights, row_size, threads;
    bool parallel_view, glossy;
    T* out;             // (points, 6)
    // Backward only.
    const T* upstream;  // (points, 6)
    T* grad_normal;     // (points, 3)
    T* grad_point;      // (points, 3)
    double* grad_rows;  // (1 or B, row_size), zero on entry
};

template <class T>
struct TextureJob {
    const T* values;    // (rows, channels): images of height × width texels, one after another
    const T* uv;        // (points, 2)
    const int* image;   // (points), or null for the first
    long long rows, points;
    int height, width, channels, wrap, threads;
    T* out;             // (points, channels)
    // Backward only.
    const T* upstream;  // (points, channels)
    T* grad_values;     // (rows, channels), zero on entry, or null
    T* grad_uv;         // (points, 2), or null
};

template <class T>
struct SurfaceJob {
    const T* uv;         // (coordinates, 2)
    const int* uv_corners;  // (points, 3)
    const T* frame;      // (vertices, 6): point, normal
    const int* corners;  // (points, 3)
    const T* weight;     // (points, 3)
    const int* image;    // (points) ascending, or null where neither rows nor textures are of an image
    const T* rows;       // (1 or B, row_size), as of ReflectJob
    const int* kinds;    // (lights)
    const T* texels;     // (texel_rows, 3): images of height × width texels, one after another
    long long points, coordinates, vertices, texel_rows;
    int lights, row_size, height, width, wrap, threads;
    bool own_row, own_texture;  // whether each image has its own
    bool parallel_view, glossy;
    T* out;              // (points, 3)
    // Backward only.
    const T* upstream;   // (points, 3)
    T* grad_uv;          // (coordinates, 2), zero on entry, or null
    T* grad_frame;       // (vertices, 6), zero on entry, or null
    T* grad_weight;      // (points, 3)
    T* grad_texels;      // (texel_rows, 3), zero on entry, or null
    double* grad_rows;   // (1 or B, row_size), zero on entry
};

template <class T>
struct CompositeJob {
    const T* alpha;          // (pixels)
    const T* color;          // (points, channels)
    const long long* place;  // (points) ascending: the pixel of each
    const T* background;     // (background_rows, channels); pixel i has row i mod background_rows
    long long pixels, points, background_rows;
    int channels, threads;
    T* out;                  // (pixels, channels)
    long long* met;          // (1) how many points were met: fewer than `points` if `place` does not ascend in range
    // Backward only.
    const T* upstream;       // (pixels, channels)
    T* grad_alpha;           // (pixels)
    T* grad_color;           // (points, channels)
};

template <class T>
struct NormalsJob {
    const T* vertices;  // (batch, num_vertices, 3)
    const int* faces;   // (num_faces, 3)
    long long batch, num_vertices, num_faces;
    int threads;
    T* out;             // (batch, num_vertices, 3)
    // Backward only.
    const T* upstream;  // (batch, num_vertices, 3)
    T* grad;            // (batch, num_vertices, 3)
};

}  // namespace geodiff
