/* Forward and backward of layers and blocks, run through a table of cases, with a mistake made on purpose.
 *
 *     ./program                       the mistakes, one a line
 *     ./program "eps left out"        all cases with that mistake; "" makes none
 *
 * The mistakes have the names that `named.py` knows. Maps are (N, H, W, C), weights (out, in, k, k).
 */
#include "cases.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What is wrong: at most one of them. */
static const char *mistake = "";
static const char *const *known(void);
static int listed(const char *name)
{
    for (const char *const *m = known(); *m; m++)
        if (strcmp(*m, name) == 0)
            return 1;
    return 0;
}
static int wrong(const char *name) { return strcmp(mistake, name) == 0; }

/* Memory: cleared, and given back after each case. */
enum { ROOM = 1 << 20 };
static float pool[ROOM];
static size_t used;
static const minitl_case *the;

typedef struct {
    int n, h, w, c;
    float *at;
} map;

static int size(map x) { return x.n * x.h * x.w * x.c; }

static map like(int n, int h, int w, int c)
{
    map x = {n, h, w, c, pool + used};
    used += (size_t)size(x);
    memset(x.at, 0, (size_t)size(x) * sizeof(float));
    return x;
}

static int number(const char *name) { return (int)minitl_number(the, name); }

/* "param." "expand." "weight", or NULL. */
static const float *given(const char *kind, const char *layer, const char *name)
{
    char whole[96];
    snprintf(whole, sizeof whole, "%s%s%s", kind, layer, name);
    return minitl_given(the, whole);
}

static void hand_in(const char *kind, const char *layer, const char *name, const float *got, int count)
{
    char whole[96];
    snprintf(whole, sizeof whole, "%s%s%s", kind, layer, name);
    if (minitl_given(the, whole))
        minitl_check(the, whole, got, (size_t)count * sizeof(float));
}

/* Formats of low precision. */
static float bits_cut(float x, uint32_t half, uint32_t mask) /* `half` a unit below the last bit kept, or 0 */
{
    union {
        float x;
        volatile uint32_t bits; /* not volatile, GCC 12.2 forgets the mask at -O2 */
    } both = {x};
    uint32_t odd = (both.bits & (mask & (0u - mask))) != 0; /* ties go to even */
    both.bits = (half ? both.bits + half + odd : both.bits) & mask;
    return both.x;
}
static float operand(float x)
{
    if (wrong("convolutions' operands in bfloat16, truncated"))
        return bits_cut(x, 0, 0xffff0000u);
    return wrong("convolutions' operands in TF32") ? bits_cut(x, 0x0fffu, 0xffffe000u) : x;
}
static float summed(float x) { return wrong("sums accumulated in bfloat16") ? bits_cut(x, 0, 0xffff0000u) : x; }

/* Convolutions, dense or depthwise, of any kernel; a linear layer is one of maps of one position. */
typedef struct {
    const char *layer;
    int out, k, stride, depthwise;
} shape;

static int before(shape s, int extent)
{
    if (wrong("padding off by one"))
        return s.k / 2 - (s.k > 1);
    if (wrong("stride 2 starts one later on even sizes (TensorFlow's SAME)")) {
        int total = ((extent + s.stride - 1) / s.stride - 1) * s.stride + s.k - extent;
        return total > 0 ? total / 2 : 0;
    }
    return s.k / 2;
}

#define EXCHANGED "transposed copies of 1x1 weights made with rows and columns exchanged"

static int clamped(int i, int extent) { return i < 0 ? 0 : i >= extent ? extent - 1 : i; }

static int weight_at(shape s, int channels, int o, int i, int u, int v, const char *flipped, const char *next, const char *in_out)
{
    if (wrong(flipped) || wrong("filter flipped everywhere"))
        u = s.k - 1 - u, v = s.k - 1 - v;
    if (wrong(next))
        o = (o + 1) % s.out;
    if (wrong(in_out) && s.k == 1 && channels > 1) {
        int once = i * s.out + o;
        return wrong(EXCHANGED) ? once % channels * s.out + once / channels : once;
    }
    return ((o * channels + i) * s.k + u) * s.k + v;
}

