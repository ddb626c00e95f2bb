import { RESULT } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import type { Network } from '../../runtime/network.ts'
import type { Life } from '../membership/view.ts'
import { type Holder, runOperation } from '../ops.ts'
import type { NodeId } from '../order/item.ts'
import type { RemoteSheep } from '../peer/operations.ts'
import type { Reply, SheepClient } from '../server.ts'
import { Sheep, type SheepOptions } from '../sheep.ts'
import type { VdiStoreParts } from '../vdi-store.ts'
import { type ClusteredOptions, ClusteredVdiStore } from './clustered-vdi-store.ts'
import { Gateway } from './gateway.ts'
import { isRepeatable } from './repeatable.ts'
import { placeOf } from './request-family.ts'
import { vnodesFor } from './weight.ts'

export interface ClusteredSheepOptions extends SheepOptions {
  cluster: Pick<
    ClusteredOptions,
    'cluster' | 'rebalanceDelayMs' | 'join' | 'network' | 'copiesMin' | 'recoveryBytesPerSecond'
  > & {
    /** Places on the ring; by its room when null. */
    vnodes: number | null
  }
  /** Another node says that the whole cluster is to stop. */
  onStopAsked?: () => void
}

/** Another node for a client of this one. Links lead from one life to another: what was opened over an earlier one is over with that. */
interface Remote {
  from: string
  to: string
  sheep: RemoteSheep
}

/** A node of a cluster: its sheep, and the way in for clients, who reach every VDI through any node. */
export class ClusteredSheep {
  readonly sheep: Sheep
  readonly store: ClusteredVdiStore
  readonly #gateway: Gateway
  /** What clients of this node have opened on others, by client and node. */
  readonly #remotes = new Map<Holder, Map<NodeId, Remote>>()
  readonly #numbers = new WeakMap<object, number>()
  #lastNumber = 0
  readonly #options: ClusteredSheepOptions

