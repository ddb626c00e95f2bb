import { StoreError } from '../../errors.ts'
import { oidVid } from '../../protocol/oid.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { ClusterState } from '../cluster-state.ts'
import { ALL_BLOCKS } from '../copies/block-ranges.ts'
import type { AuditReport, Problem } from '../maintenance/audit.ts'
import { blockRuns, type Damage } from '../maintenance/verify.ts'
import type { Life } from '../membership/view.ts'
import type { VdiAuditOptions } from '../vdi-store.ts'
import type { Params, QuestionName, Told } from './node-questions.ts'
import type { Ownership } from './ownership.ts'

export interface ClusterAuditOptions {
  state: ClusterState
  ownership: Ownership
  clock: Clock
  ask<N extends QuestionName>(to: Life, name: N, params: Params<N>): Promise<Told<N>>
}

const PROBLEMS_MAX = 100
/** A family changes its owner meanwhile, or a node goes: so long it is tried again. */
const TRY_MAX_MS = 60_000
const RETRY_MS = 500

/** Has each family audited by the node that owns it, and each node look for what belongs to nobody. */
export async function auditCluster(
  options: ClusterAuditOptions,
  { repair, progress }: Pick<VdiAuditOptions, 'repair' | 'progress'>,
): Promise<AuditReport> {
  const { state, ask } = options
  const problems: Problem[] = []
  const totals = { objects: 0, blocks: 0, accounts: 0, busy: 0, problems: 0, repaired: 0 }
  const take = (told: Told<'audit_family'>) => {
    totals.objects += told.objects
    totals.blocks += told.blocks
    totals.accounts += told.accounts
    totals.busy += told.busy
    totals.problems += told.problemsTotal
    totals.repaired += told.problems.filter(({ isRepaired }) => isRepaired).length
    problems.push(...told.problems.slice(0, PROBLEMS_MAX - problems.length))
  }
  const families = [...state.vdis.families()]
  for (const [done, family] of families.entries()) {
    progress({ phase: 'references', done, total: families.length })
    await again(options, async () => {
      if (state.vdis.ofFamily(family).length === 0) return // deleted since
      take(await ask(await options.ownership.claim(family), 'audit_family', { family, repair }))
    })
  }
  for (const [done, member] of state.members.entries()) {
    progress({ phase: 'blocks', done, total: state.members.length })
    await again(options, async () => {
      if (options.ownership.isIn(member)) take(await ask(member, 'audit_node', { repair }))
    })
  }
  const vdis = [...state.vdis.values()]
  return {
    sound: totals.problems === totals.repaired,
    objects: totals.objects,
    vdis: vdis.filter((vdi) => !vdi.deleting && vdi.snapshotAt === 0).length,
    snapshots: vdis.filter((vdi) => !vdi.deleting && vdi.snapshotAt > 0).length,
    exports: state.exports.size,
    deleting: vdis.filter((vdi) => vdi.deleting).length,
    blocksChecked: totals.blocks,
    accounts: totals.accounts,
    busy: totals.busy,
    problems,
    problemsTotal: totals.problems,
  }
}

/**
 * Has the owner of an object put right what this node cannot read of it, from the other copies. Resolves with where users see what is
 * lost; rejects when the owner cannot be asked, or could not do it now.
 */
export async function mendObject(
  options: ClusterAuditOptions,
  oid: bigint,
  blocks: readonly number[] | null,
): Promise<readonly Damage[]> {
  const { state, ownership, ask } = options
  const runs = blocks ? blockRuns(blocks) : [...ALL_BLOCKS]
  let lost: readonly Damage[] = []
  await again(options, async () => {
    const family = state.vdis.get(oidVid(oid))?.family
    if (family === undefined) return // deleted since
    const params = { family, oid: oid.toString(16), blocks: runs }
    const { problems, busy } = await ask(await ownership.claim(family), 'mend_object', params)
    if (busy > 0 || problems.some(({ where, isRepaired }) => !where && !isRepaired)) throw new StoreError('Unsure')
    lost = problems.flatMap(({ where }) => (where ? [where] : []))
  })
  return lost
}

async function again({ clock, ownership }: ClusterAuditOptions, attempt: () => Promise<void>): Promise<void> {
  const endMs = clock.monotonicMs() + TRY_MAX_MS
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      const mayPass = error instanceof StoreError && PASSING.has(error.code)
      if (!mayPass || clock.monotonicMs() > endMs) throw error
      await Promise.race([ownership.changed, clock.sleep(RETRY_MS)])
    }
  }
}

const PASSING: ReadonlySet<string> = new Set(['OldEpoch', 'Disconnected', 'NoQuorum', 'Unsure'])
