import { createHash } from 'node:crypto'
import type { Clock } from '../../runtime/clock.ts'
import { type GroupListener, MESSAGE_BYTES_MAX, type MemberId } from './group.ts'

/**
 * The group of `group.ts` on top of a closed process group of corosync, which falls short of it in two ways:
 *
 * - a process is named by node and pid, and a pid comes again: in a container it is the same one at every start;
 * - its changes have no name that all could use. The id of totem's ring does not do: processes come and go within a ring, and its
 *   counter is a file in /var/lib/corosync, so that a node which is installed anew counts from the beginning.
 *
 * So each process introduces itself, by a message that says its start, a random number. Corosync stamps the sender on it and tells
 * it before the end of that process, so node, pid and start belong together. All that follows is decided by the order that all
 * processes see, and thus the same on all of them:
 *
 * 1. A change that brings somebody opens a round. Everyone in the group introduces himself (again: those who came do not know the
 *    others). Meanwhile the old configuration stays in force among those who have it, so that nobody waits for a newcomer.
 * 2. The round ends when all are introduced, or by a message that names exactly those who are not: a process that is stopped
 *    would hold up all others. Whoever was introduced is in the new configuration. Its id is a digest of the introductions, each
 *    of which has a number and is sent once, so it does not come again.
 * 3. Who is introduced after that makes a configuration with one more member, by the id of the introduction.
 * 4. A change that only takes somebody away makes a configuration at once, by a digest of the last id and of those who left.
 * 5. Messages of those who are not in the configuration in force are dropped, by all in the same way.
 *
 * An introduction that was sent before a change and told after it serves as well: it is as true as before.
 */
export class ProcessGroup {
  readonly self: MemberId
  readonly #address: Address
  readonly #start: string
  readonly #clock: Clock
  readonly #listener: Pick<GroupListener, 'configured' | 'delivered'>
  readonly #multicast: (payload: Buffer) => void
  #introductions = 0
  #present: ReadonlySet<Address> = new Set()
  /** By address, the ids of introductions since the last round began. */
  #introduced = new Map<Address, Introduction>()
  #round: object | null = null
  #inForce: InForce | null = null
  /** Sent before there was a configuration with this member, or while there is none any more. */
  #early: Buffer[] = []

  constructor(options: {
    address: Address
    /** Never used by another start of any process. */
    start: string
    clock: Clock
    listener: Pick<GroupListener, 'configured' | 'delivered'>
    /** To all processes of the group, this one too, in order. */
    multicast: (payload: Buffer) => void
  }) {
    this.#address = options.address
    this.#start = options.start
    this.#clock = options.clock
    this.#listener = options.listener
    this.#multicast = options.multicast
    this.self = memberId(options.address, options.start)
  }