  private constructor(sheep: Sheep, store: ClusteredVdiStore, options: ClusteredSheepOptions) {
    this.#options = options
    this.sheep = sheep
    this.store = store
    this.#gateway = new Gateway({
      state: sheep.state,
      ownership: store.ownership,
      clock: options.clock,
      catchUp: () => store.catchUp(),
      runHere: (request, holder, reply) => runOwned({ sheep, store }, request, holder, reply),
      runThere: (to, holder, request, reply) => this.#runThere(to, holder, request, reply),
      mayChange: (request, holder) => store.lockHolders.mayChange(request, holder),
      endAt: (to, holder) => this.#endAt(to, holder),
    })
  }

  /** As Sheep.open. Resolves before the node is in the cluster, since others can only reach it once it listens. */
  static async open(options: ClusteredSheepOptions): Promise<ClusteredSheep> {
    const { cluster, disk, copies, address, zone, onFailed } = options
    const opened: { sheep: Sheep | null; store: ClusteredVdiStore | null } = { sheep: null, store: null }
    const sheep = await Sheep.open({
      ...options,
      copiesMin: cluster.copiesMin,
      vdiStore: (parts) => {
        opened.store = new ClusteredVdiStore(parts, {
          disk,
          copies,
          ...cluster,
          self: selfOf(parts, { address, zone, vnodes: cluster.vnodes }),
          handle: (request, client, reply) => {
            const { sheep, store } = opened
            store?.recovery.requested()
            if (sheep && store) runOwned({ sheep, store }, request, client, reply)
            else reply({ result: RESULT.OLD_NODE_VER })
          },
          isRepeatable,
          clientClosed: async (client) => opened.sheep?.clientClosed(client),
          failed: onFailed,
          stopAsked: options.onStopAsked ?? (() => {}),
        })
        return opened.store
      },
    })
    opened.sheep = sheep
    return new ClusteredSheep(sheep, opened.store!, options)
  }

  /** What the door of this node listens on: links of other nodes come in there, too. */
  get network(): Network {
    const { network } = this.#options.cluster
    return {
      connect: (address) => network.connect(address),
      listen: (address, accept) =>
        network.listen(address, { node: (connection) => this.store.linked(connection), other: accept }),
    }
  }

  /** As `runOperation`, for a client of this node. */
  handle(request: SheepRequest, holder: Holder, reply: (response: Reply) => void): void {
    this.store.recovery.requested()
    if (!holder) return this.#gateway.handle(request, holder, reply)
    const { locks } = this.sheep
    locks.spoke(holder)
    const told = this.store.lockHolders.asked(request, holder, () => locks.likelyOf(holder))
    if (!told) return this.#gateway.handle(request, holder, reply)
    this.#gateway.handle(request, holder, (response) => {
      told(response)
      reply(response)
    })
  }

  clientOpened(client: SheepClient): void {
    this.sheep.clientOpened(client)
  }

  clientClosed(client: SheepClient): void {
    this.#gateway.clientClosed(client)
    for (const { sheep } of this.#remotes.get(client)?.values() ?? []) sheep.close()
    this.#remotes.delete(client)
    this.store.lockHolders.closed(client)
    this.sheep.clientClosed(client)
  }

  async close(): Promise<void> {
    this.#gateway.stop()
    await this.sheep.close()
  }

  #runThere(to: Life, holder: Holder, request: SheepRequest, reply: (response: Reply | null) => void): void {
    const isOver = holder !== null && this.sheep.hasGone(holder)
    if (isOver || !this.store.hasJoined) return reply(null)
    this.#remoteOf(to, holder).submit(request, (response) => {
      if (response.result === RESULT.CUT_OFF) holder?.cut()
      reply(response.result === RESULT.NETWORK_ERROR || response.result === RESULT.CUT_OFF ? null : response)
    })
  }

  async #endAt(to: Life, holder: SheepClient): Promise<void> {
    if (this.store.ownership.isSelf(to)) return this.sheep.sessions.closeOf(holder, 'Unsure')
    const ofHolder = this.#remotes.get(holder)
    ofHolder?.get(to.node)?.sheep.close()
    ofHolder?.delete(to.node)
  }

  #remoteOf(to: Life, holder: Holder): RemoteSheep {
    const ofHolder = this.#remotes.get(holder) ?? new Map<NodeId, Remote>()
    this.#remotes.set(holder, ofHolder)
    const from = this.store.member.life.incarnation
    const known = ofHolder.get(to.node)
    if (known?.from === from && known.to === to.incarnation) return known.sheep
    const sheep = this.store.member.sheepOf(to, this.#numberOf(holder))
    ofHolder.set(to.node, { from, to: to.incarnation, sheep })
    return sheep
  }

  /** The caller in this process is client 0. */
  #numberOf(holder: Holder): number {
    if (!holder) return 0
    const number = this.#numbers.get(holder) ?? ++this.#lastNumber
    this.#numbers.set(holder, number)
    return number
  }
}

/** Its places follow its disks, which may be plugged, fail or grow while it runs. */
function selfOf(
  { store, state }: VdiStoreParts,
  { address, zone, vnodes }: { address: string; zone: number; vnodes: number | null },
): ClusteredOptions['self'] {
  const node = store.storeId.toString('hex')
  if (vnodes !== null) return { node, address, zone, vnodes }
  return {
    node,
    address,
    zone,
    get vnodes() {
      const now = state.members.find((member) => member.node === node)?.vnodes ?? 0
      return vnodesFor({ ...store.room, vnodeBytes: state.founded?.vnodeBytes ?? null, vnodes: now })
    },
  }
}

/**
 * Runs a request on this node, which owns the family that it is about; else it is answered with OldEpoch, and nothing was done. What a
 * loss of the family cuts short, or that of the disk with the journal, is answered with Unsure: the next owner can tell.
 */
function runOwned(
  { sheep, store }: { sheep: Sheep; store: ClusteredVdiStore },
  request: SheepRequest,
  holder: Holder,
  reply: (response: Reply) => void,
): void {
  const place = placeOf(request, sheep.state)
  const isOfFamily = place.kind === 'family'
  if (isOfFamily && !(store.owns(place.family) && store.knowsGatewayOf(holder)))
    return reply({ result: RESULT.OLD_NODE_VER })
  runOperation(sheep, request, holder, (response) => {
    const { result } = response
    const isCutShort = isOfFamily && result === RESULT.OLD_NODE_VER
    const isOfOwnDisk = result === RESULT.EIO && sheep.failure !== null // others have copies
    reply(isCutShort || isOfOwnDisk ? { ...response, result: RESULT.JOIN_FAILED } : response)
  })
}
