import { StoreError } from '../../errors.ts'
import { type Attribute, attributeOid } from '../attributes.ts'
import { roundUp } from '../block-range.ts'
import { ClusterState } from '../cluster-state.ts'
import { decodeEntry } from '../entries.ts'
import { recountAccounts } from '../maintenance/recount.ts'
import { type AfterAlone, clusterOf, foundingLog } from '../membership/founding.ts'
import type { CopiesChange, Member } from '../membership/view.ts'
import { ObjectStore, type ObjectStoreOptions } from '../object-store.ts'
import { ORDER_FILE, OrderFile } from '../order/order-file.ts'
import { forgetAfterFounding, prepareForFounding } from './founding-changes.ts'
import { surveyForFounding } from './founding-survey.ts'
import { bytesPerVnode, FOUNDER_VNODES } from './weight.ts'

export interface FoundClusterOptions extends ObjectStoreOptions {
  /** The id of the new cluster. */
  cluster: string
  /** How the first node is in it; its name is that of its store. Without `vnodes` they follow from its room. */
  founder: Omit<Member, 'node' | 'incarnation' | 'vnodes'> & { vnodes?: number }
}

/**
 * Makes a store the first of a cluster, which its next start takes part in, with all that it holds. Durable when it resolves. Until the
 * file of the ordered log is there, it is a store of one node, and from then on one of the cluster: an attempt that was cut short
 * is made again, whichever it was.
 *
 * @throws StoreError VdiExists when it is of another cluster already; Unsupported, and nothing is changed, when something that it holds is
 *   in the way; and what ObjectStore.open throws.
 */
export async function foundCluster({ cluster, founder, ...options }: FoundClusterOptions): Promise<void> {
  const { store, entries } = await ObjectStore.open(options)
  try {
    const state = new ClusterState()
    for (const { index, bytes } of entries) state.apply(index, decodeEntry(bytes))
    if (state.founded?.cluster === cluster) return // and has been at work since
    if (state.founded) throw new StoreError('VdiExists', `the store is of cluster ${state.founded.cluster} already`)
    store.epoch = state.epoch
    const isBegun = (await options.disk.list('.')).includes(ORDER_FILE)
    const after = isBegun || state.index === 0 ? null : await makeReady(store, state, options)
    const node = store.storeId.toString('hex')
    const log = foundingLog({
      cluster,
      founder: { vnodes: FOUNDER_VNODES, ...founder, node, incarnation: 'founder' },
      vnodeBytes: bytesPerVnode(store.room.totalBytes),
      at: options.clock.now(),
      ...(after && { after }),
    })
    const file = await OrderFile.open(options.disk, ORDER_FILE, log)
    const isOurs = clusterOf(file.durable) === cluster
    await file.close()
    if (!isOurs) throw new StoreError('VdiExists', 'the store is of a cluster already')
    await forgetAfterFounding({ store, state })
  } finally {
    await store.close()
  }
}

/** Everything that the store holds is from then on as several nodes keep it, and durable. */
async function makeReady(
  store: ObjectStore,
  state: ClusterState,
  { clock, log }: Pick<ObjectStoreOptions, 'clock' | 'log'>,
): Promise<AfterAlone> {
  const pause = () => new Promise<void>((resolve) => clock.afterInput(resolve))
  if (!store.accountsKnown) await recountAccounts({ store, state, pause }, log)
  const survey = await surveyForFounding({ store, state, pause })
  if (survey.obstacles.length > 0)
    throw new StoreError(
      'Unsupported',
      `the store cannot become the first of several nodes: ${survey.obstacles.join('; ')}. Nothing was changed: start it as it was, without the setting \`cluster\``,
    )
  const attributes = await attributesWithValues(store, state)
  if (state.vdis.size > 0) {
    const { maps, objects, dataBytes, mapBytes } = survey
    const counts = { vdis: state.vdis.size, maps: maps.length, objects: objects.length, bytes: dataBytes + mapBytes }
    log.info(counts, 'what the store holds is made ready for several nodes')
  }
  await prepareForFounding(survey, { store, state })
  const families = [...state.vdis.families()]
  return { index: state.index, view: state.view, families, attributes, copies: oneCopyEach(state) }
}

async function attributesWithValues(store: ObjectStore, state: ClusterState): Promise<AfterAlone['attributes']> {
  const all: { vid: number; attribute: Attribute }[] = []
  for (const { vid, attribute } of state.attributes.all()) {
    const bytes = Buffer.alloc(roundUp(attribute.valueBytes))
    await store.using(attributeOid(attribute), (object) => store.readBlocks(object, 0, bytes))
    all.push({ vid, attribute: { ...attribute, value: bytes.toString('base64', 0, attribute.valueBytes) } })
  }
  return all
}

/** Whatever VDIs said, there is one: with more, writes would wait for nodes that have not come yet. */
function oneCopyEach({ vdis }: ClusterState): CopiesChange[] {
  const changes = new Map<string, CopiesChange>()
  for (const { vid, name, family, copies } of vdis.values())
    if (copies !== 1) changes.set(`${family} ${name}`, { vid, copies: 1 })
  return [...changes.values()]
}