/* What a product of a layer is made of: the places of x, y and w, or 0 where the tap lies outside. */
static int reads(shape s, map x, int i, int j, int u, int v, int *row, int *column)
{
    int step = wrong("stride ignored in a convolution") ? 1 : s.stride;
    *row = step * i + u - before(s, x.h);
    *column = step * j + v - before(s, x.w);
    if (wrong("borders repeated instead of zeros")) {
        *row = clamped(*row, x.h);
        *column = clamped(*column, x.w);
    }
    if (wrong("outputs at the border left at zero") &&
        (s.stride * i < s.k / 2 || s.stride * i >= x.h - s.k / 2 || s.stride * j < s.k / 2 || s.stride * j >= x.w - s.k / 2))
        return 0;
    return *row >= 0 && *row < x.h && *column >= 0 && *column < x.w;
}

static int turned(int u, int v, int k) { return wrong("filters read (width, height)") ? v * k + u : u * k + v; }

static map conv(shape s, map x)
{
    const float *w = given("param.", s.layer, "weight"), *bias = given("param.", s.layer, "bias");
    map y = like(x.n, (x.h + s.stride - 1) / s.stride, (x.w + s.stride - 1) / s.stride, s.out);
    int channels = s.depthwise ? 1 : x.c, row, column;
    for (int at = 0; at < y.n * y.h * y.w; at++) {
        int n = at / (y.h * y.w), i = at / y.w % y.h, j = at % y.w;
        for (int u = 0; u < s.k; u++)
            for (int v = 0; v < s.k; v++) {
                int t = turned(u, v, s.k);
                if (!reads(s, x, i, j, u, v, &row, &column))
                    continue;
                for (int o = 0; o < s.out; o++)
                    for (int c = 0; c < channels; c++) {
                        int from = ((n * x.h + row) * x.w + column) * x.c + (s.depthwise ? o : c);
                        int tap = weight_at(s, channels, o, c, t / s.k, t % s.k, "filter flipped in the forward",
                                            "the next channel's filter", "1x1 weights read as (in, out)");
                        y.at[at * s.out + o] = summed(y.at[at * s.out + o] + operand(w[tap]) * operand(x.at[from]));
                    }
            }
    }
    if (wrong("output one column too far right, zeros come in") && y.w > 1)
        for (int line = 0; line < y.n * y.h; line++) {
            float *first = y.at + line * y.w * y.c;
            memmove(first + y.c, first, (size_t)((y.w - 1) * y.c) * sizeof(float));
            memset(first, 0, (size_t)y.c * sizeof(float));
        }
    for (int at = 0; bias && !wrong("no bias added") && at < size(y); at++)
        y.at[at] += bias[at % s.out];
    return y;
}

