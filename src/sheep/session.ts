import assert from 'node:assert'
import { StoreError, type StoreErrorCode } from '../errors.ts'
import type { ClusterState } from './cluster-state.ts'
import type { ExportRight } from './entries.ts'
import type { StoreDone } from './object-store.ts'
import type { Owner, OwnerExtent } from './owner-contract.ts'

/**
 * The right of one client connection to one VDI, admitted by its owner. Once fenced, every request is answered with Fenced,
 * and fencing is done when what was under way has ended.
 */
export class Session {
  readonly id: number
  readonly attachmentId: string | null
  readonly nameHash: string | null
  readonly readOnly: boolean
  /** The connection that it ends with; null for a session of this process. */
  readonly holder: object | null
  /** Of a client of the original protocol, which opens none itself. */
  readonly foreign: boolean
  readonly #owner: Owner
  #inFlight = 0
  #overWith: StoreErrorCode | null = null
  #drained: (() => void)[] = []

  constructor(options: {
    id: number
    owner: Owner
    right: { attachmentId: string; nameHash: string } | null
    readOnly: boolean
    holder: object | null
    foreign: boolean
  }) {
    this.id = options.id
    this.#owner = options.owner
    this.attachmentId = options.right?.attachmentId ?? null
    this.nameHash = options.right?.nameHash ?? null
    this.readOnly = options.readOnly
    this.holder = options.holder
    this.foreign = options.foreign
  }

  get over(): boolean {
    return this.#overWith !== null
  }

  /** This node owns the VDI no more. */
  get isLost(): boolean {
    return this.#overWith === 'OldEpoch'
  }

  /** The VDI as it is named now: a snapshot gives the working VDI a new vid. */
  get vid(): number {
    return this.#owner.vid
  }

  get sizeBytes(): number {
    return this.#owner.sizeBytes
  }

  read(offset: number, target: Buffer, done: StoreDone): void {
    const finish = this.#admit(false, done)
    if (finish) this.#owner.read(offset, target, finish)
  }

  /** `crcs` as in SheepRequest. */
  write(offset: number, source: Buffer, durable: boolean, done: StoreDone, crcs?: Uint32Array): void {
    const finish = this.#admit(true, done)
    if (finish) this.#owner.write(offset, source, durable, finish, crcs)
  }

  discard(offset: number, lengthBytes: number, durable: boolean, done: StoreDone): void {
    const finish = this.#admit(true, done)
    if (finish) this.#owner.discard(offset, lengthBytes, durable, finish)
  }

  /** See Owner. */
  whenCurrent(vid: number, range: { first: number; count: number }, late: StoreDone, run: () => void): void {
    this.#owner.whenCurrent(vid, range, late, run)
  }

  /** The vid whose object an index is in, 0 for none; only where `whenCurrent` has loaded the map. */
  ownerOf(index: number): number {
    const vid = this.#owner.map.lookupNow(index)
    assert(vid !== null)
    return vid
  }

  flush(done: StoreDone): void {
    const finish = this.#admit(false, done)
    if (finish) this.#owner.flush(finish)
  }

