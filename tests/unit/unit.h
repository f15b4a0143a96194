/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka with the headers that it needs before it, in its order. */
#ifndef ZC_TESTS_UNIT_H
#define ZC_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#endif