static map conv_back(shape s, map x, map gy)
{
    const float *w = given("param.", s.layer, "weight");
    int channels = s.depthwise ? 1 : x.c, taps = s.out * channels * s.k * s.k, row, column;
    map gx = like(x.n, x.h, x.w, x.c), gw = like(1, 1, 1, taps), gb = like(1, 1, 1, s.out);
    if (wrong("weight gradients added to what stood there: ones"))
        for (int i = 0; i < taps; i++)
            gw.at[i] = 1;
    if (wrong("weight gradients added to the weights"))
        memcpy(gw.at, w, (size_t)taps * sizeof(float));
    for (int at = 0; at < gy.n * gy.h * gy.w; at++) {
        int n = at / (gy.h * gy.w), i = at / gy.w % gy.h, j = at % gy.w;
        int last = s.k - 1 - s.k / 2;
        int skipped = wrong("bias gradients without the outputs whose last tap lies in the padding") && s.k > 1 &&
                      (s.stride * i + last >= x.h || s.stride * j + last >= x.w);
        for (int o = 0; o < s.out; o++)
            gb.at[o] += skipped ? 0 : wrong("convolutions take gy as ones") ? 1 : gy.at[at * s.out + o];
        if (wrong("output one column too far right, zeros come in") && gy.w > 1)
            i = j + 1 < gy.w ? i : -1; /* what is moved out gets no gradient */
        for (int u = 0; i >= 0 && u < s.k; u++)
            for (int v = 0; v < s.k; v++) {
                if (!reads(s, x, i, j, u, v, &row, &column))
                    continue;
                for (int o = 0; o < s.out; o++)
                    for (int c = 0; c < channels; c++) {
                        int from = ((n * x.h + row) * x.w + column) * x.c + (s.depthwise ? o : c);
                        int moved = wrong("output one column too far right, zeros come in") && gy.w > 1;
                        float g = gy.at[(at + moved) * s.out + o];
                        int tap = weight_at(s, channels, o, c, u, v, "filter flipped in the gradient of x",
                                            "the next channel's filter, in the gradient of x",
                                            wrong(EXCHANGED) ? EXCHANGED : "1x1 weights read as (in, out) in the gradient of x");
                        int to = ((o * channels + c) * s.k + u) * s.k + v;
                        if (wrong("filter flipped everywhere") || wrong("weight gradient with its taps reversed (correlation for convolution)"))
                            to = ((o * channels + c) * s.k + s.k - 1 - u) * s.k + s.k - 1 - v;
                        if (wrong("weight gradient with its taps transposed"))
                            to = ((o * channels + c) * s.k + v) * s.k + u;
                        if (wrong("weight gradients written to the next channel"))
                            to = (to + taps / s.out) % taps;
                        if (wrong("1x1 weight gradients written as (in, out)") && s.k == 1)
                            to = c * s.out + o;
                        if (wrong("weight gradients in (k, k, in, out) order"))
                            to = ((u * s.k + v) * channels + c) * s.out + o;
                        if (wrong("convolutions take gy as ones"))
                            g = 1;
                        gx.at[from] = summed(gx.at[from] + operand(w[tap]) * operand(g));
                        if (!wrong("weight gradients of the last image only") || n == x.n - 1)
                            gw.at[to] += operand(x.at[from]) * operand(g);
                    }
            }
    }
    for (int i = 0; wrong("weight gradient averaged over the batch") && i < taps; i++)
        gw.at[i] /= (float)x.n;
    for (int i = 0; wrong("bias gradient averaged over the batch") && i < s.out; i++)
        gb.at[i] /= (float)x.n;
    float sign = (wrong("project's gradient of the wrong sign from there on") && strstr(s.layer, "project")) ||
                         (wrong("depthwise gradient of the wrong sign from there on") && strstr(s.layer, "depthwise"))
                     ? -1.0f
                     : 1.0f;
    for (int i = 0; i < size(gx); i++)
        gx.at[i] *= sign;
    hand_in("grad_param.", s.layer, "weight", gw.at, taps);
    hand_in("grad_param.", s.layer, "bias", gb.at, s.out);
    return gx;
}

/* Norms; what backward reads is kept in x_hat and inv_std. */
typedef struct {
    map x_hat;
    float *inv_std;
    int frozen;
} norm;

static float inverse(float var)
{
    float eps = (float)minitl_number(the, "eps");
    if (wrong("eps outside the square root"))
        return 1 / (sqrtf(var) + eps);
    if (wrong("eps of the other preset"))
        eps = eps > 1e-4f ? 1e-5f : 1e-3f;
    eps *= wrong("eps left out") ? 0 : wrong("eps 10 times too large") ? 10 : wrong("eps 100 times too large") ? 100 : 1;
    return 1 / sqrtf(var + eps);
}

static map normalise(const char *layer, int frozen, map x, norm *kept)
{
    const float *gamma = given("param.", layer, "weight"), *beta = given("param.", layer, "bias");
    const float *old[2] = {given("buffer.", layer, "running_mean"), given("buffer.", layer, "running_var")};
    static const char *const running[2] = {"running_mean", "running_var"};
    map y = like(x.n, x.h, x.w, x.c), after = like(1, 1, 2, x.c);
    int m = x.n * x.h * x.w;
    *kept = (norm){like(x.n, x.h, x.w, x.c), like(1, 1, 1, x.c).at, frozen};
    if (wrong("frozen statistics instead of the batch's"))
        kept->frozen = 1;
    if (wrong("batch statistics instead of frozen ones"))
        kept->frozen = 0;
    for (int c = 0; c < x.c; c++) {
        double sum = 0, squares = 0;
        for (int i = c; i < size(x); i += x.c)
            sum += (double)x.at[i];
        double mean = sum / m;
        for (int i = c; i < size(x); i += x.c)
            squares += ((double)x.at[i] - mean) * ((double)x.at[i] - mean);
        double batch[2] = {mean, squares / (wrong("running variance biased") ? m : m - 1)};
        double used_mean = kept->frozen ? (double)old[0][c] : mean;
        double used_var = kept->frozen ? (double)old[1][c] : squares / (wrong("normalised by the unbiased variance") ? m - 1 : m);
        double momentum = minitl_number(the, "momentum");
        if (wrong("momentum the wrong way round"))
            momentum = 1 - momentum;
        for (int k = 0; k < 2; k++)
            after.at[k * x.c + c] = (float)((1 - momentum) * (double)old[k][c] + momentum * batch[k]);
        kept->inv_std[c] = inverse((float)used_var);
        float scale = wrong("norm scales without their sign") ? fabsf(gamma[c]) : gamma[c];
        for (int i = c; i < size(x); i += x.c) {
            kept->x_hat.at[i] = (float)((double)x.at[i] - used_mean) * kept->inv_std[c];
            y.at[i] = scale * kept->x_hat.at[i] + beta[c];
        }
    }
    for (int k = 0; k < 2 && !frozen; k++)
        hand_in("buffer_after.", layer, running[k], wrong("running statistics not updated") ? old[k] : after.at + k * x.c, x.c);
    return y;
}

