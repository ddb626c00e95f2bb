import type { Clock } from '../../runtime/clock.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Life } from '../membership/view.ts'
import { Signal } from './signal.ts'

export interface CatchUpOptions {
  state: ClusterState
  clock: Pick<Clock, 'sleep'>
  isSelf(life: Life): boolean
  /** The last entry that has taken effect on that node. Rejects when there is no answer. */
  indexOf(life: Life): Promise<number>
}

/** Who has not told by then is not waited for: it is on its way out of the view. */
const PATIENCE_MS = 500

/**
 * An entry takes effect on one node after the other, some milliseconds apart, and the node that proposed it answers its client as soon as
 * it has there. That client may tell another one, who asks another node: before that says that there is no such thing, it finds out how
 * far the others are, and comes as far.
 */
export class CatchUp {
  readonly #options: CatchUpOptions
  readonly #applied = new Signal()
  #running: Promise<boolean> | null = null
  #next: Promise<boolean> | null = null

  constructor(options: CatchUpOptions) {
    this.#options = options
  }

  /** An entry has taken effect here. */
  applied(): void {
    this.#applied.tell()
  }

  /** Whether everything has taken effect here that had on any node when this was called. False when that takes too long, or one does not say. */
  now(): Promise<boolean> {
    if (this.#running === null) return this.#begin()
    // What runs may have asked too early: whoever comes meanwhile shares the next one.
    this.#next ??= this.#running.then(() => {
      this.#next = null
      return this.#begin()
    })
    return this.#next
  }

  /** Resolves when everything up to this entry has taken effect here; null when it has. */
  until(index: number): Promise<void> | null {
    return this.#options.state.index >= index ? null : this.#until(index)
  }

  async #until(index: number): Promise<void> {
    while (this.#options.state.index < index) await this.#applied.next
  }

  #begin(): Promise<boolean> {
    this.#running = this.#catchUp().finally(() => {
      this.#running = null
    })
    return this.#running
  }

  async #catchUp(): Promise<boolean> {
    const { state, clock, isSelf, indexOf } = this.#options
    let isOver = false
    const patience = clock.sleep(PATIENCE_MS).then(() => {
      isOver = true
    })
    let unheard = 0
    let wanted = 0
    const asked = state.members
      .map(({ node, incarnation }) => ({ node, incarnation }))
      .filter((life) => !isSelf(life))
      .map(async (life) => {
        unheard++
        const index = await indexOf(life).catch(() => null)
        if (index === null) return
        unheard--
        wanted = Math.max(wanted, index)
      })
    await Promise.race([Promise.all(asked), patience])
    while (state.index < wanted && !isOver) await Promise.race([this.#applied.next, patience])
    return unheard === 0 && state.index >= wanted
  }
}
