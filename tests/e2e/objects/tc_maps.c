/* Section maps as tc reads it: struct bpf_elf_map of 36 bytes, ids, pins, an inner map. */
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf.h"

struct bpf_elf_map {
	__u32 type;
	__u32 size_key;
	__u32 size_value;
	__u32 max_elem;
	__u32 flags;
	__u32 id;
	__u32 pinning;
	__u32 inner_id;
	__u32 inner_idx;
};

enum { PIN_NONE, PIN_OBJECT_NS, PIN_GLOBAL_NS };

struct bpf_elf_map SEC("maps") counters = {
	.type = ARRAY,
	.size_key = 4,
	.size_value = 8,
	.max_elem = 4,
	.pinning = PIN_GLOBAL_NS,
};

struct bpf_elf_map SEC("maps") flows = {
	.type = HASH,
	.size_key = 8,
	.size_value = 16,
	.max_elem = 32,
	.flags = F_NO_PREALLOC,
	.pinning = PIN_OBJECT_NS,
};

struct bpf_elf_map SEC("maps") own = {
	.type = LRU_HASH,
	.size_key = 4,
	.size_value = 4,
	.max_elem = 64,
};

struct bpf_elf_map SEC("maps") outer = {
	.type = ARRAY_OF_MAPS,
	.size_key = 4,
	.size_value = 4,
	.max_elem = 3,
	.inner_id = 7,
};

struct bpf_elf_map SEC("maps") inner = {
	.type = HASH,
	.size_key = 4,
	.size_value = 8,
	.max_elem = 5,
	.id = 7,
	.inner_idx = 2,
};

struct bpf_elf_map SEC("maps") jumps = {
	.type = PROG_ARRAY,
	.size_key = 4,
	.size_value = 4,
	.max_elem = 2,
	.id = 9,
};

SEC("9/1")
int called(void *ctx)
{
	return 0;
}

SEC("classifier")
int classify(void *ctx)
{
	__u32 key = 0;
	__u64 *counter = map_lookup_elem(&counters, &key);

	if (counter)
		__sync_fetch_and_add(counter, 1);
	map_lookup_elem(&own, &key);
	map_lookup_elem(&outer, &key);
	map_lookup_elem(&inner, &key);
	__u64 flow = 0;
	map_lookup_elem(&flows, &flow);
	return 0;
}