static map normalise_back(const char *layer, norm kept, map x, map gy)
{
    const float *gamma = given("param.", layer, "weight");
    map gx = like(gy.n, gy.h, gy.w, gy.c), g_scale = like(1, 1, 1, gy.c), g_shift = like(1, 1, 1, gy.c);
    int m = gy.n * gy.h * gy.w;
    for (int c = 0; c < gy.c; c++) {
        double total = 0, along = 0, of_x = 0;
        for (int i = c; i < size(gy); i += gy.c) {
            total += (double)gy.at[i];
            along += (double)gy.at[i] * (double)kept.x_hat.at[i];
            of_x += (double)gy.at[i] * (double)x.at[i];
        }
        g_shift.at[c] = (float)total;
        g_scale.at[c] = (float)along;
        if (wrong("scale's gradient from x - mean"))
            g_scale.at[c] /= kept.inv_std[c];
        if (wrong("scale's gradient from x"))
            g_scale.at[c] = (float)of_x;
        int by = wrong("sums in the norm's gradient of x not divided by M")     ? 1
                 : wrong("sums in the norm's gradient of x divided by M - 1") ? m - 1
                                                                                : m;
        int positive = wrong("norm scales without their sign") || wrong("norm scales without their sign, in backward only");
        float factor = (positive ? fabsf(gamma[c]) : gamma[c]) * kept.inv_std[c];
        if (wrong("standard deviation kept and used for its inverse"))
            factor /= kept.inv_std[c] * kept.inv_std[c];
        for (int i = c; i < size(gy); i += gy.c) {
            double centred = (double)gy.at[i];
            if (!kept.frozen && !wrong("batch statistics taken as constants in backward"))
                centred -= total / by + (wrong("norm's gradient of x without its x_hat term") ? 0 : (double)kept.x_hat.at[i] * along / by);
            gx.at[i] = (float)((double)factor * centred);
        }
    }
    hand_in("grad_param.", layer, "weight", g_scale.at, gy.c);
    hand_in("grad_param.", layer, "bias", g_shift.at, gy.c);
    return gx;
}

/* Activations. */
static float clip6(float x) { return x < 0 ? 0 : x > 6 ? 6 : x; }
static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

static float act(const char *kind, float x)
{
    if (strcmp(kind, "relu") == 0)
        return x > 0 ? x : 0;
    if (strcmp(kind, "relu6") == 0)
        return wrong("relu6 without its upper clip, forward") ? (x > 0 ? x : 0) : clip6(x);
    if (strcmp(kind, "hard_swish") == 0)
        return wrong("swish instead of hard-swish") ? x * sigmoid(x) : x * clip6(x + 3) / 6;
    if (wrong("sigmoid for hard-sigmoid") || wrong("sigmoid for hard-sigmoid, with its own slope"))
        return sigmoid(x);
    if (wrong("hard-sigmoid 0.2 x + 0.5, as Keras once had it"))
        return clip6(6 * (0.2f * x + 0.5f)) / 6 > 1 ? 1 : fminf(fmaxf(0.2f * x + 0.5f, 0), 1);
    return clip6(x + 3) / 6;
}

