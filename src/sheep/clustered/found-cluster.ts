import { StoreError } from '../../errors.ts'
import { ClusterState } from '../cluster-state.ts'
import { decodeEntry } from '../entries.ts'
import { foundingLog } from '../membership/founding.ts'
import type { Member } from '../membership/view.ts'
import { ObjectStore, type ObjectStoreOptions } from '../object-store.ts'
import { OrderFile } from '../order/order-file.ts'
import { ORDER_FILE } from './cluster-member.ts'
import { bytesPerVnode, FOUNDER_VNODES } from './weight.ts'

export interface FoundClusterOptions extends ObjectStoreOptions {
  /** The id of the new cluster. */
  cluster: string
  /** How the first node is in it; its name is that of its store. Without `vnodes` they follow from its room. */
  founder: Omit<Member, 'node' | 'incarnation' | 'vnodes'> & { vnodes?: number }
}

const HAS_VDIS =
  'a store with VDIs cannot become the first of several nodes; start it as it was, without the setting `cluster`, take images of them with `collie vdi export`, and give the cluster another data directory'

/**
 * Makes a store the first of a cluster, which its next start takes part in. Durable when it resolves; once it is, it stays so.
 *
 * @throws StoreError VdiExists when the store has VDIs, or is of a cluster already; and what ObjectStore.open throws.
 */
export async function foundCluster({ cluster, founder, ...options }: FoundClusterOptions): Promise<void> {
  const { store, entries } = await ObjectStore.open(options)
  try {
    const state = new ClusterState()
    for (const { index, bytes } of entries) state.apply(index, decodeEntry(bytes))
    if (state.founded) throw new StoreError('VdiExists', `the store is of cluster ${state.founded.cluster} already`)
    if (state.vdis.size > 0) throw new StoreError('VdiExists', HAS_VDIS)
    const node = store.storeId.toString('hex')
    const log = foundingLog({
      cluster,
      founder: { vnodes: FOUNDER_VNODES, ...founder, node, incarnation: 'founder' },
      vnodeBytes: bytesPerVnode(store.room.totalBytes),
      at: options.clock.now(),
      ...(state.index > 0 && { after: { index: state.index, view: state.view } }),
    })
    const file = await OrderFile.open(options.disk, ORDER_FILE, log)
    const isNew = file.durable.adopted.configuration === log.adopted.configuration
    await file.close()
    if (!isNew) throw new StoreError('VdiExists', 'the store is of a cluster already')
  } finally {
    await store.close()
  }
}
