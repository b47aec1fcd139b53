/* Compares what your code computed with cases written by `minitl oracle export --format c`.
 *
 * C99; needs stddef.h, stdint.h, string.h's strcmp, and printf (or -DMINITL_PRINTF=your_printf): no libm, no heap.
 * With -DMINITL_ANSWERS the results themselves are printed too, for `minitl oracle check REF LOG`, which names causes.
 */
#include "minitl_oracle.h"

#include <limits.h>
#include <string.h>

#ifndef MINITL_PRINTF
#include <stdio.h>
#define MINITL_PRINTF printf
#endif

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "compile check.c without -ffast-math and -ffinite-math-only: with them, NaN would pass"
#endif

static const minitl_tensor NO_SHAPE = {"", 'f', NULL, NULL, "", 0, {0, 0, 0, 0}, 0, NULL};

typedef struct {
    const char *who, *what; /* "ok    WHO WHAT: ..." */
} title;

static int verdict(title of, size_t wrong, size_t n)
{
    if (n == 0)
        wrong = 1; /* nothing compared is nothing shown */
    MINITL_PRINTF("%s %s%s%s: %lu of %lu wrong", wrong ? "WRONG" : "ok   ", of.who, of.what[0] ? " " : "", of.what, (unsigned long)wrong,
                  (unsigned long)n);
    return wrong > INT_MAX ? INT_MAX : (int)wrong;
}

/* " at (n, h, w, c) = (1, 0, 2, 3)", or " [17]" where the shape is not known. */
static void place(const minitl_tensor *t, size_t at)
{
    if (t->rank == 0) {
        MINITL_PRINTF(" [%lu]", (unsigned long)at);
        return;
    }
    MINITL_PRINTF(" at%s%s%s (", t->axes[0] ? " (" : "", t->axes, t->axes[0] ? ") =" : "");
    for (int i = 0; i < t->rank; i++) {
        size_t below = 1;
        for (int j = i + 1; j < t->rank; j++)
            below *= (size_t)t->shape[j];
        MINITL_PRINTF("%s%lu", i ? ", " : "", (unsigned long)(at / below % (size_t)t->shape[i]));
    }
    MINITL_PRINTF(")");
}

/* printf may write a NaN's sign. */
static void number(const char *before, double value)
{
    MINITL_PRINTF("%s", before);
    if (value != value)
        MINITL_PRINTF("nan");
    else
        MINITL_PRINTF("%.9g", value);
}

/* |got - expected| <= bound, element by element. */
static int floats(title of, const minitl_tensor *t, const float *got, const float *expected, const float *bound, size_t n)
{
    size_t wrong = 0, worst = 0, nans = 0, infs = 0;
    double most = -1;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)expected[i], most_allowed = bound ? (double)bound[i] : 0;
        d = d < 0 ? -d : d;
        wrong += !(d <= most_allowed); /* not (d > bound), which is false for NaN */
        nans += d != d;
        infs += d - d != 0 && d == d;
        double share = d == 0 ? 0 : d / most_allowed;
        if (!(share <= most) && most == most) { /* the first NaN is the worst, and stays it */
            most = share;
            worst = i;
        }
    }
    int count = verdict(of, wrong, n);
    if (nans + infs > 0)
        MINITL_PRINTF(" (%lu nan, %lu inf)", (unsigned long)nans, (unsigned long)infs);
    if (n > 0) {
        MINITL_PRINTF("; worst");
        place(t, worst);
        number(": got ", (double)got[worst]);
        number(", expected ", (double)expected[worst]);
        if (most == most)
            MINITL_PRINTF(", error / bound %.3g", most);
    }
    MINITL_PRINTF("\n");
    return count;
}

/* Packed masks and codes: every byte equal. */
static int bytes_of(title of, const minitl_tensor *t, const uint8_t *got, const uint8_t *expected, size_t n)
{
    size_t wrong = 0, first = 0;
    for (size_t i = 0; i < n; i++) {
        if (got[i] != expected[i] && wrong++ == 0)
            first = i;
    }
    int count = verdict(of, wrong, n);
    if (wrong > 0) {
        MINITL_PRINTF("; first");
        place(t, first);
        MINITL_PRINTF(": got 0x%02x, expected 0x%02x", (unsigned)got[first], (unsigned)expected[first]);
    }
    MINITL_PRINTF("\n");
    return count;
}