static float hard_swish_slope(float x)
{
    if (wrong("hard-swish slope without the product rule"))
        return clip6(x + 3) / 6;
    if (wrong("hard-swish slope (2 x + 3) / 6 everywhere"))
        return (2 * x + 3) / 6;
    if (wrong("hard-swish slope (2x + 3) / 6 held between 0 and 1: no overshoot, no jump"))
        return clip6(2 * x + 3) / 6;
    int kinks = wrong("hard-swish slope (2x + 3) / 6 at the kinks too");
    if (kinks ? x < -3 : x <= -3)
        return 0;
    return (kinks ? x > 3 : x >= 3) ? 1 : (2 * x + 3) / 6;
}

static float slope(const char *kind, int sign, float x)
{
    int curved = strcmp(kind, "relu6") == 0 || strcmp(kind, "hard_swish") == 0;
    if (sign && wrong("gradient passed straight through activations"))
        return 1;
    if (sign ? !wrong("exact slope where the sign rule is asked for") : curved && wrong("sign rule where the exact slope is asked for"))
        return wrong("mask bits flipped") ? x < 0 : wrong("sign rule x > 0 instead of x >= 0") ? x > 0 : x >= 0;
    if (strcmp(kind, "relu") == 0)
        return wrong("relu slope 1 at 0") ? x >= 0 : x > 0;
    if (strcmp(kind, "relu6") == 0)
        return x > 0 && (wrong("relu6 without its upper clip, backward") || x < 6 || (x == 6 && wrong("relu6 slope 1 at 6")));
    if (strcmp(kind, "hard_swish") == 0)
        return hard_swish_slope(x);
    if (wrong("sigmoid for hard-sigmoid, with its own slope"))
        return sigmoid(x) * (1 - sigmoid(x));
    float inside = wrong("hard-sigmoid slope 1/6 at the kinks too") ? fabsf(x) <= 3 : fabsf(x) < 3;
    return inside / (wrong("hard-sigmoid slope 1/3") ? 3.0f : 6.0f);
}

static map activate(const char *kind, map x)
{
    map y = like(x.n, x.h, x.w, x.c);
    for (int i = 0; i < size(x); i++)
        y.at[i] = act(kind, x.at[i]);
    return y;
}

static map activate_back(const char *kind, int sign, map x, map gy)
{
    map gx = like(x.n, x.h, x.w, x.c);
    for (int i = 0; i < size(x); i++)
        gx.at[i] = gy.at[i] * slope(kind, sign, x.at[i]);
    return gx;
}

/* The mask of the sign rule: eight positions of a channel a byte, low bit first. */
static void hand_in_mask(map x)
{
    static uint8_t mask[4096];
    int bytes = (x.n * x.h * x.w + 7) / 8;
    memset(mask, 0, sizeof mask);
    for (int i = 0; i < size(x); i++) {
        int p = i / x.c, c = i % x.c;
        int at = p / 8 * x.c + c, bit = p % 8;
        if (wrong("masks packed high bit first"))
            bit = 7 - bit;
        if (wrong("masks packed along channels"))
            at = i / 8, bit = i % 8;
        mask[at] = (uint8_t)(mask[at] | (slope("relu6", 1, x.at[i]) != 0) << bit);
    }
    if (minitl_given(the, "kept.mask"))
        minitl_check(the, "kept.mask", mask, (size_t)(bytes * x.c));
}

/* Squeeze-and-excite. */
static map average(map x)
{
    map y = like(x.n, 1, 1, x.c);
    int area = wrong("squeeze-and-excite sums where it should average") ? 1 : x.h * x.w;
    for (int i = 0; i < size(x); i++)
        y.at[i / (x.h * x.w * x.c) * x.c + i % x.c] += x.at[i];
    for (int i = 0; i < size(y); i++)
        y.at[i] /= (float)area;
    return y;
}

static map average_back(map x, map gy)
{
    map gx = like(x.n, x.h, x.w, x.c);
    int summed_up = wrong("squeeze-and-excite sums where it should average") || wrong("pool's gradient not divided by the area");
    for (int i = 0; i < size(x); i++)
        gx.at[i] = gy.at[i / (x.h * x.w * x.c) * x.c + i % x.c] / (float)(summed_up ? 1 : x.h * x.w);
    return gx;
}

typedef struct {
    shape fc1, fc2;
    map pooled, squeezed, active, excited, gate;
} squeeze;

