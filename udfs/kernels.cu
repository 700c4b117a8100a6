// Detection's passes over pixels and boxes on a GPU: the pyramid, P-Net, the crops for R- and O-Net, suppression.
//
// Compiled by NVRTC when a worker starts (udfs/cuda.py): an executor needs no compiler. Each result depends on its own
// pixels or boxes only, in one fixed order of operations, so nothing depends on what else is in a batch. Contraction is
// off; where operations are to be fused it is said (fmaf). Every loop over work strides by the number of threads, so
// that one thread alone does all of a block's work: thus a C++ compiler for processors makes a form of this very text
// that tests compare with the processor's own code, bit by bit.

typedef long long i64;

// Columns of the table of levels (udfs/pyramid.py): one row for each level of each image.
enum { SOURCE, SOURCE_HEIGHT, SOURCE_WIDTH, HEIGHT, WIDTH, PIXEL, MAP_HEIGHT, MAP_WIDTH, CELL, TILE, IMAGE, SCALE, COLUMNS };

// Cells of P-Net's map in a block's tile, across and down; and what each layer before them needs to make it.
enum { SIDE = 16, SIDE2 = SIDE + 2, SIDE1 = SIDE + 4, SIDE0 = 2 * SIDE1 + 2 };

template <int N> struct alignas(16) Row { float v[N]; };

// P-Net's weights, one row for each input channel and place in the window; a bias and a slope (PReLU) for each output.
struct Weights {
    Row<12> conv1[3 * 9], bias1, slope1;  // 10 channels, filled up with zeros
    Row<16> conv2[10 * 9], bias2, slope2;
    struct { Row<16> conv[16 * 9], bias, slope; Row<8> head[16]; } half[2];  // the third layer's 32 channels
    Row<8> bias;  // of the head: the face's logit, four moves, zeros
};

// The last row whose number in `column` is not above `index`.
__device__ const i64* row_of(const i64* levels, i64 count, int column, i64 index) {
    i64 low = 0, high = count - 1;
    while (low < high) {
        i64 middle = (low + high + 1) / 2;
        if (levels[middle * COLUMNS + column] <= index) low = middle; else high = middle - 1;
    }
    return levels + low * COLUMNS;
}

// The mean of each channel over rows [top, bottom) and columns [left, right), divided in the order in which torch does.
__device__ void mean(const unsigned char* image, i64 width, i64 top, i64 bottom, i64 left, i64 right, float* out, i64 apart) {
    int red = 0, green = 0, blue = 0;
    for (i64 y = top; y < bottom; ++y) {
        const unsigned char* p = image + 3 * (y * width + left);
        for (i64 x = left; x < right; ++x, p += 3) {
            red += p[0];
            green += p[1];
            blue += p[2];
        }
    }
    float rows = float(bottom - top), columns = float(right - left);
    out[0] = float(red) / rows / columns;
    out[apart] = float(green) / rows / columns;
    out[2 * apart] = float(blue) / rows / columns;
}

// Window `i` of `n` over `length` pixels: torch's adaptive average pooling.
__device__ i64 window_begin(i64 i, i64 n, i64 length) { return i * length / n; }
__device__ i64 window_end(i64 i, i64 n, i64 length) { return ((i + 1) * length + n - 1) / n; }

// Every level of every image: float32 planes of 0 to 255, [3, height, width] each, laid end to end.
extern "C" __global__ void pyramid(const unsigned char* pixels, const i64* levels, i64 count, i64 total, float* planes) {
    i64 stride = i64(gridDim.x) * blockDim.x;
    for (i64 index = i64(blockIdx.x) * blockDim.x + threadIdx.x; index < total; index += stride) {
        const i64* level = row_of(levels, count, PIXEL, index);
        i64 place = index - level[PIXEL], y = place / level[WIDTH], x = place % level[WIDTH];
        i64 height = level[SOURCE_HEIGHT], width = level[SOURCE_WIDTH], size = level[HEIGHT] * level[WIDTH];
        mean(pixels + level[SOURCE], width,
             window_begin(y, level[HEIGHT], height), window_end(y, level[HEIGHT], height),
             window_begin(x, level[WIDTH], width), window_end(x, level[WIDTH], width),
             planes + 3 * level[PIXEL] + place, size);
    }
}

