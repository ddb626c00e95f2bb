import { StoreError } from '../../errors.ts'
import type { Disk } from '../../runtime/disk.ts'
import type { ClusterState } from '../cluster-state.ts'
import { clusterOf } from '../membership/founding.ts'
import { ORDER_FILE, OrderFile } from '../order/order-file.ts'

/** The cluster of several nodes that a store belongs to, by what its disk has; null for one that is alone. */
async function clusterOfStore(disk: Disk, state: ClusterState): Promise<string | null> {
  if (state.founded) return state.founded.cluster
  if (!(await disk.list('.')).includes(ORDER_FILE)) return null
  const file = await OrderFile.open(disk, ORDER_FILE)
  try {
    return clusterOf(file.durable)
  } finally {
    await file.close()
  }
}

/**
 * A store of several nodes is not to be opened alone: what it did then nobody else would know, and its copies would say that nothing
 * has been written since.
 *
 * @throws StoreError Unsupported.
 */
export async function refuseClustered(disk: Disk, state: ClusterState): Promise<void> {
  const cluster = await clusterOfStore(disk, state)
  if (cluster === null) return
  throw new StoreError(
    'Unsupported',
    `this is a store of the cluster ${cluster}: start it with the settings of that, by which \`cluster\` is not single`,
  )
}

/**
 * A node that joins takes over what the cluster holds, in the place of whatever it had: so a store with VDIs of its own does not join.
 *
 * @throws StoreError VdiExists.
 */
export async function refuseOwnVdis(disk: Disk, state: ClusterState): Promise<void> {
  if (state.vdis.size === 0 || (await clusterOfStore(disk, state)) !== null) return
  throw new StoreError(
    'VdiExists',
    `the store has ${state.vdis.size} VDIs and snapshots of its own, and would lose them as a node of a cluster. It can be the first one of a new cluster, by \`collie cluster init\`; to join, use another data directory. Without the setting \`cluster\` it starts as it was`,
  )
}