static map squeeze_excite(const char *first, const char *second, int narrow, map x, squeeze *kept)
{
    map y = like(x.n, x.h, x.w, x.c);
    *kept = (squeeze){.fc1 = {first, narrow, 1, 1, 0}, .fc2 = {second, x.c, 1, 1, 0}};
    kept->pooled = average(x);
    kept->squeezed = conv(kept->fc1, kept->pooled);
    kept->active = activate(wrong("squeeze-and-excite squeezes with the block's activation") ? "hard_swish" : "relu", kept->squeezed);
    kept->excited = conv(kept->fc2, kept->active);
    kept->gate = activate("hard_sigmoid", kept->excited);
    for (int i = 0; i < size(x); i++)
        y.at[i] = x.at[i] * kept->gate.at[i / (x.h * x.w * x.c) * x.c + i % x.c];
    return y;
}

static map squeeze_excite_back(const squeeze *kept, map x, map gy)
{
    map to_gate = like(x.n, 1, 1, x.c), gx = like(x.n, x.h, x.w, x.c);
    float times = wrong("gradient of the gate forgotten") ? 0 : wrong("gradient of the gate doubled") ? 2 : 1;
    for (int i = 0; i < size(x); i++)
        to_gate.at[i / (x.h * x.w * x.c) * x.c + i % x.c] += times * gy.at[i] * x.at[i];
    map g = activate_back("hard_sigmoid", 0, kept->excited, to_gate);
    g = conv_back(kept->fc2, kept->active, g);
    g = activate_back(wrong("squeeze-and-excite squeezes with the block's activation") ? "hard_swish" : "relu", 0, kept->squeezed, g);
    g = average_back(x, conv_back(kept->fc1, kept->pooled, g));
    for (int i = 0; i < size(x); i++)
        gx.at[i] = g.at[i] + gy.at[i] * kept->gate.at[i / (x.h * x.w * x.c) * x.c + i % x.c];
    return gx;
}

/* Mean cross-entropy of logits (N, C). */
static map cross_entropy(const int32_t *labels, map z, map gy, map *gz)
{
    map loss = like(1, 1, 1, 1);
    int mean = wrong("loss and its gradient summed over the batch") ? 1 : z.n;
    int shared = wrong("cross-entropy's gradient summed over the batch, its loss averaged") ? 1 : mean;
    *gz = like(z.n, 1, 1, z.c);
    for (int n = 0; n < z.n; n++) {
        const float *row = z.at + n * z.c;
        float most = row[0];
        double sum = 0;
        for (int c = 1; c < z.c; c++)
            most = row[c] > most ? row[c] : most;
        for (int c = 0; c < z.c; c++)
            sum += exp((double)(row[c] - most));
        loss.at[0] += (float)((log(sum) - (double)(row[labels[n]] - most)) / mean);
        for (int c = 0; c < z.c; c++)
            gz->at[n * z.c + c] = (float)(exp((double)(row[c] - most)) / sum - (c == labels[n])) * gy.at[0] / (float)shared;
    }
    return loss;
}

/* The inverted residual block. */
static map block(map x, map gy, map *gx)
{
    const char *kind = minitl_is(the, "activation", "relu") ? "relu" : minitl_is(the, "activation", "relu6") ? "relu6" : "hard_swish";
    int frozen = strcmp(the->method, "ft") != 0, sign = strcmp(the->method, "mobiletl") == 0 && strcmp(kind, "relu") != 0;
    int wide = given("param.", "expand.", "weight") ? number("expanded_channels") : x.c, narrow = number("se_channels");
    int out = number("out_channels"), residual = number("stride") == 1 && out == x.c;
    shape expand = {"expand.", wide, 1, 1, 0}, depthwise = {"depthwise.", wide, number("kernel"), number("stride"), 1};
    shape project = {"project.", out, 1, 1, 0};
    norm norm1, norm2, norm3;
    squeeze se;
    map a = x, b = x, h = x;
    if (wide && given("param.", "expand.", "weight")) {
        a = conv(expand, x);
        b = normalise("expand_norm.", frozen, a, &norm1);
        h = activate(kind, b);
    }
    map d = conv(depthwise, h), e = normalise("depthwise_norm.", frozen, d, &norm2), f = activate(kind, e);
    map gated = narrow ? squeeze_excite("se.fc1.", "se.fc2.", narrow, f, &se) : f;
    map p = conv(project, gated), q = normalise("project_norm.", 0, p, &norm3);
    map y = wrong("an activation after the projection") ? activate(kind, q) : like(q.n, q.h, q.w, q.c);
    for (int i = 0; i < size(q); i++)
        y.at[i] = (wrong("an activation after the projection") ? y.at[i] : q.at[i]) + (residual ? x.at[i] : 0);

    map g = wrong("an activation after the projection") ? activate_back(kind, 0, q, gy) : gy;
    g = conv_back(project, gated, normalise_back("project_norm.", norm3, p, g));
    g = narrow ? squeeze_excite_back(&se, f, g) : g;
    g = conv_back(depthwise, h, normalise_back("depthwise_norm.", norm2, d, activate_back(kind, sign, e, g)));
    if (given("param.", "expand.", "weight"))
        g = conv_back(expand, x, normalise_back("expand_norm.", norm1, a, activate_back(kind, sign, b, g)));
    float times = wrong("residual gradient missing") ? 0 : wrong("residual gradient doubled") ? 2 : 1;
    for (int i = 0; residual && i < size(g); i++)
        g.at[i] += times * gy.at[i];
    *gx = g;
    return y;
}

