/* What the objects of the tests need of bpf: no header of the host is read. */
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))

/* How a map of section .maps says its numbers and types: in BTF alone. */
#define __uint(name, number) int(*name)[number]
#define __type(name, type) typeof(type) *name
#define __array(name, type) typeof(type) *name[]

enum map_type {
	HASH = 1,
	ARRAY = 2,
	PROG_ARRAY = 3,
	PERF_EVENT_ARRAY = 4,
	PERCPU_HASH = 5,
	PERCPU_ARRAY = 6,
	LRU_HASH = 9,
	LPM_TRIE = 11,
	ARRAY_OF_MAPS = 12,
	HASH_OF_MAPS = 13,
	QUEUE = 22,
	RINGBUF = 27,
	BLOOM_FILTER = 30,
};

#define F_NO_PREALLOC 1

static void *(*map_lookup_elem)(void *map, const void *key) = (void *)1;

char _license[] SEC("license") = "Dual BSD/GPL";
