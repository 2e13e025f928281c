/* Section maps as samples/bpf had it: struct bpf_map_def of 28 bytes, an inner map by its index. */
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf.h"

struct bpf_map_def {
	__u32 type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
	__u32 inner_map_idx;
	__u32 numa_node;
};

struct bpf_map_def SEC("maps") counters = {
	.type = ARRAY,
	.key_size = 4,
	.value_size = 8,
	.max_entries = 4,
};

struct bpf_map_def SEC("maps") ports = {
	.type = HASH,
	.key_size = 2,
	.value_size = 8,
	.max_entries = 16,
	.map_flags = F_NO_PREALLOC,
};

struct bpf_map_def SEC("maps") outer = {
	.type = HASH_OF_MAPS,
	.key_size = 4,
	.value_size = 4,
	.max_entries = 3,
	.inner_map_idx = 1,
};

/* BPF_ANNOTATE_KV_PAIR: the types of a map that is declared by sizes. */
struct ____btf_map_counters {
	__u32 key;
	__u64 value;
};
struct ____btf_map_counters ____btf_map_counters SEC(".maps.counters") = {};

SEC("socket")
int program(void *ctx)
{
	__u32 key = 0;
	__u16 port = 80;
	map_lookup_elem(&counters, &key);
	map_lookup_elem(&ports, &port);
	return map_lookup_elem(&outer, &key) != 0;
}
