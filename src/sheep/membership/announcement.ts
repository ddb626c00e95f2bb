import { z } from 'zod'
import type { Configuration, MemberId } from '../cluster/group.ts'
import type { NodeId } from '../order/item.ts'
import type { Life, Member } from './view.ts'

/**
 * What each node tells all others in the group of itself: whenever that changes, whenever somebody comes or goes, and again and again
 * while it waits for something.
 */
export interface Announcement extends Member {
  /** The last view that has taken effect at the sender. */
  epoch: number
  /** It has the log, its store goes on, and all members answer it: it may come in. */
  isReady: boolean
  isLeaving: boolean
  /** Members that do not answer the sender where data goes. */
  accuses: readonly NodeId[]
  /** Those of them that are heard all the same: requests to them have been lost in this epoch. */
  lost: readonly NodeId[]
}

const announcement = z.object({
  node: z.string().min(1),
  incarnation: z.string().min(1),
  address: z.string(),
  zone: z.int().min(0),
  vnodes: z.int().min(0),
  epoch: z.int().min(0),
  isReady: z.boolean(),
  isLeaving: z.boolean(),
  accuses: z.array(z.string()).readonly(),
  lost: z.array(z.string()).readonly().default([]), // nodes of earlier versions do not say
}) satisfies z.ZodType<Announcement>

export const encodeAnnouncement = (told: Announcement): Buffer => Buffer.from(JSON.stringify(told))

/** Throws when the bytes are none. */
export const decodeAnnouncement = (bytes: Buffer): Announcement => announcement.parse(JSON.parse(bytes.toString()))

/** Who is in the group, as they have told of themselves. */
export class Roster {
  #members: readonly MemberId[] = []
  readonly #told = new Map<MemberId, Announcement>()
  readonly #strangers = new Set<MemberId>()

  configured({ members }: Configuration): void {
    this.#members = members
    for (const member of this.#told.keys()) if (!members.includes(member)) this.#told.delete(member)
    for (const member of this.#strangers) if (!members.includes(member)) this.#strangers.delete(member)
  }

  told(sender: MemberId, announcement: Announcement): void {
    if (this.#members.includes(sender)) this.#told.set(sender, announcement)
  }

  /** It is of another cluster, or of a version that is not understood. False when that is known. */
  isNewStranger(sender: MemberId): boolean {
    const isNew = !this.#strangers.has(sender)
    this.#strangers.add(sender)
    return isNew
  }

  /** Whether all that are in the group have told who they are: then those that are not among them are not there. */
  get isComplete(): boolean {
    return (
      this.#members.length > 0 && this.#members.every((member) => this.#told.has(member) || this.#strangers.has(member))
    )
  }

  /** One of each node. While the group has two starts of one node, nobody can tell which has ended, and it is not among them. */
  get present(): ReadonlyMap<NodeId, Announcement> {
    const present = new Map<NodeId, Announcement>()
    const twice = new Set<NodeId>()
    for (const announcement of this.#told.values()) {
      if (present.has(announcement.node)) twice.add(announcement.node)
      present.set(announcement.node, announcement)
    }
    for (const node of twice) present.delete(node)
    return present
  }

  /** All that say that they are one of these. */
  membersOf(lives: readonly Life[]): readonly MemberId[] {
    const isOne = (told: Life) => lives.some((life) => life.node === told.node && life.incarnation === told.incarnation)
    return [...this.#told].filter(([, told]) => isOne(told)).map(([member]) => member)
  }

  get(member: MemberId): Announcement | null {
    return this.#told.get(member) ?? null
  }
}
