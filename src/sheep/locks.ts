import { StoreError } from '../errors.ts'
import type { Clock, Timer } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { ClusterState } from './cluster-state.ts'
import type { Entry, Vdi } from './entries.ts'
import type { SheepClient } from './server.ts'

/** Versions that foreign clients write into the header of object requests; nothing else tells them apart. */
export const QEMU_PROTO_VER = 0
const TGT_PROTO_VER = 1

/** QEMU and tgt write it into the header of LOCK_VDI; a later one is of a client that has only one. */
const LOCK_PROTO_VER_MAX = 1

/** The connections that keep a lock alive. */
interface Holding {
  /** What its holder writes into the header of object requests. Unknown of a lock of before a restart. */
  protoVer: number | null
  /** Every connection that may be its holder's. */
  readonly connections: Set<SheepClient>
  /** Those that have read or written under it, or tried to. */
  readonly users: Set<SheepClient>
  /** Those that have written under it. */
  readonly writers: Set<SheepClient>
  grace: Timer | null
}

/** Where the clients of a store are. On one node, whoever is not connected to it is nowhere. */
export interface ClientPlaces {
  /** The host of a client: of several nodes, the same whichever is asked. */
  hostOf(client: SheepClient): string
  /** Whether one of these hosts has a connection that may be of the lock's holder, and is not known here. */
  areThere(name: string, hosts: readonly string[]): Promise<boolean>
}

const THIS_NODE: ClientPlaces = { hostOf, areThere: async () => false }

/**
 * Locks of foreign clients, LOCK_VDI and RELEASE_VDI. The lock itself is an entry of the ordered log and survives a restart;
 * which connections hold it is known here.
 *
 * 1. A lock is on a name, so that it stays with the working VDI through snapshots and a rollback. Snapshots are never locked.
 * 2. QEMU opens the connection for its I/O first, sends LOCK_VDI over another, and closes that. So a lock is held by the
 *    connection that asked, by those of the same host that had sent nothing yet, unless they write to another VDI, and by all
 *    that do its I/O later.
 * 3. `graceMs` after the last of them is gone the lock ends: time for a client to connect again. Not while another node may
 *    have one that is not known here.
 * 4. tgt's is called shared: at upstream, tgts may have it that reach the VDI through different nodes, which tell each other
 *    of changes to the map. There is one node, and two tgts on it would read zeros where the other one has written, so that
 *    it is for one as QEMU's is. But a tgt that was killed and started again asks anew at once, and gets it.
 * 5. Connections of the same host are the holder's if they have the version that it has in object requests.
 * 6. A client that connects again sends again what was under way. Its new connection replaces the old one, which is cut before
 *    anything new runs. That goes by host and kind of client; two QEMUs of one host cannot be told apart.
 */
export class Locks {
  readonly #state: ClusterState
  readonly #propose: (entry: Entry) => Promise<void>
  readonly #clock: Clock
  readonly #graceMs: number
  readonly #log: Log
  readonly places: ClientPlaces
  /** Connections that have sent nothing yet. */
  readonly #silent = new Set<SheepClient>()
  readonly #holdings = new Map<string, Holding>()
  /** How often a snapshot was opened with LOCK_VDI, so that its RELEASE_VDI is not taken for the working VDI's. */
  readonly #snapshotOpens = new Map<number, number>()
  /** The connections that may be of those who have opened a snapshot of a name. */
  readonly #snapshotUsers = new Map<string, Set<SheepClient>>()
  /** The name that a connection writes to. QEMU and tgt have connections of their own for each VDI. */
  readonly #writesTo = new WeakMap<SheepClient, string>()
  /** Connections whose lock was broken, and on which names: what they still send is refused. */
  readonly #broken = new WeakMap<SheepClient, Set<string>>()

  constructor(options: {
    state: ClusterState
    propose: (entry: Entry) => Promise<void>
    clock: Clock
    graceMs: number
    log: Log
    /** Those of one node, when absent. */
    places?: ClientPlaces | undefined
  }) {
    this.#state = options.state
    this.#propose = options.propose
    this.#clock = options.clock
    this.#graceMs = options.graceMs
    this.#log = options.log
    this.places = options.places ?? THIS_NODE
  }

