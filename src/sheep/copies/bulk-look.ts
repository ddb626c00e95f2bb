import type { Member, View } from '../membership/view.ts'
import type { NodeId } from '../order/item.ts'
import type { Holders } from './holders.ts'
import { isSomebodyUnheard, membersOf } from './reconcile.ts'
import { NO_VERSION, VersionArray } from './version-array.ts'

/** To find where an object belongs takes some microseconds: so many are looked at in one turn of the loop. */
const OBJECTS_PER_TURN = 128

/**
 * Of some objects of a VDI those that may lack something in the view in effect. Of the others an open would find that all who may have a
 * copy have the same: they are asked for many objects at once, and what they say is compared without anything being made for each.
 *
 * 1. As an open does, this seals the VDI at all who are asked, and they are all who may have a copy.
 * 2. An object lacks nothing when all of them say that their copy is plain (`CopyStore.plainVersionOf`), of the same version, and all targets
 *    are among them. Anything else is for an open to find out.
 * 3. While somebody is away who may have a copy, an open has to find out too: he may have a write that the others have not, and whoever
 *    reads decides that it was never done. The owner remembers that of what it has opened, also when the views are forgotten that say so.
 * 4. What is known of an object here, and what is done to it meanwhile, does not matter: a write under way shows in versions or tails, or
 *    comes later, and tells itself when it makes a copy stale.
 */
export async function mayLack(
  oids: readonly bigint[],
  holders: Holders,
  pause: () => Promise<void>,
): Promise<readonly bigint[]> {
  const look = new BulkLook(oids, holders, pause)
  return (await look.run()) ? look.left : oids
}

class BulkLook {
  readonly #oids: readonly bigint[]
  readonly #holders: Holders
  readonly #pause: () => Promise<void>
  readonly #views: readonly View[]
  /** All but the one in effect. */
  readonly #former: readonly View[]
  readonly #members: ReadonlyMap<NodeId, Member>
  /** Who is asked, for which of the objects. */
  readonly #questions = new Map<Member, number[]>()
  readonly #agreed: Agreement
  readonly left: bigint[] = []

  constructor(oids: readonly bigint[], holders: Holders, pause: () => Promise<void>) {
    this.#oids = oids
    this.#holders = holders
    this.#pause = pause
    this.#views = holders.views
    this.#former = holders.views.slice(0, -1)
    this.#members = membersOf(holders.view)
    this.#agreed = new Agreement(oids.length)
  }

  /** False when another view, or another owner, has come meanwhile. */
  async run(): Promise<boolean> {
    const isPlaced = await this.#inTurns((at, oid) => {
      for (const member of this.#stayedWith(oid) ?? this.#allThatCount(oid)) this.#questionFor(member).push(at)
    })
    if (!isPlaced) return false
    await this.#ask()
    return this.#inTurns((at, oid) => {
      if (!this.#agreed.isSaid(at)) this.left.push(oid)
    })
  }

  get #isStill(): boolean {
    return this.#holders.views === this.#views && !this.#holders.isEnded
  }

  /** False when it was in vain. */
  async #inTurns(each: (at: number, oid: bigint) => void): Promise<boolean> {
    for (let at = 0; at < this.#oids.length; at++) {
      if (at % OBJECTS_PER_TURN === 0) await this.#pause()
      if (!this.#isStill) return false
      each(at, this.#oids[at]!)
    }
    return this.#isStill
  }

  #questionFor(member: Member): number[] {
    let question = this.#questions.get(member)
    if (!question) {
      question = []
      this.#questions.set(member, question)
    }
    return question
  }

  /**
   * The targets of an object, if nobody else was one in any view and all of them are here: whoever may have a copy that counts is one of
   * them. So it is with most. Null for an object that has not stayed where it was.
   */
  #stayedWith(oid: bigint): readonly Member[] | null {
    const targets = this.#holders.targets(oid)
    for (const view of this.#former) if (!areSame(this.#holders.targets(oid, view), targets)) return null
    const members: Member[] = []
    for (const node of targets) {
      const member = this.#members.get(node)
      if (!member) return null
      members.push(member)
    }
    return members
  }

  /** All who may have a copy that counts, with all targets; nobody when one of them is not here. */
  #allThatCount(oid: bigint): readonly Member[] {
    const possible = this.#holders.possible(oid)
    const isHere = (node: NodeId) => possible.some((member) => member.node === node)
    const areHere = this.#holders.targets(oid).every(isHere)
    const said = possible.map((member) => ({ member }))
    return areHere && !isSomebodyUnheard(this.#holders.placedViews(oid), said) ? possible : []
  }

  async #ask(): Promise<void> {
    await Promise.all(
      [...this.#questions].map(async ([member, question]) => {
        const oids = question.map((at) => this.#oids[at]!)
        const answer = await this.#holders.ask(member, { type: 'look', oids })
        this.#agreed.hear(question, answer?.refused === null ? (answer.result as VersionArray) : null)
      }),
    )
  }
}

function areSame(a: readonly NodeId[], b: readonly NodeId[]): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false
  return true
}

/** The versions that all who spoke of an object have said. */
class Agreement {
  readonly #versions: VersionArray
  readonly #isHeard: Uint8Array

  constructor(length: number) {
    this.#versions = new VersionArray(length)
    this.#isHeard = new Uint8Array(length)
  }

  /** False when nobody has spoken of it, or not all have said the same. */
  isSaid(index: number): boolean {
    return this.#versions.places[index] !== NO_VERSION
  }

  /** What one says of these; null: nothing. */
  hear(indexes: readonly number[], said: VersionArray | null): void {
    const { places, sequences } = this.#versions
    const placesHere = [NO_VERSION, ...(said?.generations.map((each) => this.#versions.placeOf(each)) ?? [])]
    for (let at = 0; at < indexes.length; at++) {
      const index = indexes[at]!
      const place = placesHere[said?.places[at] ?? NO_VERSION]!
      const sequence = said?.sequences[at] ?? 0
      if (!this.#isHeard[index]) {
        this.#isHeard[index] = 1
        places[index] = place
        sequences[index] = sequence
      } else if (places[index] !== place || sequences[index] !== sequence) places[index] = NO_VERSION
    }
  }
}
