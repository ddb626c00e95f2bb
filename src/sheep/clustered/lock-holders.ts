import { LOCK_TYPE, RESULT, VDI_NAME_SIZE_BYTES } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { oidVid } from '../../protocol/oid.ts'
import { OP } from '../../protocol/opcodes.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Entry } from '../entries.ts'
import { type ClientPlaces, hostOf } from '../locks.ts'
import type { Life, Member } from '../membership/view.ts'
import { cString } from '../request-body.ts'
import type { Reply, SheepClient } from '../server.ts'
import { OBJECT_READS, OBJECT_WRITES } from './repeatable.ts'

export interface LockHoldersOptions {
  state: Pick<ClusterState, 'members' | 'vdis' | 'locks'>
  /** The address of this node. */
  address: string
  /** Of a client that came over a link: the node that it is connected to. */
  gatewayOf(client: SheepClient): Life | null
  /** Whether that node has a connection that may be the holder's: its `hasHolderOf`. */
  ask(member: Member, name: string): Promise<boolean>
}

/** What a client of this node has done. */
interface Client {
  /** The name that it writes to: QEMU and tgt have connections of their own for each VDI. */
  writesTo: string | null
  /** The names of whose locks it may be the holder, or one of his connections. */
  readonly mayHold: Set<string>
  /** Those of them that somebody else has locked since: the owner may have forgotten that it refuses what the client still writes. */
  readonly lost: Set<string>
}

/**
 * The holders of locks in a cluster. The owner of a VDI keeps its lock, and knows only connections that have asked something there: not
 * the one for I/O of a QEMU that has sent nothing yet, nor any at all when the owner is a new one or a link broke. So each node remembers
 * which of its own clients may have which lock, and is asked before a lock ends.
 */
export class LockHolders implements ClientPlaces {
  readonly #options: LockHoldersOptions
  readonly #clients = new Map<SheepClient, Client>()
  /** Those that have gone: what they had asked may be answered yet. */
  readonly #gone = new WeakSet<SheepClient>()

  constructor(options: LockHoldersOptions) {
    this.#options = options
  }

  /** That of the node that it is connected to: nobody else's clients are served there. */
  hostOf(client: SheepClient): string {
    const { state, address, gatewayOf } = this.#options
    const gateway = gatewayOf(client)
    if (!gateway) return hostOf({ peer: address })
    const member = state.members.find(({ node }) => node === gateway.node)
    return hostOf({ peer: member?.address ?? gateway.node })
  }

  /** A node of the view that does not answer may have the holder: it is asked again, or is put out. */
  async areThere(name: string, hosts: readonly string[]): Promise<boolean> {
    const { state, ask } = this.#options
    const there = state.members.filter(({ address }) => hosts.includes(hostOf({ peer: address })))
    const answers = await Promise.all(there.map((member) => ask(member, name).catch(() => true)))
    return answers.includes(true)
  }

  hasHolderOf(name: string): boolean {
    for (const { mayHold } of this.#clients.values()) if (mayHold.has(name)) return true
    return false
  }

  /**
   * A client of this node asks for something; returns what is to be told of the answer, when that matters. `likely` are the connections
   * of who asks, as Locks.likelyOf.
   */
  asked(
    request: SheepRequest,
    client: SheepClient,
    likely: () => readonly SheepClient[],
  ): ((response: Reply) => void) | null {
    const { opcode, oid = 0n } = request
    if (opcode === OP.LOCK_VDI) {
      const connections = likely()
      return ({ result }) => {
        if (result === RESULT.SUCCESS) this.#locked(request, connections)
      }
    }
    const isWrite = OBJECT_WRITES.has(opcode)
    if (!isWrite && !OBJECT_READS.has(opcode)) return null
    const name = this.#options.state.vdis.get(oidVid(oid))?.name
    if (name !== undefined) this.#used(name, client, { isWrite, isLocked: this.#isLockedHere(name) })
    return null
  }

  /**
   * Whether nobody else has had the lock since the client may have had it. It ends without its holder when this node is out of the view for
   * long, and may have been released again when the node is back: then what waited here was asked before what the next holder has done.
   */
  mayChange({ oid = 0n }: SheepRequest, client: SheepClient): boolean {
    const known = this.#clients.get(client)
    if (!known || known.lost.size === 0) return true
    const name = this.#options.state.vdis.get(oidVid(oid))?.name
    return name === undefined || !known.lost.has(name)
  }

  /** An entry of the log has taken effect. Of a whole state, nobody can tell who has had meanwhile what nobody has locked now. */
  applied(entry: Entry): void {
    if (entry.type === 'lock' && !this.#isHere(entry.lock.hosts)) this.#lose(entry.lock.name)
    if (entry.type !== 'state') return
    const held = new Set([...this.#clients.values()].flatMap(({ mayHold }) => [...mayHold]))
    for (const name of held) if (!this.#isLockedHere(name)) this.#lose(name)
  }

  /** By a client of this node, or of one with the same address. */
  #isLockedHere(name: string): boolean {
    return this.#isHere(this.#options.state.locks.get(name)?.hosts ?? [])
  }

  #isHere(hosts: readonly string[]): boolean {
    return hosts.includes(hostOf({ peer: this.#options.address }))
  }

  #lose(name: string): void {
    for (const { mayHold, lost } of this.#clients.values()) if (mayHold.delete(name)) lost.add(name)
  }

  closed(client: SheepClient): void {
    this.#gone.add(client)
    this.#clients.delete(client)
  }

  /** Whoever had an exclusive lock before has it no more. Snapshots are never locked. */
  #locked({ body = Buffer.alloc(0), snapId, type }: SheepRequest, connections: readonly SheepClient[]): void {
    if (snapId || cString(body, VDI_NAME_SIZE_BYTES, body.length) !== '') return
    const name = cString(body, 0, VDI_NAME_SIZE_BYTES)
    if (type !== LOCK_TYPE.SHARED)
      for (const { mayHold, lost, writesTo } of this.#clients.values())
        if (mayHold.delete(name) && writesTo === name) lost.add(name)
    for (const client of connections) {
      this.#clients.get(client)?.lost.delete(name)
      this.#used(name, client, { isWrite: false, isLocked: true })
    }
  }

  /** Who writes to a clone only reads what it is a clone of. */
  #used(name: string, client: SheepClient, { isWrite, isLocked }: { isWrite: boolean; isLocked: boolean }): void {
    if (this.#gone.has(client)) return
    const known = this.#clients.get(client) ?? { writesTo: null, mayHold: new Set(), lost: new Set() }
    this.#clients.set(client, known)
    if (isWrite && known.writesTo !== name) {
      known.writesTo = name
      known.mayHold.clear()
    }
    const isElsewhere = known.writesTo !== null && known.writesTo !== name
    if (isLocked && !isElsewhere && !known.lost.has(name)) known.mayHold.add(name)
  }
}
