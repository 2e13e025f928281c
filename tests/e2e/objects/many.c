/* Many maps, half of them with contents, so that a loader can be stopped in their middle. */
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf.h"

#define MAP(number)                                  \
	struct {                                     \
		__uint(type, HASH);                  \
		__uint(max_entries, 8);              \
		__type(key, __u32);                  \
		__type(value, __u64);                \
	} map_##number SEC(".maps");                 \
	__u64 data_##number SEC(".data.d" #number) = 0x1234567800000000 + 0x##number;

#define TEN(tens)                                                                                  \
	MAP(tens##0) MAP(tens##1) MAP(tens##2) MAP(tens##3) MAP(tens##4) MAP(tens##5) MAP(tens##6) \
	MAP(tens##7) MAP(tens##8) MAP(tens##9)

TEN(1)
TEN(2)
TEN(3)
