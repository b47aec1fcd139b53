/* What check.c must and must not let pass. Prints the line of each expectation that does not hold. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

int minitl_check_f32(const char *name, const float *got, const float *expected, const float *bound, size_t n);
int minitl_check_u8(const char *name, const uint8_t *got, const uint8_t *expected, size_t n);

static int broken;

#define EXPECT(holds) ((holds) ? (void)0 : (void)(broken = 1, fprintf(stderr, "line %d: %s\n", __LINE__, #holds)))

static int one(float got, float expected, float bound)
{
    return minitl_check_f32("one", &got, &expected, &bound, 1);
}

int main(void)
{
    EXPECT(one(1, 1, 0) == 0);
    EXPECT(one(0.0f, -0.0f, 0) == 0);
    EXPECT(one(1.5f, 1, 0.5f) == 0); /* the bound itself is inside */
    EXPECT(one(nextafterf(1.5f, 2), 1, 0.5f) == 1);
    EXPECT(one(-1, 1, 1) == 1);
    EXPECT(one(1e-45f, 0, 0) == 1);
    EXPECT(one(NAN, 1, 1) == 1);
    EXPECT(one(1, NAN, 1) == 1);
    EXPECT(one(1, 1, NAN) == 1);
    EXPECT(one(INFINITY, 1, 1) == 1);
    EXPECT(one(-INFINITY, 1, 1) == 1);
    EXPECT(one(INFINITY, INFINITY, 1) == 1);
    EXPECT(one(3e38f, -3e38f, 1) == 1); /* a difference beyond float */

    const float got[] = {1, 2.5f, NAN, 9, NAN}, expected[] = {1, 2, 3, 4, 5}, bound[] = {0, 1, 1, 1, 1};
    EXPECT(minitl_check_f32("many", got, expected, bound, 5) == 3);
    EXPECT(minitl_check_f32("many", got, expected, bound, 2) == 0);
    EXPECT(minitl_check_f32("none", got, expected, bound, 0) != 0);

    const uint8_t bytes[] = {0xcd, 0xa6, 0x02, 0x01}, others[] = {0xcd, 0xa6, 0x03, 0x81};
    EXPECT(minitl_check_u8("bytes", bytes, bytes, 4) == 0);
    EXPECT(minitl_check_u8("bytes", bytes, others, 4) == 2);
    EXPECT(minitl_check_u8("none", bytes, others, 0) != 0);
    return broken;
}
