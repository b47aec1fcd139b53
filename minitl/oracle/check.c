/* Compares what your code computed with a header written by `minitl oracle export --format c`.
 *
 * C99; needs stddef.h, stdint.h, and printf (or -DMINITL_PRINTF=your_printf): no libm, no heap.
 * Both functions print one line and return how many elements are wrong: 0 is a pass. A main
 * ends with `return wrong != 0;`, since an exit code of 256 would read as 0.
 */
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#ifndef MINITL_PRINTF
#include <stdio.h>
#define MINITL_PRINTF printf
#endif

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "compile check.c without -ffast-math and -ffinite-math-only: with them, NaN would pass"
#endif

int minitl_check_f32(const char *name, const float *got, const float *expected, const float *bound, size_t n);
int minitl_check_u8(const char *name, const uint8_t *got, const uint8_t *expected, size_t n);

static int verdict(const char *name, size_t wrong, size_t n)
{
    if (n == 0)
        wrong = 1; /* nothing compared is nothing shown */
    MINITL_PRINTF("%s %s: %lu of %lu wrong", wrong ? "WRONG" : "ok   ", name, (unsigned long)wrong, (unsigned long)n);
    return wrong > INT_MAX ? INT_MAX : (int)wrong;
}

/* |got - expected| <= bound, element by element. */
int minitl_check_f32(const char *name, const float *got, const float *expected, const float *bound, size_t n)
{
    size_t wrong = 0, worst = 0;
    double most = -1;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)expected[i];
        d = d < 0 ? -d : d;
        wrong += !(d <= (double)bound[i]); /* not (d > bound), which is false for NaN */
        double share = d == 0 ? 0 : d / (double)bound[i];
        if (!(share <= most) && most == most) { /* the first NaN is the worst, and stays it */
            most = share;
            worst = i;
        }
    }
    int count = verdict(name, wrong, n);
    if (n > 0)
        MINITL_PRINTF("; worst [%lu]: got %.9g, expected %.9g, error / bound %.3g", (unsigned long)worst,
                      (double)got[worst], (double)expected[worst], most);
    MINITL_PRINTF("\n");
    return count;
}

/* Packed masks and codes: every byte equal. */
int minitl_check_u8(const char *name, const uint8_t *got, const uint8_t *expected, size_t n)
{
    size_t wrong = 0, first = 0;
    for (size_t i = 0; i < n; i++) {
        if (got[i] != expected[i] && wrong++ == 0)
            first = i;
    }
    int count = verdict(name, wrong, n);
    if (wrong > 0)
        MINITL_PRINTF("; first [%lu]: got 0x%02x, expected 0x%02x", (unsigned long)first, (unsigned)got[first],
                      (unsigned)expected[first]);
    MINITL_PRINTF("\n");
    return count;
}