  /** Locks whose holders this process has not met yet, some of these names, wait for them to come back. */
  resume(names: Iterable<string>): void {
    for (const name of names) if (this.#state.locks.has(name)) this.#graceIfAlone(name)
  }

  /** Another process waits for the holders of these names. */
  forget(names: Iterable<string>): void {
    for (const name of names) {
      this.#holdings.get(name)?.grace?.cancel()
      this.#holdings.delete(name)
    }
  }

  stop(): void {
    for (const { grace } of this.#holdings.values()) grace?.cancel()
    this.#holdings.clear() // one that is just being ended is not looked at again
  }

  opened(client: SheepClient): void {
    this.#silent.add(client)
  }

  /** The connection has sent something. */
  spoke(client: SheepClient): void {
    this.#silent.delete(client)
  }

  closed(client: SheepClient): void {
    this.#silent.delete(client)
    for (const name of this.#holdings.keys()) this.#leave(name, client)
    for (const [name, users] of this.#snapshotUsers) {
      if (users.delete(client) && users.size === 0) this.#snapshotUsers.delete(name)
    }
  }

  /** `protoVer` is the version of LOCK_VDI. Throws VdiLocked; not for a tgt that has it and, after a snapshot, opens its VDI anew. */
  async take(name: string, shared: boolean, client: SheepClient, protoVer = LOCK_PROTO_VER_MAX): Promise<void> {
    const lock = this.#state.locks.get(name)
    if (shared && lock?.shared && this.#holding(name).users.has(client)) return
    const host = this.places.hostOf(client)
    const isLeft = lock?.hosts.includes(host) && this.#holding(name).connections.size === 0
    if (lock && !(isLeft && lock.shared && shared)) throw new StoreError('VdiLocked', name)
    const taken = this.#propose({ type: 'lock', lock: { name, shared, hosts: [host] } })
    this.#broken.get(client)?.delete(name)
    this.#holding(name).protoVer = protoVer > LOCK_PROTO_VER_MAX ? protoVer : null
    for (const other of this.likelyOf(client)) if (!this.#isBroken(name, other)) this.#join(name, other)
    await taken
  }

  /** Ends a lock, if there is one. */
  async drop(name: string): Promise<void> {
    const holding = this.#holdings.get(name)
    this.#holdings.delete(name)
    holding?.grace?.cancel()
    if (this.#state.locks.has(name)) await this.#propose({ type: 'unlock', name })
  }

  /**
   * Ends a lock that its holder may still believe to have; returns the connections that wrote under it. They stay open and
   * are refused: QEMU reports an error to its guest then, while a connection that is cut it makes anew, and would so
   * take the place of whoever has the lock by then.
   */
  async break(name: string): Promise<SheepClient[]> {
    const { connections = [], writers = [] } = this.#holdings.get(name) ?? {}
    for (const client of connections) {
      const names = this.#broken.get(client)
      if (names) names.add(name)
      else this.#broken.set(client, new Set([name]))
    }
    const cutOff = [...writers]
    await this.drop(name)
    return cutOff
  }

  snapshotOpened({ vid, name }: Vdi, client: SheepClient): void {
    this.#snapshotOpens.set(vid, (this.#snapshotOpens.get(vid) ?? 0) + 1)
    this.#snapshotUsers.set(name, new Set([...(this.#snapshotUsers.get(name) ?? []), ...this.likelyOf(client)]))
  }

  /** Whether a RELEASE_VDI of a snapshot is for an open of that snapshot, and not of the working VDI that it once was. */
  snapshotReleased(vid: number): boolean {
    const opens = this.#snapshotOpens.get(vid) ?? 0
    if (opens > 1) this.#snapshotOpens.set(vid, opens - 1)
    else this.#snapshotOpens.delete(vid)
    return opens > 0
  }

  /**
   * Asks for the right to write. Returns the connections that must be over first, because the holder came back on this one.
   * Throws VdiLocked.
   */
  admitWriter(name: string, client: SheepClient, protoVer: number): SheepClient[] {
    if (this.#isBroken(name, client)) throw new StoreError('VdiLocked', name)
    const lock = this.#state.locks.get(name)
    const writers = this.#holdings.get(name)?.writers
    if (lock && writers?.has(client)) return []
    if (lock && !this.#isHolders(name, client, protoVer)) throw new StoreError('VdiLocked', name)
    this.#writesTo.set(client, name)
    for (const other of this.#holdings.keys()) if (other !== name) this.#leave(other, client)
    if (!lock) return []
    const replaced = lock.shared ? [] : [...(writers ?? [])]
    const holding = this.#join(name, client)
    for (const other of replaced) this.closed(other)
    holding.users.add(client)
    holding.writers.add(client)
    return replaced
  }

  /** A connection that does I/O as the holder would keeps the lock alive; one that writes to a clone only reads its base. */
  noteUser(name: string, client: SheepClient, protoVer: number): void {
    const isElsewhere = (this.#writesTo.get(client) ?? name) !== name
    if (isElsewhere || !this.#state.locks.has(name) || !this.#isHolders(name, client, protoVer)) return
    this.#join(name, client).users.add(client)
  }

  /** Whether nobody has locked it, or the client itself has. */
  allows(name: string, client: SheepClient, protoVer: number): boolean {
    return !this.#state.locks.has(name) || this.#isHolders(name, client, protoVer)
  }

  /**
   * Whether the client may put a snapshot in the place of the working VDI, as QEMU does when it goes back to one, and when
   * it writes to one that it has opened. Not when it may be another QEMU of the holder's host that does the latter.
   */
  allowsGoingBack(name: string, client: SheepClient, protoVer: number): boolean {
    if (!this.#state.locks.has(name)) return true
    if (!this.#isHolders(name, client, protoVer)) return false
    const writers = this.#holdings.get(name)?.writers
    for (const user of this.#snapshotUsers.get(name) ?? []) {
      const isOwn = user === client || writers?.has(user)
      if (!isOwn && this.places.hostOf(user) === this.places.hostOf(client)) return false
    }
    return true
  }

  /** Whether the connection is one of those that keep the lock alive. */
  isHeldBy(name: string, client: SheepClient): boolean {
    return this.#holdings.get(name)?.connections.has(client) ?? false
  }

  /** The connections that have written under a lock. */
  writersOf(name: string): SheepClient[] {
    return [...(this.#holdings.get(name)?.writers ?? [])]
  }

  /** The connections of who asks over this one, for all that is known: QEMU's for I/O has sent nothing yet. */
  likelyOf(client: SheepClient): SheepClient[] {
    return [client, ...[...this.#silent].filter((other) => this.places.hostOf(other) === this.places.hostOf(client))]
  }

  #isHolders(name: string, client: SheepClient, protoVer: number): boolean {
    const lock = this.#state.locks.get(name)
    if (!lock) return false
    if (this.#isBroken(name, client)) return false
    const holdersVer = this.#holdings.get(name)?.protoVer ?? (lock.shared ? TGT_PROTO_VER : QEMU_PROTO_VER)
    return lock.hosts.includes(this.places.hostOf(client)) && (protoVer === holdersVer || this.isHeldBy(name, client))
  }

  #isBroken(name: string, client: SheepClient): boolean {
    return this.#broken.get(client)?.has(name) ?? false
  }

  #leave(name: string, client: SheepClient): void {
    const { connections, users, writers } = this.#holding(name)
    users.delete(client)
    writers.delete(client)
    if (connections.delete(client)) this.#graceIfAlone(name)
  }

  #join(name: string, client: SheepClient): Holding {
    const holding = this.#holding(name)
    holding.connections.add(client)
    holding.grace?.cancel()
    holding.grace = null
    return holding
  }

  #holding(name: string): Holding {
    let holding = this.#holdings.get(name)
    if (!holding) {
      holding = { protoVer: null, connections: new Set(), users: new Set(), writers: new Set(), grace: null }
      this.#holdings.set(name, holding)
    }
    return holding
  }

  #graceIfAlone(name: string): void {
    const holding = this.#holding(name)
    if (holding.connections.size > 0) return
    holding.grace?.cancel()
    holding.grace = this.#clock.timer(this.#graceMs, () => void this.#endIfAlone(name, holding))
  }

  async #endIfAlone(name: string, holding: Holding): Promise<void> {
    const isAlone = () => this.#holdings.get(name) === holding && holding.connections.size === 0
    const lock = this.#state.locks.get(name)
    const isElsewhere = lock && isAlone() && (await this.places.areThere(name, lock.hosts))
    if (!isAlone()) return
    if (isElsewhere) return this.#graceIfAlone(name)
    if (!lock) return void this.#holdings.delete(name)
    this.#log.info({ name, hosts: lock.hosts }, 'a lock ends: its holder is gone')
    try {
      await this.#propose({ type: 'unlock', name })
      if (isAlone()) this.#holdings.delete(name)
    } catch (err) {
      this.#log.warn({ err, name }, 'a lock of nobody could not be ended, and is looked at again')
      if (isAlone()) this.#graceIfAlone(name)
    }
  }
}

/** `host` of `host:port`. */
export function hostOf({ peer }: Pick<SheepClient, 'peer'>): string {
  const colon = peer.lastIndexOf(':')
  return colon < 0 ? peer : peer.slice(0, colon)
}