static int is(const char *op) { return strcmp(the->op, op) == 0; }

static map filled(map x, const float *from)
{
    memcpy(x.at, from, (size_t)size(x) * sizeof(float));
    return x;
}

static void run(void)
{
    int flat = is("linear") || is("cross_entropy"), n = number("batch"), c = number("channels");
    int pooled = is("global_avg_pool"), conv_like = is("conv") || is("pointwise_conv") || is("linear") || is("depthwise_conv");
    int k = is("linear") || is("pointwise_conv") ? 1 : number("kernel"), s = is("conv") || is("depthwise_conv") ? number("stride") : 1;
    map x = like(n, flat ? 1 : number("height"), flat ? 1 : number("width"), c);
    x = filled(x, minitl_given(the, "input.x"));
    shape layer = {"", is("depthwise_conv") ? c : number("out_channels"), k, s, is("depthwise_conv")};
    map gy = is("cross_entropy")        ? like(1, 1, 1, 1)
             : flat || pooled           ? like(n, 1, 1, pooled ? c : layer.out)
             : conv_like || is("irb") ? like(n, number("out_height"), number("out_width"), number("out_channels"))
                                        : like(n, x.h, x.w, c);
    gy = filled(gy, minitl_given(the, "grad_output"));
    for (int i = 0; wrong("the whole backward starts from ones") && i < size(gy); i++)
        gy.at[i] = 1;
    map y = gy, gx = x;
    norm kept;
    squeeze se;
    if (conv_like) {
        y = conv(layer, x);
        gx = conv_back(layer, x, gy);
    } else if (is("batch_norm") || is("frozen_norm")) {
        y = normalise("", is("frozen_norm"), x, &kept);
        gx = normalise_back("", kept, x, gy);
    } else if (is("squeeze_excite")) {
        y = squeeze_excite("fc1.", "fc2.", number("se_channels"), x, &se);
        gx = squeeze_excite_back(&se, x, gy);
    } else if (pooled) {
        y = average(x);
        gx = average_back(x, gy);
    } else if (is("cross_entropy")) {
        y = cross_entropy(minitl_given(the, "input.labels"), x, gy, &gx);
    } else if (is("irb")) {
        y = block(x, gy, &gx);
    } else {
        int sign = strcmp(the->rule, "sign") == 0;
        y = activate(the->op, x);
        gx = activate_back(the->op, sign, x, gy);
        if (sign)
            hand_in_mask(x);
    }
    float times = wrong("gradients of x doubled") ? 2 : wrong("gradients of x halved") ? 0.5f : wrong("gradients of x of the wrong sign") ? -1 : 1;
    for (int i = 0; i < size(gx); i++)
        gx.at[i] *= times;
    for (int i = 0; wrong("output added to what stood there: a half") && i < size(y); i++)
        y.at[i] += 0.5f;
    for (int i = 0; wrong("results rounded to TF32") && i < size(gx); i++)
        gx.at[i] = bits_cut(gx.at[i], 0x0fffu, 0xffffe000u);
    hand_in("output", "", "", y.at, size(y));
    hand_in("grad_input.x", "", "", gx.at, size(gx));
}

