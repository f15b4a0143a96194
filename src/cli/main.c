/* SPDX-License-Identifier: Apache-2.0 */
/* The program is a library with a main, so that tests and fuzzers link everything but this. */
#include "cli/cli.h"

int main(int argc, char **argv)
{
    return zc_cli_main(argc, argv);
}
