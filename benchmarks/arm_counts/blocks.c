/* A plugin of qemu-user (7.0 and later): how often a program ran each of its basic blocks, the same
 * numbers at every run.
 *
 *   gcc -shared -fPIC -O2 -o blocks.so blocks.c
 *   qemu-aarch64 -plugin ./blocks.so,to=FILE ./program
 *
 * FILE has a line "ADDRESS INSTRUCTIONS RUNS" for each; their products add up to the instructions
 * that ran. A block that is translated anew has several lines.
 *
 * Debian ships the emulator without the header of its plugins, so what is used is declared here:
 * from qemu-plugin.h, whose interface of version 1 these are.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info;
enum { QEMU_PLUGIN_INLINE_ADD_U64 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                           void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);

int qemu_plugin_version = 1;

struct block {
    uint64_t address, n_instructions, runs;
    struct block *next;
};
static struct block *blocks;
static const char *path;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *translation) {
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (!block) abort();
    block->address = qemu_plugin_tb_vaddr(translation);
    block->n_instructions = qemu_plugin_tb_n_insns(translation);
    block->next = blocks, blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(translation, QEMU_PLUGIN_INLINE_ADD_U64, &block->runs,
                                             1);
}

static void finished(qemu_plugin_id_t id, void *unused) {
    (void)id, (void)unused;
    FILE *file = fopen(path, "w");
    if (!file) abort();
    for (const struct block *block = blocks; block; block = block->next)
        fprintf(file, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", block->address,
                block->n_instructions, block->runs);
    fclose(file);
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "to=", 3)) return -1;
    path = strdup(argv[0] + 3);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
