/* Section .maps: every way to declare a map, and data of each kind. */
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf.h"

struct Flow {
	__u32 saddr, daddr;
	__u16 sport, dport;
	__u8 protocol;
};

struct Count {
	__u64 packets, bytes;
};

struct Prefix {
	__u32 prefixlen;
	__u32 address;
};

/* What the kernel finds in values by the names and tags of their types. */
struct bpf_spin_lock {
	__u32 val;
};

struct bpf_timer {
	__u64 __opaque[2];
} __attribute__((aligned(8)));

struct task_struct;

struct locked {
	struct bpf_spin_lock lock;
	__u32 guarded;
};

struct timed {
	struct bpf_timer timer;
	__u64 then;
};

struct kept {
	struct task_struct __attribute__((btf_type_tag("kptr"))) *task;
};

struct number {
	__u32 of;
};

struct {
	__uint(type, HASH);
	__uint(max_entries, 64);
	__uint(map_flags, F_NO_PREALLOC);
	__type(key, struct Flow);
	__type(value, struct Count);
} Flows SEC(".maps");

struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct Count);
} per_cpu SEC(".maps");

struct {
	__uint(type, LPM_TRIE);
	__uint(max_entries, 16);
	__uint(map_flags, F_NO_PREALLOC);
	__type(key, struct Prefix);
	__type(value, __u32);
} routes SEC(".maps");

struct {
	__uint(type, HASH);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct locked);
} with_lock SEC(".maps");

struct {
	__uint(type, ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct timed);
} with_timer SEC(".maps");

struct {
	__uint(type, HASH);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct kept);
} with_kptr SEC(".maps");

struct {
	__uint(type, ARRAY);
	__uint(max_entries, 2);
	__type(key, struct number); /* the kernel takes no BTF for this: an array's key is an int */
	__type(value, __u64);
} by_number SEC(".maps");

struct {
	__uint(type, LRU_HASH);
	__uint(max_entries, 128);
	__uint(key_size, 8);
	__uint(value_size, 16);
} untyped SEC(".maps");

struct {
	__uint(type, BLOOM_FILTER);
	__uint(max_entries, 100);
	__uint(map_extra, 3);
	__type(value, __u64);
} seen SEC(".maps");

struct {
	__uint(type, QUEUE);
	__uint(max_entries, 8);
	__type(value, __u32);
} waiting SEC(".maps");

struct {
	__uint(type, RINGBUF);
	__uint(max_entries, 3000); /* a loader makes it a power of two of pages */
} ring SEC(".maps");

struct {
	__uint(type, PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4); /* max_entries: a loader makes it the number of CPUs */
} perf SEC(".maps");

struct inner {
	__uint(type, HASH);
	__uint(max_entries, 5);
	__type(key, __u32);
	__type(value, __u64);
} first SEC(".maps"), second SEC(".maps");

struct {
	__uint(type, ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = {[0] = &first, [2] = &second},
};

struct {
	__uint(type, HASH_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct inner);
} empty_outer SEC(".maps");

__u64 zeroed;
__u32 started = 7;
const volatile __u32 limit = 0x01020304;
const volatile char word[8] = "mapd";
__u64 apart SEC(".data.apart") = 11;

SEC("socket")
int first_program(void *ctx)
{
	__u32 key = 0;
	struct Count *count = map_lookup_elem(&per_cpu, &key);

	if (count)
		count->packets += limit + word[0];
	zeroed++;
	apart++;
	return started;
}

int tail(void *ctx);

struct {
	__uint(type, PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, int(void *));
} jumps SEC(".maps") = {
	.values = {[1] = (void *)&tail},
};

SEC("socket")
int tail(void *ctx)
{
	return 0;
}
