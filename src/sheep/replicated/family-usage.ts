import { type Account, blocksIn, isBlocksLine } from '../accounts.ts'
import type { ClusterState } from '../cluster-state.ts'
import { FamilyTree } from '../maintenance/heirs.ts'
import { arrange, atOnce, mostAlone, type Seer } from '../maintenance/seers.ts'
import type { Usage } from '../maintenance/usage.ts'
import { BLOCK_BYTES } from '../object-format.ts'

/**
 * What each VDI of a family takes, from the accounts alone. What a VDI has alone is exact but where several branches have all
 * lost something of one holder: there it is the most that it can be.
 */
export function familyUsage(
  state: ClusterState,
  family: number,
  accountOf: (vid: number) => Account,
  isCounted: boolean,
): Map<number, Usage> {
  const vdis = state.vdis.ofFamily(family).filter(({ deleting }) => !deleting)
  const byHolder = new Map<number, Seer[]>()
  for (const vdi of vdis) {
    for (const [holder, blocks] of accountOf(vdi.vid)) {
      if (!isBlocksLine(holder)) continue
      const seers = byHolder.get(holder) ?? []
      seers.push({ vdi, blocks, below: [] })
      byHolder.set(holder, seers)
    }
  }
  const alone = new Map(vdis.map(({ vid }) => [vid, { blocks: 0, isExact: isCounted }]))
  const tree = new FamilyTree(state)
  for (const seers of byHolder.values()) {
    const top = arrange(seers, tree)
    for (const seer of top) {
      const known = atOnce(seer, top)
      const sum = alone.get(seer.vdi.vid)!
      sum.blocks += known ?? mostAlone(seer)
      sum.isExact &&= known !== null
    }
  }
  return new Map(
    vdis.map(({ vid, sizeBytes }) => {
      const allocated = blocksIn(accountOf(vid))
      const { blocks, isExact } = alone.get(vid)!
      const usage: Usage = {
        provisionedBytes: sizeBytes,
        allocatedBytes: allocated * BLOCK_BYTES,
        uniqueBytes: Math.min(blocks, allocated) * BLOCK_BYTES,
        sharedBytes: Math.max(0, allocated - blocks) * BLOCK_BYTES,
        isExact,
      }
      return [vid, usage]
    }),
  )
}
