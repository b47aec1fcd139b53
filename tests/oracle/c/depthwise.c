/* Depthwise convolution, forward and backward, checked against a generated header (-include it).
 *
 * Right as it stands. FAULT plants an error: 1 shifts the padding by one, 2 leaves the sums of the
 * weight gradient uninitialised (NaN), 3 flips the taps of the input gradient.
 */
#include <math.h>
#include <string.h>

#ifndef FAULT
#define FAULT 0
#endif

#define PAD ((KERNEL - 1) / 2 + (FAULT == 1))

#ifdef LAYOUT_HWC
#define AT(n, h, w, c, height, width) ((((n) * (height) + (h)) * (width) + (w)) * CHANNELS + (c))
#else
#define AT(n, h, w, c, height, width) ((((n) * CHANNELS + (c)) * (height) + (h)) * (width) + (w))
#endif
#define X_AT(n, h, w, c) AT(n, h, w, c, HEIGHT, WIDTH)
#define Y_AT(n, i, j, c) AT(n, i, j, c, OUT_HEIGHT, OUT_WIDTH)
#define W_AT(c, u, v) (((c) * KERNEL + (u)) * KERNEL + (v))

static float y[BATCH * OUT_HEIGHT * OUT_WIDTH * CHANNELS];
static float gx[BATCH * HEIGHT * WIDTH * CHANNELS];
static float gw[CHANNELS * KERNEL * KERNEL];

/* Visits every pair of an output and a tap that lies inside the input. */
static void depthwise(const float *x, const float *w, const float *gy)
{
    memset(y, 0, sizeof y);
    memset(gx, 0, sizeof gx);
    for (size_t k = 0; k < sizeof gw / sizeof gw[0]; k++)
        gw[k] = FAULT == 2 ? NAN : 0;
    for (int n = 0; n < BATCH; n++)
        for (int i = 0; i < OUT_HEIGHT; i++)
            for (int j = 0; j < OUT_WIDTH; j++)
                for (int u = 0; u < KERNEL; u++)
                    for (int v = 0; v < KERNEL; v++) {
                        int row = STRIDE * i + u - PAD, column = STRIDE * j + v - PAD;
                        if (row < 0 || row >= HEIGHT || column < 0 || column >= WIDTH)
                            continue;
                        for (int c = 0; c < CHANNELS; c++) {
                            int in = X_AT(n, row, column, c), out = Y_AT(n, i, j, c);
                            y[out] += w[W_AT(c, u, v)] * x[in];
                            gx[in] += w[FAULT == 3 ? W_AT(c, KERNEL - 1 - u, KERNEL - 1 - v) : W_AT(c, u, v)] * gy[out];
                            gw[W_AT(c, u, v)] += x[in] * gy[out];
                        }
                    }
}

int main(void)
{
    int wrong = 0;
    depthwise(INPUT_X, PARAM_WEIGHT, GRAD_OUTPUT);
    wrong |= MINITL_CHECK(OUTPUT, y);
    wrong |= MINITL_CHECK(GRAD_INPUT_X, gx);
    wrong |= MINITL_CHECK(GRAD_PARAM_WEIGHT, gw);
    return wrong != 0;
}
