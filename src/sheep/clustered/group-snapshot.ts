import { StoreError } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Random } from '../../runtime/random.ts'
import { within } from '../../runtime/within.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Entry, Freezing } from '../entries.ts'
import type { Life } from '../membership/view.ts'
import { HELD_MAX_MS } from './held-vdis.ts'
import type { Params, QuestionName, Told } from './node-questions.ts'
import type { Ownership } from './ownership.ts'

export interface GroupSnapshotOptions {
  state: ClusterState
  ownership: Ownership
  clock: Clock
  random: Random
  ask<N extends QuestionName>(to: Life, name: N, params: Params<N>): Promise<Told<N>>
  propose(entry: Entry): Promise<void>
}

/** So long it is tried again when owners change or do not answer. */
const TRY_MAX_MS = 30_000
const RETRY_MS = 200

/** What another attempt may not meet: another owner, or that one does not answer. */
const PASSING: ReadonlySet<string> = new Set(['OldEpoch', 'Disconnected', 'Stopping', 'NoQuorum'])

type Wanted = { name: string; tag: string }

interface Asked {
  to: Life
  names: string[]
}

/**
 * Snapshots of several VDIs at one moment, whoever owns them: all owners close the gates of theirs, one entry takes all snapshots, and
 * each opens its gates when it sees the entry (see HeldVdis). So of two requests of which one was answered before the other was sent,
 * no snapshot has the later where one lacks the earlier.
 *
 * What becomes of an attempt is what the log says; one that failed has left nothing when the next begins.
 */
export class GroupSnapshot {
  readonly #options: GroupSnapshotOptions

  constructor(options: GroupSnapshotOptions) {
    this.#options = options
  }

  /** Rejects with NoVdi, VdiExists when a tag is taken, Busy when it could not be done in time, Unsure when nobody can tell whether it was. */
  async take(of: readonly Wanted[]): Promise<void> {
    const { clock } = this.#options
    const endMs = clock.monotonicMs() + TRY_MAX_MS
    for (;;) {
      try {
        return await this.#attempt(of)
      } catch (error) {
        if (!(error instanceof StoreError) || !PASSING.has(error.code)) throw error
        if (clock.monotonicMs() > endMs) throw new StoreError('Busy', error.message, { cause: error })
        await Promise.race([this.#options.ownership.changed, clock.sleep(RETRY_MS)])
      }
    }
  }

  async #attempt(of: readonly Wanted[]): Promise<void> {
    const { clock, random, ask } = this.#options
    const hold = random.bytes(8).toString('hex')
    const asked: Asked[] = []
    const endMs = clock.monotonicMs() + HELD_MAX_MS
    try {
      const held: Told<'hold_vdis'>[] = []
      // One after the other in one order, so that of two that want the same VDIs none waits for the other in a circle.
      for (const each of await this.#owners(of)) {
        asked.push(each)
        held.push(await this.#within(endMs, ask(each.to, 'hold_vdis', { hold, names: each.names })))
      }
      await this.#within(endMs, Promise.all(asked.map(({ to }) => ask(to, 'freeze_vdis', { hold }))))
      await this.#decide(of, held)
    } finally {
      // Those who have seen the entry have forgotten the hold.
      for (const { to } of asked) ask(to, 'release_vdis', { hold }).catch(() => {})
    }
  }

  /** Who is to hold which VDIs, in an order that is the same for all who ask. */
  async #owners(of: readonly Wanted[]): Promise<Asked[]> {
    const { state, ownership } = this.#options
    const byNode = new Map<string, Asked>()
    for (const { name, tag } of of) {
      const { family } = state.find(name)
      if (state.vdis.snapshotsOf(name).some((snapshot) => snapshot.tag === tag))
        throw new StoreError('VdiExists', `${name}@${tag}`)
      const to = await ownership.claim(family)
      const asked = byNode.get(to.node) ?? { to, names: [] }
      asked.names.push(name)
      byNode.set(to.node, asked)
    }
    return [...byNode.values()].sort((a, b) => (a.to.node < b.to.node ? -1 : 1))
  }

  async #decide(of: readonly Wanted[], held: readonly Told<'hold_vdis'>[]): Promise<void> {
    const { clock, propose } = this.#options
    const tags = new Map(of.map(({ name, tag }) => [name, tag]))
    const freezings = held.flatMap(({ vdis }) =>
      vdis.map(({ name, vid, newVid }): Freezing => ({ vid, newVid, tag: tags.get(name)! })),
    )
    const entry: Entry = {
      type: 'snapshots',
      at: clock.now(),
      of: freezings,
      owners: held.flatMap(({ owners }) => owners),
    }
    try {
      await propose(entry)
    } catch (error) {
      if (!(error instanceof StoreError) || !LEFT_OPEN.has(error.code)) throw error
      await this.#decided(entry.at, freezings)
    }
  }

  /** Whether the entry has taken effect, as the log says: until it does not any more, owners hold their VDIs. */
  async #decided(at: number, freezings: readonly Freezing[]): Promise<void> {
    const { state, clock } = this.#options
    const endMs = clock.monotonicMs() + TRY_MAX_MS
    while (clock.monotonicMs() < endMs) {
      if (freezings.every(({ vid, tag }) => isSnapshot(state, vid, tag, at))) return
      const isOff = freezings.some(({ newVid }) => state.makings.get(newVid)?.isVoid !== undefined)
      if (isOff || freezings.some(({ newVid }) => !state.makings.has(newVid))) throw new StoreError('OldEpoch')
      await clock.sleep(RETRY_MS)
    }
    throw new StoreError('Unsure')
  }

  #within<T>(endMs: number, work: Promise<T>): Promise<T> {
    const { clock } = this.#options
    return within(clock, Math.max(0, endMs - clock.monotonicMs()), work, () => {
      throw new StoreError('Busy')
    })
  }
}

/** After these an entry may still take effect. */
const LEFT_OPEN: ReadonlySet<string> = new Set(['Unsure', 'NoQuorum', 'Stopping', 'Disconnected'])

function isSnapshot(state: ClusterState, vid: number, tag: string, at: number): boolean {
  const vdi = state.vdis.get(vid)
  return vdi?.tag === tag && vdi.snapshotAt === at
}
