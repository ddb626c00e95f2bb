import { type Group, type JoinGroup, MESSAGE_BYTES_MAX, type MemberId } from '../../../src/sheep/cluster/group.ts'
import { History, type Told } from './group-history.ts'

/** Many messages, `text 0` and so on, each filled up to `bytes` with what shows damage. */
export interface Burst {
  readonly text: string
  readonly count: number
  readonly bytes?: number
}

/** Whatever is not where it was sent to shows in it. */
const FILLING = Buffer.from(Uint8Array.from({ length: MESSAGE_BYTES_MAX }, (_, i) => i % 251))

export function* messagesOf({ text, count, bytes = 0 }: Burst): Generator<Buffer> {
  for (let number = 0; number < count; number++) {
    const words = Buffer.from(`${text} ${number}`)
    const message = Buffer.from(FILLING.subarray(0, Math.max(bytes, words.length)))
    words.copy(message)
    if (bytes > words.length) message[words.length] = 0
    yield message
  }
}

/** What was sent, in a word; long messages with their length, and whether they came as they were sent. */
export function textOf(message: Buffer): string {
  const end = message.indexOf(0)
  if (end === -1) return message.toString('latin1')
  const isIntact = message.subarray(end + 1).equals(FILLING.subarray(end + 1, message.length))
  return `${message.toString('latin1', 0, end)} (${message.length} bytes${isIntact ? '' : ', damaged'})`
}

/** A member in this process. It watches, too, when its listener is called. */
export class LocalMember {
  readonly #group: Group
  readonly #watch: Watch

  private constructor(group: Group, watch: Watch) {
    this.#group = group
    this.#watch = watch
  }

  /** `told` is called after each event that was told. */
  static async join(join: JoinGroup, told: (event: Told) => void = () => {}): Promise<LocalMember> {
    const watch = new Watch(told)
    const joined = watch.within('join', () => join(watch))
    watch.isJoining = true
    const group = await joined
    watch.isJoining = false
    return new LocalMember(group, watch)
  }

  get self(): MemberId {
    return this.#group.self
  }

  get told(): readonly Told[] {
    return this.#watch.told
  }

  get misuses(): readonly string[] {
    return this.#watch.misuses
  }

  send(burst: Burst): void {
    for (const message of messagesOf(burst)) {
      this.#watch.within('send', () => this.#group.send(message))
      message.fill(0xff) // it was sent: the memory is the sender's again
    }
  }

  async leave(): Promise<void> {
    const left = this.#group.leave()
    this.#watch.hasLeft = true
    await left
  }
}

class Watch extends History {
  readonly misuses: string[] = []
  hasLeft = false
  isJoining = false
  #within: string | null = null
  readonly #told: (event: Told) => void

  constructor(told: (event: Told) => void) {
    super(textOf)
    this.#told = told
  }

  within<T>(name: string, call: () => T): T {
    this.#within = name
    try {
      return call()
    } finally {
      this.#within = null
    }
  }

  protected override remember(event: Told): void {
    const what = JSON.stringify(event)
    if (this.#within !== null) this.misuses.push(`told within ${this.#within}: ${what}`)
    if (this.isJoining) this.misuses.push(`told before join had resolved: ${what}`)
    if (this.hasLeft) this.misuses.push(`told after leave: ${what}`)
    super.remember(event)
    this.#told(event)
  }
}
