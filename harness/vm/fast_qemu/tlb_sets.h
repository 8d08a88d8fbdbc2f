/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two sets of TLBs for the EL1&0 translation regime: what the inserted lines of edits_*.toml call.
 *
 * tlb_sets.c.inc says how they work; QEMU's own files see no more of them than this.
 */
#ifndef SHADOWFUZZ_TLB_SETS_H
#define SHADOWFUZZ_TLB_SETS_H

/*
 * A jump cache of 64 KiB is cleared by what was put into it: its first SF_NOTES places are noted.
 * Macros, so that they fit into headers that come before the types they are about.
 */
#define SF_NOTES 256
#define SF_JUMP_CACHE_FIELDS    \
    uint32_t sf_noted;          \
    uint16_t sf_notes[SF_NOTES]
#define SF_NOTE(jc, place)                                                      \
    do {                                                                        \
        if ((jc)->array[place].tb == NULL && (jc)->sf_noted <= SF_NOTES) {      \
            if ((jc)->sf_noted < SF_NOTES) {                                    \
                (jc)->sf_notes[(jc)->sf_noted] = (place);                       \
            }                                                                   \
            (jc)->sf_noted++;                                                   \
        }                                                                       \
    } while (0)

/* The CPU runs with this MMU index from now on, or still does. */
void sf_runs_in(CPUArchState *env, int core_mmu_idx);
/* Software at EL2 is about to translate by EL1&0 (an AT instruction). */
void sf_translates(CPUArchState *env);
/* What EL1&0 translates by has changed: QEMU flushes here. */
void sf_el10_changed(CPUArchState *env);
/* The register of EL1 at this offset of CPUArchState has changed; any other one flushes all. */
void sf_register_changed(CPUArchState *env, size_t offset);

/* A TLBI of what has the current VMID ends with the block that this stands in; without `by_vmid` it is of all VMIDs. */
#define SF_TLBI(env, by_vmid) \
    G_GNUC_UNUSED __attribute__((cleanup(sf_tlbi_ends))) int sf_tlbi = sf_tlbi_begins(env, by_vmid)
int sf_tlbi_begins(CPUArchState *env, bool by_vmid);
void sf_tlbi_ends(int *unused);

/* Whether there is no other CPU that a flush would have to wait for. */
bool sf_is_alone(CPUState *cpu);
/* A flush of these MMU indexes: return those that must be flushed at once. */
uint16_t sf_flushes(CPUState *cpu, uint16_t idxmap);
/* The same for some pages; QEMU clears their places in the jump cache that is in use. */
uint16_t sf_flushes_pages(CPUState *cpu, uint16_t idxmap);
/* Clear the jump caches of these MMU indexes. */
void sf_clear_jump_caches(CPUState *cpu, uint16_t idxmap);
/* Clear every jump cache; false: this CPU has only QEMU's own, and it is not cleared. */
bool sf_clear_every_jump_cache(CPUState *cpu);
/* Writes to these bytes of RAM must be noticed; called with the TLB's lock held. */
void sf_reset_dirty(CPUState *cpu, uintptr_t start, uintptr_t length);

#endif
