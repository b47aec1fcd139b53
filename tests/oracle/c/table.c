/* A depthwise convolution run through a table of cases, in one program.
 *
 * Right as it stands. FAULT 1 flips the filter in the forward, 2 leaves a NaN in the weight gradient,
 * 3 does not compare that gradient.
 */
#include "cases.h"

#include <math.h>
#include <string.h>

#ifndef FAULT
#define FAULT 0
#endif

enum { MOST = 4096 };
static float y[MOST], gx[MOST], gw[MOST];

static int number(const minitl_case *c, const char *name) { return (int)minitl_number(c, name); }

static void depthwise(const minitl_case *c)
{
    const float *x = minitl_given(c, "input.x"), *w = minitl_given(c, "param.weight"), *gy = minitl_given(c, "grad_output");
    int height = number(c, "height"), width = number(c, "width"), channels = number(c, "channels");
    int rows = number(c, "out_height"), columns = number(c, "out_width"), k = number(c, "kernel"), s = number(c, "stride");
    memset(y, 0, sizeof y);
    memset(gx, 0, sizeof gx);
    memset(gw, 0, sizeof gw);
    for (int n = 0; n < number(c, "batch"); n++)
        for (int i = 0; i < rows * columns; i++)
            for (int tap = 0; tap < k * k; tap++) {
                int row = i / columns * s + tap / k - k / 2, column = i % columns * s + tap % k - k / 2;
                if (row < 0 || row >= height || column < 0 || column >= width)
                    continue;
                for (int o = 0; o < channels; o++) {
                    int in = ((n * height + row) * width + column) * channels + o;
                    int out = (n * rows * columns + i) * channels + o;
                    y[out] += w[o * k * k + (FAULT == 1 ? k * k - 1 - tap : tap)] * x[in];
                    gx[in] += w[o * k * k + tap] * gy[out];
                    gw[o * k * k + tap] += x[in] * gy[out];
                }
            }
    if (FAULT == 2)
        gw[3] = NAN;
}

int main(void)
{
    int wrong = 0;
    for (const minitl_case *c = minitl_cases; c->name; c++) {
        depthwise(c);
        wrong += minitl_check(c, "output", y, sizeof y);
        wrong += minitl_check(c, "grad_input.x", gx, sizeof gx);
        if (!minitl_is(c, "train", "none") && FAULT != 3)
            wrong += minitl_check(c, "grad_param.weight", gw, sizeof gw);
        wrong += minitl_done(c);
    }
    return wrong != 0;
}
