/* What a case's header, a table of cases (cases.h) and check.c have in common. C99.
 *
 * Every check prints one line and returns how many elements are wrong: 0 is a pass. A main ends
 * with `return wrong != 0;`, since an exit code of 256 would read as 0. NaN is wrong, and so is an
 * array that is too small.
 */
#ifndef MINITL_ORACLE_H
#define MINITL_ORACLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name;   /* as in case.json: "grad_param.weight" */
    char kind;          /* 'f' float, 'u' uint8_t (packed codes), 'i' int32_t */
    const void *values; /* what is given, or expected */
    const float *bounds; /* of each expected float; NULL: exact */
    const char *axes;   /* "n, h, w, c", in the order of `shape`; "" where they have no names */
    int rank, shape[4];
    size_t size;        /* number of elements */
    unsigned char *compared; /* of a result that must be there: whether it has been compared; else NULL */
} minitl_tensor;

typedef struct {
    const char *name, *text; /* text: NULL unless the attribute is one */
    double number;
} minitl_attr;

typedef struct {
    const char *name, *op, *method, *rule, *layout;
    const minitl_attr *attrs;     /* the last has no name */
    const minitl_tensor *tensors; /* the last has no name */
} minitl_case;

/* Of a table: a tensor's elements (NULL if there is none), an attribute, and the check of a result of `bytes` bytes. */
const void *minitl_given(const minitl_case *c, const char *tensor);
double minitl_number(const minitl_case *c, const char *attr);
int minitl_is(const minitl_case *c, const char *attr, const char *text);
int minitl_check(const minitl_case *c, const char *tensor, const void *got, size_t bytes);
/* At the end: how many required results were never compared; a line for each. */
int minitl_done(const minitl_case *c);

/* Of a single case's header: MINITL_CHECK(OUTPUT, y), MINITL_CHECK_BYTES(KEPT_MASK, mask). */
int minitl_check_tensor(const char *label, const char *case_name, const minitl_tensor *t, const void *got, size_t bytes);
#define MINITL_CHECK(name, got) minitl_check_tensor(#name, MINITL_CASE, &TENSOR_##name, got, MINITL_BYTES(got))
#define MINITL_CHECK_BYTES(name, got) MINITL_CHECK(name, got)
/* At the end, in the translation unit that compares: how many required results were never compared. */
int minitl_done_tensors(const minitl_tensor *const *required);
#define MINITL_DONE() minitl_done_tensors(MINITL_REQUIRED)
/* The size of an array; of a pointer nothing is known. */
#define MINITL_BYTES(got) (sizeof(got) == sizeof(void *) ? (size_t)-1 : sizeof(got))

/* Of arrays of any origin. */
int minitl_check_f32(const char *name, const float *got, const float *expected, const float *bound, size_t n);
int minitl_check_u8(const char *name, const uint8_t *got, const uint8_t *expected, size_t n);

#endif