int minitl_check_f32(const char *name, const float *got, const float *expected, const float *bound, size_t n)
{
    return floats((title){name, ""}, &NO_SHAPE, got, expected, bound, n);
}

int minitl_check_u8(const char *name, const uint8_t *got, const uint8_t *expected, size_t n)
{
    return bytes_of((title){name, ""}, &NO_SHAPE, got, expected, n);
}

#ifdef MINITL_ANSWERS
/* The result's bits in hexadecimal, as `minitl oracle check` reads them from a log. */
static void answer(const char *case_name, const minitl_tensor *t, const void *got)
{
    if (t->kind == 'i')
        return; /* labels are given */
    int is_float = t->kind == 'f';
    MINITL_PRINTF("@answer %s %s %s %lu", case_name, t->name, is_float ? "f32" : "u8", (unsigned long)t->size);
    for (size_t i = 0; i < t->size; i++) {
        uint32_t bits = 0;
        if (is_float)
            memcpy(&bits, (const float *)got + i, sizeof bits);
        else
            bits = ((const uint8_t *)got)[i];
        MINITL_PRINTF("%s", i % 8 ? " " : "\n@ ");
        MINITL_PRINTF(is_float ? "%08lx" : "%02lx", (unsigned long)bits);
    }
    MINITL_PRINTF("\n");
}
#endif

static int check(title of, const char *case_name, const minitl_tensor *t, const void *got, size_t bytes)
{
    size_t each = t->kind == 'u' ? 1 : 4;
    if (t->compared)
        *t->compared = 1;
    if (bytes < each * t->size) {
        MINITL_PRINTF("WRONG %s%s%s: an array of %lu elements, %lu are expected\n", of.who,
                      of.what[0] ? " " : "", of.what, (unsigned long)(bytes / each), (unsigned long)t->size);
        return 1;
    }
#ifdef MINITL_ANSWERS
    answer(case_name, t, got);
#else
    (void)case_name;
#endif
    if (t->kind == 'f')
        return floats(of, t, got, t->values, t->bounds, t->size);
    return bytes_of(of, t->kind == 'u' ? t : &NO_SHAPE, got, t->values, each * t->size);
}

int minitl_check_tensor(const char *label, const char *case_name, const minitl_tensor *t, const void *got, size_t bytes)
{
    return check((title){label, ""}, case_name, t, got, bytes);
}

static int left_out(const char *who, const minitl_tensor *t)
{
    if (!t->compared || *t->compared)
        return 0;
    MINITL_PRINTF("WRONG %s%s%s: never compared\n", who, who[0] ? " " : "", t->name);
    return 1;
}

int minitl_done_tensors(const minitl_tensor *const *required)
{
    int missing = 0;
    for (; *required; required++)
        missing += left_out("", *required);
    return missing;
}

int minitl_done(const minitl_case *c)
{
    int missing = 0;
    for (const minitl_tensor *t = c->tensors; t->name; t++)
        missing += left_out(c->name, t);
    return missing;
}

static const minitl_tensor *tensor(const minitl_case *c, const char *name)
{
    const minitl_tensor *t = c->tensors;
    while (t->name && strcmp(t->name, name) != 0)
        t++;
    return t->name ? t : NULL;
}

static const minitl_attr *attr(const minitl_case *c, const char *name)
{
    const minitl_attr *a = c->attrs;
    while (a->name && strcmp(a->name, name) != 0)
        a++;
    return a->name ? a : NULL;
}

const void *minitl_given(const minitl_case *c, const char *name)
{
    const minitl_tensor *t = tensor(c, name);
    return t ? t->values : NULL;
}

double minitl_number(const minitl_case *c, const char *name)
{
    const minitl_attr *a = attr(c, name);
    return a ? a->number : 0;
}

int minitl_is(const minitl_case *c, const char *name, const char *text)
{
    const minitl_attr *a = attr(c, name);
    return a && a->text && strcmp(a->text, text) == 0;
}

int minitl_check(const minitl_case *c, const char *name, const void *got, size_t bytes)
{
    const minitl_tensor *t = tensor(c, name);
    if (!t) {
        MINITL_PRINTF("WRONG %s: the case expects no %s\n", c->name, name);
        return 1;
    }
    return check((title){c->name, name}, c->name, t, got, bytes);
}