// 3 × 3 convolution at `N` places that lie `apart` from each other; `in` is the first one's upper left corner.
template <int IN, int OUT, int N>
__device__ void convolve(const float* in, int plane, int width, int apart, const Row<OUT>* weights,
                         const Row<OUT>& bias, float (&sums)[N][OUT]) {
    #pragma unroll
    for (int n = 0; n < N; ++n)
        #pragma unroll
        for (int o = 0; o < OUT; ++o) sums[n][o] = bias.v[o];
    #pragma unroll 1
    for (int c = 0; c < IN; ++c)
        #pragma unroll
        for (int k = 0; k < 9; ++k) {
            const Row<OUT> row = weights[c * 9 + k];
            #pragma unroll
            for (int n = 0; n < N; ++n) {
                float x = in[c * plane + (k / 3) * width + k % 3 + n * apart];
                #pragma unroll
                for (int o = 0; o < OUT; ++o) sums[n][o] = fmaf(x, row.v[o], sums[n][o]);
            }
        }
}

__device__ float prelu(float x, float slope) { return x > 0 ? x : x * slope; }

// P-Net over a tile of SIDE × SIDE cells of one level's map; all its layers stay in the block. For each cell the logit
// of a face and [4] moves of the box's edges.
extern "C" __global__ void __launch_bounds__(128, 4) propose(const float* planes, const i64* levels, i64 count,
                                                          const Weights* __restrict__ net, float* __restrict__ logits,
                                                            float* __restrict__ moves) {
    __shared__ float first[3 * SIDE0 * SIDE0];  // the level's pixels; later the second layer, which is smaller
    __shared__ float pooled[10 * SIDE1 * SIDE1];
    float* second = first;
    const i64* level = row_of(levels, count, TILE, blockIdx.x);
    const int height = int(level[HEIGHT]), width = int(level[WIDTH]);
    const int rows = int(level[MAP_HEIGHT]), columns = int(level[MAP_WIDTH]);
    const int across = (columns + SIDE - 1) / SIDE, tile = int(blockIdx.x - level[TILE]);
    const int top = tile / across * SIDE, left = tile % across * SIDE;
    const float* pixels = planes + 3 * level[PIXEL];

    for (int i = threadIdx.x; i < 3 * SIDE0 * SIDE0; i += blockDim.x) {
        int c = i / (SIDE0 * SIDE0), y = 2 * top + i / SIDE0 % SIDE0, x = 2 * left + i % SIDE0;
        first[i] = y < height && x < width ? pixels[(i64(c) * height + y) * width + x] : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < SIDE1 * SIDE1; i += blockDim.x) {
        int y = i / SIDE1, x = i % SIDE1;
        float best[10];
        for (int o = 0; o < 10; ++o) best[o] = -3.0e38f;
        for (int r = 0; r < 2; ++r) {
            float sums[2][12];
            convolve<3, 12, 2>(first + (2 * y + r) * SIDE0 + 2 * x, SIDE0 * SIDE0, SIDE0, 1, net->conv1, net->bias1, sums);
            // A window at the edge is incomplete: pooling takes what there is.
            bool row = 2 * (top + y) + r < height - 2;
            #pragma unroll
            for (int s = 0; s < 2; ++s)
                if (row && 2 * (left + x) + s < width - 2)
                    #pragma unroll
                    for (int o = 0; o < 10; ++o) best[o] = fmaxf(best[o], prelu(sums[s][o], net->slope1.v[o]));
        }
        for (int o = 0; o < 10; ++o) pooled[o * SIDE1 * SIDE1 + i] = best[o];
    }
    __syncthreads();
    // Two places at once share the weights that are read for them.
    for (int i = threadIdx.x; i < SIDE2 * SIDE2 / 2; i += blockDim.x) {
        float sums[2][16];
        convolve<10, 16, 2>(pooled + i / SIDE2 * SIDE1 + i % SIDE2, SIDE1 * SIDE1, SIDE1, SIDE2 / 2 * SIDE1,
                            net->conv2, net->bias2, sums);
        #pragma unroll
        for (int n = 0; n < 2; ++n)
            #pragma unroll
            for (int o = 0; o < 16; ++o)
                second[o * SIDE2 * SIDE2 + i + n * (SIDE2 * SIDE2 / 2)] = prelu(sums[n][o], net->slope2.v[o]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < SIDE * SIDE / 2; i += blockDim.x) {
        Row<8> answers[2] = {net->bias, net->bias};
        #pragma unroll 1
        for (int h = 0; h < 2; ++h) {
            float sums[2][16];
            convolve<16, 16, 2>(second + i / SIDE * SIDE2 + i % SIDE, SIDE2 * SIDE2, SIDE2, SIDE / 2 * SIDE2,
                                net->half[h].conv, net->half[h].bias, sums);
            #pragma unroll
            for (int o = 0; o < 16; ++o) {
                const Row<8> head = net->half[h].head[o];
                #pragma unroll
                for (int n = 0; n < 2; ++n) {
                    float x = prelu(sums[n][o], net->half[h].slope.v[o]);
                    #pragma unroll
                    for (int k = 0; k < 5; ++k) answers[n].v[k] = fmaf(x, head.v[k], answers[n].v[k]);
                }
            }
        }
        #pragma unroll
        for (int n = 0; n < 2; ++n) {
            int y = top + i / SIDE + n * (SIDE / 2), x = left + i % SIDE;
            if (y < rows && x < columns) {
                i64 cell = level[CELL] + i64(y) * columns + x;
                logits[cell] = answers[n].v[0];
                for (int k = 0; k < 4; ++k) moves[4 * cell + k] = answers[n].v[k + 1];
            }
        }
    }
}

// Boxes [n, 4] (left, top, right, bottom; end exclusive) of images, resampled by area to [n, side, side, 3].
// `images`: where each begins among the pixels, and its width; [images, 2].
extern "C" __global__ void cut_out(const unsigned char* pixels, const i64* images, const i64* image, const i64* boxes,
                                   i64 count, i64 side, float* out) {
    i64 stride = i64(gridDim.x) * blockDim.x;
    for (i64 index = i64(blockIdx.x) * blockDim.x + threadIdx.x; index < count * side * side; index += stride) {
        i64 n = index / (side * side), y = index / side % side, x = index % side;
        const i64* box = boxes + 4 * n;
        const i64* from = images + 2 * image[n];
        i64 height = box[3] - box[1], width = box[2] - box[0];
        mean(pixels + from[0], from[1], box[1] + window_begin(y, side, height), box[1] + window_end(y, side, height),
             box[0] + window_begin(x, side, width), box[0] + window_end(x, side, width), out + 3 * index, 1);
    }
}

// PReLU, then the largest of each `window` × `window` places at stride 2, of what there is of them at the edges.
// `in`: [count, height, width, channels]; `out`: [count, down, across, channels].
extern "C" __global__ void prelu_pool(const float* in, const float* slope, i64 count, i64 height, i64 width, i64 channels,
                                      i64 window, i64 down, i64 across, float* out) {
    i64 stride = i64(gridDim.x) * blockDim.x, total = count * down * across * channels;
    for (i64 index = i64(blockIdx.x) * blockDim.x + threadIdx.x; index < total; index += stride) {
        int place = int(index / channels), c = int(index % channels);
        int x = 2 * (place % int(across)), y = 2 * (place / int(across) % int(down));
        const float* image = in + i64(place / int(across * down)) * height * width * channels + c;
        float best = -3.0e38f;
        for (int row = y; row < y + int(window) && row < int(height); ++row)
            for (int column = x; column < x + int(window) && column < int(width); ++column)
                best = fmaxf(best, prelu(image[(i64(row) * width + column) * channels], slope[c]));
        out[index] = best;
    }
}

// Greedy suppression within each group, in the order given: one block a group, whose boxes are first[g] to first[g + 1].
// `smaller`: overlap is a part of the smaller box and lengths count both ends (MTCNN's last stage), else a part of the
// union. `keep` begins as ones. In float32 and in the order in which the processor's code computes it.
extern "C" __global__ void suppress(const float* boxes, const i64* first, const double* threshold, i64 smaller,
                                    unsigned char* keep) {
    const i64 end = first[blockIdx.x + 1];
    const float one = smaller ? 1.0f : 0.0f;
    for (i64 i = first[blockIdx.x]; i < end; ++i) {
        __syncthreads();
        if (!keep[i]) continue;
        const float* a = boxes + 4 * i;
        const float area = (a[2] - a[0] + one) * (a[3] - a[1] + one);
        for (i64 j = i + 1 + threadIdx.x; j < end; j += blockDim.x) {
            const float* b = boxes + 4 * j;
            float across = fmaxf(fminf(a[2], b[2]) - fmaxf(a[0], b[0]) + one, 0.0f);
            float down = fmaxf(fminf(a[3], b[3]) - fmaxf(a[1], b[1]) + one, 0.0f);
            float shared = across * down, other = (b[2] - b[0] + one) * (b[3] - b[1] + one);
            float whole = smaller ? fminf(area, other) : area + other - shared;
            if (double(shared / whole) > *threshold) keep[j] = 0;
        }
    }
}
