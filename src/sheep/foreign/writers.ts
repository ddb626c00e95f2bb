import { StoreError, toStoreError } from '../../errors.ts'
import type { Vdi } from '../entries.ts'
import type { StoreDone } from '../object-store.ts'
import type { SheepClient } from '../server.ts'
import type { Session } from '../session.ts'
import type { Sheep } from '../sheep.ts'

/** Who sent a request, and in what version of the protocol, which tells QEMU, tgt and `dog` apart. */
export interface Sender {
  client: SheepClient
  protoVer: number
}

/**
 * The sessions under which clients of the original protocol write. They open none themselves: the first write of a connection to a
 * VDI does, if locks and export rights allow it.
 */
export class ForeignWriters {
  readonly #sheep: Sheep
  readonly #sessions = new WeakMap<SheepClient, Session[]>()
  /** VDIs whose writer came back on another connection, while what the old one has under way ends. */
  readonly #settling = new Map<string, Promise<void>>()

  constructor(sheep: Sheep) {
    this.#sheep = sheep
  }

  /**
   * Calls `use` with the sender's session on a working VDI, perhaps later, or `done` with NoObject (there is no such VDI),
   * ReadOnly (it is a snapshot), VdiLocked, or Fenced when its connection has ended meanwhile.
   */
  withSession(vid: number, sender: Sender, done: StoreDone, use: (session: Session) => void): void {
    try {
      // Nobody would end a session that it got now, nor the lock that this would keep alive.
      if (this.#sheep.hasGone(sender.client)) throw new StoreError('Fenced')
      const vdi = this.#sheep.state.vdis.get(vid)
      if (!vdi || vdi.deleting) throw new StoreError('NoObject')
      if (vdi.snapshotAt > 0) {
        this.#sheep.locks.noteUser(vdi.name, sender.client, sender.protoVer)
        throw new StoreError('ReadOnly', vdi.name)
      }
      const settled = this.#settling.get(vdi.name) ?? this.#takeOver(vdi, sender)
      if (settled) void settled.then(() => this.withSession(vid, sender, done, use))
      else use(this.#session(vid, sender.client))
    } catch (error) {
      done(toStoreError(error))
    }
  }

  /** Whether the connection writes to the working VDI of that name, or has it locked. */
  writes(name: string, client: SheepClient): boolean {
    return this.#sheep.locks.isHeldBy(name, client) || this.hasWritten(name, client)
  }

  /** Whether objects of the working VDI of that name were written over the connection, or are just being. */
  hasWritten(name: string, client: SheepClient): boolean {
    const sessions = this.#sessions.get(client) ?? []
    return sessions.some(({ over, vid }) => !over && this.#sheep.state.vdis.get(vid)?.name === name)
  }

  /** A holder that comes back on a new connection waits until its old one is over. */
  #takeOver(vdi: Vdi, { client, protoVer }: Sender): Promise<void> | null {
    const replaced = this.#sheep.locks.admitWriter(vdi.name, client, protoVer)
    if (replaced.length === 0) return null
    const over = Promise.all(
      replaced.map((old) => {
        old.cut()
        return this.#sheep.sessions.closeOf(old)
      }),
    ).then(() => void this.#settling.delete(vdi.name))
    this.#settling.set(vdi.name, over)
    return over
  }

  #session(vid: number, client: SheepClient): Session {
    const sessions = (this.#sessions.get(client) ?? []).filter((session) => !session.over)
    const known = sessions.find((session) => session.vid === vid)
    if (known) return known
    const session = this.#sheep.sessions.openForeign(vid, client)
    this.#sessions.set(client, [...sessions, session])
    return session
  }
}
