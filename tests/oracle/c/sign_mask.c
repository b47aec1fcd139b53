/* ReLU6 with MobileTL's one-bit backward, checked against a generated header (-include it).
 *
 * Right as it stands. FAULT plants an error: 1 packs along channels, 2 masks x > 0 instead of x >= 0,
 * 3 forgets the clip at 6.
 */
#include <string.h>

#ifndef FAULT
#define FAULT 0
#endif

#define POSITIONS (BATCH * HEIGHT * WIDTH)

static float y[POSITIONS * CHANNELS], gx[POSITIONS * CHANNELS];
static uint8_t mask[(POSITIONS + 7) / 8 * CHANNELS];

#ifdef LAYOUT_HWC
#define AT(m, c) ((m) * CHANNELS + (c))
#else
#define AT(m, c) (((m) / (HEIGHT * WIDTH) * CHANNELS + (c)) * (HEIGHT * WIDTH) + (m) % (HEIGHT * WIDTH))
#endif

int main(void)
{
    int wrong = 0;
    memset(mask, 0, sizeof mask);
    for (int m = 0; m < POSITIONS; m++)
        for (int c = 0; c < CHANNELS; c++) {
            float x = INPUT_X[AT(m, c)];
            int bit = FAULT == 1 ? m * CHANNELS + c : m, byte = FAULT == 1 ? bit / 8 : m / 8 * CHANNELS + c;
            y[AT(m, c)] = x < 0 ? 0 : x > 6 && FAULT != 3 ? 6 : x;
            if (FAULT == 2 ? x > 0 : x >= 0)
                mask[byte] |= (uint8_t)(1 << bit % 8);
        }
    for (int m = 0; m < POSITIONS; m++)
        for (int c = 0; c < CHANNELS; c++)
            gx[AT(m, c)] = KEPT_MASK[m / 8 * CHANNELS + c] >> m % 8 & 1 ? GRAD_OUTPUT[AT(m, c)] : 0;
    wrong |= MINITL_CHECK(OUTPUT, y);
    wrong |= MINITL_CHECK_BYTES(KEPT_MASK, mask);
    wrong |= MINITL_CHECK(GRAD_INPUT_X, gx);
    return wrong != 0;
}