  /** Queues what is sent too early to be told, up to `EARLY_MESSAGES_MAX`. */
  send(message: Buffer): void {
    if (message.length > MESSAGE_BYTES_MAX) return
    const payload = Buffer.concat([MESSAGE, message])
    if (this.#isMember) this.#multicast(payload)
    else if (this.#early.length < EARLY_MESSAGES_MAX) this.#early.push(payload)
  }

  /** Nothing more is to come. */
  end(): void {
    this.#round = null
  }

  /** Corosync's own view has changed. Those who came are in `present`, too. */
  changed(present: readonly Address[], left: readonly Address[], joined: readonly Address[]): void {
    this.#present = new Set(present)
    for (const address of left) this.#introduced.delete(address)
    this.#takeAway(left)
    if (joined.length > 0) this.#beginRound()
    else this.#endRoundIfComplete()
  }

  /** The messages of one process come in the order in which it sent them. */
  received(sender: Address, payload: Buffer): void {
    const body = payload.subarray(1)
    switch (payload[0]) {
      case MESSAGE[0]: {
        const member = this.#inForce?.members.get(sender)
        if (member !== undefined && this.#isMember) this.#listener.delivered(member, body)
        break
      }
      case INTRODUCTION[0]:
        this.#introduce(sender, body.toString('latin1'))
        break
      case WITHOUT[0]:
        if (this.#round !== null && body.toString('latin1') === this.#missing()) this.#endRound()
        break
      default: // a later version says more, and has to make do without an answer
    }
  }

  get #isMember(): boolean {
    return this.#inForce?.members.get(this.#address) === this.self
  }

  #introduceMyself(): void {
    const text = `${this.#start} ${++this.#introductions}`
    this.#multicast(Buffer.concat([INTRODUCTION, Buffer.from(text, 'latin1')]))
  }

  #introduce(sender: Address, text: string): void {
    const [start, number] = text.split(' ')
    if (start === undefined || number === undefined) return
    if (!this.#present.has(sender) || this.#introduced.has(sender)) return
    const introduction = { member: memberId(sender, start), id: `${memberId(sender, start)}:${number}` }
    this.#introduced.set(sender, introduction)
    if (this.#round !== null) this.#endRoundIfComplete()
    else this.#enforce(digest(introduction.id))
  }

  #beginRound(): void {
    this.#introduced = new Map()
    const round = {}
    this.#round = round
    this.#introduceMyself()
    const goOnWithout = () => {
      if (this.#round !== round) return
      if (this.#introduced.size > 0) this.#multicast(Buffer.concat([WITHOUT, Buffer.from(this.#missing(), 'latin1')]))
      this.#clock.timer(ROUND_MS, goOnWithout)
    }
    this.#clock.timer(ROUND_MS, goOnWithout)
  }

  #missing(): string {
    return [...this.#present]
      .filter((address) => !this.#introduced.has(address))
      .sort()
      .join(' ')
  }

  #endRoundIfComplete(): void {
    if (this.#round !== null && this.#introduced.size === this.#present.size) this.#endRound()
  }

  #endRound(): void {
    this.#round = null
    const introductions = [...this.#introduced.values()].map(({ id }) => id)
    this.#enforce(digest(introductions.sort().join(' ')))
  }

  #takeAway(left: readonly Address[]): void {
    if (this.#inForce === null) return
    const { id, members } = this.#inForce
    const gone = left.flatMap((address) => members.get(address) ?? [])
    if (gone.length === 0) return
    const rest = new Map([...members].filter(([address]) => !left.includes(address)))
    this.#configure({ id: digest(`${id} without ${gone.sort().join(' ')}`), members: rest })
  }

  #enforce(id: string): void {
    const members = [...this.#introduced].map(([address, { member }]) => [address, member] as const)
    this.#configure({ id, members: new Map(members) })
  }

  #configure(inForce: InForce): void {
    this.#inForce = inForce
    if (!this.#isMember) {
      if (this.#present.has(this.#address)) this.#introduceMyself() // the others have gone on without it while it stood still
      return
    }
    this.#listener.configured({ id: inForce.id, members: [...inForce.members.values()].sort() })
    for (const payload of this.#early.splice(0)) this.#multicast(payload)
  }
}

/** `node:pid`. */
export type Address = `${number}:${number}`

interface Introduction {
  readonly member: MemberId
  readonly id: string
}

interface InForce {
  readonly id: string
  readonly members: ReadonlyMap<Address, MemberId>
}

/** Before each payload, so that one group carries all three. */
const MESSAGE = Buffer.of(0)
const INTRODUCTION = Buffer.of(1)
const WITHOUT = Buffer.of(2)

/** What a payload may have at most. */
export const PAYLOAD_BYTES_MAX = MESSAGE_BYTES_MAX + 1

/** How long newcomers wait for those who are in the group and say nothing. The others do not wait. */
const ROUND_MS = 2000
const EARLY_MESSAGES_MAX = 64

function memberId(address: Address, start: string): MemberId {
  return `${address}:${start}`
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}
