/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * raw PIN ENTRIES: bpf(2) from C, one thread, no library. The map has 8-byte keys 0..ENTRIES-1, 8-byte values.
 *
 * Reads commands, answers each with one line of JSON:
 *   fill              write every element by BPF_MAP_UPDATE_BATCH
 *   zero              the same with zeros
 *   dump              BPF_MAP_LOOKUP_BATCH over the map, 65,536 elements a call, into one buffer again and again
 *   lookup N SEED     a BPF_MAP_LOOKUP_ELEM for each of N random keys
 *   update N SEED     a BPF_MAP_UPDATE_ELEM for each
 *   delete N SEED     a BPF_MAP_DELETE_ELEM for each
 *   fetch_add N SEED  a BPF_PROG_RUN for each, of a program with one atomic instruction
 * Random keys are the first N of a random order of all keys: none comes twice.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 65536 };

static int map_fd;
static uint64_t entries;
static uint64_t *order;
static uint64_t keys[BATCH], values[BATCH];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof *attr);
}

static uint64_t value_of(uint64_t key)
{
	return 3 * key + 1;
}

static double wall(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double cpu(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The same seed gives the same order; Fisher-Yates over xorshift64*. */
static void shuffle(uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;

	for (uint64_t at = 0; at < entries; at++)
		order[at] = at;
	for (uint64_t left = entries; left > 1; left--) {
		state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
		uint64_t other = state * 0x2545f4914f6cdd1dull % left;
		uint64_t moved = order[left - 1];
		order[left - 1] = order[other];
		order[other] = moved;
	}
}

static uint64_t fill(int with_values)
{
	for (uint64_t first = 0; first < entries;) {
		uint32_t count = entries - first < BATCH ? (uint32_t)(entries - first) : BATCH;
		union bpf_attr attr = { 0 };

		for (uint32_t at = 0; at < count; at++) {
			keys[at] = first + at;
			values[at] = with_values ? value_of(first + at) : 0;
		}
		attr.batch.keys = (uintptr_t)keys;
		attr.batch.values = (uintptr_t)values;
		attr.batch.count = count;
		attr.batch.map_fd = (uint32_t)map_fd;
		if (bpf(BPF_MAP_UPDATE_BATCH, &attr) != 0)
			fail("BPF_MAP_UPDATE_BATCH");
		first += count;
	}
	return entries;
}

static uint64_t dump(void)
{
	uint32_t cursor = 0;
	uint64_t count = 0;

	for (int first = 1, end = 0; !end; first = 0) {
		union bpf_attr attr = { 0 };

		attr.batch.in_batch = first ? 0 : (uintptr_t)&cursor;
		attr.batch.out_batch = (uintptr_t)&cursor;
		attr.batch.keys = (uintptr_t)keys;
		attr.batch.values = (uintptr_t)values;
		attr.batch.count = BATCH;
		attr.batch.map_fd = (uint32_t)map_fd;
		end = bpf(BPF_MAP_LOOKUP_BATCH, &attr) != 0;
		if (end && errno != ENOENT)
			fail("BPF_MAP_LOOKUP_BATCH");
		count += attr.batch.count;
	}
	return count;
}

/* One syscall per key; how many of them did what they should. */
static uint64_t each(int command, uint64_t wanted)
{
	uint64_t done = 0, value;
	union bpf_attr attr = { 0 };

	attr.map_fd = (uint32_t)map_fd;
	attr.value = command == BPF_MAP_DELETE_ELEM ? 0 : (uintptr_t)&value;
	for (uint64_t at = 0; at < wanted; at++) {
		attr.key = (uintptr_t)&order[at];
		value = command == BPF_MAP_LOOKUP_ELEM ? 0 : value_of(order[at]);
		done += bpf(command, &attr) == 0 && value == value_of(order[at]);
	}
	return done;
}

#define INSN(op, to, from, offset, number) \
	{ .code = (op), .dst_reg = (to), .src_reg = (from), .off = (offset), .imm = (number) }

struct context {
	uint64_t operand, old, key;
};

/* context.old = fetch_add(&map[context.key], context.operand); returns 2 where there is no such key */
static int load_fetch_add(void)
{
	struct bpf_insn code[] = {
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0, 0),
		INSN(BPF_LDX | BPF_MEM | BPF_DW, 2, 6, offsetof(struct context, key), 0),
		INSN(BPF_STX | BPF_MEM | BPF_DW, 10, 2, -8, 0),
		INSN(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, map_fd),
		INSN(0, 0, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -8),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 5, 0),
		INSN(BPF_LDX | BPF_MEM | BPF_DW, 1, 6, offsetof(struct context, operand), 0),
		INSN(BPF_STX | BPF_ATOMIC | BPF_DW, 0, 1, 0, BPF_ADD | BPF_FETCH),
		INSN(BPF_STX | BPF_MEM | BPF_DW, 6, 1, offsetof(struct context, old), 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 2),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = { 0 };

	attr.prog_type = BPF_PROG_TYPE_SYSCALL;
	attr.prog_flags = BPF_F_SLEEPABLE;
	attr.insns = (uintptr_t)code;
	attr.insn_cnt = sizeof code / sizeof *code;
	attr.license = (uintptr_t) "Dual BSD/GPL";
	int fd = (int)bpf(BPF_PROG_LOAD, &attr);
	if (fd < 0)
		fail("BPF_PROG_LOAD");
	return fd;
}

static uint64_t fetch_add(int program, uint64_t wanted)
{
	uint64_t done = 0;
	struct context context = { .operand = 1 };
	union bpf_attr attr = { 0 };

	attr.test.prog_fd = (uint32_t)program;
	attr.test.ctx_in = (uintptr_t)&context;
	attr.test.ctx_size_in = sizeof context;
	for (uint64_t at = 0; at < wanted; at++) {
		context.key = order[at];
		done += bpf(BPF_PROG_RUN, &attr) == 0 && attr.test.retval == 0;
	}
	return done;
}

static uint64_t run(const char *command, uint64_t wanted, int program)
{
	if (strcmp(command, "fill") == 0)
		return fill(1);
	if (strcmp(command, "zero") == 0)
		return fill(0);
	if (strcmp(command, "dump") == 0)
		return dump();
	if (strcmp(command, "lookup") == 0)
		return each(BPF_MAP_LOOKUP_ELEM, wanted);
	if (strcmp(command, "update") == 0)
		return each(BPF_MAP_UPDATE_ELEM, wanted);
	if (strcmp(command, "delete") == 0)
		return each(BPF_MAP_DELETE_ELEM, wanted);
	if (strcmp(command, "fetch_add") == 0)
		return fetch_add(program, wanted);
	fprintf(stderr, "raw: no command %s\n", command);
	exit(2);
}

int main(int argc, char **argv)
{
	char line[128], command[32];
	union bpf_attr attr = { 0 };

	if (argc != 3) {
		fprintf(stderr, "usage: raw PIN ENTRIES\n");
		return 2;
	}
	attr.pathname = (uintptr_t)argv[1];
	map_fd = (int)bpf(BPF_OBJ_GET, &attr);
	if (map_fd < 0)
		fail(argv[1]);
	entries = strtoull(argv[2], NULL, 10);
	order = calloc(entries, sizeof *order);
	if (order == NULL)
		fail("calloc");
	int program = load_fetch_add();

	while (fgets(line, sizeof line, stdin) != NULL) {
		unsigned long long wanted = 0, seed = 0;

		if (sscanf(line, "%31s %llu %llu", command, &wanted, &seed) >= 2)
			shuffle(seed);
		if (wanted > entries)
			wanted = entries;
		double began = wall(), used = cpu();
		unsigned long long count = run(command, wanted, program);
		printf("{\"seconds\": %.9f, \"cpu\": %.9f, \"count\": %llu}\n", wall() - began, cpu() - used, count);
		fflush(stdout);
	}
	return 0;
}