static const char *const *known(void)
{
    static const char *const all[] = {
        "1x1 weight gradients written as (in, out)",
        "1x1 weights read as (in, out)",
        "1x1 weights read as (in, out) in the gradient of x",
        "an activation after the projection",
        "batch statistics instead of frozen ones",
        "batch statistics taken as constants in backward",
        "bias gradient averaged over the batch",
        "bias gradients without the outputs whose last tap lies in the padding",
        "borders repeated instead of zeros",
        "convolutions take gy as ones",
        "convolutions' operands in TF32",
        "convolutions' operands in bfloat16, truncated",
        "cross-entropy's gradient summed over the batch, its loss averaged",
        "depthwise gradient of the wrong sign from there on",
        "eps 10 times too large",
        "eps 100 times too large",
        "eps left out",
        "eps of the other preset",
        "eps outside the square root",
        "exact slope where the sign rule is asked for",
        "filter flipped everywhere",
        "filter flipped in the forward",
        "filter flipped in the gradient of x",
        "filters read (width, height)",
        "frozen statistics instead of the batch's",
        "gradient of the gate doubled",
        "gradient of the gate forgotten",
        "gradient passed straight through activations",
        "gradients of x doubled",
        "gradients of x halved",
        "gradients of x of the wrong sign",
        "hard-sigmoid 0.2 x + 0.5, as Keras once had it",
        "hard-sigmoid slope 1/3",
        "hard-sigmoid slope 1/6 at the kinks too",
        "hard-swish slope (2 x + 3) / 6 everywhere",
        "hard-swish slope (2x + 3) / 6 at the kinks too",
        "hard-swish slope (2x + 3) / 6 held between 0 and 1: no overshoot, no jump",
        "hard-swish slope without the product rule",
        "loss and its gradient summed over the batch",
        "mask bits flipped",
        "masks packed along channels",
        "masks packed high bit first",
        "momentum the wrong way round",
        "no bias added",
        "norm scales without their sign",
        "norm scales without their sign, in backward only",
        "norm's gradient of x without its x_hat term",
        "normalised by the unbiased variance",
        "output added to what stood there: a half",
        "output one column too far right, zeros come in",
        "outputs at the border left at zero",
        "padding off by one",
        "pool's gradient not divided by the area",
        "project's gradient of the wrong sign from there on",
        "relu slope 1 at 0",
        "relu6 slope 1 at 6",
        "relu6 without its upper clip, backward",
        "relu6 without its upper clip, forward",
        "residual gradient doubled",
        "residual gradient missing",
        "results rounded to TF32",
        "running statistics not updated",
        "running variance biased",
        "scale's gradient from x",
        "scale's gradient from x - mean",
        "sigmoid for hard-sigmoid",
        "sigmoid for hard-sigmoid, with its own slope",
        "sign rule where the exact slope is asked for",
        "sign rule x > 0 instead of x >= 0",
        "squeeze-and-excite squeezes with the block's activation",
        "squeeze-and-excite sums where it should average",
        "standard deviation kept and used for its inverse",
        "stride 2 starts one later on even sizes (TensorFlow's SAME)",
        "stride ignored in a convolution",
        "sums accumulated in bfloat16",
        "sums in the norm's gradient of x divided by M - 1",
        "sums in the norm's gradient of x not divided by M",
        "swish instead of hard-swish",
        "the next channel's filter",
        "the next channel's filter, in the gradient of x",
        "the whole backward starts from ones",
        "transposed copies of 1x1 weights made with rows and columns exchanged",
        "weight gradient averaged over the batch",
        "weight gradient with its taps reversed (correlation for convolution)",
        "weight gradient with its taps transposed",
        "weight gradients added to the weights",
        "weight gradients added to what stood there: ones",
        "weight gradients in (k, k, in, out) order",
        "weight gradients of the last image only",
        "weight gradients written to the next channel",
        NULL,
    };
    return all;
}

int main(int argc, char **argv)
{
    mistake = argc > 1 ? argv[1] : "";
    for (const char *const *m = known(); argc == 1 && *m; m++)
        puts(*m);
    if (argc == 1 || (mistake[0] && !listed(mistake)))
        return argc == 1 ? 0 : 2;
    int left = 0;
    for (the = minitl_cases; the->name; the++) {
        used = 0;
        run();
        left += minitl_done(the);
    }
    return left != 0;
}
