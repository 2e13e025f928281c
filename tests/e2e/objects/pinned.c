/* A map of section .maps that is pinned by its name, and one of the same object that is not. */
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf.h"

struct {
	__uint(type, HASH);
	__uint(max_entries, 32);
	__uint(pinning, 1); /* LIBBPF_PIN_BY_NAME */
	__type(key, __u32);
	__type(value, __u64);
} shared SEC(".maps");

struct {
	__uint(type, ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} own SEC(".maps");

SEC("classifier")
int classify(void *ctx)
{
	__u32 key = 0;
	__u64 *found = map_lookup_elem(&shared, &key);

	if (found)
		(*found)++;
	return map_lookup_elem(&own, &key) != 0;
}