  /** See Owner. */
  async holders(range: { first: number; count: number }): Promise<Uint32Array> {
    if (this.#overWith) throw new StoreError(this.#overWith)
    return this.#owner.holders(range)
  }

  async extents(offset: number, lengthBytes: number): Promise<OwnerExtent[]> {
    if (this.#overWith) throw new StoreError(this.#overWith)
    return this.#owner.extents(offset, lengthBytes)
  }

  /**
   * Refuses everything from now on, with Fenced when the right is over, or with what `code` says; resolves when nothing is under
   * way any more.
   */
  async end(code: StoreErrorCode = 'Fenced'): Promise<void> {
    this.#overWith ??= code
    if (this.#inFlight === 0) return
    await new Promise<void>((resolve) => this.#drained.push(resolve))
  }

  #admit(changes: boolean, done: StoreDone): StoreDone | null {
    if (this.#overWith) {
      done(new StoreError(this.#overWith))
      return null
    }
    if (changes && this.readOnly) {
      done(new StoreError('ReadOnly'))
      return null
    }
    this.#inFlight++
    return (error) => {
      this.#inFlight--
      done(error)
      if (this.#inFlight > 0 || !this.#overWith) return
      const drained = this.#drained
      this.#drained = []
      for (const tell of drained) tell()
    }
  }
}

/** What connections may have open, all together and each; a gateway on another node is one, with all of its clients. */
const SESSIONS_MAX = 16_384
const SESSIONS_OF_HOLDER_MAX = 2048

/** All sessions of this node. */
export class Sessions {
  readonly #ownerOf: (vid: number) => Owner
  readonly #state: ClusterState
  /** Told when the last session of a VDI has ended. */
  readonly #onUnused: (vid: number) => void
  readonly #sessions = new Map<number, Session>()
  #nextId = 1

  constructor(options: {
    ownerOf: (vid: number) => Owner
    state: ClusterState
    onUnused: (vid: number) => void
  }) {
    this.#ownerOf = options.ownerOf
    this.#state = options.state
    this.#onUnused = options.onUnused
  }

  /** Opens under an export right. Throws NoExport, and Busy as all that open for a connection. */
  openExport(nameHash: string, holder: object | null = null): Session {
    const right = this.#state.exports.byHash(nameHash)
    if (!right) throw new StoreError('NoExport')
    return this.#add(right.vid, right, right.readOnly, holder)
  }

  /**
   * Opens without a right, as a tool on the node does. Snapshots are read-only. A VDI under an attachment or a lock is refused
   * with VdiLocked, unless it is only read.
   */
  openAnonymous(vid: number, readOnly: boolean, holder: object | null = null): Session {
    const vdi = this.#state.get(vid)
    const writes = !readOnly && vdi.snapshotAt === 0
    if (writes && this.#state.locks.has(vdi.name)) throw new StoreError('VdiLocked', vdi.name)
    if (writes) this.#refuseExported(vid, vdi.name)
    return this.#add(vid, null, !writes, holder)
  }

  /** Opens a working VDI for a client of the original protocol; whether a lock allows it is the caller's business. */
  openForeign(vid: number, holder: object): Session {
    const vdi = this.#state.get(vid)
    if (vdi.snapshotAt > 0) throw new StoreError('ReadOnly', vdi.name)
    this.#refuseExported(vid, vdi.name)
    return this.#add(vid, null, false, holder, true)
  }

  #refuseExported(vid: number, name: string): void {
    if (this.#state.exports.countOf(vid) > 0) throw new StoreError('VdiLocked', `${name} is under an attachment`)
  }

  /** Whether somebody writes to it who came without a right, and not by the original protocol. */
  hasAnonymousWriter(vid: number): boolean {
    for (const session of this.#sessions.values()) {
      if (session.vid === vid && session.attachmentId === null && !session.readOnly && !session.foreign) return true
    }
    return false
  }

  async closeOn(vid: number): Promise<void> {
    const open = [...this.#sessions.values()].filter((session) => session.vid === vid)
    await Promise.all(open.map((session) => this.close(session.id)))
  }

  /** Ends the sessions of foreign clients on a VDI, of all or of some. */
  async endForeign(vid: number, of: (holder: object | null) => boolean = () => true): Promise<void> {
    const ended = [...this.#sessions.values()].filter(
      (session) => session.vid === vid && session.foreign && of(session.holder),
    )
    await Promise.all(ended.map((session) => this.close(session.id)))
  }

  /** Throws Fenced for a session that is over, never was, or was opened by another holder. */
  get(id: number, holder: object | null = null): Session {
    const session = this.#sessions.get(id)
    if (!session || session.holder !== holder) throw new StoreError('Fenced')
    return session
  }

  #refuseTooMany(holder: object): void {
    let held = 0
    for (const session of this.#sessions.values()) if (session.holder === holder) held++
    if (this.#sessions.size < SESSIONS_MAX && held < SESSIONS_OF_HOLDER_MAX) return
    throw new StoreError('Busy', 'too many sessions are open')
  }

  /** How many are open. */
  get size(): number {
    return this.#sessions.size
  }

  isOpen(vid: number): boolean {
    for (const session of this.#sessions.values()) if (session.vid === vid && !session.isLost) return true
    return false
  }

  openVids(): Set<number> {
    return new Set([...this.#sessions.values()].map(({ vid }) => vid))
  }

  async close(id: number, code?: StoreErrorCode): Promise<void> {
    const session = this.#sessions.get(id)
    if (!session) return
    await session.end(code)
    this.#sessions.delete(id)
    if (!this.isOpen(session.vid)) this.#onUnused(session.vid)
  }

  /** Ends the sessions under an attachment's right, but for those under the name that holds now. */
  async fence(attachmentId: string, exceptNameHash: string | null): Promise<void> {
    const fenced = [...this.#sessions.values()].filter(
      (session) => session.attachmentId === attachmentId && session.nameHash !== exceptNameHash,
    )
    await Promise.all(fenced.map((session) => this.close(session.id)))
  }

  /** Ends the sessions under an attachment's right that some holders have. */
  async endUnder(attachmentId: string, of: (holder: object | null) => boolean): Promise<void> {
    const ended = [...this.#sessions.values()].filter(
      (session) => session.attachmentId === attachmentId && of(session.holder),
    )
    await Promise.all(ended.map((session) => this.close(session.id)))
  }

  /**
   * Resolves when nothing is under way of what those of an attachment had asked whose connection is gone: who comes again sends it once
   * more, and it must not happen after that was answered. What was asked of an owner that is lost does not: its versions are behind.
   */
  async settleUnder(attachmentId: string): Promise<void> {
    const left = [...this.#sessions.values()].filter(
      (session) => session.attachmentId === attachmentId && session.over && !session.isLost,
    )
    await Promise.all(left.map((session) => session.end()))
  }

  /** Ends the sessions without a right that may write to a VDI: it has come under an attachment. */
  async fenceAnonymous(vid: number): Promise<void> {
    const fenced = [...this.#sessions.values()].filter(
      (session) => session.vid === vid && session.attachmentId === null && !session.readOnly,
    )
    await Promise.all(fenced.map((session) => this.close(session.id)))
  }

  /**
   * This node owns VDIs no more: their sessions are over, and say so with OldEpoch until their holders close them, so that a gateway
   * goes on at the next owner.
   */
  lose(isLost: (vid: number) => boolean): void {
    for (const session of this.#sessions.values()) if (isLost(session.vid)) void session.end('OldEpoch')
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#sessions.keys()].map((id) => this.close(id)))
  }

  /** Ends what a connection had opened, as `Session.end`. */
  async closeOf(holder: object, code?: StoreErrorCode): Promise<void> {
    const held = [...this.#sessions.values()].filter((session) => session.holder === holder)
    await Promise.all(held.map((session) => this.close(session.id, code)))
  }

  #add(vid: number, right: ExportRight | null, readOnly: boolean, holder: object | null, foreign = false): Session {
    if (holder !== null) this.#refuseTooMany(holder)
    const session = new Session({ id: this.#nextId++, owner: this.#ownerOf(vid), right, readOnly, holder, foreign })
    this.#sessions.set(session.id, session)
    return session
  }
}
